"""Building blocks of tests between models: resampled means over users, p-values, and Holm's correction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.types import FloatArray

#: With fewer resamples the ends of a 95 % interval are unreliable.
MIN_RESAMPLES = 100
#: Counts drawn at a time, so that many users do not fill the memory.
CHUNK_SIZE = 10_000_000


def check_resampling(n_bootstrap: int, seed: int) -> None:
    """Refuse too few resamples and a negative seed.

    Raises
    ------
    ConfigError
        If ``n_bootstrap`` is below 100 or ``seed`` below 0.
    """
    if n_bootstrap < MIN_RESAMPLES or seed < 0:
        raise ConfigError(
            f"n_bootstrap must be at least {MIN_RESAMPLES} for a 95 % interval and seed at least 0; got "
            f"n_bootstrap={n_bootstrap}, seed={seed}."
        )


def resampled_means(values: FloatArray, n_bootstrap: int, seed: int) -> FloatArray:
    """Return the mean over users of every resample with replacement, (n_bootstrap,), from values (n_users,).

    Users with the same value are drawn together as a count. The distribution is the same, and this is far faster where
    a metric takes few values. The result does not depend on the order of the users.
    """
    # Without rounding, equal values such as 0.3 − 0.1 and 0.2 would differ.
    distinct, counts = np.unique(values.round(12), return_counts=True)
    n = len(values)
    generator = np.random.default_rng(seed)
    means = np.empty(n_bootstrap)
    chunk = max(1, CHUNK_SIZE // len(distinct))
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        means[start : start + size] = generator.multinomial(n, counts / n, size=size) @ distinct / n
    return means


def two_sided_p(resampled: FloatArray) -> float:
    r"""Return the two-sided p-value of a mean of 0 from its B resamples; at least 2 / (B + 1), at most 1.

    .. math:: p = \min\Big(1,\; 2\,\frac{1 + \min(\#\{b: \bar d^*_b \le 0\},\; \#\{b: \bar d^*_b \ge 0\})}{B + 1}\Big)

    so p < 0.05 means, up to the 1 that is added, that the 95 % percentile interval excludes 0.
    """
    n_at_most, n_at_least = int((resampled <= 0).sum()), int((resampled >= 0).sum())
    return min(1.0, 2.0 * (1 + min(n_at_most, n_at_least)) / (len(resampled) + 1))


def holm(p_values: npt.ArrayLike) -> FloatArray:
    r"""Return Holm's adjusted p-values: rejecting those at or below a level keeps the family-wise error at that level.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min\big(1,\; (m - j + 1)\, p_{(j)}\big)

    over the m sorted p-values of the family; valid however the tests depend on each other.

    Parameters
    ----------
    p_values : (m,) float in [0, 1]

    Returns
    -------
    (m,) float
        In the order given, in [0, 1]; a larger p-value never has a smaller adjusted one.

    Raises
    ------
    DataError
        If a p-value is not a number in [0, 1].

    Notes
    -----
    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"Holm's correction takes a list of p-values in [0, 1]; got {p.tolist()}.")
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return adjusted
