"""Differences between models: one interval and one p-value for one question, over users and trainings."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from frellm4rec.evaluation.significance import check_resampling, holm, resampled_means, two_sided_p
from spectral_probe.errors import DataError, ShapeError
from spectral_probe.profiles.bootstrap import percentile_interval
from spectral_probe.storage.hashing import digest
from spectral_probe.types import FloatArray

#: With fewer trainings of a model, their spread is too uncertain, and an interval covers users alone.
MIN_SEEDS = 3
LEVEL = 0.05
#: What an interval covers: other users and trainings, or other users of the trainings at hand.
Covers = Literal["users and trainings", "users, these trainings"]
USERS_AND_TRAININGS: Covers = "users and trainings"
THESE_TRAININGS: Covers = "users, these trainings"
#: For notes below a table.
HOW = {
    USERS_AND_TRAININGS: "of users and trainings: users are resampled, and Student's t adds the spread over seeds",
    THESE_TRAININGS: "of these trainings: users are resampled, not trainings",
}
#: With fewer users an interval is not to be believed.
MIN_USERS = 20
Effect = Literal["higher", "lower", "no detectable difference", "too few users"]
TOO_FEW: Effect = "too few users"
HIGHER: Effect = "higher"
LOWER: Effect = "lower"
NO_DIFFERENCE: Effect = "no detectable difference"


@dataclass(frozen=True, eq=False)
class ModelValues:
    """Per-user values of one metric of one model, from each of its trainings.

    Attributes
    ----------
    label : str
        Name of the model in the family of a correction.
    values : (n_seeds, n_users) float
        One row per training; a model with one training may give (n_users,). Rows are sorted by seed.
    seeds : tuple of int
        Seed of each row. A seed decides the initial weights and the ID table, so equal seeds are paired.
    is_trained : bool
        False for a model without randomness: it has one row, and no other training could differ from it.
    content_hash : str
        SHA-256 of values and seeds.

    Raises
    ------
    ShapeError
        If rows and seeds do not match, or there is no user.
    DataError
        If a value is not finite, a seed occurs twice, or a model without training has several rows.
    """

    label: str
    values: FloatArray
    seeds: tuple[int, ...] = (0,)
    is_trained: bool = True
    content_hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        values = np.atleast_2d(np.asarray(self.values, dtype=np.float64))
        if values.ndim != 2 or not values.size or len(values) != len(self.seeds):
            raise ShapeError(
                f"Values must be (n_seeds, n_users) with one seed per row, and not empty; {self.label!r} has "
                f"{np.shape(self.values)} and the seeds {list(self.seeds)}. Give one row per training."
            )
        if not np.isfinite(values).all():
            raise DataError(
                f"A metric must be finite; {self.label!r} has {int((~np.isfinite(values)).sum())} values that are not. "
                "Evaluate it again."
            )
        if len(set(self.seeds)) < len(self.seeds) or (not self.is_trained and len(self.seeds) > 1):
            raise DataError(
                f"A seed counts once, and a model without training has a single result; {self.label!r} has the seeds "
                f"{list(self.seeds)}. Leave the repeated results out."
            )
        order = np.argsort(self.seeds)
        object.__setattr__(self, "values", values[order])
        object.__setattr__(self, "seeds", tuple(int(self.seeds[i]) for i in order))
        object.__setattr__(
            self, "content_hash", digest([repr((values.shape, self.seeds, self.is_trained)), self.values])
        )

    @property
    def n_seeds(self) -> int:
        """Number of trainings."""
        return len(self.seeds)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return self.values.shape[1]

    @property
    def has_known_spread(self) -> bool:
        """Whether the spread over trainings is known: at least three of them, or a model without training."""
        return not self.is_trained or self.n_seeds >= MIN_SEEDS

    @property
    def std(self) -> float:
        """Standard deviation over seeds of the mean over users (n − 1); NaN with one seed."""
        return float(self.values.mean(axis=1).std(ddof=1)) if self.n_seeds > 1 else float("nan")


@dataclass(frozen=True)
class MeanEstimate:
    """Mean over users and seeds with its 95 % interval; ``std`` is over seeds (n − 1), NaN with one seed."""

    value: float
    std: float
    low: float
    high: float
    n_users: int
    n_seeds: int
    covers: Covers


@dataclass(frozen=True)
class Contrast:
    r"""How far a model's mean over users and seeds lies above that of a reference.

    Attributes
    ----------
    difference : float
        Mean of the model minus that of the reference.
    low, high : float
        Ends of the 95 % percentile interval of the difference.
    p_value : float
        Two-sided, in (0, 1].
    p_holm : float
        After Holm's correction over ``family``; NaN for a contrast of no family.
    family : str
        Size and name of the family, such as ``3 differences of NDCG@10 from full on lastfm, 99+1``.
    covers : str
        ``users and trainings``, or ``users, these trainings`` where a model has fewer than three seeds.
    mean, reference_mean : float
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
    covers: Covers
    mean: float
    reference_mean: float
    std: float
    reference_std: float
    n_users: int
    n_seeds: int
    reference_n_seeds: int
    n_bootstrap: int
    seed: int
    p_holm: float = float("nan")
    family: str = ""

    @property
    def effect(self) -> Effect:
        """The difference in words, see :func:`effect_of`."""
        return effect_of(self.low, self.high, self.p_holm, self.n_users)

    def to_dict(self) -> dict[str, Any]:
        """Return names and values, ``effect`` among them."""
        return {**asdict(self), "effect": self.effect}


