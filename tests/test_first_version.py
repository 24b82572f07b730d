"""Folders that version 0.1.0 wrote, before the packages were laid out in folders, open and say the same.

``tests/first_version`` holds a training run of SASRec on a made-up log, its evaluations and candidate lists, and an
analysis of it with two controls; figures and pages are left out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from frellm4rec import evaluate, load_model
from frellm4rec.evaluation import Evaluation, stored_candidates
from frellm4rec.evaluation.candidates import candidates_path
from frellm4rec.runs.evaluations import stored_evaluation
from frellm4rec.runs.train import read_recipe, train_recipe
from frellm4rec.runs.trained import open_trained
from spectral_probe import DecayProfile, LayerGrams
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.analysis_run import AnalysisRun
from tests.spectral_probe.worlds import run_probe


@pytest.fixture
def training(tmp_path, monkeypatch) -> Path:
    """Copy everything, stand beside it, and return the training run."""
    shutil.copytree(Path(__file__).with_name("first_version"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    (folder,) = Path("training").iterdir()
    return folder


@pytest.fixture
def analysis(training) -> Path:
    (folder,) = Path("analysis").iterdir()
    return folder


def test_a_saved_profile_has_its_verdict(analysis) -> None:
    profile = DecayProfile.load(analysis)
    summary = json.loads((analysis / "summary.json").read_text())
    assert profile.summary()["verdict"] == summary["verdict"]
    assert profile.summary()["retention"] == {"whole": pytest.approx(summary["retention"])}
    assert profile.summary()["embed_excess"] == {"whole": pytest.approx(summary["embed_excess"])}
    assert set(profile.controls) == {"raw", "random-weights", "paper"}
    # What it was: the whole of what is foreseen, at the diffusion time of the first version, users equal.
    assert profile.component == "whole"
    for name, value in (("nodes", "foreseen"), ("component", "whole"), ("weights", "equal"), ("tau", 5.0)):
        assert profile.table[name].unique().tolist() == [value]
    assert "first-version" in profile.caveats
    assert profile.user_counts["measured"] == summary["n_users"]


def test_its_page_is_written_anew_and_it_is_compared(analysis, tmp_path, monkeypatch, capsys) -> None:
    code, _, err = run_probe(["report", str(analysis)], monkeypatch, capsys)
    assert code == 0, err
    page = (analysis / "report.html").read_text()
    assert "This run is of the first version" in page
    assert "low-pass share" in page
    code, out, err = run_probe(["compare", str(analysis), str(analysis), "--out", str(tmp_path)], monkeypatch, capsys)
    assert code == 0, err
    assert "no measurable change" in out
    assert "whole excess over swap" in out


def test_saved_grams_have_curves_of_the_new_measure_and_no_verdict(analysis, tmp_path, monkeypatch, capsys) -> None:
    before = {path.name: path.read_bytes() for path in analysis.iterdir() if path.is_file()}
    code, out, err = run_probe(["analyze", str(analysis), "--out", str(tmp_path / "again")], monkeypatch, capsys)
    assert code == 0, err
    assert "gets no verdict" in out
    assert "[untreated-states]" in out
    (folder,) = (tmp_path / "again").iterdir()
    assert "Analysed again from saved Grams" in (folder / "report.html").read_text()
    profile = DecayProfile.load(folder)
    assert {verdict.label for verdict in profile.verdicts.values()} == {"none"}
    assert "untreated-states" in profile.caveats
    assert profile.curve("taste")["excess"].notna().all()
    assert set(profile.curve("taste")["treatment"]) == {"rows"}
    assert {"raw", "plain", "normalized-rows", "equal-weights", "random-weights", "paper"} == set(profile.controls)
    assert set(profile.table.query("nodes == 'foreseen'")["component"]) == {"whole", "popularity", "lag", "taste"}
    names, known = (
        table.drop_duplicates("sequence").set_index("sequence")["user_id"]
        for table in (DecayProfile.load(analysis).per_user, profile.per_user)
    )
    assert known.notna().sum() > 30
    assert known.dropna().equals(names.loc[known.dropna().index])
    assert AnalysisRun.open(folder).grams_run().path == analysis.resolve()
    assert {path.name: path.read_bytes() for path in analysis.iterdir() if path.is_file()} == before
    # The two are not compared: their numbers are of other quantities.
    code, _, err = run_probe(["compare", str(analysis), str(folder)], monkeypatch, capsys)
    assert code == 2
    assert "Only curves with the same options can be compared" in err
    assert "Analyse its Grams again: spectral-probe analyze RUN." in " ".join(err.split())


def test_an_analysis_it_began_is_not_finished_with_another_measure(analysis, monkeypatch, capsys) -> None:
    run = AnalysisRun.open(analysis)
    next(run.grams_path("main").glob("shard-*.npz")).unlink()
    run.write_state("running")
    before = (analysis / "run.json").read_bytes()
    code, _, err = run_probe(["analyze", "--resume", str(analysis)], monkeypatch, capsys)
    assert code == 2
    assert "begun by an earlier version" in err
    assert "--model and --dataset" in err
    assert (analysis / "run.json").read_bytes() == before
    # A new analysis with the same model does not touch it either.
    request = run.request()
    options = AnalysisOptions.from_saved({**run.config()["options"], "controls": [], "preset": None})
    result = run_analysis(request["model"], request["dataset"], options, out=analysis.parent, resume=True)
    assert result.run.path != analysis
    assert (analysis / "run.json").read_bytes() == before
    assert LayerGrams.load(result.run.grams_path("main")).treated is not None


def test_a_saved_model_is_itself(training) -> None:
    summary = json.loads((training / "summary.json").read_text())
    assert load_model(training).revision == summary["revision"]
    trained = open_trained(training)
    assert trained.dataset.fingerprint(titles=False) == trained.run.state()["dataset_fingerprint"]


def test_a_finished_training_is_recognised(training) -> None:
    before = (training / "run.json").read_bytes()
    run = train_recipe(read_recipe(training), out=training.parent, resume=True)
    assert run.path == training
    assert (training / "run.json").read_bytes() == before


def test_candidates_and_evaluations_are_those_of_the_first_version(training) -> None:
    dataset = resolve_dataset("log.csv")
    fingerprint = dataset.fingerprint(titles=False)
    (saved,) = Path("candidates").iterdir()
    assert candidates_path(fingerprint, part="test", n_negatives=5, seed=0).name == saved.name
    drawn = stored_candidates(dataset, n_negatives=5)
    stored = stored_evaluation(training, fingerprint=fingerprint, ranking="5+1", k=5)
    assert isinstance(stored, Evaluation)
    assert drawn.digest == stored.candidates
    measured = evaluate(load_model(training), dataset, candidates=drawn, k=5)
    np.testing.assert_allclose(measured.ndcg, stored.ndcg)
    full = stored_evaluation(training, fingerprint=fingerprint, ranking="full", k=5)
    np.testing.assert_allclose(evaluate(load_model(training), dataset, k=5).ndcg, full.ndcg)
