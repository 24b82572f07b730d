"""Differences between models: what an interval covers, and that it covers it."""

import numpy as np
import pytest
from scipy import stats

from frellm4rec.evaluation import holm
from frellm4rec.evaluation.contrasts import (
    THESE_TRAININGS,
    USERS_AND_TRAININGS,
    ModelValues,
    contrasts,
    effect_of,
    mean_estimate,
)
from frellm4rec.evaluation.significance import resampled_means
from spectral_probe.errors import ConfigError, DataError, ShapeError
from spectral_probe.profiles.bootstrap import percentile_interval

GAINS = np.concatenate([[0.0], 1 / np.log2(np.arange(2, 12))])


def per_user(rng, n_users, n_seeds=1):
    """NDCG@10 of models that differ by chance alone."""
    return rng.choice(GAINS, size=(n_seeds, n_users), p=[0.5, *[0.05] * 10])


def model(values, seeds=None, **options):
    values = np.atleast_2d(values)
    return ModelValues("m", values, tuple(range(len(values))) if seeds is None else seeds, **options)


def contrast(a, b, **options):
    return contrasts([(a, b)], "x", **options)[0]


def test_one_training_each_is_a_bootstrap_over_users():
    rng = np.random.default_rng(1)
    a, b = per_user(rng, 80), per_user(rng, 80)
    result = contrast(model(a), model(b), n_bootstrap=500)
    expected = percentile_interval(resampled_means((a - b)[0], 500, seed=0))
    assert (result.low, result.high) == expected
    assert result.covers == THESE_TRAININGS
    assert np.isnan(result.std)
    assert result.difference == pytest.approx(np.mean(a - b))


def test_the_term_of_the_trainings_is_students_t():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.1, 0.05, (3, 1)) + np.zeros(50), np.zeros((3, 50))
    result = contrast(model(a), model(b), n_bootstrap=100_000)
    # All users gain the same, so that the interval is the t-interval of three numbers.
    expected = stats.t.interval(0.95, 2, loc=a[:, 0].mean(), scale=stats.sem(a[:, 0]))
    np.testing.assert_allclose([result.low, result.high], expected, rtol=0.05)
    assert result.p_value == pytest.approx(stats.ttest_1samp(a[:, 0], 0.0).pvalue, rel=0.1)
    assert (result.n_seeds, result.reference_n_seeds, result.covers) == (3, 3, USERS_AND_TRAININGS)
    assert result.std == pytest.approx(a[:, 0].std(ddof=1))


def test_equal_seeds_are_paired_and_others_are_not():
    rng = np.random.default_rng(3)
    base, by_seed = per_user(rng, 200), np.array([[-0.1], [0.0], [0.1]])
    a, b = base + by_seed + 0.02, base + by_seed
    paired = contrast(model(a), model(b), n_bootstrap=500)
    # The seed moves both models alike, and every user gains the same.
    assert (paired.low, paired.high) == pytest.approx((0.02, 0.02))
    apart = contrast(model(a), model(b, (7, 8, 9)), n_bootstrap=500)
    assert apart.high - apart.low > 0.3
    more = contrast(model(a), model(np.vstack([b, b[:1]])), n_bootstrap=500)
    assert more.high - more.low > 0.2


def test_a_model_without_training_adds_no_noise_and_does_not_limit_the_other():
    rng = np.random.default_rng(4)
    a, popular = per_user(rng, 100, 3) + np.array([[0.0], [0.1], [0.2]]), per_user(rng, 100)
    result = contrast(model(a), model(popular, is_trained=False), n_bootstrap=500)
    assert result.covers == USERS_AND_TRAININGS
    assert result.high - result.low > 0.2
    assert contrast(model(a), model(popular), n_bootstrap=500).covers == THESE_TRAININGS
    both = contrast(model(popular, is_trained=False), model(popular + 0.1, is_trained=False), n_bootstrap=500)
    assert both.covers == USERS_AND_TRAININGS
    assert (both.low, both.high) == pytest.approx((-0.1, -0.1))


