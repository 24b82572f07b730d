"""LoRA adapters: applied to the backbone they were trained on; any other is refused."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spectral_probe.backbones.decoder import HFDecoder
from spectral_probe.backbones.devices import is_spread
from spectral_probe.backbones.hub import locate
from spectral_probe.backbones.hub_errors import failure
from spectral_probe.errors import ConfigError, MissingDependencyError, ModelError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WEIGHTS_FILE = "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."
#: What follows the name of a changed module in the name of a weight.
_PART_OF_MODULE = re.compile(r"\.lora_|\.base_layer\.|\.token_adapter\.|\.trainable_tokens_|\.weight$|\.bias$")


class _Holder(nn.Module):
    """Gives the body the name it has under a head, so that the names in an adapter match."""

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        self.add_module(name, model)


def apply_adapter(decoder: HFDecoder, adapter: str) -> HFDecoder:
    """Add a LoRA adapter to a decoder in place and return the decoder.

    Parameters
    ----------
    decoder : HFDecoder
    adapter : str
        Folder that peft's ``save_pretrained`` wrote, or a hub repository; safetensors only.

    Raises
    ------
    MissingDependencyError
        If peft is not installed.
    ConfigError
        If the decoder is spread over devices or offloaded.
    ModelError
        If the adapter cannot be read, is not LoRA, or was made for another backbone.

    Notes
    -----
    The adapter is merged, W + (α/r)·BA, unless the decoder is quantised: rounding the sum to 8 bits would change it.
    Changes to the head are ignored, because the head is not loaded.
    """
    check_adapter(adapter)
    if is_spread(decoder.model):
        raise ConfigError(
            "An adapter can only be applied to a model on one device; this model is spread by device_map. "
            "Merge the adapter into its base first (peft's merge_and_unload), and give the folder of the result."
        )
    folder = _fetch(adapter)
    settings = adapter_settings(folder, adapter)
    _check_base(decoder, adapter, str(settings.get("base_model_name_or_path") or ""))
    weights = _weights(folder, adapter)
    body = str(decoder.model.base_model_prefix)
    holder = decoder.model if _fits(decoder.model, weights, "") else _Holder(body, decoder.model)
    if holder is not decoder.model and not _fits(decoder.model, weights, f"{body}."):
        raise _mismatch(decoder, adapter, "it changes modules that this model does not have")
    _inject(decoder, holder, folder, adapter, weights)
    decoder.name = f"{decoder.name}+{Path(adapter.rstrip('/')).name}"
    decoder.adapter = adapter
    return decoder


def check_adapter(adapter: str) -> None:
    """Refuse, before a model is loaded, an adapter that cannot be read; nothing is downloaded.

    Raises
    ------
    MissingDependencyError
        If peft is not installed.
    ModelError
        If it is no LoRA adapter in a folder, and no name of a repository.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingDependencyError(
            'An adapter is read with the package peft, which is not installed. Run: pip install "spectral-probe[lora]"'
        )
    folder = Path(adapter).expanduser()
    if folder.is_dir():
        adapter_settings(folder, adapter)
        if not (folder / _WEIGHTS_FILE).is_file():
            raise _unread(adapter, f"there is no {_WEIGHTS_FILE}")
    elif REPOSITORY.fullmatch(adapter) is None:
        raise ModelError(f"An adapter is a folder or a hub repository owner/name; {adapter!r} is neither.")


def _unread(adapter: str, why: object) -> ModelError:
    return ModelError(
        f"The weights of an adapter are read from {_WEIGHTS_FILE}; {adapter!r}: {why}. Save it again with peft's "
        "save_pretrained()."
    )


def _fetch(adapter: str) -> Path:
    """Return the folder with the adapter's files, downloaded if they are on the hub."""
    folder = Path(adapter).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import hf_hub_download

    access = locate(adapter, None, is_adapter=True)
    try:
        with access.reading():
            for name in ("adapter_config.json", _WEIGHTS_FILE):
                path = hf_hub_download(
                    adapter, name, revision=access.revision, local_files_only=access.local_files_only
                )
    except Exception as error:
        raise failure(adapter, error, access) from error
    return Path(path).parent


