"""The model hub: is it there, and which commit is meant.

The hub's own client retries an unreachable network for half a minute. Here it is looked at first, with a deadline.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from spectral_probe.backbones.contents import check_files, check_room
from spectral_probe.backbones.failures import failure, first_line

logger = logging.getLogger("spectral_probe")

#: Seconds within which something must answer at the hub's address, name look-up included.
PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class HubAccess:
    """How a repository is going to be read.

    Attributes
    ----------
    revision : str or None
        The commit, where it is known; else what the caller gave.
    local_files_only : bool
        True if only files that were fetched earlier can be read.
    why : str
        Why only those; empty if the hub answers.
    commit : str or None
        The commit, as the hub or the files fetched earlier say.
    """

    revision: str | None = None
    local_files_only: bool = False
    why: str = ""
    commit: str | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read files quietly and, where the hub does not answer, without asking it again for every file."""
        from huggingface_hub import constants

        before = constants.HF_HUB_OFFLINE
        # transformers asks for some files whatever local_files_only says, each time for half a minute.
        constants.HF_HUB_OFFLINE = before or self.local_files_only
        try:
            with quiet():
                yield
        finally:
            constants.HF_HUB_OFFLINE = before


def locate(repository: str, revision: str | None, *, allow_pickle: bool = False, is_adapter: bool = False) -> HubAccess:
    """Ask the hub, once and with a deadline, for the commit that a repository and revision mean.

    Raises
    ------
    ModelError
        If the repository or revision is absent or closed to the caller, or holds no weights that may be read.
    ResourceError
        If the disk has no room for the weights.
    """
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        return _fetched(repository, revision, "HF_HUB_OFFLINE is set")
    problem = unreachable(constants.ENDPOINT)
    if problem is not None:
        return _fetched(repository, revision, problem)
    try:
        with quiet():
            info = HfApi(endpoint=constants.ENDPOINT).model_info(
                repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.DisabledRepoError) as error:
        raise failure(repository, error) from error
    except Exception as error:  # timeouts, TLS, proxies, 5xx: whatever it is, what was fetched earlier still serves
        why = f"{constants.ENDPOINT} did not answer as it should ({first_line(error)})"
        return _fetched(repository, revision, why)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    if sizes and not is_adapter:
        check_files(repository, sizes, allow_pickle)
        check_room(repository, sizes, info.sha, Path(constants.HF_HUB_CACHE))
    return HubAccess(info.sha or revision, commit=info.sha)


def _fetched(repository: str, revision: str | None, why: str) -> HubAccess:
    """Return access to what was fetched earlier; its folder is called by the commit."""
    from huggingface_hub import constants, try_to_load_from_cache

    for name in ("config.json", "adapter_config.json"):
        found = try_to_load_from_cache(
            repository, name, cache_dir=constants.HF_HUB_CACHE, revision=revision or constants.DEFAULT_REVISION
        )
        if isinstance(found, str):
            commit = Path(found).parent.name
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


@contextmanager
def quiet() -> Iterator[None]:
    """Mute warnings of the libraries that read models, and their progress bars where nobody watches them.

    What matters in the warnings (missing weights, failing requests) is checked, and said once, by the caller.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as model_logging

    models: Any = model_logging
    hub: Any = hub_logging
    verbosities = models.get_verbosity(), hub.get_verbosity()
    is_watched = sys.stderr is not None and sys.stderr.isatty()
    has_bars = models.is_progress_bar_enabled()
    models.set_verbosity_error()
    hub.set_verbosity_error()
    if has_bars and not is_watched:
        models.disable_progress_bar()
    try:
        yield
    finally:
        models.set_verbosity(verbosities[0])
        hub.set_verbosity(verbosities[1])
        if has_bars and not is_watched:
            models.enable_progress_bar()


def token_is_set() -> bool:
    """Tell whether a token for the hub is set or stored; its value is not looked at."""
    from huggingface_hub import constants

    return bool(os.environ.get("HF_TOKEN") or Path(constants.HF_TOKEN_PATH).is_file())
