"""What the page says of recommenders probed again follows from the numbers, and the numbers from the runs."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.pages import reprobe, reprobe_page, results
from benchmarks.pages.reprobe_words import QUANTITY, change_of, story
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.comparison import words as rules
from spectral_probe.comparison.comparison import compare
from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, SITES, WHOLE_QUANTITIES
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.folder import write_overlay
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.folder import RunFolder
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world

LAST, GAIN = "last block", "last block − embed"


def values(base: float, difference: float, *, width: float = 0.1) -> dict[str, dict[str, float]]:
    parts = {"base": base, "other": base + difference, "difference": difference}
    return {name: {"value": v, "low": v - width, "high": v + width} for name, v in parts.items()}


def changes_of(**differences: float):
    at = {(quantity, site): change_of(quantity, site, values(1, 0)) for quantity in WHOLE_QUANTITIES for site in SITES}
    for site in SITES:
        at[QUANTITY, site] = change_of(QUANTITY, site, values(1, differences.get("published", 0)))
    at[EXCESS["swap"], LAST] = change_of("", LAST, values(differences.get("own", 1), differences.get("swap", 0)))
    at[NULL_SHARE, LAST] = change_of("", LAST, values(1, differences.get("null", 0)))
    along = values(differences.get("along", 0), 0)
    at[QUANTITY, GAIN] = change_of(QUANTITY, GAIN, along)
    return at


def story_of(label: str, **differences: float) -> str:
    comparison = {"base": "b", "other": "f", "label": label, "changes": {"some": {}}}
    return "\n".join(story(comparison, changes_of(**differences)))


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
    assert words in story_of(label, published=published, swap=swap)


def test_an_interval_that_holds_zero_shows_nothing() -> None:
    text = story_of(rules.NO_CHANGE, published=0.05, along=-0.05, null=0.05, swap=-0.05, own=0.05)
    assert "of b does not measurably change from input to last layer (−0.0500 [−0.1500, 0.0500])" in text
    assert "no change is measured at the last layer (1.0000 against 1.0500; change +0.0500 [−0.0500, +0.1500])" in text
    assert text.count("does not measurably change") == 3
    assert "that of b is not measurably above 0" in text


def test_the_loss_of_the_base_is_said_where_it_is_and_where_it_is_not() -> None:
    assert "of b falls from input to last layer (−0.5000" in story_of(rules.SMOOTHING, along=-0.5)
    assert "the loss that the paper shows of its base is not there" in story_of(rules.SMOOTHING, along=0.5)
    assert "speaks against the paper" in story_of(rules.LOSS, published=-0.5)


def test_nothing_is_said_without_a_verdict() -> None:
    assert story({"base": "b", "other": "f", "label": "none", "changes": {}}, {}) == ["- No verdict may be drawn."]


# --- from runs to the page -----------------------------------------------------------------------------------------


def training(folder: Path, name: str, **settings) -> Path:
    architecture = {"backbone": "org/tiny", "mode": "causal", "inputs": "id", "alpha": 0.3, "cutoff": 0.3}
    architecture |= {"tfm_order": 2, **settings.pop("architecture", {})}
    config = {"architecture": architecture, "seed": 0, "dataset_fingerprint": "5ed19a6b", **settings}
    run = RunFolder.create(folder, kind="training", model=name, dataset="world", config=config)
    run.write_state("finished", request={"name": name})
    return run.path


@pytest.fixture(scope="module")
def analyses(tmp_path_factory) -> list[Path]:
    """Two analysed models, of training runs base and full."""
    folder = tmp_path_factory.mktemp("reprobe")
    dataset = make_world(1, n_users=90).dataset
    options = AnalysisOptions(n_bootstrap=100, preset="paper")
    off = {"architecture": {"alpha": 0.0, "cutoff": None}}
    paths = []
    for name, settings in (("base", off), ("full", {})):
        model = MixingModel(dataset.n_items)
        model.name = name
        if name == "full":
            model.table.weight.data *= model.table.weight.data > 0
        run = run_analysis(model, dataset, options, out=folder / "runs").run
        trained = training(folder / "trainings", name, **settings)
        run.write_state("finished", request={"model": str(trained), "dataset": "world"})
        paths.append(run.path)
    return paths


def comparison(analyses: list[Path], out: Path) -> Path:
    profiles = [DecayProfile.load(path) for path in analyses]
    return write_overlay(out, profiles, compare(profiles), runs=analyses).path


@pytest.fixture(scope="module")
def collected(analyses, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("collected")
    (path,) = reprobe.collect([comparison(analyses, out / "both")], out / "world" / "reprobe")
    return path


def test_a_comparison_is_filed_under_what_its_models_were_trained_with(collected) -> None:
    assert collected.name == "org-tiny-causal"
    names = {path.name for path in collected.iterdir()}
    assert names == {*(f"comparison.{e}" for e in ("png", "pdf", "csv", "json")), "settings.json", "published.csv"}
    settings = json.loads((collected / "settings.json").read_text())
    assert [(m["name"], m["alpha"], m["cutoff"]) for m in settings["models"]] == [
        ("base", 0.0, None),
        ("full", 0.3, 0.3),
    ]


def test_the_published_quantity_is_the_one_of_the_analyses(collected, analyses) -> None:
    table = pd.read_csv(collected / "published.csv").set_index("place")
    for part, run in zip(("base", "other"), analyses, strict=True):
        curve = pd.read_csv(run / "bands.csv").query("control == 'paper' and band == '1'").sort_values("layer")
        for site, row in (("embed", curve.iloc[0]), (LAST, curve.iloc[-1])):
            expected = [row["share"], row["share_low"], row["share_high"]]
            shares = table.loc[site, [part, f"{part}_low", f"{part}_high"]].tolist()
            assert shares == pytest.approx(expected, rel=1e-8)
            assert table.loc[site, "n_users"] == row["n_users"]
    assert table.loc[LAST, "difference"] == pytest.approx(table.loc[LAST, "other"] - table.loc[LAST, "base"])
    assert table.loc[GAIN, "difference_low"] < table.loc[GAIN, "difference"] < table.loc[GAIN, "difference_high"]


def test_the_section_has_label_figure_table_and_protocol(collected) -> None:
    text = "\n".join(reprobe_page.section(collected.parent))
    (result,) = json.loads((collected / "comparison.json").read_text())
    assert f"**full against base: {result['label']}.**" in text
    assert "](../figures/world/reprobe/org-tiny-causal/comparison.png)" in text
    swap = result["changes"][EXCESS["swap"]][LAST]["difference"]
    numbers = f"{swap['value']:+.4f} [{swap['low']:+.4f}, {swap['high']:+.4f}]".replace("-", "−")
    assert f"| {numbers} |" in text
    assert result["words"].replace("-0.", "−0.") in text
    assert "base: inputs id, α = 0, no TFM; full: inputs id, α = 0.3, cutoff 0.3 (order 2)" in text
    assert "Probed base and full in one pass" in text
    assert "Comparisons with the base: 1." in text
    assert "theory.md" not in text


def test_the_table_of_the_rayleigh_quotient_is_counted(collected) -> None:
    rows = [
        {"model": "m", "mode": "causal", "cutoff": cutoff, "treatment": treatment, "excess_change_low": low}
        for cutoff, treatment, low in (
            (0.3, "headline", 0.1),
            (0.3, "headline", -0.3),
            (0.3, "headline", -0.1),
            (0.1, "headline", 0.1),
            (0.3, "raw", 0.1),
        )
    ]
    path = collected.parent.parent / "rayleigh.csv"
    pd.DataFrame(rows).assign(excess_change_high=lambda t: t["excess_change_low"] + 0.2).to_csv(path, index=False)
    text = "\n".join(reprobe_page.section(collected.parent))
    path.unlink()
    assert "`causal`, larger in 1 and smaller in 1 of 3 places." in text


def test_without_collected_runs_there_is_no_section(tmp_path) -> None:
    assert reprobe_page.section(tmp_path / "lastfm" / "reprobe") == []


def test_models_trained_otherwise_have_no_common_folder(analyses, tmp_path) -> None:
    run = AnalysisRun.open(analyses[1])
    request = run.request()
    other = training(tmp_path / "trainings", "full", seed=1)
    run.write_state("finished", request={**request, "model": str(other)})
    with pytest.raises(ConfigError, match="one backbone, mode and seed"):
        reprobe.collect([comparison(analyses, tmp_path / "both")], tmp_path / "reprobe")
    run.write_state("finished", request=request)
    assert not (tmp_path / "reprobe").exists()


def test_a_run_that_is_no_comparison_or_was_made_of_no_training_is_refused(analyses, tmp_path) -> None:
    with pytest.raises(DataError, match="does not name the runs it compares"):
        reprobe.collect([analyses[0]], tmp_path / "reprobe")
    run = AnalysisRun.open(analyses[1])
    request = run.request()
    run.write_state("finished", request={**request, "model": str(analyses[0])})
    with pytest.raises(DataError, match="not a training run"):
        reprobe.collect([comparison(analyses, tmp_path / "both")], tmp_path / "reprobe")
    run.write_state("finished", request=request)


# --- what is committed ---------------------------------------------------------------------------------------------


def test_the_committed_comparisons_name_no_path_on_a_machine_and_are_on_the_page() -> None:
    folder = results.FIGURES / "reprobe"
    if not folder.is_dir():
        pytest.skip("no comparison was collected")
    page = results.PAGE.read_text(encoding="utf-8")
    for comparison_folder in folder.iterdir():
        assert f"../figures/lastfm/reprobe/{comparison_folder.name}/comparison.png" in page
        for path in comparison_folder.iterdir():
            text = path.read_bytes()
            assert not any(name in text for name in (b"/home/", b"/tmp/", b"shared/", b"/work/")), path.name
