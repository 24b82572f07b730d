"""The page of tuned systems follows from the committed tables."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.pages import table2
from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.models.registry import model_names
from frellm4rec.tuning.tables import FINISHED
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions

FOLDERS = [folder for name in table2.DATASETS if (folder := table2.FIGURES / name / table2.FOLDER).exists()]


def test_the_page_is_written_from_the_committed_tables():
    assert FOLDERS
    assert table2.PAGE.read_text(encoding="utf-8").rstrip("\n") == table2.page().rstrip("\n")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_the_committed_tables_agree_with_each_other(folder):
    tables = SystemTables.load(folder)
    trials, curves, systems = tables.search.trials, tables.search.curves, tables.systems
    assert set(systems["model"]) <= set(model_names())
    assert trials["budget_seconds"].nunique() == 1
    keys = ["model", "column", "trial"]
    finished = trials[trials["status"] == FINISHED]
    best = curves.groupby(keys)["ndcg"].max()
    n_validations = curves.groupby(keys).size()
    for row in finished.to_dict("records"):
        key = tuple(row[name] for name in keys)
        assert best[key] == pytest.approx(row["validation_ndcg"], rel=1e-8)
        assert n_validations[key] == row["n_validations"]
    for row in systems.to_dict("records"):
        mine = finished[(finished["model"] == row["model"]) & (finished["column"] == row["column"])]
        assert row["n_trials"] - row["n_failed"] == len(mine)
        assert mine.empty or row["validation_ndcg"] == pytest.approx(mine["validation_ndcg"].max(), rel=1e-8)
        assert len(trials[(trials["model"] == row["model"]) & (trials["column"] == row["column"])]) == row["n_trials"]
    # No trial of more than an epoch takes more than its time, but for what the measured pace misses.
    trained = finished[finished["n_epochs"] > 1]
    assert (trained["cpu_seconds"] <= 1.35 * trained["budget_seconds"]).all()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_the_committed_tables_name_no_machine(folder):
    for path in folder.glob("*.csv"):
        assert "/work/" not in path.read_text(encoding="utf-8"), path


def test_what_is_known_from_a_log_alone():
    histories = [[0, 1, 2, 3], [0, 1, 2, 3], [2, 3, 0, 1], [3, 3, 1, 3]]
    log = Interactions.from_sequences([np.array(items) for items in histories], n_items=4)
    shares = table2.known_from_log(Dataset.from_interactions(log))
    # After 2 came 3; after 0 came 1 twice; after 1 came 2, not 3.
    assert shares == {"follower": 0.75, "earlier": 0.25}


def test_a_run_is_copied_with_its_labels(tmp_path, monkeypatch):
    systems = pd.DataFrame(
        [
            {"model": "sasrec", "column": "own", "label": "SASRec of a run", "variant": "sasrec-own"},
            {"model": "popularity", "column": "own", "label": "Popularity", "variant": "popularity-own"},
        ]
    )
    systems = systems.assign(
        dataset="lastfm", is_trained=[True, False], n_trials=1, n_failed=0, budget_seconds=3.0, seconds_per_trial=2.0
    )
    systems = systems.assign(trial=0, settings="{}", validation_ndcg=[0.2, 0.1], best_epoch=2, n_epochs=2, n_steps=4)
    systems = systems.assign(stopped="out of time", is_still_rising=True, n_parameters=7, n_openings=0, error="")
    trial = {"model": "sasrec", "column": "own", "dataset": "lastfm", "trial": 0, "settings": json.dumps({"a.b": 1})}
    trial |= {"validation_ndcg": 0.2, "status": "finished", "stopped": "out of time", "is_still_rising": True}
    trial |= {"best_epoch": 2, "n_epochs": 2, "patience": 10, "cpu_seconds": 2.0}
    popularity = {**trial, "model": "popularity", "validation_ndcg": 0.1}
    curves = [
        {"model": "sasrec", "column": "own", "trial": 0, "epoch": e, "ndcg": e / 10, "cpu_seconds": float(e)}
        for e in (1, 2)
    ]
    from frellm4rec.experiments.tables import ExperimentTables
    from frellm4rec.tuning.tables import SearchTables

    search = SearchTables.from_rows([trial, popularity], curves)
    SystemTables(systems, search, ExperimentTables.empty()).save(tmp_path / "run")
    monkeypatch.setattr(table2, "FIGURES", tmp_path / "figures")
    table2.collect("lastfm", tmp_path / "run")
    text = table2.page(tmp_path / "figures")
    assert "| SASRec of a run ↑ | own | 0.2000 |" in text
    headings = [line for line in text.splitlines() if line.startswith("##")]
    assert all("LastFM" in line for line in headings)
    assert len(set(headings)) == len(headings) > 1
    assert text.index(table2.LEGEND) < text.index(headings[0])
    assert "The test items have not been opened." in text
    assert "| 0 | 0.2000 | 2 of 2 | 2 | out of time, still rising | b 1 |" in text
    assert (tmp_path / "figures" / "lastfm" / "table2" / "curves.png").exists()