def adapter_settings(folder: Path, adapter: str) -> Mapping[str, Any]:
    """Return the settings in the ``adapter_config.json`` of a LoRA adapter.

    Raises
    ------
    ModelError
        If there is no readable ``adapter_config.json``, or it is not of type LoRA.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = str(settings["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"An adapter folder holds adapter_config.json and adapter_model.safetensors; {adapter!r} has no readable "
            f"adapter_config.json ({type(error).__name__}: {error}). Give the folder that peft's save_pretrained wrote."
        ) from error
    if kind != "LORA":
        raise ModelError(f"Only LoRA adapters are supported; {adapter!r} is of type {kind}.")
    return settings


def _weights(folder: Path, adapter: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        stored = load_file(folder / _WEIGHTS_FILE)
    except Exception as error:  # OSError, or SafetensorError, which is a bare Exception
        raise _unread(adapter, error) from error
    twice = sorted({name for name in stored if f"{_PEFT_PREFIX}{name}" in stored})
    if twice:
        raise ModelError(
            f"Each weight of an adapter is stored once; {adapter!r} holds {len(twice)} of them twice, with and without "
            f"{_PEFT_PREFIX!r} before the name (first: {twice[0]}). Save it again with peft's save_pretrained()."
        )
    return {
        name.removeprefix(_PEFT_PREFIX): weight
        for name, weight in stored.items()
        if not name.removeprefix(_PEFT_PREFIX).startswith("lm_head.")
    }


def _fits(model: nn.Module, weights: Mapping[str, torch.Tensor], prefix: str) -> bool:
    """Tell whether every module that an adapter changes is in the model, under names with this prefix."""
    modules = {f"{prefix}{name}" for name, _ in model.named_modules()}
    changed = {_PART_OF_MODULE.split(name)[0] for name in weights}
    return bool(changed) and changed <= modules


def _inject(
    decoder: HFDecoder, holder: nn.Module, folder: Path, adapter: str, weights: Mapping[str, torch.Tensor]
) -> None:
    from peft import LoraModel, PeftConfig, set_peft_model_state_dict

    config: Any = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    try:
        tuner: Any = LoraModel(holder, config, "default")
        result: Any = set_peft_model_state_dict(holder, dict(weights))
    except (ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise _mismatch(decoder, adapter, _reason(error)) from error
    # peft leaves missing weights at their random initial values and drops unexpected ones.
    unmatched = [name for name in result.missing_keys if "lora_" in name] + list(result.unexpected_keys)
    if unmatched:
        raise _mismatch(decoder, adapter, f"{len(unmatched)} weights without a counterpart (first: {unmatched[0]})")
    if decoder.quantization is None:
        try:
            tuner.merge_and_unload(safe_merge=True)
        except ValueError as error:  # peft raises it for a NaN
            raise ModelError(f"Adapter {adapter!r} holds values that are not finite. Train it again.") from error
    decoder.model.requires_grad_(False)
    decoder.eval()


def _check_base(decoder: HFDecoder, adapter: str, base: str) -> None:
    """Raise ModelError if an adapter names another hub repository; with equal shapes it would load without an error."""
    source = decoder.source or ""
    both_on_hub = all(REPOSITORY.fullmatch(name) and not Path(name).is_dir() for name in (source, base))
    # The same weights are on the hub under several owners.
    if both_on_hub and source.split("/")[1].lower() != base.split("/")[1].lower():
        raise ModelError(
            f"Adapter {adapter!r} was trained on {base!r}, and the model is {source!r}. Give the adapter's base as "
            "the model; if the weights are the same, give them as a local folder."
        )


def _reason(error: Exception) -> str:
    """Return the first line of an error; of torch's, which is a heading, the line below it with tensor and shapes."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    line = lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0]
    return line.rstrip(".")


def _mismatch(decoder: HFDecoder, adapter: str, why: str) -> ModelError:
    return ModelError(
        f"Adapter {adapter!r} does not fit {decoder.name!r}: {why}. Give the backbone that its "
        "adapter_config.json names as the model."
    )
