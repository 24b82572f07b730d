"""Folders that version 0.1.0 wrote, before the packages were laid out in folders, open and say the same.

``tests/first_version`` holds a training run of SASRec on a made-up log, its evaluations and candidate lists, and an
analysis of it with two controls; figures and pages are left out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from frellm4rec import evaluate, load_model
from frellm4rec.evaluation import Evaluation, stored_candidates
from frellm4rec.evaluation.candidates import candidates_path
from frellm4rec.runs.evaluations import stored_evaluation
from frellm4rec.runs.train import read_recipe, train_recipe
from frellm4rec.runs.trained import open_trained
from spectral_probe import DecayProfile, LayerGrams
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import reanalyze, run_analysis
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.analysis_run import AnalysisRun


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


@pytest.fixture
def one_thread():
    """Captures name the number of threads they were made with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bands(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "bands.csv", keep_default_na=False, na_values=[""])


def test_a_saved_profile_has_its_verdict(analysis) -> None:
    profile = DecayProfile.load(analysis)
    summary = json.loads((analysis / "summary.json").read_text())
    assert profile.summary()["verdict"] == summary["verdict"]
    assert profile.summary()["retention"] == pytest.approx(summary["retention"])
    assert set(profile.controls) == {"raw", "random-weights", "paper"}


def test_saved_grams_give_the_same_table(analysis, tmp_path) -> None:
    expected = bands(analysis)
    again = reanalyze(analysis, {}, out=tmp_path / "again")
    pd.testing.assert_frame_equal(bands(again.run.path), expected, rtol=1e-9)
    assert again.run.grams_run().path == analysis.resolve()


def test_an_interrupted_analysis_goes_on_with_its_own_shards(analysis, one_thread) -> None:
    """The hashes of settings, weights, inputs and sequences are those of the first version."""
    run = AnalysisRun.open(analysis)
    request, expected = run.request(), bands(analysis)
    before = LayerGrams.load(run.grams_path("main"))
    shard = next(run.grams_path("main").glob("shard-*.npz"))
    shard.unlink()
    run.write_state("running")
    result = run_analysis(
        request["model"],
        request["dataset"],
        AnalysisOptions.from_mapping(run.config()["options"]),
        out=analysis.parent,
        resume=True,
    )
    assert result.run.path == analysis
    assert shard.exists()
    np.testing.assert_allclose(LayerGrams.load(run.grams_path("main")).grams, before.grams, atol=1e-4, rtol=1e-4)
    columns = ["share", "null_share", "excess"]
    np.testing.assert_allclose(bands(analysis)[columns], expected[columns], atol=1e-5)


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
