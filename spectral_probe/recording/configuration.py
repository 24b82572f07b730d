"""What a capture depends on: its inputs checked, and the settings that are saved beside its Grams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spectral_probe.backbones import HFDecoder, LayeredModel, weights_fingerprint
from spectral_probe.errors import ConfigError, ShapeError
from spectral_probe.interactions.sequences import batches_by_length
from spectral_probe.recording.forward import dtype_of
from spectral_probe.recording.hooks import Layer
from spectral_probe.recording.layer_grams import check_lengths
from spectral_probe.recording.pilot import PILOT_POSITIONS
from spectral_probe.recording.shards import KINDS
from spectral_probe.storage.hashing import array_hash
from spectral_probe.types import IntArray

#: Batches in one shard: what a Ctrl-C can cost.
BATCHES_PER_SHARD = 8


def check_options(batch_size: int, state_norm: Any, prefixes: Any, resume: bool, out: str | Path | None) -> None:
    """Raise ConfigError unless the options of a capture are allowed."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1; got {batch_size}.")
    if state_norm not in (None, "final"):
        raise ConfigError(f"state_norm must be None or 'final'; got {state_norm!r}.")
    if prefixes not in (True, False, "auto"):
        raise ConfigError(f"prefixes must be True, False or 'auto'; got {prefixes!r}.")
    if resume and out is None:
        raise ConfigError("resume=True goes on with the shards in a folder; give it as out=.")


def checked_inputs(inputs: npt.NDArray[Any] | torch.Tensor, lengths: IntArray) -> tuple[torch.Tensor, IntArray]:
    """Return inputs on the CPU, with item indices as int64, and the lengths; raise ShapeError if they do not fit."""
    values = (
        inputs.detach().cpu() if isinstance(inputs, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(inputs))
    )
    is_right = values.ndim == 3 if values.is_floating_point() else values.ndim == 2
    if not is_right or len(values) != len(lengths):
        raise ShapeError(
            f"inputs must be (n, T) item indices or (n, T, d) vectors with one of n lengths each; got "
            f"{tuple(values.shape)} of {values.dtype} and {lengths.shape} lengths."
        )
    check_lengths(lengths, values.shape[1])
    return (values if values.is_floating_point() else values.long()), lengths


def checked_counts(item_counts: npt.ArrayLike | None, arrays: Mapping[str, npt.NDArray[Any]]) -> IntArray | None:
    """Return the item counts, or None without them; raise ShapeError if they do not fit the items."""
    if item_counts is None:
        return None
    counts = np.asarray(item_counts, dtype=np.int64)
    if "targets" not in arrays:
        raise ShapeError("A pilot needs the items that the rows predict; give targets= with item_counts=.")
    highest = max(int(arrays[name].max()) for name in ("targets", "inputs") if name in arrays)
    if counts.ndim != 1 or highest >= len(counts):
        raise ShapeError(f"item_counts must be (n_items,) with a count for item {highest}; got {counts.shape}.")
    return counts


def arrays_of(
    values: torch.Tensor, lengths: IntArray, batch_size: int, **given: npt.ArrayLike | None
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that are kept beside the Grams; item indices as inputs are the items that the rows read."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "lengths": lengths,
        "order": np.concatenate(list(batches_by_length(lengths, batch_size))),
    }
    if given["inputs"] is None and not values.is_floating_point():
        given["inputs"] = values.numpy()
    return arrays | {name: np.asarray(x, dtype=np.int64) for name, x in given.items() if x is not None}


def settings_of(
    model: LayeredModel,
    layers: Sequence[Layer],
    *,
    by_prefix: bool,
    state_norm: str | None,
    batch_size: int,
    device: torch.device,
) -> dict[str, Any]:
    """Return what the Grams depend on beside weights and inputs, as it is saved beside them."""
    settings: dict[str, Any] = {
        "model": model.name,
        "note": str(getattr(model, "note", "")),
        "is_causal": bool(model.is_causal),
        "prefixes": by_prefix,
        "leaky": not (model.is_causal or by_prefix),
        "state_norm": state_norm,
        "layers": [name for name, _, _ in layers],
        "batch_size": batch_size,
        "batches_per_shard": BATCHES_PER_SHARD,
        "device": device.type,
        "dtype": str(dtype_of(layers)).removeprefix("torch."),
    }
    # Named only where they apply, so that the settings of all other captures stay as they were.
    for name in ("hub_revision", "adapter", "quantization", "number_format"):
        if getattr(model, name, None) is not None:
            settings[name] = str(getattr(model, name))
    if getattr(model, "has_graph", False):
        settings["has_graph"] = True
    return settings


def manifest_of(
    model: LayeredModel,
    layers: Sequence[Layer],
    settings: dict[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    max_length: int,
    *,
    counts: IntArray | None,
    seed: int,
) -> dict[str, Any]:
    """Return what a folder of shards says about itself; its ``config_hash`` is set when the folder is known.

    With item counts there is a pilot: it is named in ``settings`` too.
    """
    if counts is not None:
        settings["pilot"] = {"positions": PILOT_POSITIONS, "seed": seed, "item_counts_hash": array_hash(counts)}
    return {
        **({} if counts is None else {"kinds": list(KINDS)}),
        "settings": settings,
        "layer_names": settings["layers"],
        "layer_states": [state for _, state, _ in layers],
        "is_causal": bool(model.is_causal or settings["prefixes"]),
        "n_sequences": len(arrays["lengths"]),
        "max_length": max_length,
        "rows_per_shard": BATCHES_PER_SHARD * int(settings["batch_size"]),
        "config_hash": "",
    }


def identity_of(model: LayeredModel, inputs: torch.Tensor) -> dict[str, str]:
    """Return hashes of what decides the Grams beside the options: the weights and what is fed in."""
    hashes = {"inputs_hash": array_hash(inputs.numpy() if inputs.dtype != torch.bfloat16 else inputs.float().numpy())}
    if isinstance(model, HFDecoder):
        hashes["revision"] = model.revision
        if model.item_embeddings is not None and not inputs.is_floating_point():
            hashes["item_embeddings_hash"] = array_hash(model.item_embeddings.float().cpu().numpy())
    elif isinstance(model, nn.Module):
        hashes["revision"] = weights_fingerprint(model)[:16]
    else:
        hashes["revision"] = str(getattr(model, "revision", ""))
    return hashes


def with_hashes(
    settings: dict[str, Any], model: LayeredModel, values: torch.Tensor, arrays: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Any]:
    """Add the hashes of the weights, of what is fed in and of the arrays to the settings, and return these."""
    settings |= identity_of(model, values)
    settings |= {f"{name}_hash": array_hash(array) for name, array in arrays.items() if name != "order"}
    return settings
