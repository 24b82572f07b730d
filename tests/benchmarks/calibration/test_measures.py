import numpy as np
import pytest

from benchmarks.calibration import worlds
from benchmarks.calibration.measures import FIRST, TASTE, Measures, mean_over_error, ratio_of_means
from spectral_probe import DecayProfile, spectral_energy


@pytest.fixture(scope="module")
def measures(small_probe) -> Measures:
    return Measures(small_probe, n_bootstrap=200)


@pytest.fixture(scope="module")
def draws(small_probe) -> list[worlds.States]:
    return [
        worlds.taste(small_probe, np.random.default_rng(draw), amplitudes=(2.0, 1.0), popularity=(1.0, 0.3))
        for draw in range(3)
    ]


def test_many_draws_at_once_are_each_draw_through_the_instrument(small_probe, measures, draws) -> None:
    """The whole way: treated states, carried nodes, components, weights, intervals, word."""
    excess = measures.excess(draws, with_first=True)
    s = small_probe.sequences
    bases = small_probe.graph.local_bases(s.targets, s.lengths, users=s.users, own_user="drop")
    for draw, states in enumerate(draws):
        grams = small_probe.grams([states[:, 0], states[:, 1]], ["embed", "block 1"])
        energy = small_probe.nodes.energy(grams, nulls=("swap",))
        profile = DecayProfile.from_energy(energy, n_bootstrap=200, seed=3)
        judged = measures.judged(TASTE, excess[TASTE][draw], seed=3)
        is_measured = measures.weights[TASTE] > 0
        np.testing.assert_array_equal(is_measured, energy.weights > 0)
        expected = energy.component_excess["taste"][is_measured]
        np.testing.assert_allclose(excess[TASTE][draw][is_measured], expected, atol=1e-7)
        assert judged.label == profile.verdicts["taste"].label
        retention = profile.retention["taste"]
        np.testing.assert_allclose(
            [judged.retention, judged.low, judged.high], [retention.value, retention.low, retention.high], rtol=1e-5
        )
        first = spectral_energy(grams, bases, nulls=("swap",))
        profile = DecayProfile.from_energy(first, component="whole", weights="equal", n_bootstrap=200, seed=3)
        judged = measures.judged(FIRST, excess[FIRST][draw], seed=3)
        assert judged.label == profile.verdict.label
        assert judged.retention == pytest.approx(profile.retention["whole"].value, rel=1e-4)


def test_the_control_of_exchanged_items_makes_the_test_of_embed_stricter(measures, draws) -> None:
    excess = measures.excess(draws[:1], with_first=False)[TASTE][0]
    plain = measures.judged(TASTE, excess, seed=0)
    assert not plain.label.startswith("no measurable")
    assert measures.judged(TASTE, excess, seed=0, embed_sd=plain.z).label == "no measurable taste"


def test_z_is_the_weighted_mean_over_its_error() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4000, 1)), rng.uniform(0.5, 2, 4000)
    x[7] = np.nan
    known = np.arange(4000) != 7
    means = [np.average(x[known][rows, 0], weights=w[known][rows]) for rows in rng.integers(0, 3999, (400, 3999))]
    z = np.average(x[known, 0], weights=w[known]) / np.std(means)
    assert mean_over_error(x, w)[0] == pytest.approx(z, rel=0.12, abs=0.05)
    np.testing.assert_allclose(
        mean_over_error(x[known], np.ones(3999)), np.sqrt(3999) * x[known].mean() / x[known].std()
    )


def test_users_drawn_anew_cover_the_ratio_they_are_drawn_from(measures) -> None:
    rng = np.random.default_rng(0)
    n = len(measures.weights[TASTE])
    excess = 1 + rng.standard_normal((20, n, 2))
    excess[..., 1] -= 0.5
    truth = ratio_of_means(excess, measures.weights[TASTE])
    assert truth == pytest.approx(0.5, abs=0.1)
    assert 0.85 <= measures.pooled_coverage(TASTE, excess, truth, n_samples=100, seed=0) <= 1
    assert measures.pooled_coverage(TASTE, excess, truth + 3, n_samples=100, seed=0) < 0.1
