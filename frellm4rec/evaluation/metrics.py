"""Ranking metrics of one relevant item per user; ties count their expected value under random order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError, ShapeError

FloatArray = npt.NDArray[np.float64]


def ndcg_at_k(
    scores: npt.ArrayLike, targets: npt.ArrayLike, k: int = 10, *, excluded: npt.ArrayLike | None = None
) -> FloatArray:
    r"""Return each user's NDCG@k.

    .. math:: \mathrm{NDCG@}k = \mathbb{E}\big[\mathbf 1[r \le k] / \log_2(r + 1)\big]

    with r the rank of the target, uniform over the places that it shares with items of equal score.

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

    Returns
    -------
    (n,) float in [0, 1]

    Raises
    ------
    DataError
        If a score that counts is NaN.
    ShapeError, ConfigError
        If shapes, target columns or ``k`` are out of range.

    Notes
    -----
    Source: FreLLM4Rec section 4.1; one relevant item, so the ideal DCG is 1.
    """
    return _expected_gain(scores, targets, k, excluded, lambda rank: 1.0 / np.log2(rank + 1.0))


def recall_at_k(
    scores: npt.ArrayLike, targets: npt.ArrayLike, k: int = 10, *, excluded: npt.ArrayLike | None = None
) -> FloatArray:
    """Return each user's chance that the target is among the first ``k``; parameters as in :func:`ndcg_at_k`."""
    return _expected_gain(scores, targets, k, excluded, np.ones_like)


def tie_rate(scores: npt.ArrayLike, targets: npt.ArrayLike, *, excluded: npt.ArrayLike | None = None) -> FloatArray:
    """Return, per user, 1 where another candidate has exactly the target's score, else 0."""
    _, n_tied = _better_and_tied(scores, targets, excluded)
    return (n_tied > 0).astype(np.float64)


def _expected_gain(
    scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    k: int,
    excluded: npt.ArrayLike | None,
    gain: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """Return the mean gain over the ranks r that ties leave open: better + 1 … better + 1 + tied."""
    n_candidates = np.shape(scores)[-1] if np.ndim(scores) else 0
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= n_candidates:
        raise ConfigError(f"k must be a whole number in 1…{n_candidates}, the number of candidates; got {k!r}.")
    n_better, n_tied = _better_and_tied(scores, targets, excluded)
    ranks = np.arange(1, n_candidates + 1, dtype=np.float64)
    summed = np.concatenate([[0.0], np.cumsum(np.where(ranks <= k, gain(ranks), 0.0))])
    return np.asarray((summed[n_better + n_tied + 1] - summed[n_better]) / (n_tied + 1))


def _better_and_tied(
    scores: npt.ArrayLike, targets: npt.ArrayLike, excluded: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how many candidates score above the target, and how many others score the same."""
    values = np.asarray(scores)
    if values.ndim != 2 or not values.size:
        raise ShapeError(f"Scores are (n, n_candidates) and not empty; got shape {values.shape}.")
    columns = np.broadcast_to(np.asarray(targets), values.shape[:1])
    if not np.issubdtype(columns.dtype, np.integer) or columns.min() < 0 or columns.max() >= values.shape[1]:
        raise ShapeError(
            f"Target columns must be whole numbers in 0…{values.shape[1] - 1}; seen {columns.min()}…{columns.max()}."
        )
    rows = np.arange(len(values))
    counts = np.ones(values.shape, dtype=bool)
    if excluded is not None:
        if np.shape(excluded) != values.shape:
            raise ShapeError(f"excluded must have the shape of scores, {values.shape}; got {np.shape(excluded)}.")
        counts = ~np.asarray(excluded, dtype=bool)
    counts[rows, columns] = True
    is_nan = np.isnan(values) & counts
    if is_nan.any():
        row, column = np.argwhere(is_nan)[0]
        raise DataError(
            f"A score must be a number; {int(is_nan.sum())} are NaN, first in row {row}, candidate {column}. "
            "The model has diverged or was given bad inputs; no rank can be taken from it."
        )
    target = values[rows, columns][:, None]
    n_better = ((values > target) & counts).sum(axis=1)
    n_tied = ((values == target) & counts).sum(axis=1) - 1
    return n_better, n_tied
