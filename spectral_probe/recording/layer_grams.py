"""The Gram matrix of every layer of every sequence: all that a graph energy needs of the states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import DataError, ResourceError, ShapeError
from spectral_probe.recording.pilot import Pilot
from spectral_probe.recording.shards import KINDS, ShardFolder
from spectral_probe.storage.hashing import array_hash, settings_hash
from spectral_probe.types import Float32Array, LayerState

#: Sequences in one file of a saved result.
_ROWS_PER_SHARD = 1024


@dataclass(frozen=True, eq=False)
class LayerGrams:
    r"""Inner products of the states of each layer, :math:`G_u^{(l)} = H_u^{(l)} H_u^{(l)\top}`.

    Attributes
    ----------
    grams : (n_sequences, n_layers, T, T) float32
        Unit: squared activation. Zero where either position is padding.
    lengths : (n_sequences,) int
        Valid positions of each sequence; row t < length is the state that predicts target t.
    layer_names : tuple of str, (n_layers,)
        ``embed``, ``block 1`` …, ``final_norm``.
    layer_states : tuple of str, (n_layers,)
        ``embed``, ``block`` or ``final_norm``; a curve never connects ``final_norm`` to the others.
    is_causal : bool
        Whether row t depends on items v_1 … v_t alone: the model is causal, or was probed prefix by prefix.
    users : (n_sequences,) int or None
        Row of each sequence in the training log.
    targets : (n_sequences, T) int or None
        Items v_2 … v_{T+1}, which the rows predict.
    settings : dict
        Settings of the capture; plain JSON values.
    inputs : (n_sequences, T) int or None
        Items v_1 … v_T, which the rows read; Grams saved by older versions have none.
    treated : (n_sequences, n_layers, T, T) float32 or None
        Inner products of the treated states: unit rows without what popularity explains, scaled to unit norm again. The
        leading position is zero.
    pilot : Pilot or None
        The means that the treated states are without; see :mod:`spectral_probe.recording.pilot`.

    Raises
    ------
    ShapeError
        If the arrays do not fit together, or a length is not in 1 … T.
    """

    grams: Float32Array
    lengths: npt.NDArray[np.int64]
    layer_names: tuple[str, ...]
    layer_states: tuple[LayerState, ...]
    is_causal: bool = True
    users: npt.NDArray[np.int64] | None = None
    targets: npt.NDArray[np.int64] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: npt.NDArray[np.int64] | None = None
    treated: Float32Array | None = None
    pilot: Pilot | None = None

    def __post_init__(self) -> None:
        n, n_layers, T = len(self.lengths), len(self.layer_names), self.grams.shape[-1]
        if self.grams.shape != (n, n_layers, T, T) or len(self.layer_states) != n_layers:
            raise ShapeError(
                f"grams must be (n_sequences, n_layers, T, T) with one name and state per layer; got "
                f"{self.grams.shape} for {n} lengths, {n_layers} names and {len(self.layer_states)} states."
            )
        check_lengths(self.lengths, T)
        if self.users is not None and self.users.shape != (n,):
            raise ShapeError(f"users must be ({n},), one per sequence; got {self.users.shape}.")
        for name, items in (("targets", self.targets), ("inputs", self.inputs)):
            if items is not None and items.shape != (n, T):
                raise ShapeError(f"{name} must be ({n}, {T}) like the sequences; got {items.shape}.")
        if self.treated is not None and self.treated.shape != self.grams.shape:
            raise ShapeError(f"treated must be {self.grams.shape} like grams; got {self.treated.shape}.")

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.lengths)

    @classmethod
    def from_states(
        cls,
        states: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
        lengths: npt.ArrayLike,
        layer_names: Sequence[str],
        *,
        layer_states: Sequence[LayerState] | None = None,
        is_causal: bool = True,
        users: npt.ArrayLike | None = None,
        targets: npt.ArrayLike | None = None,
        inputs: npt.ArrayLike | None = None,
        item_counts: npt.ArrayLike | None = None,
        seed: int = 0,
    ) -> LayerGrams:
        """Compute Grams from given states.

        Parameters
        ----------
        states : (n_sequences, n_layers, T, d) array, or one (n_sequences, T, d) array per layer
            Values at padded positions are ignored. With a list, d may differ from layer to layer.
        lengths : (n_sequences,) int
        layer_names : (n_layers,) str
        layer_states : (n_layers,), optional
            Default: ``embed`` and ``final_norm`` for layers of these names, ``block`` for all others.
        is_causal, users, targets, inputs
            As the attributes of this class.
        item_counts : (n_items,) int, optional
            Training interactions of each item. With them, and targets, the Grams of treated states are computed too.
        seed : int
            Of the draw of the pilot's users.
        """
        if isinstance(states, np.ndarray) and states.ndim == 4:
            states = [states[:, layer] for layer in range(states.shape[1])]
        lengths = np.asarray(lengths, dtype=np.int64)
        if not len(states) or any(state.ndim != 3 or state.shape[:2] != states[0].shape[:2] for state in states):
            raise ShapeError(
                "states must be (n_sequences, n_layers, T, d), or a list of (n_sequences, T, d) with equal n_sequences "
                f"and T; got {[np.shape(state) for state in states]}."
            )
        n, T = states[0].shape[:2]
        if len(lengths) != n:
            raise ShapeError(f"lengths must be ({n},), one per sequence; got {lengths.shape}.")
        valid = np.arange(T) < lengths[:, None]
        grams = np.empty((n, len(states), T, T), dtype=np.float32)
        for layer, state in enumerate(states):
            clean = np.where(valid[..., None], state, 0).astype(np.float64)
            grams[:, layer] = clean @ clean.transpose(0, 2, 1)
        optional: dict[str, Any] = {
            name: None if items is None else np.asarray(items, dtype=np.int64)
            for name, items in (("users", users), ("targets", targets), ("inputs", inputs))
        }
        treated = pilot = None
        if item_counts is not None:
            if optional["targets"] is None:
                raise ShapeError("Treated states need the targets of the rows; give targets= with item_counts=.")
            from spectral_probe.recording.residuals import treated_grams

            clean_states = [np.where(valid[..., None], state, 0) for state in states]
            counts = np.asarray(item_counts, dtype=np.int64)
            treated, pilot = treated_grams(
                clean_states, lengths, optional["targets"], optional["inputs"], counts, seed=seed
            )
        return cls(
            grams,
            lengths,
            tuple(layer_names),
            tuple(layer_states) if layer_states is not None else tuple(_state_of(name) for name in layer_names),
            is_causal,
            **optional,
            treated=treated,
            pilot=pilot,
        )

    def save(self, path: str | Path) -> Path:
        """Write the Grams to a new folder, in the format that :func:`spectral_probe.recording.capture.capture` writes.

        Raises
        ------
        ConfigError
            If the folder holds Grams already.
        """
        arrays: dict[str, npt.NDArray[Any]] = {"lengths": self.lengths, "order": np.arange(len(self))}
        arrays |= {} if self.users is None else {"users": self.users}
        arrays |= {} if self.targets is None else {"targets": self.targets}
        arrays |= {} if self.inputs is None else {"inputs": self.inputs}
        manifest = {
            "settings": self.settings,
            "layer_names": list(self.layer_names),
            "layer_states": list(self.layer_states),
            "is_causal": self.is_causal,
            "n_sequences": len(self),
            "max_length": self.grams.shape[-1],
            "rows_per_shard": _ROWS_PER_SHARD,
        }
        kinds = [self.grams] if self.treated is None else [self.grams, self.treated]
        if len(kinds) > 1:
            manifest["kinds"] = list(KINDS)
        content = {name: array_hash(array) for name, array in {**arrays, "grams": self.grams}.items()}
        manifest["config_hash"] = settings_hash({**manifest, "content": content})
        folder = ShardFolder.create(path, manifest, arrays)
        if self.pilot is not None:
            folder.save_pilot(self.pilot)
        folder.begin()
        for shard in range(len(folder)):
            rows = folder.rows(shard)
            longest = int(self.lengths[rows].max())
            folder.write(shard, np.stack([grams[rows, :, :longest, :longest] for grams in kinds]))
        return folder.path

    @classmethod
    def load(cls, path: str | Path) -> LayerGrams:
        """Read a folder that :meth:`save` or a finished capture wrote; no model is needed.

        Raises
        ------
        DataError
            If the folder holds no Grams, is damaged, or its capture was not finished.
        """
        folder = ShardFolder.open(path)
        grams = empty_grams(folder)
        missing = 0
        for shard in range(len(folder)):
            part = folder.read(shard)
            if part is None:
                missing += 1
            else:
                write_rows(grams, folder.rows(shard), part)
        if missing:
            raise DataError(
                f"{missing} of {len(folder)} shards in {str(folder.path)!r} are missing or damaged. Finish the "
                "capture with resume=True (--resume)."
            )
        return from_folder(folder, grams, folder.load_pilot())


def check_lengths(lengths: npt.NDArray[np.int64], T: int) -> None:
    """Raise ShapeError unless every length is in 1 … T."""
    if not len(lengths) or lengths.ndim != 1 or lengths.min() < 1 or lengths.max() > T:
        received = f"{lengths.min()}…{lengths.max()}" if lengths.size else "none"
        raise ShapeError(
            f"There must be at least one sequence and every length must lie in 1…{T}, the width of the padded arrays; "
            f"got {received}. Leave empty sequences out."
        )


def empty_grams(folder: ShardFolder) -> Float32Array:
    """Return zeros of the shape of a finished capture, (n_kinds, n_sequences, n_layers, T, T)."""
    m = folder.manifest
    shape = (folder.n_kinds, m["n_sequences"], len(m["layer_names"]), m["max_length"], m["max_length"])
    try:
        return np.zeros(shape, dtype=np.float32)
    except MemoryError as error:
        raise ResourceError(
            f"Grams of shape {shape} need {4 * math.prod(shape) / 2**30:.1f} GiB, more than the free memory. "
            "Probe fewer users, fewer layers, or shorter histories."
        ) from error


def write_rows(grams: Float32Array, rows: npt.NDArray[np.int64], part: Float32Array) -> None:
    """Write the Grams of some sequences, cut to their longest, into their rows of ``grams``."""
    longest = part.shape[-1]
    grams[:, rows, :, :longest, :longest] = part


def from_folder(folder: ShardFolder, grams: Float32Array, pilot: Pilot | None = None) -> LayerGrams:
    """Return assembled Grams with the lengths, names and settings of their folder."""
    return LayerGrams(
        grams[0],
        folder.arrays["lengths"],
        tuple(folder.manifest["layer_names"]),
        tuple(folder.manifest["layer_states"]),
        bool(folder.manifest["is_causal"]),
        folder.arrays.get("users"),
        folder.arrays.get("targets"),
        folder.manifest["settings"],
        folder.arrays.get("inputs"),
        grams[1] if len(grams) > 1 else None,
        pilot,
    )


def _state_of(name: str) -> LayerState:
    return "embed" if name == "embed" else "final_norm" if name == "final_norm" else "block"
