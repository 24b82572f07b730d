import numpy as np
import pytest

from benchmarks.calibration import worlds
from benchmarks.calibration.probes import WIDTH
from benchmarks.calibration.worlds import WORLDS, world


@pytest.mark.parametrize("w", WORLDS, ids=lambda w: w.name)
def test_every_world_is_seeded_and_finite(small_probe, w) -> None:
    states, again, other = (w.make(small_probe, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert states.shape == (small_probe.shape[0], 2, small_probe.shape[1], WIDTH)
    assert states.dtype == np.float32
    assert np.isfinite(states).all()
    np.testing.assert_array_equal(states, again)
    assert not np.allclose(states, other)


def test_names_are_distinct_and_only_taste_has_a_retention() -> None:
    assert len({w.name for w in WORLDS}) == len(WORLDS)
    assert all(np.isnan(w.retention) for w in WORLDS if not w.has_taste)


def _explained(H: np.ndarray, feature: np.ndarray, valid: np.ndarray) -> float:
    """Return the part of the variance of states (n, T, d) that a linear function of one feature explains."""
    X = H[valid] - H[valid].mean(axis=0)
    f = feature[valid] - feature[valid].mean()
    return float(((f @ X) ** 2).sum() / (f @ f) / (X**2).sum())


def test_popularity_is_there_at_embed_and_fades(small_probe) -> None:
    rng = np.random.default_rng(0)
    for name, feature in (
        ("popularity", small_probe.popularity),
        ("popularity of the item predicted", small_probe.predicted_popularity),
    ):
        H = world(name).make(small_probe, rng)
        embed, block = (_explained(H[:, layer], feature, small_probe.valid) for layer in range(2))
        assert embed > 3 * block
        assert embed > 0.2
    strong = world("popularity, strong axis").make(small_probe, rng)
    assert _explained(strong[:, 0], small_probe.popularity, small_probe.valid) > 0.9
    per_user = world("popularity axis per user").make(small_probe, rng)
    assert _explained(per_user[:, 0], small_probe.popularity, small_probe.valid) < 0.1


def test_norms_follow_popularity(small_probe) -> None:
    norm = np.linalg.norm(world("norm falls with popularity").make(small_probe, np.random.default_rng(0)), axis=-1)
    valid = small_probe.valid
    correlation = [np.corrcoef(np.log(norm[:, k][valid]), small_probe.popularity[valid])[0, 1] for k in range(2)]
    assert correlation[0] < -0.8
    assert -0.8 < correlation[1] < -0.3


def test_smoothness_follows_the_rank_of_the_user(small_probe) -> None:
    H = world("AR(1) by density").make(small_probe, np.random.default_rng(0))
    following = (H[:, :, 1:] * H[:, :, :-1]).mean(axis=(1, 2, 3))
    assert np.corrcoef(following, small_probe.density)[0, 1] > 0.8
    assert following[small_probe.density > 0.8].mean() == pytest.approx(0.81, abs=0.08)


def test_artefacts_are_what_they_say(small_probe) -> None:
    def make(name: str) -> np.ndarray:
        return world(name).make(small_probe, np.random.default_rng(0))

    white = make("noise")
    assert (white[:, 0] * white[:, 1]).mean() == pytest.approx(worlds.SHARED_NOISE, abs=0.03)
    T = white.shape[2]
    for layer in range(2):
        common = make("mean vector")[:, layer].mean(axis=(0, 1))
        assert np.sqrt((common**2).mean()) == pytest.approx(worlds.MEAN_NORM[layer], rel=0.4)
        norms = np.sqrt((make("first row")[:, layer] ** 2).mean(axis=(0, 2)))
        assert norms[0] > worlds.FIRST_ROW[layer] / 2
        np.testing.assert_allclose(norms[1:], 1, atol=0.1)
        H = make("AR(1)")[:, layer]
        assert (H[:, 1:] * H[:, :-1]).mean() == pytest.approx(worlds.AR_COEFFICIENT[layer], abs=0.05)
        share = worlds.RUNNING_SHARE[layer]
        running = (1 - share) * white[:, layer, 4] + share * white[:, layer, :5].mean(axis=1)
        np.testing.assert_allclose(make("running mean")[:, layer, 4], running, atol=1e-5)
        norms = np.sqrt((make("norm")[:, layer] ** 2).mean(axis=(0, 2)))
        grown = (1 + worlds.NORM_GROWTH[layer] * (T - 1) / T) * worlds.DEPTH_SCALE**layer
        assert norms[-1] == pytest.approx(grown, rel=0.1)


def test_taste_has_the_stated_energies(small_probe) -> None:
    vectors = small_probe.item_vectors[small_probe.sequences.inputs]

    def amplitude(name: str) -> list[float]:
        """Return the amplitude of the item vectors at each layer, over 20 draws."""
        w = world(name)
        H = np.mean([w.make(small_probe, np.random.default_rng(seed)) for seed in range(20)], axis=0)
        return [float((H[:, k] * vectors).sum() / (vectors**2).sum()) for k in range(2)]

    embed, block = amplitude("taste halved")
    assert embed == pytest.approx(worlds.TASTE, abs=0.03)
    assert (block / embed) ** 2 == pytest.approx(0.5, abs=0.12)
    np.testing.assert_allclose(amplitude("nothing changes"), worlds.TASTE, atol=0.03)
    grown = world("unrelated noise grows").make(small_probe, np.random.default_rng(0))
    assert grown[:, 1].var() / grown[:, 0].var() == pytest.approx((2 + 0.09) / 1.09, rel=0.1)


def test_the_share_of_popularity_grows_tenfold() -> None:
    low, high = worlds.TENTH, worlds.TENFOLD
    rest = 1 + worlds.TASTE**2
    assert low / (low + rest) == pytest.approx(0.06)
    assert high / (high + rest) == pytest.approx(0.6)