@pytest.mark.parametrize("n_seeds", [1, 2, 3])
def test_equal_models_differ_by_nothing(n_seeds):
    values = per_user(np.random.default_rng(5), 50, n_seeds)
    result = contrast(model(values), model(values), n_bootstrap=100)
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert result.effect == "no detectable difference"


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4, 5, 6)])
def test_neither_users_nor_runs_have_an_order(seeds):
    rng = np.random.default_rng(6)
    a, b = per_user(rng, 60, 3), per_user(rng, 60, 3)
    result = contrast(model(a), model(b, seeds), n_bootstrap=300, seed=7)
    users, runs = rng.permutation(60), [2, 0, 1]
    turned = contrast(model(a[:, users]), model(b[:, users], seeds), n_bootstrap=300, seed=7)
    assert turned.p_value == result.p_value
    assert (turned.low, turned.high) == pytest.approx((result.low, result.high))
    shuffled = contrast(model(a[runs], tuple(runs)), model(b[runs], tuple(seeds[i] for i in runs)), n_bootstrap=300)
    assert shuffled == contrast(model(a), model(b, seeds), n_bootstrap=300)
    assert contrast(model(b, seeds), model(a)).difference == pytest.approx(-result.difference)
    assert contrast(model(a), model(b, seeds), n_bootstrap=300, seed=8).low != result.low


def test_the_family_is_named_and_corrected():
    rng = np.random.default_rng(7)
    reference = model(per_user(rng, 90, 3))
    pairs = [(model(per_user(rng, 90, 3) + shift), reference) for shift in (0.0, 0.05, 0.4)]
    results = contrasts(pairs, "NDCG@10 from full on lastfm, 99+1", n_bootstrap=500)
    assert {c.family for c in results} == {"3 differences of NDCG@10 from full on lastfm, 99+1"}
    np.testing.assert_allclose([c.p_holm for c in results], holm([c.p_value for c in results]))
    alone = contrasts(pairs[2:], "NDCG@10", n_bootstrap=500)[0]
    assert alone.family == "1 difference of NDCG@10"
    assert (alone.low, alone.p_value, alone.p_holm) == (results[2].low, results[2].p_value, results[2].p_value)
    assert contrasts([], "nothing") == []


def test_what_was_computed_is_remembered(monkeypatch):
    rng = np.random.default_rng(8)
    a, b, memory = model(per_user(rng, 40, 3)), model(per_user(rng, 40, 3)), {}
    first = contrast(a, b, n_bootstrap=200, memory=memory)
    other = contrast(a, model(b.values, (3, 4, 5)), n_bootstrap=200, memory=memory)
    assert len(memory) == 2
    assert other.low != first.low
    monkeypatch.setattr("frellm4rec.evaluation.contrasts._contrast", None)
    assert contrast(a, b, n_bootstrap=200, memory=memory) == first


def test_the_mean_has_the_same_interval():
    rng = np.random.default_rng(9)
    values = per_user(rng, 120, 3)
    mean = mean_estimate(model(values), n_bootstrap=500)
    zero = contrast(model(values), model(np.zeros(120), is_trained=False), n_bootstrap=500)
    assert (mean.value, mean.low, mean.high) == (values.mean(), zero.low, zero.high)
    assert (mean.n_seeds, mean.n_users, mean.covers) == (3, 120, USERS_AND_TRAININGS)
    assert mean_estimate(model(values[:2]), n_bootstrap=500).covers == THESE_TRAININGS


@pytest.mark.parametrize(
    ("low", "high", "p_holm", "effect"),
    [
        (0.01, 0.02, 0.05, "higher"),
        (-0.02, -0.01, 0.01, "lower"),
        (0.01, 0.02, 0.051, "no detectable difference"),
        (0.0, 0.02, 0.01, "no detectable difference"),
        (0.01, 0.02, float("nan"), "no detectable difference"),
    ],
)
def test_the_effect_in_words(low, high, p_holm, effect):
    assert effect_of(low, high, p_holm, n_users=20) == effect
    assert effect_of(low, high, p_holm, n_users=19) == "too few users"


def test_p_values_are_uniform_where_models_do_not_differ_and_small_where_they_do():
    rng = np.random.default_rng(6)
    null, shifted = [], []
    for _ in range(400):
        a, b = per_user(rng, 250), per_user(rng, 250)
        null.append(contrast(model(a), model(b), n_bootstrap=400).p_value)
        shifted.append(contrast(model(a + 0.1), model(b), n_bootstrap=400).p_value)
    assert stats.kstest(null, "uniform").pvalue > 0.01
    # 400 binomial draws at 5 %: 2.9 standard deviations on either side.
    assert 0.018 < np.mean(np.array(null) < 0.05) < 0.082
    # Difference of 0.1 at a standard error of 0.026: power 0.97 by the normal approximation.
    assert np.mean(np.array(shifted) < 0.05) > 0.9


