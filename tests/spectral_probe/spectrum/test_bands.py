"""Frequency bands against examples worked by hand and a loop over intervals in exact fractions."""

from __future__ import annotations

import numpy as np
import pytest

from spectral_probe.errors import ConfigError
from spectral_probe.spectrum.bands import Bands
from tests.spectral_probe.worlds import slow_rank_weights

NAN = np.nan


def test_by_rank_the_hand_worked_example_of_six_frequencies_in_four_bands():
    weights = Bands.parse(4).weights(np.array([[0.0, 0.3, 0.7, 1.0, 1.2, 1.4]]))[0]
    expected = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0.5], [0, 0, 0, 1]]
    np.testing.assert_allclose(weights, expected, atol=1e-15)


def test_equal_eigenvalues_spread_their_energy_evenly_over_the_eigenspace():
    # λ2 = λ3 = λ4: their overlaps with the two bands, (0.5, 0.5), (0, 1) and (0, 1) of T = 5 … are averaged.
    weights = Bands.parse(2).weights(np.array([[0.0, 0.1, 1.25, 1.25 + 1e-12, 1.25]]))[0]
    np.testing.assert_allclose(weights, [[1, 0], [1, 0], *[[1 / 6, 5 / 6]] * 3], atol=1e-15)
    energy = np.array([3.0, 2.0, 6.0, 0.0, 0.0])
    other_basis = np.array([3.0, 2.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(energy @ weights, [6.0, 5.0])
    np.testing.assert_allclose(other_basis @ weights, energy @ weights)


def test_eigenvalues_that_differ_by_more_than_rounding_are_not_merged():
    weights = Bands.parse(2).weights(np.array([[0.0, 1e-6]]))[0]
    np.testing.assert_allclose(weights, np.eye(2))


@pytest.mark.parametrize("n_bands", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("T", [1, 2, 4, 5, 12])
def test_by_rank_in_fractions_with_ties(T, n_bands):
    values = np.sort(np.random.default_rng(T).integers(0, 4, T) / 2)
    weights = Bands.parse(n_bands).weights(values[None])[0]
    np.testing.assert_allclose(weights, slow_rank_weights(values.tolist(), n_bands), atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=0), T / n_bands, atol=1e-12)
    assert (weights.sum(axis=0) > 0).all(), "no band is empty, also with more bands than frequencies"


def test_bands_of_a_user_do_not_depend_on_the_padding_or_on_others():
    first, second = [0.0, 1.0, 1.0, 1.5], [0.2, 0.4]
    together = Bands.parse(3).weights(np.array([first, [*second, NAN, NAN]]))
    np.testing.assert_array_equal(together[0], Bands.parse(3).weights(np.array([first]))[0])
    np.testing.assert_array_equal(together[1, :2], Bands.parse(3).weights(np.array([second]))[0])
    assert not together[1, 2:].any()


def test_equal_eigenvalues_of_two_users_are_not_one_eigenspace():
    weights = Bands.parse(2).weights(np.array([[0.0, 1.0], [1.0, 2.0]]))
    np.testing.assert_allclose(weights, [np.eye(2), np.eye(2)])


def test_pooled_bands_are_quantiles_over_all_users_with_ties_split():
    # Pooled: 0, 0.5, 1, 1, 1, 2 in bands of two. The three ones cover ranks 2–5: 2 of 3 in band 2, 1 of 3 in band 3.
    values = np.array([[0.0, 1.0, 1.0], [0.5, 1.0, NAN], [2.0, NAN, NAN]])
    weights = Bands.parse("pooled:3").weights(values)
    ones = [0, 2 / 3, 1 / 3]
    np.testing.assert_allclose(weights[0], [[1, 0, 0], ones, ones], atol=1e-15)
    np.testing.assert_allclose(weights[1], [[1, 0, 0], ones, [0, 0, 0]], atol=1e-15)


def test_a_pooled_band_that_a_user_does_not_have_is_nan():
    values = np.array([[0.0, 1.0, 1.0], [0.5, 1.0, NAN], [2.0, NAN, NAN]])
    weights = Bands.parse("pooled:3").weights(values)
    assert np.isnan(weights[2, :, :2]).all(), "the user of λ = 2 alone has nothing in the two lower bands"
    np.testing.assert_allclose(weights[2, :, 2], [1, 0, 0])


def test_pooled_bands_hold_equal_numbers_of_frequencies():
    rng = np.random.default_rng(0)
    values = np.sort(np.where(rng.random((30, 8)) < 0.3, 1.0, rng.random((30, 8)) * 2), axis=1)
    weights = np.nan_to_num(Bands.parse("pooled:4").weights(values))
    np.testing.assert_allclose(weights.sum(axis=(0, 1)), 60.0)
    np.testing.assert_allclose(weights.sum(axis=2), 1.0)


@pytest.mark.parametrize("T", [1, 4, 9, 10, 19, 20, 25, 49])
def test_deciles_are_floor_of_a_tenth_wide_and_the_last_takes_the_rest(T):
    width = max(1, T // 10)
    expected = np.zeros((T, 10))
    for k in range(T):
        expected[k, 9 if k // width > 9 else k // width] = 1
    values = np.full((1, T + 3), NAN)
    values[0, :T] = np.linspace(0, 2, T)
    weights = Bands.parse("deciles").weights(values)[0]
    np.testing.assert_array_equal(weights[:T], expected)
    assert not weights[T:].any(), "padding, and an absent decile, count 0"


@pytest.mark.parametrize(
    ("text", "name", "n_bands"),
    [
        (4, "rank:4", 4),
        ("4", "rank:4", 4),
        ("rank:7", "rank:7", 7),
        ("pooled:3", "pooled:3", 3),
        ("deciles", "deciles", 10),
    ],
)
def test_a_rule_is_read_from_its_text_and_says_its_name(text, name, n_bands):
    bands = Bands.parse(text)
    assert (str(bands), bands.n_bands) == (name, n_bands)
    assert Bands.parse(bands) is bands
    assert Bands.parse(str(bands)) == bands
    np.testing.assert_allclose(bands.edges, [[b / n_bands, (b + 1) / n_bands] for b in range(n_bands)])


@pytest.mark.parametrize("text", [0, -1, 513, "rank:", "rank:0", "quartiles", "pooled", "4.0", "", "²", "decile"])
def test_another_rule_is_refused_with_the_ones_there_are(text):
    with pytest.raises(ConfigError, match=r"bands must be B, 'rank:B', 'pooled:B' .* or 'deciles'; got"):
        Bands.parse(text)
