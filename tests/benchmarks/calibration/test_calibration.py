from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.calibration import worlds
from benchmarks.calibration.__main__ import DOCS, TABLE, load_log
from benchmarks.calibration.probe import NULLS, QUARTER, Judge, LowPassProbe, operator_name
from benchmarks.calibration.report import markdown, write_markdown
from benchmarks.calibration.study import FIXED, REDRAWN, Cell, Setting, Study, cells, read_table
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.filters import heat_kernel
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.energy import spectral_energy


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two communities of items, 90 users with 6 to 16 items, in the format of S3-Rec."""
    rng = np.random.default_rng(0)
    lines = []
    for user in range(90):
        weight = np.where((np.arange(60) < 30) == (user % 2 == 0), 4.0, 1.0) / (1 + np.arange(60) % 30)
        items = rng.choice(60, rng.integers(6, 17), replace=False, p=weight / weight.sum())
        lines.append(" ".join(str(x + 1) for x in [user, *items]))
    path = tmp_path_factory.mktemp("log") / "log.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def setting(log_file: Path) -> Setting:
    return Setting(load_log(log_file), max_length=12)


def _bases_of(setting: Setting, users: np.ndarray) -> GraphBases:
    b = setting.bases
    return GraphBases(b.eigenvalues[users], b.eigenvectors[users], b.adjacency[users], b.lengths[users])


def _layer_grams(H: np.ndarray, lengths: np.ndarray) -> LayerGrams:
    return LayerGrams.from_states(H, lengths, ["embed", "block 1"])


@pytest.mark.parametrize("is_raw", [False, True])
def test_the_fast_probe_is_spectral_energy(setting: Setting, is_raw: bool) -> None:
    rng = np.random.default_rng(1)
    users = rng.integers(0, setting.n_users, 85)
    bases = _bases_of(setting, users)
    H = worlds.confound(rng, worlds.noise(rng, len(users), setting.T), ("mean vector", "AR(1)", "norm"))
    H += worlds.smooth_signal(rng, setting.roots[users])[:, None]
    H *= (np.arange(setting.T) < bases.lengths[:, None])[:, None, :, None]
    options = {"drop_first": 0, "center": False} if is_raw else {}
    slow = spectral_energy(_layer_grams(H, bases.lengths), bases, **options)
    probe = LowPassProbe(setting.bases, is_raw=is_raw)
    fast = probe.excess(probe.members(users), worlds.grams(H))
    expected = {name: slow.low - slow.null_low[name] for name in ("permutation", "cyclic")}
    expected["two-sided"] = slow.low - slow.null_low["swap"]
    response = heat_kernel(slow.eigenvalues, 5.0)[:, None]
    expected["one-sided"] = ((slow.energy - slow.null_energy["swap"]) * response).sum(axis=-1) / slow.total
    for name in NULLS:
        assert np.nanmax(np.abs(expected[name])) > 0.01
        np.testing.assert_allclose(fast[name][..., 0], expected[name], atol=2e-5)

    profile = DecayProfile.from_energy(slow, n_bootstrap=200, seed=3)
    judged = Judge(n_bootstrap=200)(fast["two-sided"], seed=3)
    assert judged["verdict"][0, 0] == profile.verdict.label
    assert profile.retention is not None
    assert judged["low"][0, 0] == pytest.approx(profile.retention.low, rel=1e-2)
    assert judged["high"][0, 0] == pytest.approx(profile.retention.high, rel=1e-2)


def test_the_lowest_quarter_is_band_1_of_4(setting: Setting) -> None:
    rng = np.random.default_rng(2)
    users = np.arange(setting.n_users)
    H = worlds.noise(rng, len(users), setting.T)
    H *= (np.arange(setting.T) < setting.bases.lengths[:, None])[:, None, :, None]
    slow = spectral_energy(_layer_grams(H, setting.bases.lengths), setting.bases, whole_tau=2.0)
    weights = Bands.parse("rank:4").weights(slow.eigenvalues)[:, None, :, 0]
    expected = ((slow.energy - slow.null_energy["swap"]) * weights).sum(axis=-1) / slow.total
    probe = setting.all_operators
    fast = probe.excess(probe.members(users), worlds.grams(H), ("one-sided", "two-sided"))
    np.testing.assert_allclose(fast["one-sided"][..., probe.operators.index(QUARTER)], expected, atol=2e-5)
    at_2 = fast["two-sided"][..., probe.operators.index(operator_name(2.0))]
    np.testing.assert_allclose(at_2, slow.low - slow.null_low["swap"], atol=2e-5)


def test_noise_is_white_and_shared() -> None:
    H = worlds.noise(np.random.default_rng(0), 400, 10, n_last=2)
    assert H.std() == pytest.approx(1, abs=0.01)
    assert (H[:, 0] * H[:, 2]).mean() == pytest.approx(worlds.SHARED_NOISE, abs=0.01)


def test_confounds_are_what_they_say() -> None:
    def make(*names: str) -> np.ndarray:
        rng = np.random.default_rng(0)
        return worlds.confound(rng, worlds.noise(rng, 600, 12), names)

    np.testing.assert_array_equal(make(), worlds.noise(np.random.default_rng(0), 600, 12))
    for layer in range(2):
        H = make("mean vector")[:, layer]
        common = H.mean(axis=(0, 1))
        assert np.sqrt((common**2).mean()) == pytest.approx(worlds.MEAN_NORM[layer], rel=0.3)
        assert (H - common).std() == pytest.approx(1, abs=0.02)
        H = make("first row")[:, layer]
        norms = np.sqrt((H**2).mean(axis=(0, 2)))
        assert norms[0] == pytest.approx(worlds.FIRST_ROW[layer], rel=0.3)
        np.testing.assert_allclose(norms[1:], 1, atol=0.03)
        H = make("AR(1)")[:, layer]
        assert (H[:, 1:] * H[:, :-1]).mean() == pytest.approx(worlds.AR_COEFFICIENT[layer], abs=0.02)
        assert H.std() == pytest.approx(1, abs=0.02)
        H, white = make("running mean")[:, layer], make()[:, layer]
        share = worlds.RUNNING_SHARE[layer]
        np.testing.assert_allclose(H[:, 4], (1 - share) * white[:, 4] + share * white[:, :5].mean(axis=1), atol=1e-5)
        norms = np.sqrt((make("norm")[:, layer] ** 2).mean(axis=(0, 2)))
        assert norms[0] == pytest.approx(worlds.DEPTH_SCALE**layer, rel=0.05)
        assert norms[6] / norms[0] == pytest.approx(1 + worlds.NORM_GROWTH[layer] / 2, rel=0.05)
    with pytest.raises(ValueError, match="confounds must be among"):
        make("anisotropy")


def test_the_signal_has_the_covariance_it_claims(setting: Setting) -> None:
    user = int(np.argmax(setting.bases.lengths))
    U, values = setting.bases.eigenvectors[user], setting.bases.eigenvalues[user]
    expected = (U / (1 + worlds.SMOOTHNESS * values)) @ U.T
    expected *= setting.T / np.trace(expected)
    roots = np.broadcast_to(setting.roots[user], (800, setting.T, setting.T))
    S = worlds.smooth_signal(np.random.default_rng(0), roots)
    np.testing.assert_allclose(np.einsum("nsd,ntd->st", S, S) / (800 * worlds.WIDTH), expected, atol=0.05)


def test_a_last_block_keeps_the_energy_and_the_stated_part_of_the_signal() -> None:
    rng = np.random.default_rng(0)
    S, E = rng.standard_normal((500, 10, 32)), worlds.noise(rng, 500, 10, 2)
    H = worlds.with_signal(S, E, 0.8, np.array([1.0, 0.5]))
    np.testing.assert_allclose((H**2).mean(axis=(0, 2, 3)), 1.8, atol=0.03)
    signal = (H * S[:, None]).mean(axis=(0, 2, 3)) ** 2
    np.testing.assert_allclose(signal, [0.8, 0.8, 0.4], atol=0.03)
    by_user = worlds.with_signal(S, E[:, :2], 0.8, np.where(np.arange(500) < 250, 1.0, 0.5)[:, None])
    np.testing.assert_allclose(by_user[:250, 1], H[:250, 1], atol=1e-5)


def test_item_vectors_know_co_occurrence_and_not_popularity(setting: Setting) -> None:
    X = worlds.factorised_item_vectors(setting.user_items, d=4)
    norms = np.sqrt((X**2).mean(axis=1))
    assert np.all(np.isclose(norms, 1, atol=1e-4) | (norms == 0))
    alike = X @ X.T / 4
    same = alike[:30, :30].mean() + alike[30:, 30:].mean()
    assert same > 2 * alike[:30, 30:].mean() + 0.1
    pop = worlds.popularity(setting.user_items)
    assert pop.mean() == pytest.approx(0, abs=1e-6)
    assert np.corrcoef(pop, np.asarray(setting.user_items.sum(axis=0)))[0, 1] > 0.8


SMALL = [
    Cell("a", "all together", FIXED, 0, 0.0, 3),
    Cell("a", "white item vectors", REDRAWN, 60, 0.0, 2),
    Cell("truth", "own graph", FIXED, 0, 3.0, 3),
    Cell("truth", "own graph", FIXED, 60, 3.0, 3),
    Cell("c", "own graph", FIXED, 60, 3.0, 3),
    Cell("d", "own graph", REDRAWN, 60, 3.0, 3),
    Cell("b", "both", FIXED, 60, 3.0, 3),
    Cell("e", "norm falls", FIXED, 0, 0.0, 2),
    Cell("f", "own graph", FIXED, 0, 0.0, 2),
]


def test_an_interrupted_study_ends_in_the_same_file(setting: Setting, tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight.csv", tmp_path / "halted.csv"
    Study(setting, straight, n_bootstrap=100).run(SMALL)
    Study(setting, halted, n_bootstrap=100).run(SMALL[:4])
    Study(setting, halted, n_bootstrap=100).run(SMALL)
    assert halted.read_bytes() == straight.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["halted.csv", "straight.csv"]
    table = read_table(straight)
    rates = table[["attenuated", "amplified", "preserved", "no_signal", "inconclusive"]].dropna()
    np.testing.assert_allclose(rates.sum(axis=1), 1, atol=1e-5)
    assert {"(a)", "(b)", "(c)", "(d)", "(e)", "(f)"} <= {
        line.split()[1] for line in markdown(table).splitlines() if "## (" in line
    }


def test_coverage_without_a_truth_is_refused(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="study 'truth' first"):
        Study(setting, tmp_path / "t.csv", n_bootstrap=100).run([SMALL[0], SMALL[4]])


def test_every_coverage_cell_follows_its_truth() -> None:
    truths = set()
    for cell in cells():
        if cell.study == "truth":
            truths.add((cell.world, cell.n_users, cell.strength))
        elif cell.study in ("c", "d"):
            assert (cell.world, cell.n_users if cell.design == FIXED else 0, cell.strength) in truths


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    assert TABLE.exists(), f"{TABLE} is missing; run python -m benchmarks.calibration --log LastFM.txt."
    return read_table(TABLE)


def test_the_page_is_written_from_the_table_byte_for_byte(committed: pd.DataFrame, tmp_path: Path) -> None:
    write_markdown(committed, tmp_path / "calibration.md")
    assert (tmp_path / "calibration.md").read_bytes() == (DOCS / "calibration.md").read_bytes()


def test_the_committed_study_is_complete(committed: pd.DataFrame) -> None:
    key = ["study", "world", "design", "n_users", "strength", "reps"]
    done = set(committed[key].itertuples(index=False, name=None))
    wanted = {tuple(getattr(cell, name) for name in key) for cell in cells()}
    assert done == wanted
