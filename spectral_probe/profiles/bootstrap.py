"""Paired percentile bootstrap over users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from spectral_probe.errors import ConfigError
from spectral_probe.profiles.numbers import fixed, interval
from spectral_probe.types import FloatArray

CONFIDENCE = 0.95
#: A mean excess this close to 0 is rounding: shares of energy are at most 1, and their sums are exact to about 1e-13.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{fixed(self.value, 3)} {interval(self.low, self.high, 3)}"


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
    means = np.empty((n_bootstrap, flat.shape[1]))
    start = 0
    for counts in _resample_counts(n, n_bootstrap, seed):
        end = start + len(counts)
        denominator = np.full((len(counts), 1), float(n)) if is_complete else counts @ present.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[start:end] = (counts @ known) / denominator
        start = end
    return means.reshape(n_bootstrap, *values.shape[1:])


def _resample_counts(n: int, n_bootstrap: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each user is drawn, (size, n), for all resamples in order."""
    # In chunks: the counts of 300,000 users for all resamples at once would not fit in memory.
    chunk = max(1, min(n_bootstrap, 20_000_000 // n))
    if chunk == n_bootstrap:
        yield _counts_at_once(n, n_bootstrap, seed)
        return
    generator = np.random.default_rng(seed)
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        yield generator.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float64)


@lru_cache(maxsize=2)
def _counts_at_once(n: int, n_bootstrap: int, seed: int) -> FloatArray:
    # Kept: every curve of an analysis is resampled with the same users.
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=n_bootstrap).astype(np.float64)


@dataclass(frozen=True, eq=False)
class WeightedMeans:
    r"""Weighted means over users, with their resamples.

    Attributes
    ----------
    mean : (…)
        :math:`\sum w x / \sum w`.
    resampled : (n_bootstrap, …)
        :math:`\sum m w x / \sum m w`, with m the times a user is drawn.
    """

    mean: FloatArray
    resampled: FloatArray

    @classmethod
    def of(cls, values: FloatArray, weights: FloatArray, *, n_bootstrap: int, seed: int) -> WeightedMeans:
        """Return the means of values (n_users, …) with weights (n_users,).

        A user with a NaN anywhere has weight 0. The draws depend on the seed and the number of users only, so
        quantities of one probe stay paired.
        """
        n = len(values)
        flat = values.reshape(n, -1)
        w = np.where(np.isfinite(flat).all(axis=1), weights, 0.0)
        known = np.where(w[:, None] > 0, flat, 0.0)
        sums = resampled_means(
            np.concatenate([w[:, None] * known, w[:, None]], axis=1), n_bootstrap=n_bootstrap, seed=seed
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (w @ known) / w.sum()
            resampled = sums[:, :-1] / sums[:, -1:]
        return cls(mean.reshape(values.shape[1:]), resampled.reshape(n_bootstrap, *values.shape[1:]))

    @property
    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper end of the 95 % percentile interval, each (…)."""
        return percentile_interval(self.resampled)

    def ratio_to(self, other: WeightedMeans) -> WeightedMeans:
        """Return the ratio of two means that broadcast, resample by resample; NaN where ``other`` is 0 to rounding."""
        whole, parts = (np.where(np.abs(values) > ROUNDING, values, np.nan) for values in (other.mean, other.resampled))
        # A ratio without a denominator has no interval either.
        parts = np.where(np.isnan(whole), np.nan, parts)
        return WeightedMeans(self.mean / whole, self.resampled / parts)

    def __getitem__(self, index: Any) -> WeightedMeans:
        return WeightedMeans(self.mean[index], self.resampled[(slice(None), *np.atleast_1d(index))])

    def to_interval(self) -> Interval:
        """Return a single mean as an :class:`Interval`."""
        low, high = self.interval
        return Interval(float(self.mean), float(low), float(high))


def effective_number(weights: FloatArray) -> float:
    r"""Return the effective number of users, :math:`(\sum w)^2 / \sum w^2`; 0 without weights."""
    squares = float(np.square(weights).sum())
    return float(weights.sum() ** 2 / squares) if squares else 0.0


def percentile_interval(resampled: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the lower and upper end of the 95 % percentile interval over the first axis."""
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
