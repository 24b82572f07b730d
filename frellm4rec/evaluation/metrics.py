"""Ranking metrics of one relevant item per user; ties count their expected value under random order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError, ShapeError
from spectral_probe.types import FloatArray, IntArray

Gain = Callable[[FloatArray], FloatArray]
#: Scores compared at a time: the comparisons of a block stay in the processor's cache.
BLOCK_SIZE = 1 << 18


class RankMetrics(NamedTuple):
    """The metrics of one ranking, each (n,) float: NDCG@k, Recall@k, and 1 where the target is tied."""

    ndcg: FloatArray
    recall: FloatArray
    is_tied: FloatArray


def rank_metrics(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    k: int = 10,
    *,
    excluded: npt.ArrayLike | None = None,
    tolerance: npt.ArrayLike = 0.0,
) -> RankMetrics:
    """Return NDCG@k, Recall@k and ties of every user, from one count of the scores.

    The same numbers as :func:`ndcg_at_k`, :func:`recall_at_k` and :func:`tie_rate`, whose parameters and errors it
    shares, in a third of the time: 200,000 users × 101 candidates take about 0.05 s on one core.
    """
    _check_k(k, scores)
    n_better, n_tied = _better_and_tied(scores, targets, excluded, tolerance)
    n_candidates = np.shape(scores)[1]
    ndcg, recall = (_expected_gain(n_better, n_tied, n_candidates, k, gain) for gain in (_discount, np.ones_like))
    return RankMetrics(ndcg, recall, (n_tied > 0).astype(np.float64))


def ndcg_at_k(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    k: int = 10,
    *,
    excluded: npt.ArrayLike | None = None,
    tolerance: npt.ArrayLike = 0.0,
) -> FloatArray:
    r"""Return each user's NDCG@k.

    .. math:: \mathrm{NDCG@}k = \mathbb{E}\big[\mathbf 1[r \le k] / \log_2(r + 1)\big]

    with r the rank of the target, uniform over the ranks that it shares with items of equal score.

    Parameters
    ----------
    scores : (n, n_candidates) float
        Higher is better.
    targets : (n,) int, or int
        Column of the target in each row.
    k : int
        Cut of the list, 1…n_candidates.
    excluded : (n, n_candidates) bool, optional
        Candidates left out of the ranking; a target never is.
    tolerance : (n,) float, or float
        Scores that differ from the target's by no more than this are tied with it; see
        :meth:`Recommender.score_and_tolerance`. A value that is not finite counts as zero.

    Returns
    -------
    (n,) float in [0, 1]

    Raises
    ------
    DataError
        If a score that is not excluded is NaN.
    ShapeError, ConfigError
        If shapes, target columns or ``k`` are out of range.

    Notes
    -----
    Source: FreLLM4Rec section 4.1; one relevant item, so the ideal DCG is 1.
    """
    return rank_metrics(scores, targets, k, excluded=excluded, tolerance=tolerance).ndcg


def recall_at_k(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    k: int = 10,
    *,
    excluded: npt.ArrayLike | None = None,
    tolerance: npt.ArrayLike = 0.0,
) -> FloatArray:
    """Return each user's chance that the target is among the first ``k``; parameters as in :func:`ndcg_at_k`."""
    return rank_metrics(scores, targets, k, excluded=excluded, tolerance=tolerance).recall


def tie_rate(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    excluded: npt.ArrayLike | None = None,
    tolerance: npt.ArrayLike = 0.0,
) -> FloatArray:
    """Return, per user, 1 where another candidate is tied with the target, else 0; see :func:`ndcg_at_k`."""
    _, n_tied = _better_and_tied(scores, targets, excluded, tolerance)
    return (n_tied > 0).astype(np.float64)


def best_first(scores: npt.ArrayLike, k: int, *, tolerance: float = 0.0) -> IntArray:
    """Return the columns of the k highest scores, best first.

    Scores within ``tolerance`` of the highest one that is left are tied with it; tied columns come in their order.

    Parameters
    ----------
    scores : (n_candidates,) float
        Finite or infinite; the caller must refuse NaN.
    k : int
        Fewer columns are returned if there are fewer scores.
    tolerance : float
        Zero or more; a value that is not finite counts as zero.

    Raises
    ------
    ConfigError
        If ``tolerance`` is negative.
    """
    values = np.asarray(scores, dtype=np.float64)
    if tolerance < 0:
        raise ConfigError(f"tolerance must be zero or more; got {tolerance}.")
    order = np.argsort(-values, kind="stable")
    falling = -values[order]
    slack = tolerance if np.isfinite(tolerance) else 0.0
    columns: list[int] = []
    while len(columns) < min(k, len(values)):
        first = len(columns)
        end = int(np.searchsorted(falling, falling[first] + slack, side="right"))
        columns.extend(sorted(order[first:end].tolist()))
    return np.array(columns[:k], dtype=np.int64)


