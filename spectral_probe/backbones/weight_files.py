"""Checks of the files of a model, before any of them is downloaded or read."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from spectral_probe.errors import ModelError, ResourceError


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


def check_files(repository: str, names: Mapping[str, int], allow_pickle: bool) -> None:
    """Raise ModelError if a repository with these files is not a model, or has no weights that may be read."""
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
    refuse_adapter(repository, names)
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
    if not any(name.endswith(".safetensors") for name in names) and not (pickles and allow_pickle):
        raise ModelError(
            _pickles_only(repository, pickles)
            if pickles
            else f"Repository {repository!r} holds no safetensors weights. Choose one that does."
        )


def snapshot(source: str, revision: str | None) -> Path | None:
    """Return the folder with the safetensors files of a model, local or downloaded earlier; None without any."""
    folder = Path(source)
    if source and not folder.is_dir() and source.count("/") == 1:
        from huggingface_hub import constants, errors, try_to_load_from_cache

        try:
            cached = try_to_load_from_cache(source, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision)
        except errors.HFValidationError:
            return None
        if isinstance(cached, str):
            folder = Path(cached).parent
    return folder if source and folder.is_dir() and any(folder.glob("*.safetensors")) else None


def _pickles_only(source: str, pickles: list[str]) -> str:
    return (
        f"Only safetensors weights are read, because a pickle can run code; {source!r} has pickles only "
        f"({', '.join(pickles[:3])}). Convert them with save_pretrained(), or, if you trust their origin, allow them "
        "(allow_pickle, --allow-pickle)."
    )


def refuse_adapter(repository: str, names: Collection[str]) -> None:
    """Raise ModelError for a repository with a model and an adapter: transformers would read the adapter's base."""
    if "adapter_config.json" in names and "config.json" in names:
        raise ModelError(
            f"A model is one repository and an adapter another; {repository!r} holds both config.json and "
            "adapter_config.json, and it would not be clear whose weights are probed. Give the base of the adapter as "
            f"the model, and this repository as the adapter: --model BASE --adapter {repository}"
        )


def check_room(repository: str, sizes: Mapping[str, int], commit: str | None, cache: Path) -> int:
    """Return the bytes of the missing weights; raise ResourceError before the download if the disk has no room."""
    from huggingface_hub import try_to_load_from_cache

    needed = sum(
        size
        for name, size in sizes.items()
        if name.endswith(".safetensors")
        and "/" not in name
        and not isinstance(try_to_load_from_cache(repository, name, cache_dir=cache, revision=commit), str)
    )
    existing = next((folder for folder in (cache, *cache.parents) if folder.exists()), Path())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ResourceError(
            f"The weights of {repository!r} still to be fetched are {needed / 2**30:.1f} GiB; {str(existing)!r} has "
            f"{free / 2**30:.1f} GiB free. Free some space, or set HF_HOME to a folder on another disk."
        )
    return needed
