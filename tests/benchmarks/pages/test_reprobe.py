"""What the page says of recommenders probed again follows from the numbers, and the numbers from the runs."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.pages import reprobe, reprobe_page, results
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.comparison.comparison import compare
from spectral_probe.comparison.paired import EXCESS
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.folder import write_overlay
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.folder import RunFolder
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world

LAST = "last block"

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
    assert names == {*(f"comparison.{e}" for e in ("png", "pdf", "csv", "json")), "settings.json"}
    settings = json.loads((collected / "settings.json").read_text())
    assert [(m["name"], m["alpha"], m["cutoff"]) for m in settings["models"]] == [
        ("base", 0.0, None),
        ("full", 0.3, 0.3),
    ]


def test_the_section_has_label_figure_table_and_protocol(collected) -> None:
    text = "\n".join(reprobe_page.section(collected.parent))
    (result,) = json.loads((collected / "comparison.json").read_text())
    assert f"**full against base: {result['label']}.**" in text
    assert "](../figures/world/reprobe/org-tiny-causal/comparison.png)" in text
    swap = result["changes"][EXCESS["swap"]][LAST]["difference"]
    numbers = f"{swap['value']:+.4f} [{swap['low']:+.4f}, {swap['high']:+.4f}]".replace("-", "−")
    assert f"| {numbers} |" in text
    assert reprobe_page.typeset(result["words"]) in text
    for lead, sentence in result["published"]["words"].items():
        assert f"- **{lead}** {reprobe_page.typeset(sentence)}" in text
    published = result["published"]["changes"][LAST]["difference"]
    numbers = f"{published['value']:+.4f} [{published['low']:+.4f}, {published['high']:+.4f}]".replace("-", "−")
    assert f"published share {numbers}" in text
    assert f"({result['published']['n_users']} for the published share)" in text
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


def test_a_comparison_without_the_published_share_is_refused(analyses, tmp_path) -> None:
    path = comparison(analyses, tmp_path / "both")
    results_of = json.loads((path / "comparison.json").read_text())
    (path / "comparison.json").write_text(json.dumps([{**r, "published": {"changes": {}}} for r in results_of]))
    with pytest.raises(DataError, match=r"lacks the published share.*--preset paper"):
        reprobe.collect([path], tmp_path / "reprobe")


def test_minus_signs_are_of_print_and_names_are_left_alone() -> None:
    assert reprobe_page.typeset("full-2: -0.1 [-1.5, +0.2], a-3 (-4)") == "full-2: −0.1 [−1.5, +0.2], a-3 (−4)"


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
