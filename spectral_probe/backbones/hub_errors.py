"""Causes of a failed read of a model, told apart: libraries wrap most of them in one OSError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_probe.errors import MissingDependencyError, ModelError, ResourceError, SpectralProbeError

if TYPE_CHECKING:
    from spectral_probe.backbones.hub_access import HubAccess

_OFFLINE_STEP = "or give a local folder; `smollm2`, `minilm` and `tiny-random:qwen2` need no network."
_FULL_DISK = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def failure(source: str, error: Exception, access: HubAccess | None = None) -> SpectralProbeError:
    """Return an error that names the model, the cause and the next step.

    Parameters
    ----------
    source : str
        The folder or repository.
    error : Exception
        What was raised; its causes are examined too, because libraries wrap them.
    access : HubAccess, optional
        How the repository was read.
    """
    from huggingface_hub import errors

    chain = list(_causes(error))
    text = "\n".join(f"{type(link).__name__}: {link}" for link in chain)
    what, page = f"Model {source!r} could not be read:", "its page on the hub"
    if (disk_error := _first(chain, lambda link: isinstance(link, OSError) and link.errno in _FULL_DISK)) is not None:
        return ResourceError(
            f"{what} {getattr(disk_error, 'strerror', None) or disk_error}. Free some space, or set HF_HOME to a "
            "folder on another disk; files already downloaded are kept."
        )
    if _first(chain, lambda link: isinstance(link, MemoryError) or "not enough memory" in str(link)) is not None:
        return ResourceError(f"{what} out of memory. Use a smaller model, or dtype bfloat16.")
    if _has(chain, errors.GatedRepoError) or "gated repo" in text.lower():
        return ModelError(
            f"{what} the repository is gated, and this machine's token has no access to it. Ask for access on {page}, "
            "then log in with `hf auth login` (or set HF_TOKEN) and run the same command again."
        )
    if _has(chain, errors.RevisionNotFoundError):
        return ModelError(
            f"{what} the repository exists, but not that revision. Give a commit, tag or branch that {page} lists, or "
            "leave the revision out."
        )
    if _has(chain, errors.RepositoryNotFoundError):
        return ModelError(
            f"{what} the hub has no such repository, or it is private, and there is no such local folder. Check the "
            "spelling; for a private repository log in with `hf auth login`."
        )
    if _has(chain, errors.DisabledRepoError):
        return ModelError(f"{what} its author or the hub has disabled the repository. Choose another model.")
    if (permission_error := _first(chain, lambda link: isinstance(link, PermissionError))) is not None:
        return ModelError(f"{what} {permission_error}. Make the file readable, or set HF_HOME to a folder you own.")
    is_absent = _has(chain, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    if is_absent or (access is not None and access.local_files_only and "cached files" in text):
        why = access.why if access is not None and access.why else "the hub cannot be reached"
        step = "Unset HF_HUB_OFFLINE" if "HF_HUB_OFFLINE" in why else "Connect to the network"
        return ModelError(f"{what} {why}, and it was not fetched earlier. {step}, {_OFFLINE_STEP}")
    if (import_error := _first(chain, lambda link: isinstance(link, ImportError))) is not None:
        return MissingDependencyError(
            f"{what} it needs a package that is not installed: {first_line(import_error)}. Install it, or give the "
            "weights in a format that needs none (float32 or bfloat16 safetensors)."
        )
    reason = f"{first_line(error)} ({type(error).__name__})."
    if "trust_remote_code" in text:
        step = "Its repository contains code, which is run only with trust_remote_code (--trust-remote-code)."
    elif Path(source).is_dir():
        step = "Check that the folder is complete: config.json and model.safetensors as save_pretrained() writes them."
    elif "safetensors" in text.lower():
        step = "Only safetensors weights are read. Check that all are there, or convert them with save_pretrained()."
    else:
        step = f"Check the spelling and the network, {_OFFLINE_STEP}"
    return ModelError(f"{what} {reason} {step}")


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


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