#: Contrasts by the digest of what they are computed from, for tables that are written again and again.
Memory = MutableMapping[str, Contrast]


def contrasts(
    pairs: Sequence[tuple[ModelValues, ModelValues]],
    of: str,
    *,
    n_bootstrap: int = 10_000,
    seed: int = 0,
    memory: Memory | None = None,
) -> list[Contrast]:
    r"""Return the differences of a family of pairs, with intervals, p-values and Holm's correction over the family.

    With :math:`d_u` the user's value under the model minus that under the reference, each first averaged over its
    seeds, resample b draws the users with replacement and adds a term for other trainings:

    .. math:: \bar d^*_b = \frac 1 n \sum_{u} m_{bu} d_u + \frac{s}{\sqrt S} t_b

    where :math:`m_{bu}` counts how often a user is drawn, s is the standard deviation (S − 1) of the S seeds' mean
    differences, and :math:`t_b` is drawn from Student's t with S − 1 degrees of freedom. Models with the same seeds are
    paired by seed. Otherwise each model adds a term of its own, with its own s and S. The interval runs between the
    2.5 % and 97.5 % quantiles of :math:`\bar d^*_b`, and

    .. math:: p = \min\Big(1,\; 2\,\frac{1 + \min(\#\{b: \bar d^*_b \le 0\},\; \#\{b: \bar d^*_b \ge 0\})}{B + 1}\Big)

    Parameters
    ----------
    pairs : sequence of (ModelValues, ModelValues)
        Model and reference, evaluated on the same users in the same order. All pairs are one family.
    of : str
        What the family is, without its size: ``NDCG@10 from full on lastfm, 99+1``.
    n_bootstrap : int
        Resamples B, at least 100.
    seed : int
        Of the resampling. A contrast depends neither on the order of users and seeds, nor on the other pairs; that of
        the reference from the model is the same with the other sign.
    memory : mapping, optional
        Contrasts computed before; new ones are added.

    Returns
    -------
    list of Contrast
        In the order of the pairs.

    Raises
    ------
    ShapeError
        If the users of a pair do not match.
    ConfigError
        If ``n_bootstrap`` or ``seed`` is out of range.

    Notes
    -----
    A model with fewer than three seeds has no usable spread over trainings: the term is left out, and ``covers`` says
    ``users, these trainings``. A model without training has none to add. Resampling the few seeds instead of Student's
    t gives intervals that are too narrow; `docs/calibration.md` has the coverage of both. Noise of a single training
    on a single user is counted in both terms, so that the interval is too wide rather than too narrow.
    """
    check_resampling(n_bootstrap, seed)
    computed = []
    for model, reference in pairs:
        key = digest([f"{model.content_hash} {reference.content_hash} {n_bootstrap} {seed}"])
        contrast = None if memory is None else memory.get(key)
        if contrast is None:
            contrast = _contrast(model, reference, n_bootstrap, seed)
            if memory is not None:
                memory[key] = contrast
        computed.append(contrast)
    family = f"{len(computed)} difference{'' if len(computed) == 1 else 's'} of {of}"
    p_holm = holm([contrast.p_value for contrast in computed])
    return [replace(c, p_holm=float(p), family=family) for c, p in zip(computed, p_holm, strict=True)]


