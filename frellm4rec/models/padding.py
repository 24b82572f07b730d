"""Right-padded batches of histories, and the rows of a batch by length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch


def pad_right(sequences: list[npt.NDArray[np.int64]], device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return histories as (batch, position) item indices padded with 0, and their lengths."""
    lengths = np.array([len(sequence) for sequence in sequences])
    padded = np.zeros((len(sequences), int(lengths.max())), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(sequences)
    return torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device)


def rows_by_length(lengths: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Return the rows of a batch, longest first, ``size`` at a time; together they are every row once.

    Parameters
    ----------
    lengths : (batch,) int
    size : int
        Rows of a group; the last group may be smaller.
    """
    return list(torch.argsort(lengths, descending=True, stable=True).split(size))


def run_in_groups(
    run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], vectors: torch.Tensor, lengths: torch.Tensor, size: int
) -> torch.Tensor:
    """Return the states of a batch whose rows are run in groups of similar length, each padded to its own longest.

    Parameters
    ----------
    run : callable
        Takes vectors (rows, position, d) and lengths (rows,), and returns states (rows, position, feature).
    vectors : (batch, position, d) float
    lengths : (batch,) int
    size : int
        Rows of a group.

    Returns
    -------
    (batch, position, feature) float
        As of ``run`` on the whole batch, up to rounding; 0 behind the longest row of a group. Gradients pass through.
    """
    groups, states = rows_by_length(lengths, size), []
    for rows in groups:
        longest = int(lengths[rows].max())
        part = run(vectors[rows, :longest], lengths[rows])
        states.append(torch.nn.functional.pad(part, (0, 0, 0, vectors.shape[1] - longest)))
    return torch.cat(states)[torch.argsort(torch.cat(groups))]
