r"""Popularity residuals: what the popularity of the two items of a row says about its state, measured on a pilot.

A state of unit norm is explained by the popularity of the item that it reads and of the item that it predicts,

.. math:: u_t \approx m^{target}_{b(v_{t+1})} + m^{input}_{b(v_t)},

with one mean vector per popularity bin. The means are a least-squares fit (minimum norm) from one pass over a *pilot*,
some users who are run first. What is left, :math:`u_t` minus its fit, is scaled to unit norm again: the *treated*
state, on which taste is measured. A row that popularity explains almost entirely stays zero.

Source: ours; the paper has no such control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spectral_probe.errors import DataError, ShapeError
from spectral_probe.storage.atomic import whole_file
from spectral_probe.storage.hashing import array_hash, digest
from spectral_probe.storage.reading import refuse_special
from spectral_probe.types import Float32Array, FloatArray, IntArray

#: Positions of the pilot: users are drawn until they have so many.
PILOT_POSITIONS = 6000
#: Leading positions that are neither in the pilot nor treated; the measure drops them.
N_LEADING = 1
MIN_BINS, MAX_BINS = 4, 40
ITEMS_PER_BIN, POSITIONS_PER_BIN, MIN_ITEMS_OF_BIN = 20, 50, 10
#: A residual below this part of its row stays zero: in float32, and in half precision.
MIN_RESIDUAL, MIN_RESIDUAL_HALF = 1e-3, 3e-2


def pilot_users(lengths: IntArray, *, seed: int, n_positions: int = PILOT_POSITIONS) -> IntArray:
    """Return the rows of the pilot in ascending order: drawn one by one until they have ``n_positions`` positions."""
    order = np.random.default_rng([seed, len(lengths)]).permutation(len(lengths))
    positions = np.cumsum(np.maximum(lengths[order] - N_LEADING, 0))
    return np.sort(order[: int(np.searchsorted(positions, n_positions)) + 1])


def popularity_bins(item_counts: IntArray, items: IntArray, *, n_pilot_positions: int) -> IntArray:
    """Return the popularity bin of every item, (n_items,) int, 0 for the most popular.

    Bins have about equally many of the probed positions, at least 10 distinct items each, and items of one count
    together. Their number is ``max(4, min(40, items / 20, pilot positions / 50))``, or less where the counts do not
    allow so many.

    Parameters
    ----------
    item_counts : (n_items,) int
        Training interactions of each item.
    items : (m,) int
        Items of the probed positions, with repetitions.
    n_pilot_positions : int
    """
    known, positions = np.unique(items, return_counts=True)
    wanted = min(MAX_BINS, len(known) // ITEMS_PER_BIN, n_pilot_positions // POSITIONS_PER_BIN)
    wanted = max(MIN_BINS, wanted)
    counts = item_counts[known]
    lowest: list[int] = []  # the lowest count of each bin
    n_items = n_positions = 0
    left, bins_left = int(positions.sum()), wanted
    for count in np.unique(counts)[::-1].tolist():
        is_here = counts == count
        n_items += int(is_here.sum())
        n_positions += int(positions[is_here].sum())
        if n_items >= MIN_ITEMS_OF_BIN and n_positions * bins_left >= left and bins_left > 1:
            lowest.append(count)
            left, bins_left = left - n_positions, bins_left - 1
            n_items = n_positions = 0
    if lowest and 0 < n_items < MIN_ITEMS_OF_BIN:
        lowest.pop()  # too few items are left for a bin of their own
    # searchsorted on falling bounds: an item is in the first bin whose lowest count it reaches.
    return np.asarray(np.searchsorted(-np.array(lowest, dtype=np.int64), -item_counts, side="left"), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Pilot:
    """Mean unit states of the popularity bins, layer by layer.

    Attributes
    ----------
    bins : (n_items,) int
        Popularity bin of every item.
    target_means, input_means : sequence of (n_bins, d) float32, one per layer
        Means by the bin of the item that a row predicts, and of the item that it reads; d may differ between layers.
    rows : (m,) int
        Sequences of the pilot.
    n_positions : int
        Their positions.
    """

    bins: IntArray
    target_means: tuple[Float32Array, ...]
    input_means: tuple[Float32Array, ...]
    rows: IntArray
    n_positions: int

    @property
    def n_bins(self) -> int:
        """Number of popularity bins."""
        return int(self.bins.max()) + 1

    @property
    def hash(self) -> str:
        """SHA-256 of everything the residuals depend on, in hex."""
        return digest(array_hash(array) for array in self._tensors().values())

    def save(self, path: str | Path) -> None:
        """Write the pilot as one ``.safetensors`` file."""
        with whole_file(path) as partial:
            save_file(self._tensors(), str(partial), metadata={"n_positions": str(self.n_positions)})

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        tensors: dict[str, npt.NDArray[Any]] = {"bins": self.bins, "rows": self.rows}
        for layer, (target, read) in enumerate(zip(self.target_means, self.input_means, strict=True)):
            tensors |= {f"target_means.{layer:04d}": target, f"input_means.{layer:04d}": read}
        return tensors

    @classmethod
    def load(cls, path: str | Path) -> Pilot:
        """Read a saved pilot.

        Raises
        ------
        DataError
            If the file is missing or damaged.
        """
        try:
            refuse_special(path)
            with safe_open(str(path), framework="numpy") as stored:
                n_positions = int(stored.metadata()["n_positions"])
                tensors = {name: stored.get_tensor(name) for name in sorted(stored.keys())}
            bins, rows = tensors.pop("bins"), tensors.pop("rows")
            means = [
                tuple(value for name, value in tensors.items() if name.startswith(prefix))
                for prefix in ("target_means.", "input_means.")
            ]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"The pilot {str(path)!r} cannot be read: {error}. Its Grams cannot be continued or analysed again; "
                "capture again in another folder."
            ) from error
        return cls(bins, means[0], means[1], rows, n_positions)


class PilotSums:
    """Sums of unit states by popularity bin, from which the means are fitted."""

    def __init__(self, bins: IntArray, n_layers: int) -> None:
        self.bins = bins
        self.n_bins = int(bins.max()) + 1
        self.target_sums: list[FloatArray | None] = [None] * n_layers
        self.input_sums: list[FloatArray | None] = [None] * n_layers
        #: Positions of each pair (bin of the target, bin of the input).
        self.pairs = np.zeros((self.n_bins, self.n_bins))

    def count(self, target_bins: IntArray, input_bins: IntArray) -> None:
        """Count positions with these bins, each (m,)."""
        np.add.at(self.pairs, (target_bins, input_bins), 1.0)

    def add(self, layer: int, target_sum: FloatArray, input_sum: FloatArray) -> None:
        """Add the sums of some unit states of a layer, each (n_bins, d)."""
        for sums, values in ((self.target_sums, target_sum), (self.input_sums, input_sum)):
            known = sums[layer]
            sums[layer] = np.array(values, dtype=np.float64) if known is None else known + values

    def fit(self, rows: IntArray) -> Pilot:
        """Return the least-squares means, of minimum norm, of all positions that were counted.

        Raises
        ------
        ShapeError
            If a layer has no sums.
        """
        n_of_target, n_of_input = self.pairs.sum(axis=1), self.pairs.sum(axis=0)
        normal = np.block([[np.diag(n_of_target), self.pairs], [self.pairs.T, np.diag(n_of_input)]])
        inverse = np.linalg.pinv(normal, hermitian=True)
        means: tuple[list[Float32Array], list[Float32Array]] = ([], [])
        for layer, (target_sum, input_sum) in enumerate(zip(self.target_sums, self.input_sums, strict=True)):
            if target_sum is None or input_sum is None:
                raise ShapeError(f"The pilot has no states of layer {layer}; every layer must be counted.")
            both = (inverse @ np.concatenate([target_sum, input_sum])).astype(np.float32)
            means[0].append(both[: self.n_bins])
            means[1].append(both[self.n_bins :])
        return Pilot(self.bins, tuple(means[0]), tuple(means[1]), rows, int(self.pairs.sum()))


def read_items(inputs: IntArray | None, targets: IntArray) -> IntArray:
    """Return the item that each row reads, (n, T): ``inputs``, or the targets shifted by one.

    With shifted targets the first item is not known; the first target stands in its place, so the leading position
    must be dropped.
    """
    if inputs is not None:
        return inputs
    return np.concatenate([targets[:, :1], targets[:, :-1]], axis=1)


def position_bins(bins: IntArray, items: Sequence[IntArray] | IntArray, lengths: IntArray) -> IntArray:
    """Return the bin of each item (n, T); -1 at leading and padded positions, which are not treated."""
    items = np.asarray(items)
    at = np.arange(items.shape[1])
    is_treated = (at >= N_LEADING) & (at < lengths[:, None])
    return np.where(is_treated, bins[np.where(is_treated, items, 0)], -1)
