"""The batches of training steps: windows of training items, in a seeded order, with the targets of the supervision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from frellm4rec.models.padding import pad_right
from frellm4rec.models.sequential import Supervision
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.types import IntArray


@dataclass(frozen=True)
class Batch:
    """Histories and the items that follow.

    Attributes
    ----------
    inputs : (batch, position) int
    lengths : (batch,) int
    targets : (batch, position) int
        Item that row t should predict.
    counts : (batch, position) bool
        Where a loss is taken.
    """

    inputs: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    counts: torch.Tensor

    @property
    def n_targets(self) -> int:
        """Number of predictions."""
        return int(self.counts.sum())


def training_windows(dataset: Dataset, max_length: int) -> list[IntArray]:
    """Return each user's most recent ``max_length + 1`` training items; users with one item have nothing to predict.

    Raises
    ------
    DataError
        If no user has two training items.
    """
    windows = [s[-(max_length + 1) :] for s in dataset.train.sequences() if len(s) >= 2]
    if not windows:
        raise DataError(f"No user of {dataset.name!r} has two training items; nothing can be learned.")
    return windows


def batches(windows: list[IntArray], order: IntArray, batch_size: int) -> Iterator[list[IntArray]]:
    """Yield the windows in this order, a batch at a time."""
    for start in range(0, len(order), batch_size):
        yield [windows[row] for row in order[start : start + batch_size]]


def draw_prefixes(windows: list[IntArray], generator: torch.Generator) -> list[IntArray]:
    """Return one prefix of each window, its length uniform over 2…length, so that its last item is the target."""
    draws = torch.rand(len(windows), generator=generator, dtype=torch.float64).tolist()
    return [window[: 2 + int(draw * (len(window) - 1))] for window, draw in zip(windows, draws, strict=True)]


def make_batch(windows: list[IntArray], supervision: Supervision, device: torch.device) -> Batch:
    """Return the tensors of some windows: all but the last item are read.

    With supervision ``every`` each next item is predicted; with ``prefix`` only the last item.
    """
    inputs, lengths = pad_right([window[:-1] for window in windows], device)
    targets, _ = pad_right([window[1:] for window in windows], device)
    positions = torch.arange(inputs.shape[1], device=device)
    last = lengths[:, None] - 1
    counts = positions == last if supervision == "prefix" else positions <= last
    return Batch(inputs, lengths, targets, counts)
