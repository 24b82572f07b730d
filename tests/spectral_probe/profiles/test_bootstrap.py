"""The paired percentile bootstrap: what it resamples, what it does with NaN, and that its intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from spectral_probe.errors import ConfigError
from spectral_probe.profiles.bootstrap import (
    Interval,
    WeightedMeans,
    effective_number,
    mean_over_users,
    percentile_interval,
    resampled_means,
)

NAN = np.nan


def data(n: int = 30, columns: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, columns)) + 1


def test_the_same_seed_gives_the_same_resamples_and_another_seed_others():
    values = data()
    first, again, other = (resampled_means(values, n_bootstrap=200, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0


def test_quantities_resampled_apart_are_paired_user_by_user():
    x, y = data(seed=0), data(seed=1)[:, :2]
    options = {"n_bootstrap": 150, "seed": 3}
    apart = [resampled_means(part, **options) for part in (x, y)]
    together = resampled_means(np.concatenate([x, y], axis=1), **options)
    np.testing.assert_allclose(np.concatenate(apart, axis=1), together, rtol=1e-12)
    np.testing.assert_allclose(resampled_means(3 * x[:, :2] - y, **options), 3 * apart[0][:, :2] - apart[1], rtol=1e-9)


def test_every_resample_is_a_mean_of_n_users_drawn_with_replacement():
    """With values 1, 100, 10⁴ … in base 100 the mean spells out how often each user was drawn."""
    n = 6
    values = np.array([[100.0**j] for j in range(n)])
    totals = np.rint(resampled_means(values, n_bootstrap=400, seed=0)[:, 0] * n).astype(int)
    counts = np.array([[total // 100**j % 100 for j in range(n)] for total in totals])
    assert (counts.sum(axis=1) == n).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.2)
    # Drawn with replacement each count is binomial(n, 1/n), with variance 1 − 1/n.
    np.testing.assert_allclose(counts.var(axis=0), 1 - 1 / n, atol=0.25)


def test_a_longer_run_begins_with_the_shorter_one():
    values = data()
    short, long = (resampled_means(values, n_bootstrap=b, seed=0) for b in (100, 400))
    np.testing.assert_array_equal(long[:100], short)


def test_resamples_of_more_users_than_fit_in_memory_at_once_are_all_there():
    n = 200_000  # 100 resamples at once
    values = np.random.default_rng(0).normal(size=n)
    resampled = resampled_means(values, n_bootstrap=103, seed=0)
    assert resampled.std() == pytest.approx(values.std() / np.sqrt(n), rel=0.25)
    assert np.abs(resampled - values.mean()).max() < 5 * values.std() / np.sqrt(n)
    assert len(set(resampled)) == 103


def test_a_nan_leaves_its_user_out_of_that_entry_alone():
    values = data()
    with_gap = values.copy()
    with_gap[[3, 8], 1] = NAN
    whole, gap = (resampled_means(v, n_bootstrap=300, seed=5) for v in (values, with_gap))
    np.testing.assert_allclose(gap[:, [0, 2]], whole[:, [0, 2]], rtol=1e-12)
    # Mean over the present = (sum with the absent as 0) / (share of draws that were present), paired.
    filled = np.where(np.isnan(with_gap[:, 1]), 0.0, with_gap[:, 1])
    parts = resampled_means(np.stack([filled, ~np.isnan(with_gap[:, 1])], axis=1), n_bootstrap=300, seed=5)
    np.testing.assert_allclose(gap[:, 1], parts[:, 0] / parts[:, 1], rtol=1e-10)


def test_an_entry_without_any_user_is_nan_and_does_not_spoil_the_others():
    values = data()
    values[:, 1] = NAN
    resampled = resampled_means(values, n_bootstrap=100, seed=0)
    assert np.isnan(resampled[:, 1]).all()
    assert np.isfinite(resampled[:, [0, 2]]).all()
    low, high = percentile_interval(resampled)
    assert np.isnan([low[1], high[1]]).all()
    assert np.isfinite(low[[0, 2]]).all()


def test_higher_axes_keep_their_shape():
    values = np.random.default_rng(0).normal(size=(20, 2, 3, 4))
    resampled = resampled_means(values, n_bootstrap=100, seed=0)
    assert resampled.shape == (100, 2, 3, 4)
    alone = resampled_means(values[:, 1, 2, 3], n_bootstrap=100, seed=0)
    np.testing.assert_allclose(resampled[:, 1, 2, 3], alone, rtol=1e-12)


def test_the_mean_over_users_leaves_nan_out_and_is_nan_where_nobody_is():
    values = np.array([[1.0, NAN, 2.0], [3.0, NAN, NAN]])
    np.testing.assert_array_equal(mean_over_users(values), [2.0, NAN, 2.0])


def test_the_interval_is_that_of_the_percentiles():
    resampled = np.random.default_rng(0).normal(size=(1000, 4))
    low, high = percentile_interval(resampled)
    np.testing.assert_allclose(low, np.percentile(resampled, 2.5, axis=0))
    np.testing.assert_allclose(high, np.percentile(resampled, 97.5, axis=0))


def test_the_intervals_cover_the_true_mean_in_about_95_of_100_samples():
    samples = np.random.default_rng(0).exponential(size=(80, 400))  # 400 samples of 80 users, true mean 1
    low, high = percentile_interval(resampled_means(samples, n_bootstrap=400, seed=0))
    assert 0.90 < ((low <= 1) & (high >= 1)).mean() < 0.98


@pytest.mark.parametrize("n_bootstrap", [0, 99])
def test_too_few_resamples_are_refused(n_bootstrap):
    with pytest.raises(ConfigError, match=rf"at least 100 for a 95 % interval; got {n_bootstrap}"):
        resampled_means(data(), n_bootstrap=n_bootstrap, seed=0)


def test_an_interval_prints_its_value_and_ends():
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_weighted_resamples_equal_a_loop_over_the_same_draws():
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=(9, 2, 3)), rng.uniform(0.5, 2.0, 9)
    means = WeightedMeans.of(values, weights, n_bootstrap=100, seed=4)
    counts = np.random.default_rng(4).multinomial(9, np.full(9, 1 / 9), size=100)
    for resample in (0, 57):
        total = sum(m * w * x for m, w, x in zip(counts[resample], weights, values, strict=True))
        norm = sum(m * w for m, w in zip(counts[resample], weights, strict=True))
        np.testing.assert_allclose(means.resampled[resample], total / norm)
    total = sum(w * x for w, x in zip(weights, values, strict=True))
    np.testing.assert_allclose(means.mean, total / sum(weights))
    np.testing.assert_allclose(means.interval, percentile_interval(means.resampled))
    equal = WeightedMeans.of(values, np.full(9, 3.0), n_bootstrap=100, seed=4)
    np.testing.assert_allclose(equal.resampled, resampled_means(values, n_bootstrap=100, seed=4))


def test_a_user_with_a_nan_anywhere_has_no_weight_and_the_draws_stay_those_of_all_users():
    values, weights = data(12), np.random.default_rng(3).uniform(0.5, 2.0, 12)
    values[[2, 7], [0, 2]] = NAN
    means = WeightedMeans.of(values, weights, n_bootstrap=100, seed=1)
    without = np.where(np.isin(np.arange(12), [2, 7]), 0.0, weights)
    again = WeightedMeans.of(np.nan_to_num(values), without, n_bootstrap=100, seed=1)
    np.testing.assert_allclose(means.mean, again.mean)
    np.testing.assert_allclose(means.resampled, again.resampled)
    nobody = WeightedMeans.of(values, np.zeros(12), n_bootstrap=100, seed=1)
    assert np.isnan(nobody.mean).all()
    assert np.isnan(nobody.resampled).all()


def test_a_ratio_is_taken_resample_by_resample():
    values, weights = data(40) + 3, np.random.default_rng(3).uniform(0.5, 2.0, 40)
    values[:, 1] = 0.25 * values[:, 0]
    means = WeightedMeans.of(values, weights, n_bootstrap=200, seed=0)
    quarter = means[1].ratio_to(means[0]).to_interval()
    assert (quarter.value, quarter.low, quarter.high) == pytest.approx((0.25, 0.25, 0.25))
    other = means[2].ratio_to(means[0])
    np.testing.assert_allclose(other.resampled, means.resampled[:, 2] / means.resampled[:, 0])
    assert other.to_interval().low < other.mean < other.to_interval().high


def test_the_effective_number_counts_equal_weights_as_users_and_one_large_weight_as_one():
    assert effective_number(np.full(7, 0.3)) == pytest.approx(7)
    assert effective_number(np.array([1e6, 1.0, 1.0])) == pytest.approx(1, rel=1e-5)
    assert effective_number(np.array([1.0, 2.0, 0.0])) == pytest.approx(9 / 5)
    assert effective_number(np.zeros(4)) == 0
