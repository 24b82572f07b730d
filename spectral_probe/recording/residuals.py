"""Popularity residuals of states in torch: sums for the pilot, and the treated states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spectral_probe.recording.pilot import (
    MIN_RESIDUAL,
    MIN_RESIDUAL_HALF,
    Pilot,
    PilotSums,
    pilot_users,
    popularity_bins,
    position_bins,
    read_items,
)
from spectral_probe.types import Float32Array, IntArray


@dataclass(frozen=True)
class RowBins:
    """Popularity bins of the rows of a batch, each (batch, position) int; -1 at rows that are not treated."""

    target: torch.Tensor
    input: torch.Tensor

    @classmethod
    def of(cls, bins: IntArray, targets: IntArray, inputs: IntArray, lengths: IntArray) -> RowBins:
        """Return the bins of the items that each row predicts and reads."""
        pair = (torch.from_numpy(position_bins(bins, items, lengths)) for items in (targets, inputs))
        return cls(*pair)

    def sequence(self, row: int, length: int) -> RowBins:
        """Return the bins of one sequence as a batch of its own."""
        return RowBins(self.target[row : row + 1, :length], self.input[row : row + 1, :length])


def unit_rows(states: torch.Tensor) -> torch.Tensor:
    """Return states (…, d) scaled to unit norm; a zero state stays zero."""
    norm = states.norm(dim=-1, keepdim=True)
    return states / torch.where(norm > 0, norm, 1.0)


def add_to_sums(sums: PilotSums, layer: int, states: torch.Tensor, rows: RowBins) -> None:
    """Add the unit states (batch, position, d) of a layer to the sums of the pilot."""
    is_treated = (rows.target >= 0).to(states.device)
    unit = unit_rows(states[is_treated].float())
    both = []
    for bins in (rows.target, rows.input):
        # A product with one-hot rows, not index_add_, whose order of additions varies on a GPU.
        one_hot = torch.nn.functional.one_hot(bins.to(states.device)[is_treated], sums.n_bins).to(unit.dtype)
        both.append((one_hot.mT @ unit).double().cpu().numpy())
    sums.add(layer, *both)


class Residuals:
    """The means of a pilot on the device of each layer, and the treatment of states with them."""

    def __init__(self, pilot: Pilot, *, is_half: bool) -> None:
        self.pilot = pilot
        self.least = MIN_RESIDUAL_HALF if is_half else MIN_RESIDUAL
        self._means: dict[tuple[int, torch.device], torch.Tensor] = {}

    def treated(self, layer: int, states: torch.Tensor, rows: RowBins) -> torch.Tensor:
        """Return the treated states, (batch, position, d): unit rows minus their fit, scaled to unit norm again.

        Rows that are not treated, and rows whose residual is rounding, are zero.
        """
        means = self._on(layer, states.device)
        target, read = rows.target.to(states.device), rows.input.to(states.device)
        # Row n_bins and the last one are zero, for rows that are not treated.
        n_bins = self.pilot.n_bins
        fitted = means[torch.where(target >= 0, target, n_bins)]
        fitted += means[torch.where(read >= 0, read + n_bins + 1, n_bins)]
        residual = unit_rows(states).sub_(fitted)
        norm = residual.norm(dim=-1, keepdim=True)
        is_kept = (norm >= self.least) & (target >= 0)[..., None]
        return residual.mul_(torch.where(is_kept, 1.0 / norm.clamp(min=self.least), 0.0))

    def _on(self, layer: int, device: torch.device) -> torch.Tensor:
        """Return the means of a layer: those of targets, a row of zeros, those of inputs."""
        key = (layer, device)
        if key not in self._means:
            target, read = self.pilot.target_means[layer], self.pilot.input_means[layer]
            zero = np.zeros((1, target.shape[1]), dtype=np.float32)
            self._means[key] = torch.from_numpy(np.concatenate([target, zero, read])).to(device)
        return self._means[key]


def pilot_bins(
    item_counts: IntArray, targets: IntArray, inputs: IntArray | None, lengths: IntArray, rows: IntArray
) -> IntArray:
    """Return the popularity bins of a probe whose pilot has these rows."""
    valid = np.arange(targets.shape[1]) < lengths[:, None]
    items = np.concatenate([targets[valid], read_items(inputs, targets)[valid]])
    n_positions = int(np.maximum(lengths[rows] - 1, 0).sum())
    return popularity_bins(item_counts, items, n_pilot_positions=n_positions)


def treated_grams(
    states: Sequence[npt.NDArray[Any]],
    lengths: IntArray,
    targets: IntArray,
    inputs: IntArray | None,
    item_counts: IntArray,
    *,
    seed: int = 0,
) -> tuple[Float32Array, Pilot]:
    """Fit a pilot on given states and return their treated Grams.

    Parameters
    ----------
    states : sequence of (n, T, d) float, one per layer
    lengths : (n,) int
    targets, inputs : (n, T) int
        Items that the rows predict and read; without inputs, the targets shifted by one.
    item_counts : (n_items,) int
    seed : int
        Of the draw of the pilot's users.

    Returns
    -------
    grams : (n, n_layers, T, T) float32
    pilot : Pilot
    """
    rows = pilot_users(lengths, seed=seed)
    bins = pilot_bins(item_counts, targets, inputs, lengths, rows)
    read = read_items(inputs, targets)
    sums = PilotSums(bins, len(states))
    of_pilot = RowBins.of(bins, targets[rows], read[rows], lengths[rows])
    count_positions(sums, of_pilot)
    tensors = [torch.from_numpy(np.asarray(state, dtype=np.float32)) for state in states]
    for layer, state in enumerate(tensors):
        add_to_sums(sums, layer, state[torch.from_numpy(rows)], of_pilot)
    pilot = sums.fit(rows)
    residuals = Residuals(pilot, is_half=False)
    every = RowBins.of(bins, targets, read, lengths)
    grams = np.empty((len(lengths), len(states), targets.shape[1], targets.shape[1]), dtype=np.float32)
    for layer, state in enumerate(tensors):
        treated = residuals.treated(layer, state, every)
        grams[:, layer] = torch.bmm(treated, treated.mT).numpy()
    return grams, pilot


def count_positions(sums: PilotSums, rows: RowBins) -> None:
    """Count the treated positions of a batch of the pilot."""
    is_treated = rows.target >= 0
    sums.count(rows.target[is_treated].numpy(), rows.input[is_treated].numpy())
