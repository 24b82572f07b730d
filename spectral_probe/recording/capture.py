"""Run a model once over the probed sequences and keep the Gram matrix of every layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spectral_probe.backbones import HFDecoder, LayeredModel, weights_fingerprint
from spectral_probe.backbones.devices import execution_device
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError, did_you_mean
from spectral_probe.interactions.sequences import batches_by_length
from spectral_probe.recording.forward import Passes, dtype_of
from spectral_probe.recording.hooks import Layer, LayerRecorder, evaluating
from spectral_probe.recording.layer_grams import LayerGrams, check_lengths, empty_grams, from_folder, write_rows
from spectral_probe.recording.pilot import PILOT_POSITIONS, Pilot, pilot_users
from spectral_probe.recording.residuals import Residuals, pilot_bins
from spectral_probe.recording.shards import KINDS, ShardFolder
from spectral_probe.storage.hashing import array_hash, settings_hash
from spectral_probe.types import Float32Array, IntArray

__all__ = ["LayerGrams", "capture"]

#: Batches in one shard: what a Ctrl-C can cost.
BATCHES_PER_SHARD = 8


def capture(
    model: LayeredModel,
    inputs: npt.NDArray[Any] | torch.Tensor,
    lengths: npt.ArrayLike,
    *,
    targets: npt.ArrayLike | None = None,
    users: npt.ArrayLike | None = None,
    items: npt.ArrayLike | None = None,
    item_counts: npt.ArrayLike | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    state_norm: Literal["final"] | None = None,
    prefixes: bool | Literal["auto"] = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    layers: Sequence[str | int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LayerGrams:
    r"""Gram matrix of every layer of every sequence, :math:`G_u^{(l)} = H_u^{(l)} H_u^{(l)\top}`.

    A hook on each layer reduces the state to its Gram in float32, on the device where the state is, and lets the state
    go. Of a model spread over several devices, the inputs go to that of the first block.

    Parameters
    ----------
    model : LayeredModel
        Probed in evaluation mode and without gradients; left as it was.
    inputs : (n, T) int or (n, T, d) float
        Item indices, or the vectors themselves, right-padded. Row t reads :math:`v_t` and predicts :math:`v_{t+1}`.
    lengths : (n,) int
        Number of targets of each sequence, 1 … T.
    targets : (n, T) int, optional
        Items that the rows predict.
    users : (n,) int, optional
        Kept with the result; it changes nothing.
    items : (n, T) int, optional
        Items that the rows read; left out: ``inputs`` if they are item indices.
    item_counts : (n_items,) int, optional
        Training interactions of each item. With them, and ``targets``, some users are run first as a pilot, and the
        Grams of the states without what popularity explains are kept too; see :mod:`spectral_probe.recording.pilot`.
        A capture whose rows have seen their answers has no pilot.
    seed : int
        Of the draw of the pilot's users.
    batch_size : int
        Sequences run together; sequences of like length are.
    device : str or torch.device
        ``"auto"``: where the model is. Anything else moves the model there, and leaves it there.
    dtype : torch.dtype, optional
        Casts the model, and leaves it cast; default: as the model is.
    state_norm : {None, "final"}
        ``"final"`` applies the model's final norm to ``embed`` and to every block's state before the Gram, as the
        paper's authors do.
    prefixes : bool or "auto"
        True: row t is the last state of the prefix :math:`v_1 … v_t`, each prefix run on its own. ``"auto"``: True
        for a model that is not causal. False for such a model gives a curve whose rows have seen their answers.
    out : path, optional
        Folder for shards; see :mod:`spectral_probe.recording.shards`. :meth:`LayerGrams.load` reads it.
    resume : bool
        Go on with the finished shards in ``out``. The result equals that of a straight run to the byte.
    layers : sequence of str or int, optional
        Layers to keep, by name or by index in ``model.layers()``; ``embed`` and the last block are always kept.
    progress : callable, optional
        Called with (sequences done, sequences in all) after each batch.

    Raises
    ------
    ShapeError
        If the arrays do not fit together, or a length is not in 1 … T.
    ConfigError
        If an option is not allowed, a layer is unknown, a spread or quantised model was to be moved, ``out`` holds
        finished Grams and ``resume`` is not given, or its shards were made under another configuration.
    ModelError
        If the layers do not behave as ``model.layers()`` promises, or a model that claims to be causal is not.
    NonFiniteStateError
        If a Gram holds a NaN or an infinity; the message names the layer and the user.
    ResourceError
        If the accelerator is out of memory or the disk is full.

    Notes
    -----
    Source: FreLLM4Rec section 3.1 (the states of Eq. 4); the reduction to Grams is ours. Cost: T²·d per layer and
    sequence beside the forward pass, and T² numbers kept; prefix by prefix, about T/2 times the forward pass.
    """
    values, lengths = _checked_inputs(inputs, np.asarray(lengths, dtype=np.int64))
    _check_options(batch_size, state_norm, prefixes, resume, out)
    by_prefix = (not model.is_causal) if prefixes == "auto" else bool(prefixes)
    recorded = _select(model, layers)
    norm = _final_norm(model) if state_norm == "final" else None
    input_device = _move(model, recorded, device, dtype)

    arrays = _arrays(values, lengths, batch_size, users=users, targets=targets, inputs=items)
    settings = _settings(
        model, recorded, by_prefix=by_prefix, state_norm=state_norm, batch_size=batch_size, device=input_device
    )
    counts = None if settings["leaky"] else _checked_counts(item_counts, arrays)
    manifest = _manifest(model, recorded, settings, arrays, max_length=int(values.shape[1]))
    if counts is not None:
        settings["pilot"] = {"positions": PILOT_POSITIONS, "seed": seed, "item_counts_hash": array_hash(counts)}
        manifest["kinds"] = list(KINDS)
    folder = ShardFolder(Path(), manifest, arrays)
    # Built now, so that users or targets of a wrong shape fail before anything is written or run.
    store = empty_grams(folder)
    result = from_folder(folder, store)
    if out is not None:
        settings["threads"] = torch.get_num_threads()
        settings |= _identity(model, values)
        settings |= {f"{name}_hash": array_hash(array) for name, array in arrays.items() if name != "order"}
        manifest["config_hash"] = settings_hash(settings)
        folder = (ShardFolder.resume if resume else ShardFolder.create)(out, manifest, arrays)

    missing = _read_shards(folder, store) if resume else list(range(len(folder)))
    stored = _stored_pilot(folder)
    if not missing and (stored is not None or counts is None):
        return replace(result, pilot=stored)
    roots = [model] if isinstance(model, nn.Module) else [module for _, _, module in recorded]
    with evaluating(roots), torch.no_grad(), LayerRecorder(model, recorded, norm) as recorder:
        passes = Passes(
            *(model, recorder, recorded, values, lengths, result.users, input_device, batch_size, by_prefix),
            targets=result.targets,
            items=result.inputs,
        )
        if model.is_causal and not by_prefix:
            passes.check_causality()
        pilot = stored
        if counts is not None and stored is None:
            pilot = _measured_pilot(passes, folder, counts, seed=seed, is_saved=out is not None)
        if out is not None:
            folder.begin()  # only now: a refused model leaves no folder that looks like a capture
        _run_shards(passes, folder, missing, store, pilot, is_saved=out is not None, progress=progress)
    return replace(result, pilot=pilot)


def _arrays(
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


def _checked_counts(item_counts: npt.ArrayLike | None, arrays: Mapping[str, npt.NDArray[Any]]) -> IntArray | None:
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


def _stored_pilot(folder: ShardFolder) -> Pilot | None:
    """Return the pilot of a folder; None if it has none, or a damaged one, which is then measured again."""
    try:
        return folder.load_pilot()
    except DataError:
        return None


def _measured_pilot(passes: Passes, folder: ShardFolder, counts: IntArray, *, seed: int, is_saved: bool) -> Pilot:
    """Return the pilot of the model and save it; raise DataError if the shards of the folder had another one."""
    assert passes.targets is not None
    rows = pilot_users(passes.lengths, seed=seed)
    bins = pilot_bins(counts, passes.targets, passes.items, passes.lengths, rows)
    pilot = passes.pilot(rows, bins)
    stored_hash = folder.manifest.get("pilot_hash")
    if stored_hash and pilot.hash != stored_hash:
        raise DataError(
            f"The pilot in {str(folder.path)!r} is damaged, and measuring it again gives another one. Capture again in "
            "another folder."
        )
    if is_saved:
        folder.save_pilot(pilot)
    return pilot


def _check_options(batch_size: int, state_norm: Any, prefixes: Any, resume: bool, out: str | Path | None) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1; got {batch_size}.")
    if state_norm not in (None, "final"):
        raise ConfigError(f"state_norm must be None or 'final'; got {state_norm!r}.")
    if prefixes not in (True, False, "auto"):
        raise ConfigError(f"prefixes must be True, False or 'auto'; got {prefixes!r}.")
    if resume and out is None:
        raise ConfigError("resume=True goes on with the shards in a folder; give it as out=.")


def _settings(
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
    return settings


def _manifest(
    model: LayeredModel,
    layers: Sequence[Layer],
    settings: dict[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    max_length: int,
) -> dict[str, Any]:
    """Return what a folder of shards says about itself; its ``config_hash`` is set when the folder is known."""
    return {
        "settings": settings,
        "layer_names": settings["layers"],
        "layer_states": [state for _, state, _ in layers],
        "is_causal": bool(model.is_causal or settings["prefixes"]),
        "n_sequences": len(arrays["lengths"]),
        "max_length": max_length,
        "rows_per_shard": BATCHES_PER_SHARD * int(settings["batch_size"]),
        "config_hash": "",
    }


def _read_shards(folder: ShardFolder, store: Float32Array) -> list[int]:
    """Put the finished shards of a folder into ``store``; return the numbers of the others."""
    missing = []
    for shard in range(len(folder)):
        part = folder.read(shard)
        if part is None:
            missing.append(shard)
        else:
            write_rows(store, folder.rows(shard), part)
    return missing


def _run_shards(
    passes: Passes,
    folder: ShardFolder,
    shards: Sequence[int],
    store: Float32Array,
    pilot: Pilot | None,
    *,
    is_saved: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Run the model over the sequences of some shards; put each shard into ``store`` and, if saved, on disk."""
    lengths, step = passes.lengths, passes.batch_size
    n_kinds, _, n_layers = store.shape[:3]
    is_half = torch.finfo(dtype_of(passes.layers)).bits < 32 or getattr(passes.model, "quantization", None) is not None
    residuals = None if pilot is None else Residuals(pilot, is_half=is_half)
    done = len(lengths) - sum(len(folder.rows(shard)) for shard in shards)
    for shard in shards:
        rows = folder.rows(shard)
        part = np.zeros((n_kinds, len(rows), n_layers, *[int(lengths[rows].max())] * 2), dtype=np.float32)
        for start in range(0, len(rows), step):
            batch = rows[start : start + step]
            grams = passes.grams(batch, residuals)
            part[:, start : start + step, :, : grams.shape[-1], : grams.shape[-1]] = grams
            done += len(batch)
            if progress is not None:
                progress(done, len(lengths))
        if is_saved:
            folder.write(shard, part)
        write_rows(store, rows, part)


