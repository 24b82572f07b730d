"""The recommender's part of the page of results: joined tables, and the page of each experiment."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.pages import recommender, results
from frellm4rec.evaluation import Evaluation
from frellm4rec.experiments.definitions import load_experiment
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.tables import (
    CELL_COLUMNS,
    ExperimentTables,
    typed,
    write_table,
)
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.tiny_recommenders import experiment_tables

LABELS = {"experiment": "ablation", "dataset": "lastfm", "fingerprint": "5ed1", "ranking": "99+1", "k": 10}
OWN = {"backbone": "stories260K", "settings": ""}
ALONE = {"backbone": "", "mode": "", "settings": "", "variant": "sasrec", "label": "SASRec"}


@pytest.fixture
def tables():
    labels = {**LABELS, **OWN, "mode": "prefix", "variant": "wo-tfm", "label": "w/o TFM", "n_users": 1090}
    cells = [{**labels, "seed": 0, "status": "finished", "tie_rate": 0.0, "protocol": "lastfm 5ed1, k=10"}]
    value = {"value": 0.25, "std": 0.01, "low": 0.2, "high": 0.3, "n_seeds": 3}
    means = [{**labels, **value, "metric": metric} for metric in ("ndcg", "recall")]
    difference = {"difference": -0.02, "low": -0.03, "high": -0.01, "p_value": 0.002, "p_holm": 0.004}
    seeds = {"n_seeds": 3, "reference_n_seeds": 3}
    differences = [{**labels, **difference, **seeds, "against": "full", "metric": "ndcg"}]
    return experiment_tables(cells, means, differences)


def test_the_section_shows_claims_table_and_figure_and_is_absent_without_tables(tables, tmp_path):
    folder = tmp_path / "lastfm" / "recommender"
    assert recommender.section(folder) == []
    folder.mkdir(parents=True)
    tables.save(folder)
    text = "\n".join(recommender.section(folder))
    assert text.startswith("## FreLLM4Rec\n")
    assert "](../figures/lastfm/recommender/ablation.png)" in text
    assert "### What each part of FreLLM4Rec is worth (Table 3 of the paper)" in text
    assert "#### lastfm, 99+1 candidates, backbone stories260K" in text
    assert markdown(load_experiment("ablation"), tables, level=3) in text


def test_what_was_run_apart_is_collected_and_compared(tmp_path):
    values = {"sasrec/seed-0": [0.0, 0.5, 1.0, 0.0], "runs/a": [1.0, 0.5, 1.0, 0.0], "runs/b": [0.0, 0.5, 0.0, 0.0]}
    rows = {"sasrec/seed-0": ALONE, "runs/a": {**OWN, "variant": "full"}, "runs/b": {**OWN, "variant": "wo-tfm"}}
    for name, runs in (("one", ["sasrec/seed-0", "runs/a"]), ("two", ["sasrec/seed-0", "runs/b"])):
        cells = []
        for run in runs:
            ndcg = np.array(values[run])
            evaluation = Evaluation(
                ndcg, (ndcg > 0) * 1.0, ndcg * 0, np.arange(4), 10, "m", "r", "lastfm", "5ed1", "test", 99, 0
            )
            evaluation.save(tmp_path / name / run / "evaluation" / "test-99+1.npz")
            label = {"mode": "prefix", "label": rows[run]["variant"], **rows[run]}
            cells.append(
                {**LABELS, **label, "seed": 0, "status": "finished", "run": run, "protocol": "p", "tie_rate": 0}
            )
        write_table(typed(pd.DataFrame(cells, columns=CELL_COLUMNS)), tmp_path / name / "cells.csv")
    folder = tmp_path / "figures" / "recommender"
    recommender.collect([tmp_path / "one", tmp_path / "two"], folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ablation.pdf",
        "ablation.png",
        "ablation.svg",
        "ablation.tex",
        "ablation.txt",
        "cells.csv",
        "differences.csv",
        "means.csv",
    ]
    joined = ExperimentTables.load(folder)
    assert joined.cells["variant"].tolist() == ["sasrec", "full", "wo-tfm"]
    pairs = joined.differences[joined.differences["metric"] == "ndcg"].set_index(["variant", "against"])["difference"]
    assert pairs.to_dict() == {("wo-tfm", "full"): -0.5, ("full", "sasrec"): 0.25, ("wo-tfm", "sasrec"): -0.25}


def test_an_experiment_of_ones_own_is_not_on_the_page(tables, tmp_path):
    tables.cells["experiment"] = "mine"
    tables.save(tmp_path)
    with pytest.raises(DataError, match="Only packaged experiments"):
        recommender.collect([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_how_much_the_graph_filter_changes_beyond_a_rescaling(tmp_path, monkeypatch):
    # Training holds a pair of items that four users share (λ = 0, 1), one item alone (0), two nobody read (1, 1).
    sequences = [np.array([0, 1, 2, 3]) for _ in range(4)] + [np.array([4, 2, 3])]
    dataset = Dataset.from_interactions(Interactions.from_sequences(sequences, n_items=5), name="pair")
    table = np.array([[1.0, 0], [-1, 0], [0, 0], [0, 0], [0, 0]], dtype=np.float32)
    monkeypatch.setattr(recommender, "pretrained_item_table", lambda name, dataset, seed: table * (seed + 1))
    strength = recommender.measure_strength(dataset, seeds=(0, 1), alpha=0.5)
    np.testing.assert_allclose(strength["near_one"], 3 / 5)
    # (1, −1) on the pair is an eigenvector at λ = 1: the filter is a multiple of the identity on it.
    np.testing.assert_allclose(strength["changed"], 0.0, atol=1e-12)
    table[1] = 0.0
    # (1, 0) splits evenly over λ = 0 and λ = 1, and has a mean that is taken out.
    strength = recommender.measure_strength(dataset, seeds=(0, 1), alpha=0.5)
    assert strength["changed"].between(0.1, 0.9).all()
    assert strength["changed"].nunique() == 1
    strength.to_csv(tmp_path / "glpf.csv", index=False)
    line = recommender.strength(tmp_path / "glpf.csv")[0]
    assert f"{strength['near_one'][0]:.0%} of the 5 eigenvalues" in line
    assert f"up to {strength['changed'][0]:.0%} (mean over 2 seeds" in line
    assert recommender.strength(tmp_path / "absent.csv") == []


def test_the_committed_tables_name_no_path_on_a_machine():
    for path in (results.FIGURES / "recommender").glob("*.csv"):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text
        assert "shared/" not in text
