"""Right-padded batches of histories, and the rows of a batch by length."""

from __future__ import annotations

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