@pytest.mark.parametrize("is_paired", [True, False])
@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("ratio", [0, 1, 4])
def test_the_interval_covers_the_true_difference(ratio, n_seeds, is_paired):
    """Spread over seeds of none, once and four times the standard error over users; the true difference is 0."""
    rng = np.random.default_rng([ratio, n_seeds, is_paired])
    n_users, n_worlds = 40, 300
    covered, users_only = 0, 0
    for _ in range(n_worlds):
        users, noise = rng.normal(0, 0.3, n_users), rng.normal(0, 0.2, (2, n_seeds, n_users))
        standard_error = np.sqrt((0.3**2 + 2 * 0.2**2 / n_seeds) / n_users)
        by_seed = rng.normal(0, ratio * standard_error * np.sqrt(n_seeds / 2), (2, n_seeds, 1))
        a, b = users + noise[0] + by_seed[0], noise[1] + by_seed[1]
        seeds = tuple(range(n_seeds)) if is_paired else tuple(range(n_seeds, 2 * n_seeds))
        result = contrast(model(a), model(b, seeds), n_bootstrap=200)
        covered += result.low <= 0 <= result.high
        low, high = percentile_interval(resampled_means(a.mean(axis=0) - b.mean(axis=0), 200, seed=0))
        users_only += bool(low <= 0 <= high)
    print(f"ours {covered / n_worlds:.3f}, users alone {users_only / n_worlds:.3f}")
    assert covered / n_worlds >= 0.93
    if ratio == 4:
        assert users_only / n_worlds < 0.6


@pytest.mark.parametrize(
    ("values", "seeds", "options", "error"),
    [
        ([], (0,), {}, ShapeError),
        (np.zeros((2, 2, 2)), (0, 1), {}, ShapeError),
        (np.zeros((2, 3)), (0,), {}, ShapeError),
        ([0.1, np.nan], (0,), {}, DataError),
        ([0.1, np.inf], (0,), {}, DataError),
        (np.zeros((2, 3)), (1, 1), {}, DataError),
        (np.zeros((2, 3)), (0, 1), {"is_trained": False}, DataError),
    ],
)
def test_values_that_cannot_be_compared_are_refused(values, seeds, options, error):
    with pytest.raises(error):
        ModelValues("m", values, seeds, **options)


def test_other_users_and_too_few_resamples_are_refused():
    with pytest.raises(ShapeError, match="same users"):
        contrast(model([0.1, 0.2]), model([0.1]))
    with pytest.raises(ConfigError, match="at least 100"):
        contrast(model([0.1]), model([0.1]), n_bootstrap=99)


@pytest.mark.parametrize(("n_a", "n_b", "is_trained"), [(3, 3, True), (3, 5, True), (1, 1, True), (3, 1, False)])
def test_which_of_the_two_is_the_reference_does_not_matter(n_a, n_b, is_trained):
    rng = np.random.default_rng(n_a + n_b)
    for world in range(5):
        a = ModelValues("a", rng.random((n_a, 40)).round(2), tuple(range(n_a)))
        b = ModelValues("b", rng.random((n_b, 40)).round(2) + 0.02 * world, tuple(range(n_b)), is_trained=is_trained)
        (forth,), (back,) = contrasts([(a, b)], "x"), contrasts([(b, a)], "x")
        assert (back.p_value, back.p_holm, back.covers) == (forth.p_value, forth.p_holm, forth.covers)
        assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))
        assert {forth.effect, back.effect} in ({"higher", "lower"}, {"no detectable difference"})


def test_few_users_show_nothing():
    a, b = (ModelValues(name, np.full((3, 19), value), (0, 1, 2)) for name, value in (("a", 0.5), ("b", 0.2)))
    (contrast,) = contrasts([(a, b)], "x")
    assert (contrast.low, contrast.effect) == (pytest.approx(0.3), "too few users")
    more = [ModelValues(m.label, np.hstack([m.values, m.values]), m.seeds) for m in (a, b)]
    assert contrasts([tuple(more)], "x")[0].effect == "higher"


def test_the_interval_of_a_mean_stays_where_metrics_are():
    rng = np.random.default_rng(0)
    values = (rng.random((3, 30)) < np.array([[0.02], [0.2], [0.05]])).astype(float)
    estimate = mean_estimate(ModelValues("a", values, (0, 1, 2)))
    assert estimate.low == 0.0
    assert 0.0 < estimate.value < estimate.high <= 1.0
