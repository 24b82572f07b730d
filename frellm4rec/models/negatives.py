"""Negatives: items that a user has not touched, drawn uniformly; items for all rows, drawn by how often they occur."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from frellm4rec.models.batch import Batch
from spectral_probe.errors import DataError


def draw_unseen(batch: Batch, n_negatives: int, draws: torch.Generator) -> torch.Tensor:
    """Return negatives for every target of a batch, (n_targets, n_negatives) int, in the order of ``batch.counts``.

    Parameters
    ----------
    batch : Batch
    n_negatives : int
        Of each target; drawn with replacement.
    draws : torch.Generator

    Raises
    ------
    DataError
        If a user has touched the whole catalogue.
    """
    seen = batch.user_items[batch.users.cpu().numpy()].sorted_indices()
    n_items, n_seen = seen.shape[1], np.diff(seen.indptr)
    if n_seen.max(initial=0) >= n_items:
        raise DataError(
            f"A negative is an item that the user has not touched in training; a user has touched all {n_items}. "
            "Train with the softmax, which needs no negatives."
        )
    rows = batch.counts.nonzero()[:, 0].cpu()
    return draw_absent(seen, rows, n_negatives, draws).to(batch.inputs.device)


def draw_absent(table: csr_array, rows: torch.Tensor, n_draws: int, draws: torch.Generator) -> torch.Tensor:
    r"""Return columns without an entry, uniform and with replacement, (n, n_draws) int.

    With :math:`S` the columns of a row in ascending order, the r-th column without an entry is
    :math:`r + \#\{k : S_k - k \le r\}` for r = 0…N − |S| − 1; r is drawn uniformly.

    Parameters
    ----------
    table : csr_array (n_rows, N)
        With sorted columns.
    rows : (n,) int
        Rows to draw for, none of them full.
    n_draws : int
        Of each row.
    draws : torch.Generator
    """
    n_columns, n_entries = table.shape[1], np.diff(table.indptr)
    # One sorted array for all rows: the numbers of a row lie between row · (N + 1) and (row + 1) · (N + 1).
    starts = np.repeat(table.indptr[:-1], n_entries)
    offsets = np.repeat(np.arange(len(n_entries)), n_entries) * (n_columns + 1)
    gaps = table.indices - (np.arange(table.nnz) - starts) + offsets
    uniform = torch.rand(len(rows), n_draws, generator=draws, dtype=torch.float64)
    ranks = (uniform * torch.from_numpy(n_columns - n_entries)[rows, None]).long()
    keys = ranks + rows[:, None] * (n_columns + 1)
    n_before = torch.searchsorted(torch.from_numpy(gaps.astype(np.int64)), keys, right=True)
    return ranks + n_before - torch.from_numpy(table.indptr[:-1].astype(np.int64))[rows, None]


def draw_by_count(weights: torch.Tensor, n_negatives: int, draws: torch.Generator) -> torch.Tensor:
    """Return items drawn with replacement, each with a probability proportional to its weight, (n_negatives,) int.

    Parameters
    ----------
    weights : (n_items,) float
        On any device; drawn on the CPU. An item of weight 0 is not drawn.
    n_negatives : int
    draws : torch.Generator
    """
    cumulative = weights.detach().cpu().double().cumsum(0)
    uniform = torch.rand(n_negatives, generator=draws, dtype=torch.float64) * cumulative[-1]
    items = torch.searchsorted(cumulative, uniform, right=True)
    return items.clamp(max=len(weights) - 1).to(weights.device)
