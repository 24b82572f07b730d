"""The model hub: is it there, which commit is meant, and what exactly went wrong.

The hub's own client retries an unreachable network for half a minute and wraps most failures in one OSError. Here the
network is looked at first, with a deadline, and every failure becomes one error with its own next step.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
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

from spectral_probe.errors import ModelError, ResourceError, SpectralProbeError

logger = logging.getLogger("spectral_probe")

#: Seconds within which something must answer at the hub's address, name look-up included.
PROBE_SECONDS = 2.0
_OFFLINE_STEP = "or give a local folder; `minilm` and `tiny-random:qwen2` need no network."
_FULL_DISK = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


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
        why = f"{constants.ENDPOINT} did not answer as it should ({_first_line(error)})"
        return _fetched(repository, revision, why)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    if sizes and not is_adapter:
        _check_files(repository, sizes, allow_pickle)
        _check_room(repository, sizes, info.sha, Path(constants.HF_HUB_CACHE))
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


def failure(source: str, error: Exception, access: HubAccess | None = None) -> SpectralProbeError:
    """Say which model could not be read, why, and what to do about it.

    Parameters
    ----------
    source : str
        The folder or repository.
    error : Exception
        What was raised; its causes are looked at too, since libraries wrap them.
    access : HubAccess, optional
        How the repository was read.
    """
    from huggingface_hub import errors

    chain = list(_causes(error))
    text = "\n".join(f"{type(link).__name__}: {link}" for link in chain)
    what, page = f"Model {source!r} could not be read:", "its page on the hub"
    if (full := _first(chain, lambda link: isinstance(link, OSError) and link.errno in _FULL_DISK)) is not None:
        return ResourceError(
            f"{what} {getattr(full, 'strerror', None) or full}. Free some space, or let HF_HOME name a folder on "
            "another disk; files already fetched are kept."
        )
    if _first(chain, lambda link: isinstance(link, MemoryError) or "not enough memory" in str(link)) is not None:
        return ResourceError(f"{what} memory does not suffice. Use a smaller model, or dtype bfloat16.")
    if _has(chain, errors.GatedRepoError) or "gated repo" in text.lower():
        return ModelError(
            f"{what} the repository is gated, and this machine's token does not open it. Ask for access on {page}, "
            f"then log in with `hf auth login` (or set HF_TOKEN) and run the same command again."
        )
    if _has(chain, errors.RevisionNotFoundError):
        return ModelError(
            f"{what} the repository exists, but not that revision. Give a commit, tag or branch that {page} lists, or "
            "leave the revision out."
        )
    if _has(chain, errors.RepositoryNotFoundError):
        return ModelError(
            f"{what} the hub knows no such repository, or hides it from this machine, and there is no such folder "
            "here. Check the spelling; for a private one log in with `hf auth login`."
        )
    if _has(chain, errors.DisabledRepoError):
        return ModelError(f"{what} its author or the hub has disabled the repository. Choose another model.")
    if (denied := _first(chain, lambda link: isinstance(link, PermissionError))) is not None:
        return ModelError(f"{what} {denied}. Make the file readable, or let HF_HOME name a folder of your own.")
    is_absent = _has(chain, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    if is_absent or (access is not None and access.local_files_only and "cached files" in text):
        why = access.why if access is not None and access.why else "the hub cannot be reached"
        step = "Unset HF_HUB_OFFLINE" if "HF_HUB_OFFLINE" in why else "Connect to the network"
        return ModelError(f"{what} {why}, and it was not fetched earlier. {step}, {_OFFLINE_STEP}")
    reason = f"{_first_line(error)} ({type(error).__name__})."
    if "trust_remote_code" in text:
        step = "It comes with code of its own, which is run only with trust_remote_code (--trust-remote-code)."
    elif Path(source).is_dir():
        step = "Check that the folder is whole: config.json and model.safetensors as save_pretrained() writes them."
    elif "safetensors" in text.lower():
        step = "Only safetensors weights are read. Check that all are there, or convert them with save_pretrained()."
    else:
        step = f"Check the spelling and the network, {_OFFLINE_STEP}"
    return ModelError(f"{what} {reason} {step}")


def check_folder_weights(folder: Path, *, allow_pickle: bool) -> None:
    """Raise ModelError if a folder holds no weights, or none that may be read."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if not pickles:
        raise ModelError(
            f"Model folder {str(folder)!r} has a config.json but no weights. Only safetensors weights are read: copy "
            "model.safetensors there too, or save_pretrained() the model again."
        )
    if not allow_pickle:
        raise ModelError(_pickles_only(str(folder), pickles))


def _check_files(repository: str, names: dict[str, int], allow_pickle: bool) -> None:
    if "config.json" not in names:
        raise ModelError(
            f"Repository {repository!r} holds no config.json, so it is not a transformers model "
            f"({len(names)} files seen). "
            + (
                "It is an adapter: give its base as the model, and it as the adapter (--adapter)."
                if "adapter_config.json" in names
                else "Choose the repository with the original weights."
            )
        )
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
    if not any(name.endswith(".safetensors") for name in names) and not (pickles and allow_pickle):
        raise ModelError(
            _pickles_only(repository, pickles)
            if pickles
            else f"Repository {repository!r} holds no safetensors weights. Choose one that does."
        )


def _pickles_only(source: str, pickles: list[str]) -> str:
    return (
        f"Only safetensors weights are read, because a pickle can run code; {source!r} has pickles only "
        f"({', '.join(pickles[:3])}). Convert them with save_pretrained(), or, if you trust their origin, allow them "
        "(allow_pickle, --allow-pickle)."
    )


def _check_room(repository: str, sizes: dict[str, int], commit: str | None, cache: Path) -> None:
    """Refuse before the download, not at its end, what the disk cannot hold."""
    from huggingface_hub import try_to_load_from_cache

    needed = sum(
        size
        for name, size in sizes.items()
        if name.endswith(".safetensors")
        and "/" not in name
        and not isinstance(try_to_load_from_cache(repository, name, cache_dir=cache, revision=commit), str)
    )
    there = next((folder for folder in (cache, *cache.parents) if folder.exists()), Path())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ResourceError(
            f"The weights of {repository!r} still to be fetched are {needed / 2**30:.1f} GiB; {str(there)!r} has "
            f"{free / 2**30:.1f} GiB free. Free some space, or let HF_HOME name a folder on another disk."
        )


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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _has(chain: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(link, kinds) for link in chain)


def _first(chain: list[BaseException], test: Any) -> BaseException | None:
    return next((link for link in chain if test(link)), None)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