def _discount(rank: FloatArray) -> FloatArray:
    return np.asarray(1.0 / np.log2(rank + 1.0))


def _check_k(k: int, scores: npt.ArrayLike) -> None:
    n_candidates = np.shape(scores)[-1] if np.ndim(scores) else 0
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= n_candidates:
        raise ConfigError(f"k must be a whole number in 1…{n_candidates}, the number of candidates; got {k!r}.")


def _expected_gain(n_better: IntArray, n_tied: IntArray, n_candidates: int, k: int, gain: Gain) -> FloatArray:
    """Return the mean gain over the ranks r that are possible with ties: better + 1 … better + 1 + tied."""
    ranks = np.arange(1, n_candidates + 1, dtype=np.float64)
    summed = np.concatenate([[0.0], np.cumsum(np.where(ranks <= k, gain(ranks), 0.0))])
    return np.asarray((summed[n_better + n_tied + 1] - summed[n_better]) / (n_tied + 1))


def _better_and_tied(
    scores: npt.ArrayLike, targets: npt.ArrayLike, excluded: npt.ArrayLike | None, tolerance: npt.ArrayLike
) -> tuple[IntArray, IntArray]:
    """Return how many candidates score above the target, and how many others are tied with it."""
    values = np.asarray(scores)
    values = values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)
    if values.ndim != 2 or not values.size:
        raise ShapeError(f"Scores are (n, n_candidates) and not empty; got shape {values.shape}.")
    columns = np.broadcast_to(np.asarray(targets), values.shape[:1])
    if not np.issubdtype(columns.dtype, np.integer) or columns.min() < 0 or columns.max() >= values.shape[1]:
        raise ShapeError(
            f"Target columns must be whole numbers in 0…{values.shape[1] - 1}; seen {columns.min()}…{columns.max()}."
        )
    left_out = None if excluded is None else np.asarray(excluded, dtype=bool)
    if left_out is not None and left_out.shape != values.shape:
        raise ShapeError(f"excluded must have the shape of scores, {values.shape}; got {left_out.shape}.")
    slack = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), values.shape[:1])
    slack = np.where(np.isfinite(slack), slack, 0.0)
    if (slack < 0).any():
        raise ConfigError(f"tolerance must be zero or more; seen {slack.min()}.")
    n_better, n_tied = np.empty(len(values), dtype=np.int64), np.empty(len(values), dtype=np.int64)
    n_rows = max(1, BLOCK_SIZE // values.shape[1])
    for start in range(0, len(values), n_rows):
        rows = slice(start, start + n_rows)
        block = values[rows]
        target_index = (np.arange(len(block)), columns[rows])
        counts = None if left_out is None else ~left_out[rows]
        if counts is not None:
            counts[target_index] = True
        is_nan = np.isnan(block)
        if counts is not None:
            is_nan &= counts
        if is_nan.any():
            _refuse_nan(values, columns, left_out)
        target = block[target_index]
        # In the dtype of the scores: a comparison of float32 with float64 would first convert the block.
        highest, lowest = (np.asarray(target + sign * slack[rows], dtype=block.dtype)[:, None] for sign in (1.0, -1.0))
        is_better = block > highest
        is_equal = (block >= lowest) & ~is_better
        if counts is not None:
            is_better &= counts
            is_equal &= counts
        n_better[rows], n_tied[rows] = is_better.sum(axis=1), is_equal.sum(axis=1) - 1
    return n_better, n_tied


def _refuse_nan(values: npt.NDArray[np.floating], columns: IntArray, left_out: npt.NDArray[np.bool_] | None) -> None:
    """Refuse a NaN among the scores that are not left out."""
    is_nan = np.isnan(values)
    if left_out is not None:
        is_nan &= ~left_out | (np.arange(values.shape[1]) == columns[:, None])
    if is_nan.any():
        row, column = np.argwhere(is_nan)[0]
        raise DataError(
            f"A score must be a number; {int(is_nan.sum())} are NaN, first in row {row}, candidate {column}. "
            "The model has diverged or its inputs are bad, so no rank can be computed."
        )
