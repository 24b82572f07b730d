"""Paired percentile bootstrap over users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectral_probe.errors import ConfigError
from spectral_probe.types import FloatArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_over_users(values: FloatArray) -> FloatArray:
    """Return the mean over the first axis without NaN entries; NaN if all entries are NaN."""
    present = ~np.isnan(values)
    counts = present.sum(axis=0)
    sums = np.where(present, values, 0.0).sum(axis=0)
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0))


def resampled_means(values: FloatArray, *, n_bootstrap: int, seed: int) -> FloatArray:
    """Return the mean over users of every resample, (n_bootstrap, …), from values (n_users, …).

    The drawn users depend on the seed and ``n_users`` only, so quantities resampled with one seed stay paired. A NaN
    removes the user from that entry only.

    Raises
    ------
    ConfigError
        If ``n_bootstrap`` is less than 100.
    """
    if n_bootstrap < 100:
        raise ConfigError(f"n_bootstrap must be at least 100 for a 95 % interval; got {n_bootstrap}.")
    n = len(values)
    flat = values.reshape(n, -1)
    present = ~np.isnan(flat)
    known = np.where(present, flat, 0.0)
    is_complete = bool(present.all())
    generator = np.random.default_rng(seed)
    means = np.empty((n_bootstrap, flat.shape[1]))
    # In chunks: the counts of 300,000 users for all resamples at once would not fit in memory.
    chunk = max(1, min(n_bootstrap, 20_000_000 // n))
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        counts = generator.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float64)
        denominator = np.full((size, 1), float(n)) if is_complete else counts @ present.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[start : start + size] = (counts @ known) / denominator
    return means.reshape(n_bootstrap, *values.shape[1:])


def weighted_resampled_means(values: FloatArray, weights: FloatArray, *, n_bootstrap: int, seed: int) -> FloatArray:
    r"""Return :math:`\sum m w x / \sum m w` of every resample, (n_bootstrap, …), with m the times a user is drawn.

    Parameters
    ----------
    values : (n_users, …)
        Without NaN.
    weights : (n_users,)
    n_bootstrap, seed : int
        As in :func:`resampled_means`: the same users are drawn.
    """
    axes = (slice(None), *[None] * (values.ndim - 1))
    products = np.concatenate([(weights[axes] * values).reshape(len(values), -1), weights[:, None]], axis=1)
    means = resampled_means(products, n_bootstrap=n_bootstrap, seed=seed)
    return np.asarray(means[:, :-1] / means[:, -1:]).reshape(n_bootstrap, *values.shape[1:])


def percentile_interval(resampled: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the lower and upper end of the 95 % percentile interval over the first axis."""
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
