"""Experiments whose variants are other models than FreLLM4Rec: no backbone, no mode, and floors beside them."""

import logging
from dataclasses import replace
from functools import partial

import pytest

from frellm4rec.experiments import runner
from frellm4rec.experiments.definitions import Experiment
from frellm4rec.experiments.figures import experiment_caption
from frellm4rec.experiments.grid import ExperimentRequest
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.runner import ExperimentRun
from frellm4rec.experiments.tables import EFFORT_COLUMNS, is_baseline, read_table
from frellm4rec.runs import pretrained
from frellm4rec.training import TrainingConfig
from spectral_probe.errors import ConfigError, DataError
from tests.frellm4rec.tiny_recommenders import write_log

CONTENT = {
    "title": "Losses",
    "source": "Table 2",
    "reference": "softmax",
    "base": {"architecture.n_features": 8, "architecture.n_inner": 8, "training.n_epochs": 2, "training.batch_size": 8},
    "baselines": ["popularity", "sasrec"],
    "variants": [
        {"name": "softmax", "model": "sasrec"},
        {"name": "bce", "model": "sasrec", "overrides": {"architecture.loss": "bce"}},
    ],
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    quick = partial(pretrained.pretrained, training=TrainingConfig(n_epochs=1))
    monkeypatch.setattr(runner, "pretrained", quick)
    request = ExperimentRequest(dataset=str(write_log(tmp_path / "log.csv")), n_seeds=3, rankings=("full",))
    return ExperimentRun.open(Experiment.from_dict(CONTENT, "losses"), request, tmp_path / "out")


def test_variants_without_a_backbone(run):
    tables = run.run()
    assert run.exit_code == 0
    cells = tables.cells
    assert cells["variant"].value_counts().to_dict() == {"softmax": 3, "bce": 3, "sasrec": 3, "popularity": 1}
    assert set(cells["mode"]) == set(cells["backbone"]) == {""}
    trained = cells[~is_baseline(cells)]
    assert set(trained["variant"]) == {"softmax", "bce"}
    # What a training cost stands in its row.
    assert trained[[*EFFORT_COLUMNS, "n_parameters", "seconds"]].notna().all(axis=None)
    assert (trained["n_steps"] == 2 * -(-30 // 8)).all()
    assert (trained["n_samples"] == 2 * 30).all()
    assert set(trained["supervision"]) == {"every"}
    # Variants with the reference, and all variants with every baseline; nothing among the baselines.
    pairs = tables.differences.query("metric == 'ndcg'")
    assert set(zip(pairs["variant"], pairs["against"], strict=True)) == {
        ("bce", "softmax"),
        *((variant, against) for variant in ("softmax", "bce") for against in ("popularity", "sasrec")),
    }
    # A model that is counted has no training noise, and one result.
    of_floor = pairs[pairs["against"] == "popularity"]
    assert set(of_floor["covers"]) == {"users and trainings"}
    assert set(of_floor["reference_n_seeds"]) == {1}
    assert "2 differences of NDCG@10 from Popularity on log, full" in set(pairs["family"])
    page = markdown(run.experiment, tables)
    assert "( " not in page
    assert "backbone" not in page.split("Families")[0]
    assert "backbone" not in experiment_caption(run.experiment, tables)
    assert "| Popularity |" in page
    assert "popularity does not read the history" in page


def test_the_second_call_trains_nothing(run, monkeypatch):
    tables = run.run()
    monkeypatch.setattr(runner, "train_recipe", None)
    again = ExperimentRun.open(run.experiment, run.request, run.folder)
    assert {again.state(cell) for cell in again.cells} == {"finished"}
    assert again.run().means.equals(tables.means)
    assert read_table(run.folder / "means.csv")["variant"].tolist() == tables.means["variant"].tolist()


def test_what_definitions_refuse():
    with pytest.raises(ConfigError, match="Did you mean 'popularity'"):
        Experiment.from_dict({**CONTENT, "baselines": ["popularty"]}, "losses")
    with pytest.raises(ConfigError, match="called like a model"):
        Experiment.from_dict({**CONTENT, "variants": [{"name": "sasrec"}], "reference": "sasrec"}, "losses")
    over = {**CONTENT, "variants": [*CONTENT["variants"], {"name": "full"}]}
    with pytest.raises(ConfigError, match="names no backbone"):
        Experiment.from_dict(over, "losses")


@pytest.mark.parametrize("key", ["seed", "model", "dataset", "name", "device", "from_dir"])
def test_what_the_grid_chooses_is_no_setting_of_an_experiment(key):
    with pytest.raises(ConfigError, match=f"'base' of the experiment 'losses' sets {key}"):
        Experiment.from_dict({**CONTENT, "base": {key: 1}}, "losses")
    variants = [CONTENT["variants"][0], {**CONTENT["variants"][1], "overrides": {key: "popularity"}}]
    with pytest.raises(ConfigError, match=f"'bce' of the experiment 'losses' sets {key}"):
        Experiment.from_dict({**CONTENT, "variants": variants}, "losses")


@pytest.mark.parametrize("change", [{"base": "abc"}, {"baselines": "popularity"}, {"backbones": "minilm"}])
def test_what_must_be_a_mapping_or_a_list(change):
    with pytest.raises(ConfigError, match=f"must be a (mapping|list).*{next(iter(change.values()))}"):
        Experiment.from_dict({**CONTENT, **change}, "losses")


def test_a_ranking_that_cannot_be_is_found_before_any_training(run, monkeypatch):
    monkeypatch.setattr(runner, "train_recipe", None)
    request = replace(run.request, rankings=("99+1", "full"))
    with pytest.raises(DataError, match="99 negatives cannot be drawn"):
        ExperimentRun.open(run.experiment, request, run.folder)


def test_a_damaged_evaluation_of_an_earlier_cell_is_left_out_of_the_tables(run, caplog):
    tables = run.run()
    damaged = run.folder / tables.cells.query("variant == 'bce' and seed == 1")["run"].iloc[0]
    path = damaged / "evaluation" / "test-full.npz"
    path.write_bytes(path.read_bytes()[:200])
    request = replace(run.request, variants=("softmax",))
    with caplog.at_level(logging.WARNING, logger="frellm4rec.experiments.runner"):
        again = ExperimentRun.open(run.experiment, request, run.folder).run()
    assert again.cells["variant"].value_counts()["bce"] == 2
    assert "left out of the tables" in caplog.text
    assert ExperimentRun.open(run.experiment, run.request, run.folder).run().means.equals(tables.means)


def test_a_damaged_baseline_in_the_cache_says_what_to_delete(run, tmp_path):
    run.run()
    for weights in (tmp_path / "cache" / "sasrec").glob("*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    for evaluation in (run.folder / "sasrec").glob("*/evaluation/*.npz"):
        evaluation.unlink()
    again = ExperimentRun.open(run.experiment, replace(run.request, n_seeds=1), run.folder)
    (row,) = again.run().cells.query("status == 'failed'").to_dict("records")
    assert f"Delete {tmp_path / 'cache' / 'sasrec'}" in row["error"]
    assert "to train again" in row["error"]
