"""Run a model once over the probed sequences and keep the Gram matrix of every layer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spectral_probe.backbones import HFDecoder, LayeredModel
from spectral_probe.backbones.devices import execution_device
from spectral_probe.backbones.protocol import check_has_layers
from spectral_probe.errors import ConfigError, DataError, ModelError, did_you_mean
from spectral_probe.progress import stage
from spectral_probe.recording.configuration import (
    arrays_of,
    check_options,
    checked_counts,
    checked_inputs,
    manifest_of,
    settings_of,
    with_hashes,
)
from spectral_probe.recording.forward import Passes, dtype_of
from spectral_probe.recording.hooks import Layer, LayerRecorder, evaluating
from spectral_probe.recording.layer_grams import LayerGrams, empty_grams, from_folder, write_rows
from spectral_probe.recording.pilot import Pilot, pilot_users
from spectral_probe.recording.residuals import Residuals, pilot_bins
from spectral_probe.recording.shards import ShardFolder
from spectral_probe.storage.hashing import settings_hash
from spectral_probe.types import Float32Array, IntArray

__all__ = ["LayerGrams", "capture"]

logger = logging.getLogger("spectral_probe")


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
        Go on with the finished shards in ``out``, with the number of threads they were made with. The result equals
        that of a straight run to the byte.
    layers : sequence of str or int, optional
        Layers to keep, by name or by index in ``model.layers()``; ``embed`` and the last block are always kept.
    progress : callable, optional
        Called with (sequences done, sequences in all) after each batch.

    Raises
    ------
    ShapeError
        If the arrays do not fit together, or a length is not in 1 … T.
    ConfigError
        If an option is not allowed, the model says that it has no layers, a layer is unknown, a spread or quantised
        model was to be moved, ``out`` holds finished Grams and ``resume`` is not given, or its shards were made under
        another configuration.
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
    values, lengths = checked_inputs(inputs, np.asarray(lengths, dtype=np.int64))
    check_options(batch_size, state_norm, prefixes, resume, out)
    by_prefix = (not model.is_causal) if prefixes == "auto" else bool(prefixes)
    recorded = _select(model, layers)
    norm = _final_norm(model) if state_norm == "final" else None
    input_device = _move(model, recorded, device, dtype)
    arrays = arrays_of(values, lengths, batch_size, users=users, targets=targets, inputs=items)
    settings = settings_of(
        model, recorded, by_prefix=by_prefix, state_norm=state_norm, batch_size=batch_size, device=input_device
    )
    counts = None if settings["leaky"] else checked_counts(item_counts, arrays)
    manifest = manifest_of(model, recorded, settings, arrays, values.shape[1], counts=counts, seed=seed)
    folder = ShardFolder(Path(), manifest, arrays)
    # Built now, so that users or targets of a wrong shape fail before anything is written or run.
    store = empty_grams(folder)
    result = from_folder(folder, store)
    if out is not None:
        settings["threads"] = _threads_of(out) if resume else torch.get_num_threads()
        manifest["config_hash"] = settings_hash(with_hashes(settings, model, values, arrays))
        folder = (ShardFolder.resume if resume else ShardFolder.create)(out, manifest, arrays)
    missing = _read_shards(folder, store) if resume else list(range(len(folder)))
    stored = _stored_pilot(folder)
    if not missing and (stored is not None or counts is None):
        return replace(result, pilot=stored)
    roots = [model] if isinstance(model, nn.Module) else [module for _, _, module in recorded]
    with (
        limited_threads(settings.get("threads", torch.get_num_threads())),
        evaluating(roots),
        torch.no_grad(),
        LayerRecorder(model, recorded, norm) as recorder,
    ):
        shared = (model, recorder, recorded, values, lengths, result.users, input_device, batch_size, by_prefix)
        passes = Passes(*shared, targets=result.targets, items=result.inputs)
        if model.is_causal and not by_prefix:
            passes.check_causality()
        pilot = stored or _measured_pilot(passes, folder, counts, seed=seed, is_saved=out is not None)
        if out is not None:
            folder.begin()  # only now: a refused model leaves no folder that looks like a capture
        _run_shards(passes, folder, missing, store, pilot, is_saved=out is not None, progress=progress)
    return replace(result, pilot=pilot)


def _threads_of(out: str | Path) -> int:
    """Return the threads that an unfinished capture began with.

    Rounding depends on their number, not on how many CPUs run them, so a resumed capture takes the same number.
    """
    otherwise = torch.get_num_threads()
    if not (Path(out) / "manifest.json").exists():
        return otherwise
    recorded = int(ShardFolder.open(out).manifest["settings"].get("threads", otherwise))
    if recorded > (os.cpu_count() or 1):
        logger.warning(
            "The capture in %s goes on with the %d threads it began with, more than the CPUs here, which is slow. Its "
            "Grams stay the same; capture anew with OMP_NUM_THREADS=%d if it takes too long.",
            out,
            recorded,
            os.cpu_count() or 1,
        )
    return recorded


@contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Run PyTorch with this number of threads, and restore the number before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stored_pilot(folder: ShardFolder) -> Pilot | None:
    """Return the pilot of a folder; None if it has none, or a damaged one, which is then measured again."""
    try:
        return folder.load_pilot()
    except DataError:
        return None


def _measured_pilot(
    passes: Passes, folder: ShardFolder, counts: IntArray | None, *, seed: int, is_saved: bool
) -> Pilot | None:
    """Return the pilot of the model and save it; None without item counts.

    Raises
    ------
    DataError
        If the shards of the folder had another one.
    """
    if counts is None:
        return None
    stage("pilot")
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
    stage("capture")
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


def _select(model: LayeredModel, wanted: Sequence[str | int] | None) -> list[Layer]:
    """Return the layers to record, in the order of computation."""
    check_has_layers(model)
    every = list(model.layers())
    names = [name for name, _, _ in every]
    states = [state for _, state, _ in every]
    if "embed" not in states or "block" not in states or len(set(names)) != len(names):
        raise ModelError(
            f"layers() must list one 'embed', at least one 'block', and no name twice; {model.name!r} lists {names}."
        )
    return [every[index] for index in selected_layers(model.name, names, states, wanted)]


def selected_layers(
    model: str, names: Sequence[str], states: Sequence[str], wanted: Sequence[str | int] | None
) -> list[int]:
    """Return which layers are recorded, in the order of computation: the wanted ones, ``embed`` and the last block.

    Raises
    ------
    ConfigError
        If the model has no layer that is wanted.
    """
    if wanted is None:
        return list(range(len(names)))
    indices = {list(states).index("embed"), len(states) - 1 - list(states)[::-1].index("block")}
    for layer in wanted:
        if isinstance(layer, int) and 0 <= layer < len(names):
            indices.add(layer)
        elif layer in names:
            indices.add(names.index(str(layer)))
        else:
            raise ConfigError(
                f"layers must be names or indices 0…{len(names) - 1} of {model!r}; got {layer!r}."
                f"{did_you_mean(str(layer), names)} Its layers: {', '.join(names)}."
            )
    return sorted(indices)


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