def mean_estimate(
    model: ModelValues, *, n_bootstrap: int = 10_000, seed: int = 0, memory: Memory | None = None
) -> MeanEstimate:
    """Return a model's mean over users and seeds with the interval of :func:`contrasts` from a constant 0.

    The interval is cut to 0…1, where every metric lies.
    """
    zero = ModelValues("0", np.zeros(model.n_users), is_trained=False)
    c = contrasts([(model, zero)], "the mean", n_bootstrap=n_bootstrap, seed=seed, memory=memory)[0]
    low, high = (min(1.0, max(0.0, end)) for end in (c.low, c.high))
    return MeanEstimate(c.mean, c.std, low, high, c.n_users, c.n_seeds, c.covers)


def effect_of(low: float, high: float, p_holm: float, n_users: int) -> Effect:
    """Return whether a difference is detectable, and its direction.

    It is where the 95 % interval leaves out 0 and p, after Holm's correction, is at most 0.05. With fewer than 20 users
    nothing is said.
    """
    if n_users < MIN_USERS:
        return TOO_FEW
    if low <= 0.0 <= high or not p_holm <= LEVEL:
        return NO_DIFFERENCE
    return HIGHER if low > 0.0 else LOWER


def _contrast(model: ModelValues, reference: ModelValues, n_bootstrap: int, seed: int) -> Contrast:
    if model.n_users != reference.n_users:
        raise ShapeError(
            f"Both models must be evaluated on the same users; {model.label!r} has {model.n_users} and "
            f"{reference.label!r} {reference.n_users}. Evaluate them with the same candidates."
        )
    covers = USERS_AND_TRAININGS if model.has_known_spread and reference.has_known_spread else THESE_TRAININGS
    differences = model.values.mean(axis=0) - reference.values.mean(axis=0)
    first, second, sign = _oriented(model, reference, differences)
    resampled = resampled_means(sign * differences, n_bootstrap, seed)
    if covers == USERS_AND_TRAININGS:
        resampled = resampled + _training_noise(first, second, n_bootstrap, seed)
    resampled = sign * resampled
    low, high = percentile_interval(resampled)
    return Contrast(
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        p_value=two_sided_p(resampled),
        covers=covers,
        mean=float(model.values.mean()),
        reference_mean=float(reference.values.mean()),
        std=model.std,
        reference_std=reference.std,
        n_users=model.n_users,
        n_seeds=model.n_seeds,
        reference_n_seeds=reference.n_seeds,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def _oriented(
    model: ModelValues, reference: ModelValues, differences: FloatArray
) -> tuple[ModelValues, ModelValues, float]:
    """Return the two models in an order that does not depend on which is the reference, and the sign of it."""
    key, opposite = (tuple(np.sort(values.round(12))) for values in (differences, -differences))
    is_kept = (key, model.content_hash) >= (opposite, reference.content_hash)
    return (model, reference, 1.0) if is_kept else (reference, model, -1.0)


def _training_noise(model: ModelValues, reference: ModelValues, n_bootstrap: int, seed: int) -> FloatArray:
    """Return by how much other trainings would move the difference, one draw per resample."""
    of_model, of_reference = model.values.mean(axis=1), reference.values.mean(axis=1)
    is_paired = model.is_trained and reference.is_trained and model.seeds == reference.seeds
    terms = [of_model - of_reference] if is_paired else [of_model, -of_reference]
    noise = np.zeros(n_bootstrap)
    for number, means in enumerate(terms, start=1):
        n_seeds = len(means)
        if n_seeds > 1:  # a model without training has one row
            generator = np.random.default_rng([seed, number])
            noise += means.std(ddof=1) / np.sqrt(n_seeds) * generator.standard_t(n_seeds - 1, size=n_bootstrap)
    return noise
