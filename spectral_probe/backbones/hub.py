"""The model hub: whether it is reachable, and which commit a revision means.

The hub's client retries an unreachable network for half a minute. Here the network is checked first, with a deadline.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from spectral_probe.backbones.hub_access import HubAccess, quiet
from spectral_probe.backbones.hub_errors import failure, first_line
from spectral_probe.backbones.weight_files import check_files, check_room, refuse_adapter

logger = logging.getLogger("spectral_probe")

#: Seconds within which the hub's address must answer, name look-up included.
PROBE_SECONDS = 2.0


def locate(repository: str, revision: str | None, *, allow_pickle: bool = False, is_adapter: bool = False) -> HubAccess:
    """Ask the hub, once and with a deadline, for the commit that a repository and revision mean.

    Raises
    ------
    ModelError
        If the repository or revision is absent or not accessible, or holds no weights that may be read.
    ResourceError
        If the disk has no room for the weights.
    """
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        return _fetched(repository, revision, "HF_HUB_OFFLINE is set", is_adapter)
    problem = unreachable(constants.ENDPOINT)
    if problem is not None:
        return _fetched(repository, revision, problem, is_adapter)
    try:
        with quiet():
            info = HfApi(endpoint=constants.ENDPOINT).model_info(
                repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.DisabledRepoError) as error:
        raise failure(repository, error) from error
    except Exception as error:  # timeouts, TLS, proxies, 5xx: earlier downloads still work
        why = f"{constants.ENDPOINT} gave no valid answer ({first_line(error)})"
        return _fetched(repository, revision, why, is_adapter)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    to_fetch = 0
    if sizes and not is_adapter:
        check_files(repository, sizes, allow_pickle)
        to_fetch = check_room(repository, sizes, info.sha, Path(constants.HF_HUB_CACHE))
    return HubAccess(info.sha or revision, commit=info.sha, to_fetch=to_fetch)


def _fetched(repository: str, revision: str | None, why: str, is_adapter: bool) -> HubAccess:
    """Return access to earlier downloads; the commit is the name of their folder."""
    from huggingface_hub import constants, try_to_load_from_cache

    for name in ("config.json", "adapter_config.json"):
        cached = try_to_load_from_cache(
            repository, name, cache_dir=constants.HF_HUB_CACHE, revision=revision or constants.DEFAULT_REVISION
        )
        if isinstance(cached, str):
            if not is_adapter:
                refuse_adapter(repository, [path.name for path in Path(cached).parent.iterdir()])
            commit = Path(cached).parent.name
            logger.warning("%s: %s; reading commit %s, which was fetched earlier", repository, why, commit[:12])
            return HubAccess(commit, True, why, commit)
    return HubAccess(revision, True, why)


def unreachable(endpoint: str, seconds: float = PROBE_SECONDS) -> str | None:
    """Return why nothing can be reached at ``endpoint``, or at the proxy set for it; None if something answers."""
    parts = urlsplit(endpoint)
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    outcome: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(f"{host} cannot be reached ({error.strerror or error})")

    # In a thread, because a name look-up cannot be given a deadline.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"{host} did not answer within {seconds:g} s"


def token_is_set() -> bool:
    """Tell whether a token for the hub is set or stored; its value is not returned."""
    from huggingface_hub import constants

    return bool(os.environ.get("HF_TOKEN") or Path(constants.HF_TOKEN_PATH).is_file())
