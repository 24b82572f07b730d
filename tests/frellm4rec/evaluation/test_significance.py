"""The building blocks: resampled means, p-values, Holm's correction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from frellm4rec.evaluation import holm, significance
from frellm4rec.evaluation.significance import check_resampling, resampled_means, two_sided_p
from spectral_probe.errors import ConfigError, DataError

GAINS = np.concatenate([[0.0], 1 / np.log2(np.arange(2, 12))])


def differences(rng, n_users):
    """Differences in NDCG@10 of two models that differ by chance alone."""
    a, b = rng.choice(GAINS, size=(2, n_users), p=[0.5, *[0.05] * 10])
    return a - b


def test_interval_against_scipy():
    d = differences(np.random.default_rng(3), 300) + 0.05
    low, high = np.quantile(resampled_means(d, 20_000, seed=0), [0.025, 0.975])
    theirs = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    # The ends of two independent bootstraps: each has a standard error of about 1 % of the interval's width.
    np.testing.assert_allclose([low, high], theirs, atol=0.05 * (theirs.high - theirs.low))


def test_a_slow_loop_draws_from_the_same_distribution():
    rng = np.random.default_rng(0)
    d = differences(rng, 40)
    slow = [np.mean(rng.choice(d, 40)) for _ in range(4000)]
    fast = resampled_means(d, 4000, seed=1)
    assert stats.ks_2samp(slow, fast).pvalue > 0.01
    assert np.std(fast) == pytest.approx(np.std(d) / np.sqrt(40), rel=0.05)


def test_chunks_draw_the_same(monkeypatch):
    values = np.random.default_rng(5).normal(size=30)
    whole = resampled_means(values, 300, seed=0)
    monkeypatch.setattr(significance, "CHUNK_SIZE", 1000)
    np.testing.assert_allclose(resampled_means(values, 300, seed=0), whole, rtol=1e-12)


def test_p_value_by_its_definition():
    # Three resamples at or below 0, 98 at or above it.
    assert two_sided_p(np.array([-1.0, -0.5, 0.0] + [1.0] * 97)) == pytest.approx(2 * 4 / 101)
    assert two_sided_p(np.zeros(100)) == 1.0
    assert two_sided_p(np.ones(199)) == pytest.approx(2 / 200)


@pytest.mark.parametrize("options", [{"n_bootstrap": 99, "seed": 0}, {"n_bootstrap": 100, "seed": -1}])
def test_too_few_resamples_are_refused(options):
    with pytest.raises(ConfigError, match="at least 100"):
        check_resampling(**options)


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
