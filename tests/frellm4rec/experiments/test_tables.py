"""Means and differences from per-user values, and that `compare` gives the same answer from the same values."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from frellm4rec.evaluation import Evaluation
from frellm4rec.experiments.tables import CELL_COLUMNS, is_baseline, summarise, typed
from frellm4rec.runs.comparison import RunResult, compare_runs

N_USERS = 50
SETTING = {"experiment": "own", "dataset": "shop", "fingerprint": "f" * 8, "settings": "", "ranking": "99+1", "k": 10}
GRID = {"mode": "prefix", "backbone": "tiny"}
ALONE = {"mode": "", "backbone": ""}


def evaluation(variant, seed, shift, note=""):
    rng = np.random.default_rng([seed, *variant.encode()])
    ndcg, recall = rng.random((2, N_USERS)) * 0.5 + shift
    labels = ("m", "r", "shop", "f" * 8, "test", 99, 0)
    return Evaluation(ndcg, recall, ndcg * 0, np.arange(N_USERS), 10, *labels, candidates="abc", note=note)


@pytest.fixture(params=[2, 3])
def n_seeds(request):
    return request.param


@pytest.fixture
def world(n_seeds):
    """Cells and evaluations of a reference, two variants and two baselines; the seeds in no order."""
    models = {
        "full": (GRID, 0.1),
        "a": (GRID, 0.0),
        "b": (GRID, 0.1),
        "sasrec": (ALONE, 0.05),
        "popularity": (ALONE, 0),
    }
    stored, cells = {}, []
    for seed in reversed(range(n_seeds)):
        for name, (labels, shift) in models.items():
            stored[f"{name}/{seed}"] = evaluation(name, seed, shift, note="a caution" if name == "b" else "")
            row = {**SETTING, **labels, "variant": name, "label": name.upper(), "seed": seed, "run": f"{name}/{seed}"}
            cells.append({**row, "status": "finished"})
    return typed(pd.DataFrame(cells, columns=CELL_COLUMNS)), stored


def test_both_commands_give_one_answer(world, n_seeds):
    cells, stored = world
    tables = summarise(cells, "full", lambda run, _: stored[run])

    def results(name):
        return [
            RunResult(run, {"model": run.split("/")[0], "seed": int(run.split("/")[1])}, stored[run])
            for run in stored
            if run.startswith(f"{name}/")
        ]

    for name, against in (("a", "full"), ("b", "full"), ("full", "sasrec")):
        for metric in ("ndcg", "recall"):
            ours = tables.differences.query("variant == @name and against == @against and metric == @metric").iloc[0]
            theirs = compare_runs([*results(against), *results(name)], metric=metric).table.iloc[1]
            columns = ["difference", "low", "high", "p_value", "covers"]
            assert ours[columns].tolist() == theirs[columns].tolist()
            assert ours["covers"] == ("users and trainings" if n_seeds == 3 else "users, these trainings")


def test_variants_are_compared_with_the_reference_and_every_baseline(world):
    cells, stored = world
    tables = summarise(cells, "full", lambda run, _: stored[run])
    families = tables.differences.groupby("family")["variant"].agg(list).to_dict()
    setting = "on shop, 99+1, tiny prefix"
    assert families == {
        f"{n} differences of {metric}@10 from {against} {setting}": variants
        for metric in ("NDCG", "Recall")
        for n, against, variants in (
            (2, "FULL", ["a", "b"]),
            (3, "SASREC", ["full", "a", "b"]),
            (3, "POPULARITY", ["full", "a", "b"]),
        )
    }
    assert set(tables.means.loc[is_baseline(tables.means), "variant"]) == {"sasrec", "popularity"}
    assert set(tables.cells.loc[tables.cells["note"] != "", "variant"]) == {"b"}
    row = tables.differences.query("variant == 'a' and against == 'full' and metric == 'ndcg'").iloc[0]
    assert row["effect"] == ("lower" if row["high"] < 0 and row["p_holm"] <= 0.05 else "no detectable difference")


def test_what_was_computed_before_is_remembered(world, monkeypatch):
    cells, stored = world
    memory = {}
    tables = summarise(cells, "full", lambda run, _: stored[run], memory)
    monkeypatch.setattr("frellm4rec.evaluation.contrasts._contrast", None)
    again = summarise(cells, "full", lambda run, _: stored[run], memory)
    pd.testing.assert_frame_equal(again.differences, tables.differences)
    pd.testing.assert_frame_equal(again.means, tables.means)


def test_a_counted_model_has_one_result_whatever_the_seed(world, n_seeds):
    cells, stored = world
    for seed in range(n_seeds):
        stored[f"popularity/{seed}"] = replace(stored["popularity/0"], is_trained=False)
    tables = summarise(cells, "full", lambda run, _: stored[run])
    assert set(tables.means.query("variant == 'popularity'")["n_seeds"]) == {1}
    assert set(tables.means.query("variant == 'popularity'")["covers"]) == {"users and trainings"}
    rows = tables.differences.query("against == 'popularity'")
    assert set(rows["reference_n_seeds"]) == {1}
    assert set(rows["covers"]) == {"users and trainings" if n_seeds == 3 else "users, these trainings"}
