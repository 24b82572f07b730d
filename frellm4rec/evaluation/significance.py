"""Tests whether one model is better than another: paired bootstrap over users, and Holm's correction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError, ShapeError
from spectral_probe.profiles.bootstrap import percentile_interval
from spectral_probe.types import FloatArray

#: With fewer resamples the ends of a 95 % interval are unreliable.
MIN_RESAMPLES = 100
#: Counts drawn at a time, so that many users do not fill the memory.
CHUNK_SIZE = 10_000_000


@dataclass(frozen=True)
class PairedDifference:
    r"""How far a model's mean over users lies above a reference's.

    Attributes
    ----------
    difference : float
        Mean over users of the model's value minus the reference's.
    low, high : float
        Ends of the 95 % percentile interval of the difference.
    p_value : float
        Two-sided, in (0, 1], see :func:`paired_bootstrap`.
    mean, reference_mean : float
        Mean over users and seeds of each.
    std, reference_std : float
        Standard deviation over seeds of the mean over users (n − 1); NaN with one seed.
    n_users, n_seeds, reference_n_seeds : int
    n_bootstrap, seed : int
        Of the resampling.
    """

    difference: float
    low: float
    high: float
    p_value: float
    mean: float
    reference_mean: float
    std: float
    reference_std: float
    n_users: int
    n_seeds: int
    reference_n_seeds: int
    n_bootstrap: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return names and values."""
        return asdict(self)


def paired_bootstrap(
    values: npt.ArrayLike, reference: npt.ArrayLike, *, n_bootstrap: int = 10_000, seed: int = 0
) -> PairedDifference:
    r"""Return the mean difference between two models on the same users, with interval and p-value.

    With :math:`d_u` the user's value under the model minus that under the reference, each first averaged over its
    seeds, resample b draws n users with replacement and has the mean difference :math:`\bar d^*_b`. The interval runs
    between the 2.5 % and 97.5 % quantiles of the :math:`\bar d^*_b`, and

    .. math:: p = \min\Big(1,\; 2\,\frac{1 + \min(\#\{b: \bar d^*_b \le 0\},\; \#\{b: \bar d^*_b \ge 0\})}{B + 1}\Big)

    so p < 0.05 means, up to the 1 that is added, that the interval excludes 0. The smallest p is 2 / (B + 1).

    Parameters
    ----------
    values, reference : (n_users,) or (n_seeds, n_users) float
        Per-user metric of the model and of the reference; the same users in the same order. The numbers of seeds may
        differ.
    n_bootstrap : int
        Resamples B, at least 100.
    seed : int
        Of the resampling. The result does not depend on the order of the users.

    Returns
    -------
    PairedDifference

    Raises
    ------
    ShapeError
        If the users of the two do not match.
    DataError
        If a value is not finite.
    ConfigError
        If ``n_bootstrap`` or ``seed`` is out of range.

    Notes
    -----
    Users are resampled: the interval covers the variation between users, not between seeds, which ``std`` gives. Users
    with the same difference are drawn together as a count. The distribution is the same, and this is far faster,
    because NDCG@k of one relevant item takes few values.
    """
    if n_bootstrap < MIN_RESAMPLES or seed < 0:
        raise ConfigError(
            f"n_bootstrap must be at least {MIN_RESAMPLES} for a 95 % interval and seed at least 0; got "
            f"n_bootstrap={n_bootstrap}, seed={seed}."
        )
    of_model, of_reference = _seeds_by_users(values, "values"), _seeds_by_users(reference, "reference")
    if of_model.shape[1] != of_reference.shape[1]:
        raise ShapeError(
            f"Both models must be evaluated on the same users; got {of_model.shape[1]} and {of_reference.shape[1]}. "
            "Evaluate them with the same candidates."
        )
    differences = of_model.mean(axis=0) - of_reference.mean(axis=0)
    means = _resampled_means(differences, n_bootstrap, seed)
    low, high = percentile_interval(means)
    n_at_most, n_at_least = int((means <= 0).sum()), int((means >= 0).sum())
    return PairedDifference(
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2.0 * (1 + min(n_at_most, n_at_least)) / (n_bootstrap + 1)),
        mean=float(of_model.mean()),
        reference_mean=float(of_reference.mean()),
        std=_std_over_seeds(of_model),
        reference_std=_std_over_seeds(of_reference),
        n_users=len(differences),
        n_seeds=len(of_model),
        reference_n_seeds=len(of_reference),
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


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


def _seeds_by_users(values: npt.ArrayLike, name: str) -> FloatArray:
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if array.ndim != 2 or not array.size:
        raise ShapeError(f"{name} must be (n_users,) or (n_seeds, n_users) and not empty; got {np.shape(values)}.")
    if not np.isfinite(array).all():
        raise DataError(f"A metric must be finite; {name} has {int((~np.isfinite(array)).sum())} entries that are not.")
    return array


def _std_over_seeds(values: FloatArray) -> float:
    return float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else float("nan")


def _resampled_means(differences: FloatArray, n_bootstrap: int, seed: int) -> FloatArray:
    """Return the mean of every resample, (n_bootstrap,)."""
    # Without rounding, equal values such as 0.3 − 0.1 and 0.2 would differ.
    distinct, counts = np.unique(differences.round(12), return_counts=True)
    n = len(differences)
    generator = np.random.default_rng(seed)
    means = np.empty(n_bootstrap)
    chunk = max(1, CHUNK_SIZE // len(distinct))
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        means[start : start + size] = generator.multinomial(n, counts / n, size=size) @ distinct / n
    return means
