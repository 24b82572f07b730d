import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from frellm4rec.evaluation import holm, paired_bootstrap, significance
from spectral_probe.errors import ConfigError, DataError, ShapeError

GAINS = np.concatenate([[0.0], 1 / np.log2(np.arange(2, 12))])


def per_user(rng, n_users, n_seeds=1):
    """NDCG@10 of models that differ by chance alone."""
    return rng.choice(GAINS, size=(n_seeds, n_users), p=[0.5, *[0.05] * 10])


def test_interval_and_mean_against_scipy():
    rng = np.random.default_rng(3)
    a, b = per_user(rng, 300)[0] + 0.05, per_user(rng, 300)[0]
    result = paired_bootstrap(a, b, n_bootstrap=20_000)
    theirs = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert result.difference == pytest.approx(np.mean(a - b))
    # The ends of two independent bootstraps: each has a standard error of about 1 % of the interval's width.
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    np.testing.assert_allclose([result.low, result.high], theirs.confidence_interval, atol=0.05 * width)


def test_p_value_by_its_definition(monkeypatch):
    monkeypatch.setattr(significance, "_resampled_means", lambda *_: np.array([-1.0, -0.5, 0.0] + [1.0] * 97))
    # Three resamples at or below 0, 98 at or above it.
    assert paired_bootstrap([1.0], [0.0], n_bootstrap=100).p_value == pytest.approx(2 * 4 / 101)


def test_a_slow_loop_draws_from_the_same_distribution():
    rng = np.random.default_rng(0)
    a, b = per_user(rng, 40)[0], per_user(rng, 40)[0]
    slow = [np.mean(rng.choice(a - b, 40)) for _ in range(4000)]
    fast = significance._resampled_means(a - b, 4000, seed=1)
    assert stats.ks_2samp(slow, fast).pvalue > 0.01
    assert np.std(fast) == pytest.approx(np.std(a - b) / np.sqrt(40), rel=0.05)


def test_seeds_are_averaged_before_users_are_drawn():
    rng = np.random.default_rng(1)
    a, b = per_user(rng, 80, 3), per_user(rng, 80, 2)
    result = paired_bootstrap(a, b, n_bootstrap=500)
    same = paired_bootstrap(a.mean(axis=0), b.mean(axis=0), n_bootstrap=500)
    assert (result.low, result.high, result.p_value) == (same.low, same.high, same.p_value)
    assert (result.n_users, result.n_seeds, result.reference_n_seeds) == (80, 3, 2)
    assert result.std == pytest.approx(np.std(a.mean(axis=1), ddof=1))
    assert result.mean == pytest.approx(a.mean())
    assert np.isnan(same.std)
    # More seeds of the same model do not make more users.
    assert paired_bootstrap(np.tile(a, (10, 1)), b, n_bootstrap=500).low == pytest.approx(result.low)


def test_pairs_are_kept():
    rng = np.random.default_rng(2)
    b = per_user(rng, 200)[0]
    result = paired_bootstrap(b + 0.001, b, n_bootstrap=200)
    # Every user gains the same: no resample differs, however much users differ among themselves.
    assert (result.low, result.high) == pytest.approx((0.001, 0.001))
    assert result.p_value == pytest.approx(2 / 201)


def test_equal_models_differ_by_nothing():
    values = per_user(np.random.default_rng(4), 50)
    result = paired_bootstrap(values, values, n_bootstrap=100)
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_seed_order_of_users_and_chunks():
    rng = np.random.default_rng(5)
    a, b = per_user(rng, 60)[0], per_user(rng, 60)[0]
    result = paired_bootstrap(a, b, n_bootstrap=300, seed=7)
    order = rng.permutation(60)
    turned = paired_bootstrap(a[order], b[order], n_bootstrap=300, seed=7)
    assert turned.p_value == result.p_value
    assert (turned.low, turned.high) == pytest.approx((result.low, result.high))
    swapped = paired_bootstrap(b, a, n_bootstrap=300, seed=7)
    assert swapped.difference == pytest.approx(-result.difference)
    assert paired_bootstrap(a, b, n_bootstrap=300, seed=8).low != result.low


def test_chunks_draw_the_same(monkeypatch):
    values = np.random.default_rng(5).normal(size=30)
    whole = paired_bootstrap(values, np.zeros(30), n_bootstrap=300)
    monkeypatch.setattr(significance, "CHUNK_SIZE", 1000)
    chunked = paired_bootstrap(values, np.zeros(30), n_bootstrap=300)
    assert (chunked.low, chunked.high, chunked.p_value) == (whole.low, whole.high, whole.p_value)


def test_p_values_are_uniform_where_models_do_not_differ_and_small_where_they_do():
    rng = np.random.default_rng(6)
    null, shifted = [], []
    for _ in range(400):
        a, b = per_user(rng, 250)[0], per_user(rng, 250)[0]
        null.append(paired_bootstrap(a, b, n_bootstrap=400).p_value)
        shifted.append(paired_bootstrap(a + 0.1, b, n_bootstrap=400).p_value)
    assert stats.kstest(null, "uniform").pvalue > 0.01
    # 400 binomial draws at 5 %: 2.9 standard deviations on either side.
    assert 0.018 < np.mean(np.array(null) < 0.05) < 0.082
    # Difference of 0.1 at a standard error of 0.026: power 0.97 by the normal approximation.
    assert np.mean(np.array(shifted) < 0.05) > 0.9


@pytest.mark.parametrize(
    ("values", "reference", "options", "error"),
    [
        ([0.1, 0.2], [0.1], {}, ShapeError),
        ([], [], {}, ShapeError),
        (np.zeros((2, 2, 2)), [0.1, 0.2], {}, ShapeError),
        ([0.1, np.nan], [0.1, 0.2], {}, DataError),
        ([0.1], [np.inf], {}, DataError),
        ([0.1], [0.2], {"n_bootstrap": 99}, ConfigError),
        ([0.1], [0.2], {"seed": -1}, ConfigError),
    ],
)
def test_refuses(values, reference, options, error):
    with pytest.raises(error):
        paired_bootstrap(values, reference, **options)


def test_holm_hand_worked():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 → the last may not fall: 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.2]), [0.2])
    assert holm([]).shape == (0,)


def step_down(p_values, level):
    """Holm's procedure as it is told: test the smallest at level/m, go on to the next at level/(m − 1), …, stop."""
    rejected = [False] * len(p_values)
    left = list(range(len(p_values)))
    while left:
        smallest = min(left, key=lambda i: p_values[i])
        if p_values[smallest] * len(left) > level:
            break
        rejected[smallest] = True
        left.remove(smallest)
    return rejected


@given(
    st.lists(st.sampled_from([0.001, 0.004, 0.01, 0.02, 0.03, 0.3, 1.0]) | st.floats(0, 1), min_size=1, max_size=7),
    st.floats(0.001, 0.999),
)
def test_holm_rejects_as_the_step_down_procedure(p_values, level):
    adjusted = holm(p_values)
    assert (adjusted <= level).tolist() == step_down(p_values, level)
    assert ((adjusted >= p_values) & (adjusted <= 1)).all()
    order = np.argsort(p_values)
    assert (np.diff(adjusted[order]) >= 0).all()
    np.testing.assert_array_equal(holm(p_values[::-1]), adjusted[::-1])


@pytest.mark.parametrize("p_values", [[0.1, np.nan], [-0.1], [1.1], [[0.1]]])
def test_holm_refuses(p_values):
    with pytest.raises(DataError, match=r"p-values in \[0, 1\]"):
        holm(p_values)
