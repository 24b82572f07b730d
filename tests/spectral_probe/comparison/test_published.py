"""The published share is compared user by user, and what the nulls say of it follows from the intervals."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from spectral_probe.analysis.measure import measure
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.comparison import words as rules
from spectral_probe.comparison.comparison import compare
from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, SITES, WHOLE_QUANTITIES, Change, Changes
from spectral_probe.comparison.published import (
    AS_PUBLISHED,
    BY_NULLS,
    LEFT,
    NOT_COMPARED,
    PublishedChanges,
    published_words,
)
from spectral_probe.profiles.bootstrap import Interval, percentile_interval, resampled_means
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import PUBLISHED_SHARE
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.bands import Bands
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world, run_probe

LAST, GAIN = "last block", "last block − embed"
NAMES = ("b", "f")

# --- from runs to numbers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[AnalysisRun]:
    """Analyses of two models with the published curve, and of the first without it."""
    dataset = make_world(1, n_users=90).dataset
    made = []
    for name, preset in (("base", "paper"), ("full", "paper"), ("plain", None)):
        model = MixingModel(dataset.n_items)
        model.name = name
        if name == "full":
            model.table.weight.data *= model.table.weight.data > 0
        options = AnalysisOptions(n_bootstrap=100, preset=preset)
        run = run_analysis(model, dataset, options, out=tmp_path_factory.mktemp("runs")).run
        assert run is not None
        made.append(run)
    return made


def shares_by_hand(run: AnalysisRun) -> np.ndarray:
    """Return the published share of each history of the capture at the three sites, NaN off the curve, by a loop."""
    captures, options = run.load_captures(), AnalysisOptions.from_saved(run.config()["options"])
    profile = measure(captures, run.load_graph(), options, {})
    energy, headline = profile.controls["paper"].energy, profile.energy
    on_curve = set(captures["main"].users[headline.is_valid])
    share = np.full((len(captures["paper"]), 3), np.nan)
    rows = [row for row, user in enumerate(captures["paper"].users) if user in on_curve]
    for position, row in enumerate(rows):
        if not energy.is_valid[position]:
            continue
        lowest = Bands.parse("deciles").weights(energy.eigenvalues[position : position + 1])[0, :, 0]
        first, last = (float(energy.energy[position, k] @ lowest / energy.total[position, k]) for k in (0, -1))
        share[row] = first, last, last - first
    return share


def test_the_change_is_the_slow_one_from_the_saved_grams(runs) -> None:
    base, other = (shares_by_hand(run) for run in runs[:2])
    both = np.stack([base, other], axis=1)
    both = both[~np.isnan(both).any(axis=(1, 2))]
    (comparison,) = compare([DecayProfile.load(run.path) for run in runs[:2]])
    assert comparison.published.n_users == len(both) > 20
    resampled = resampled_means(both, n_bootstrap=100, seed=0)
    for s, site in enumerate(SITES):
        change = comparison.published.at[site]
        for part, values, draws in (
            ("base", both[:, 0, s], resampled[:, 0, s]),
            ("other", both[:, 1, s], resampled[:, 1, s]),
            ("difference", both[:, 1, s] - both[:, 0, s], resampled[:, 1, s] - resampled[:, 0, s]),
        ):
            expected = [values.mean(), *map(float, percentile_interval(draws))]
            interval = getattr(change, part)
            assert [interval.value, interval.low, interval.high] == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_each_side_is_the_published_curve_of_its_run(runs) -> None:
    (comparison,) = compare([DecayProfile.load(run.path) for run in runs[:2]])
    for part, run in zip(("base", "other"), runs, strict=False):
        curve = pd.read_csv(run.path / "bands.csv").query("control == 'paper' and band == '1'").sort_values("layer")
        for site, row in (("embed", curve.iloc[0]), (LAST, curve.iloc[-1])):
            interval = getattr(comparison.published.at[site], part)
            expected = [row["share"], row["share_low"], row["share_high"]]
            assert [interval.value, interval.low, interval.high] == pytest.approx(expected, rel=1e-8)
            assert comparison.published.n_users == row["n_users"]


def test_files_print_and_report_have_it(runs, tmp_path, monkeypatch, capsys) -> None:
    command = ["compare", str(runs[0].path), str(runs[1].path), "--out", str(tmp_path)]
    code, out, err = run_probe(command, monkeypatch, capsys)
    assert code == 0, err
    (folder,) = tmp_path.iterdir()
    assert AnalysisRun.open(folder).kind == "comparison"
    (entry,) = json.loads((folder / "comparison.json").read_text())
    published = entry["published"]
    assert list(published["changes"]) == list(SITES)
    table = pd.read_csv(folder / "figures" / "comparison.csv").query("quantity == @PUBLISHED_SHARE").set_index("place")
    assert list(table.index) == list(SITES)
    assert set(table["n_users"]) == {published["n_users"]}
    for site in SITES:
        assert table.loc[site, "difference"] == pytest.approx(published["changes"][site]["difference"]["value"])
    report = " ".join((folder / "report.html").read_text(encoding="utf-8").split())
    for lead in (AS_PUBLISHED, BY_NULLS, LEFT):
        sentence = " ".join(published["words"][lead].split())
        assert f"{lead} {sentence}" in " ".join(out.split())
        assert sentence.split(":")[0].replace("'", "&#39;") in report
    assert "published share (lowest tenth" in report


def test_runs_without_it_are_compared_with_a_sentence_that_says_how_to_get_it(runs, tmp_path) -> None:
    profiles = [DecayProfile.load(run.path) for run in (runs[0], runs[2])]
    (comparison,) = compare(profiles)
    assert comparison.changes.at
    assert comparison.published.at == {}
    (sentence,) = comparison.published_words.values()
    assert sentence == "It is not measured for plain. To get it, analyse again from the model with --preset paper."
    assert PUBLISHED_SHARE not in set(comparison.to_frame()["quantity"])


def test_a_run_of_an_older_version_gets_it_from_its_saved_grams(runs, tmp_path) -> None:
    base, other = (DecayProfile.load(run.path) for run in runs[:2])
    saved = runs[1].path / "published.csv.gz"
    content = saved.read_bytes()
    saved.unlink()
    old = DecayProfile.load(runs[1].path)
    again = reanalyze(runs[1].path, {}, out=tmp_path).run
    saved.write_bytes(content)
    (comparison,) = compare([base, old])
    assert comparison.published.at == {}
    assert "for full, analysed by an earlier version. To get it" in comparison.published_words[NOT_COMPARED]
    assert again is not None
    (now,), (before,) = compare([base, DecayProfile.load(again.path)]), compare([base, other])
    assert now.published == before.published


# --- from numbers to sentences -------------------------------------------------------------------------------------


def change(quantity: str, site, base: float, difference: float, *, width: float = 0.1) -> Change:
    values = (base, base + difference, difference)
    return Change(quantity, site, *(Interval(v, v - width, v + width) for v in values))


def words_of(label: str, measure: str = EXCESS["swap"], **differences: float) -> dict[str, str]:
    at = {(quantity, site): change(quantity, site, 1, 0) for quantity in WHOLE_QUANTITIES for site in SITES}
    at[EXCESS["swap"], LAST] = change("", LAST, differences.get("own", 1), differences.get("swap", 0))
    at[NULL_SHARE, LAST] = change("", LAST, 1, differences.get("null", 0))
    at["taste", LAST] = change("taste", LAST, 1, differences.get("taste", 0))
    published = {site: change("", site, 1, differences.get("published", 0)) for site in SITES}
    published[GAIN] = change("", GAIN, differences.get("along", 0), 0)
    retentions = {"taste": change("retention_taste", LAST, 0.5, 0.5)} if measure == "taste" else {}
    changes = Changes(differences.get("n", 200), at, retentions, measure)
    return published_words(label, changes, PublishedChanges(200, published), NAMES)


@pytest.mark.parametrize(
    ("label", "published", "swap", "words"),
    [
        (rules.RESTORED, 0.5, 0.5, "The nulls bear this out"),
        (rules.SMOOTHING, 0.5, 0.0, "The nulls do not bear this out"),
        (rules.INCONCLUSIVE, 0.5, 0.5, "The nulls do not bear this out"),
        (rules.SMOOTHING_AND_LOSS, 0.5, -0.5, "The nulls say the opposite"),
        (rules.WITHOUT_SHARE, 0.0, 0.5, "The nulls show what the published quantity does not"),
        (rules.NO_CHANGE, 0.0, 0.0, "The nulls show no gain either"),
        (rules.LOSS, -0.5, -0.5, "The nulls show a loss"),
    ],
)
def test_what_the_nulls_say_of_the_published_figure(label, published, swap, words) -> None:
    assert words_of(label, published=published, swap=swap)[BY_NULLS].startswith(words)


def test_an_interval_that_holds_zero_shows_nothing() -> None:
    words = words_of(rules.NO_CHANGE, published=0.05, along=-0.05, null=0.05, swap=-0.05, own=0.05)
    text = " ".join(words.values())
    assert "of b does not measurably change from input to last layer (-0.0500 [-0.1500, 0.0500])" in text
    assert "no change is measured at the last layer (1.0000 against 1.0500; change +0.0500 [-0.0500, +0.1500])" in text
    assert text.count("does not measurably change") == 3
    assert "that of b is not measurably above 0" in text
    assert text.endswith("Retention is not compared.")


def test_the_loss_of_the_base_is_said_where_it_is_and_where_it_is_not() -> None:
    assert "of b falls from input to last layer (-0.5000" in words_of(rules.SMOOTHING, along=-0.5)[AS_PUBLISHED]
    assert "its base is not there" in words_of(rules.SMOOTHING, along=0.5)[AS_PUBLISHED]
    assert "speaks against the paper" in words_of(rules.LOSS, published=-0.5)[AS_PUBLISHED]


def test_with_components_the_measure_is_named_too() -> None:
    words = words_of(rules.RESTORED, "taste", published=0.5, swap=0.5, taste=0.5)
    assert words[BY_NULLS].endswith(
        "over it rises (+0.5000 [+0.4000, +0.6000]), and taste carried rises (+0.5000 [+0.4000, +0.6000])."
    )
    assert words[LEFT].startswith("The taste carried at the last block: that of b is above 0")
    assert "Of the taste in its own inputs, b keeps 0.50 [0.40, 0.60] (a loss)" in words[LEFT]


def test_too_few_users_allow_no_word() -> None:
    assert words_of(rules.INCONCLUSIVE, n=3)[BY_NULLS] == "No verdict may be drawn."
    assert LEFT not in words_of(rules.INCONCLUSIVE, n=3)
    few = published_words(
        rules.INCONCLUSIVE, Changes(0, {}, {}), PublishedChanges(19, {LAST: change("", LAST, 1, 0)}), NAMES
    )
    assert few == {NOT_COMPARED: "19 users are on both published curves; it takes at least 20."}