def _checked_inputs(inputs: npt.NDArray[Any] | torch.Tensor, lengths: IntArray) -> tuple[torch.Tensor, IntArray]:
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


def _select(model: LayeredModel, wanted: Sequence[str | int] | None) -> list[Layer]:
    """Return the layers to record, in the order of computation."""
    every = list(model.layers())
    names = [name for name, _, _ in every]
    states = [state for _, state, _ in every]
    if "embed" not in states or "block" not in states or len(set(names)) != len(names):
        raise ModelError(
            f"layers() must list one 'embed', at least one 'block', and no name twice; {model.name!r} lists {names}."
        )
    if wanted is None:
        return every
    indices = {states.index("embed"), len(states) - 1 - states[::-1].index("block")}
    for layer in wanted:
        if isinstance(layer, int) and 0 <= layer < len(names):
            indices.add(layer)
        elif layer in names:
            indices.add(names.index(str(layer)))
        else:
            raise ConfigError(
                f"layers must be names or indices 0…{len(names) - 1} of {model.name!r}; got {layer!r}."
                f"{did_you_mean(str(layer), names)} Its layers: {', '.join(names)}."
            )
    return [every[index] for index in sorted(indices)]


def _final_norm(model: LayeredModel) -> nn.Module:
    for _, state, module in model.layers():
        if state == "final_norm":
            return module
    raise ConfigError(
        f"state_norm='final' applies the model's final norm to every state; {model.name!r} lists none. "
        "Use state_norm=None."
    )


def _move(
    model: LayeredModel, layers: Sequence[Layer], device: str | torch.device, dtype: torch.dtype | None
) -> torch.device:
    """Move and cast the model where asked to, and return the device that inputs go to."""
    if device != "auto" or dtype is not None:
        if isinstance(model, HFDecoder) and (model.is_spread or model.quantization):
            raise ConfigError(
                f"A model that is {'quantised' if model.quantization else 'spread over devices'} stays where and as it "
                f"is; {model.name!r} was to be moved or cast. Leave out device and dtype."
            )
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"Only an nn.Module can be moved or cast; {model.name!r} is a {type(model).__name__}. Do it "
                "beforehand, and leave out device and dtype."
            )
        model.to(device=None if device == "auto" else torch.device(device), dtype=dtype)
    for _, _, module in layers:
        for _ in module.parameters():
            return execution_device(module)
    return torch.device("cpu")


def _identity(model: LayeredModel, inputs: torch.Tensor) -> dict[str, str]:
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
