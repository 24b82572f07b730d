"""The energies of an analysis: what a curve is a mean of, user by user."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.spectrum.components import COMPONENTS
from spectral_probe.storage.atomic import write_npz
from spectral_probe.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class SpectralEnergy:
    r"""Energy of every graph frequency at every layer, with the nulls.

    Rows of users who are not on the curve (see ``skipped``) are NaN; padded frequencies of the others are 0.

    Attributes
    ----------
    energy : (n, n_layers, T − drop_first)
        :math:`E_k = u_k^\top \tilde G u_k`; unit: squared activation.
    total : (n, n_layers)
        :math:`\operatorname{tr} \tilde G`.
    null_energy : {null: (n, n_layers, T − drop_first)}
        Energy under each null, one-sided: the user's own graph with averaged states.
    low : (n, n_layers)
        Low-pass share :math:`\operatorname{tr}(e^{-\tau L} \tilde G) / \operatorname{tr} \tilde G` at ``whole_tau``.
    null_low : {null: (n, n_layers)}
        The same under each null; two-sided for ``swap``.
    eigenvalues : (n, T − drop_first)
        Graph frequencies, NaN where padded.
    lengths : (n,) int
        Number of targets before the drop; with components, of nodes that are measured.
    is_valid : (n,) bool
        Whether the user is on the curve: valid at every layer of it.
    skipped : {reason: count}
    layer_names, layer_states : tuple of str
    layer_index : tuple of int
        Depth of each layer in the model: 0 for ``embed``, i for block i, one more than the last block for
        ``final_norm``; not consecutive where layers were selected.
    settings : dict
    split : {treatment: {component: (n, n_layers)}}
        Swap excess of every component under every treatment of the states that was computed; empty without
        popularity-matched graphs.
    weights : (n,)
        Weight of each user in a mean, from the graphs alone; 0 for users who are not on the curve. 1 for all others
        without popularity-matched graphs.
    n_nodes : (n,) int
        Nodes that each user has; the measured ones are the leading ``lengths``.
    match_error : float
        Mean absolute log count ratio of the popularity match.
    """

    energy: FloatArray
    total: FloatArray
    null_energy: dict[str, FloatArray]
    low: FloatArray
    null_low: dict[str, FloatArray]
    eigenvalues: FloatArray
    lengths: IntArray
    is_valid: npt.NDArray[np.bool_]
    skipped: dict[str, int]
    layer_names: tuple[str, ...]
    layer_states: tuple[str, ...]
    layer_index: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    split: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    weights: FloatArray = field(default_factory=lambda: np.empty(0))
    n_nodes: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    match_error: float = float("nan")

    @property
    def measured(self) -> IntArray:
        """Nodes that each user is measured on, (n,); 0 for users who are not on the curve."""
        return np.where(self.is_valid, self.lengths, 0)

    @property
    def component_excess(self) -> dict[str, FloatArray]:
        """Swap excess of every component under its own treatment, (n, n_layers)."""
        return {name: self.split[self.treatment_of(name)][name] for name in COMPONENTS if self.split}

    def treatment_of(self, component: str) -> str:
        """Return the treatment of the states that a component is measured on.

        Taste: the treated states where there are some; the others: rows of unit norm.
        """
        if len(self.split) == 1:
            return next(iter(self.split))
        return "residual" if component == "taste" and "residual" in self.split else "rows"

    @property
    def rayleigh(self) -> FloatArray:
        r"""Rayleigh quotient :math:`\operatorname{tr}(L \tilde G)/\operatorname{tr} \tilde G`, (n, n_layers)."""
        weighted = np.einsum("nlk,nk->nl", self.energy, np.nan_to_num(self.eigenvalues))
        return np.asarray(weighted / self.total)

    def save(self, path: Path) -> None:
        """Write the arrays as a compressed ``.npz`` file."""
        arrays = {
            "energy": self.energy,
            "total": self.total,
            "low": self.low,
            "eigenvalues": self.eigenvalues,
            "lengths": self.lengths,
            "is_valid": self.is_valid,
            "layer_names": np.array(self.layer_names),
            "layer_states": np.array(self.layer_states),
            "layer_index": np.array(self.layer_index),
            **{f"null_energy.{name}": value for name, value in self.null_energy.items()},
            **{f"null_low.{name}": value for name, value in self.null_low.items()},
        }
        write_npz(path, arrays, is_compressed=True)
