import json
from dataclasses import replace

import numpy as np
import pytest

from frellm4rec.evaluation import Evaluation, ModelValues, holm
from frellm4rec.evaluation.contrasts import contrasts
from frellm4rec.models import SASRec
from frellm4rec.runs.comparison import RunResult, compare_runs, group_labels
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.storage.cache import CACHE_VARIABLE
from tests.frellm4rec.tiny_recommenders import make_run, run, write_log

N_USERS = 60


def make_result(name, seed, *, shift=0.0, data="a", draw=None, **changes):
    """A run of a model called ``name`` whose values lie ``shift`` above those of chance."""
    rng = np.random.default_rng([seed, *name.encode()] if draw is None else draw)
    values = {metric: rng.random(N_USERS) * 0.5 + shift for metric in ("ndcg", "recall")}
    labels = {"k": 10, "model": "sasrec", "revision": "r", "dataset": data, "fingerprint": data * 8, "part": "test"}
    lists = {"n_negatives": 99, "candidate_seed": 0, "candidates": "abc"}
    evaluation = Evaluation(
        **values, is_tied=np.zeros(N_USERS), users=np.arange(N_USERS), **{**labels, **lists, **changes}
    )
    config = {"model": "sasrec", "seed": seed, "dataset": data, "training": {"patience": len(name)}}
    return RunResult(f"{name}-{data}-{seed}", config, evaluation, name)


def test_groups_means_and_differences():
    base = [make_result("base", seed) for seed in range(3)]
    full = [make_result("larger", seed, shift=0.1) for seed in range(3)]
    comparison = compare_runs([base[0], full[0], base[1], full[2], base[2], full[1]])
    assert comparison.table["group"].tolist() == ["sasrec base", "sasrec larger"]
    assert comparison.table["n_seeds"].tolist() == [3, 3]
    a, b = (np.stack([result.evaluation.ndcg for result in results]) for results in (full, base))
    models = (ModelValues("larger", a[[0, 2, 1]], (0, 2, 1)), ModelValues("base", b, (0, 1, 2)))
    expected = contrasts([models], "NDCG@10 from sasrec base on a, 99+1")[0]
    row = comparison.table.iloc[1]
    assert (row.family, row.effect, row.covers) == (expected.family, "higher", "users and trainings")
    assert comparison.family == "1 difference of NDCG@10 from sasrec base on a, 99+1"
    assert (row.low, row.high, row.p_value) == (expected.low, expected.high, expected.p_value)
    assert row.difference == pytest.approx(a.mean() - b.mean())
    assert row["std"] == pytest.approx(np.std(a.mean(axis=1), ddof=1))
    assert np.isnan(comparison.table.loc[0, ["difference", "low", "high", "p_value", "p_holm"]].astype(float)).all()
    assert any("of users and trainings" in note for note in comparison.notes)
    assert not any("these trainings" in note for note in comparison.notes)
    assert compare_runs([*base, *full], metric="recall").table["mean"][1] == pytest.approx(
        np.mean([result.evaluation.recall for result in full])
    )


def test_holm_over_the_variants_of_one_data_set():
    results = [
        make_result(name, 0, shift=shift) for name, shift in (("base", 0), ("b", 0.03), ("cc", 0.06), ("ddd", 0))
    ]
    comparison = compare_runs(results)
    np.testing.assert_allclose(comparison.table["p_holm"][1:].astype(float), holm(comparison.table["p_value"][1:]))
    assert (comparison.table["p_holm"][1:] >= comparison.table["p_value"][1:]).all()
    few = next(note for note in comparison.notes if "fewer than 3 seeds" in note)
    assert "of these trainings: users are resampled, not trainings" in few
    assert "sasrec ddd on a: 1" in few
    assert not any("of users and trainings" in note for note in comparison.notes)
    assert set(comparison.table["covers"].dropna()) == {"users, these trainings"}
    assert "p Holm: over 3 differences of NDCG@10 from sasrec base on a, 99+1" in comparison.notes


def test_holm_over_data_sets():
    results = [
        make_result(name, 0, shift=s, data=data) for data in "abc" for name, s in (("base", 0), ("larger", 0.04))
    ]
    comparison = compare_runs(results)
    assert comparison.table["dataset"].tolist() == ["a", "a", "b", "b", "c", "c"]
    tested = comparison.table[comparison.table["p_value"].notna()]
    np.testing.assert_allclose(tested["p_holm"].astype(float), holm(tested["p_value"]))
    assert len(comparison.protocols) == 3
    assert comparison.family == "3 differences of NDCG@10 from sasrec base on a, b and c, 99+1"
    # Each data set is compared with its own reference.
    alone = compare_runs(results[2:4]).table
    assert alone["p_value"][1] == comparison.table["p_value"][3] == alone["p_holm"][1]


def test_equal_names_are_told_apart_by_their_settings():
    configs = [
        {"model": "frellm4rec", "seed": 0, "architecture": {"alpha": alpha, "tfm": {"cutoff": 0.3}}}
        for alpha in (0.1, 0.3)
    ]
    configs.append({"model": "sasrec", "seed": 1})
    assert group_labels(configs, ["full", "full", ""]) == [
        "frellm4rec full architecture.alpha=0.1",
        "frellm4rec full architecture.alpha=0.3",
        "sasrec",
    ]
    assert group_labels(configs, ["full", "low", "base"]) == ["frellm4rec full", "frellm4rec low", "sasrec base"]


def test_what_a_model_says_of_itself_is_passed_on():
    comparison = compare_runs([make_result("base", 0), make_result("larger", 0, note="two_sided_leaky")])
    assert "sasrec larger: two_sided_leaky" in comparison.notes


def test_name_folder_and_device_make_no_group():
    base = make_result("base", 0)
    again = make_result("base", 1)
    moved = replace(again, config={**again.config, "device": "cuda", "from_dir": "elsewhere"}, name="other")
    table = compare_runs([base, moved, make_result("larger", 0)]).table
    assert table[["group", "n_seeds"]].to_numpy().tolist() == [["sasrec base", 2], ["sasrec larger", 1]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"candidates": "other"}, "differ in candidates"),
        ({"candidate_seed": 1}, "differ in candidate_seed"),
        ({"n_negatives": None}, "differ in n_negatives"),
        ({"k": 5}, "differ in k"),
        ({"part": "valid"}, "differ in part"),
        ({"users": np.arange(N_USERS) + 1}, "differ in the users"),
    ],
)
def test_other_protocols_are_refused(changes, says):
    other = make_result("larger", 0)
    other = replace(other, evaluation=replace(other.evaluation, **changes))
    with pytest.raises(DataError, match=says):
        compare_runs([make_result("base", 0), other])


def test_what_cannot_be_compared():
    base = [make_result("base", seed) for seed in (0, 1)]
    with pytest.raises(ConfigError, match="needs two groups"):
        compare_runs(base)
    with pytest.raises(ConfigError, match="a seed counts once"):
        compare_runs([*base, make_result("larger", 0), make_result("base", 1, draw=3)])
    with pytest.raises(ConfigError, match="b bbbbbbbb needs runs of the reference"):
        compare_runs([*base, make_result("larger", 0), make_result("larger", 0, data="b")])
    with pytest.raises(ConfigError, match="Did you mean 'ndcg'"):
        compare_runs([*base, make_result("larger", 0)], metric="ndgc")


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return write_log(tmp_path / "log.csv")


@pytest.fixture
def runs(log, tmp_path):
    base = [make_run(tmp_path / "runs", log, seed=seed, name="base") for seed in (0, 1)]
    return [*base, *(make_run(tmp_path / "runs", log, seed=seed, name="wide", n_inner=99) for seed in (0, 1))]


def test_command_evaluates_once_and_then_reads(runs, capsys, monkeypatch):
    arguments = ("compare", *runs, "--ranking", "9+1", "--k", "5")
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, err.count("evaluating")) == (0, 4)
    assert "sasrec base" in out
    assert "sasrec wide" in out
    assert "reference" in out
    assert "protocol: log" in out
    assert "fewer than 3 seeds" in out.replace("\n", " ")
    assert "p Holm: 1 difference of NDCG@5 from sasrec base on log, 9+1" in out.replace("\n", " ")
    monkeypatch.setattr(SASRec, "from_pretrained", None)
    assert run(monkeypatch, capsys, *arguments) == (0, out, "")
    evaluations = [Evaluation.load(path / "evaluation" / "test-9+1-k5.npz") for path in runs]
    code, out, _ = run(monkeypatch, capsys, *arguments, "--metric", "recall", "--json")
    row = json.loads(out)["table"][1]
    assert row["mean"] == pytest.approx(np.mean([evaluation.recall for evaluation in evaluations[2:]]))
    assert row["n_seeds"] == 2
    assert json.loads(out)["table"][0]["p_value"] is None
    assert json.loads(out)["family"] == row["family"] == "1 difference of Recall@5 from sasrec base on log, 9+1"


def test_command_compares_on_several_data_sets(runs, tmp_path, capsys, monkeypatch):
    other = write_log(tmp_path / "other.csv", seed=1)
    more = [
        make_run(tmp_path / "runs", other, name="base"),
        make_run(tmp_path / "runs", other, name="wide", n_inner=99),
    ]
    code, out, _ = run(monkeypatch, capsys, "compare", *runs, *more, "--ranking", "full", "--json")
    printed = json.loads(out)
    assert code == 0
    assert [row["dataset"] for row in printed["table"]] == ["log", "log", "other", "other"]
    assert [row["group"] for row in printed["table"]] == ["sasrec base", "sasrec wide"] * 2
    assert [row["n_seeds"] for row in printed["table"]] == [2, 2, 1, 1]
    assert len(printed["protocols"]) == 2


def test_command_refuses_another_protocol_and_stale_lists(runs, capsys, monkeypatch):
    assert run(monkeypatch, capsys, "compare", *runs, "--ranking", "9+1")[0] == 0
    path = runs[3] / "evaluation" / "test-9+1.npz"
    replace(Evaluation.load(path), candidates="123456789abc").save(path)
    code, out, err = run(monkeypatch, capsys, "compare", *runs, "--ranking", "9+1")
    assert (code, out) == (3, "")
    assert "differ in candidates" in err


def test_a_catalogue_too_small_for_the_candidates_is_compared_on_all_items(runs, capsys, monkeypatch):
    code, out, err = run(monkeypatch, capsys, "compare", runs[0], runs[2], "--json")
    assert code == 0
    assert "on log, full" in json.loads(out)["family"]
    assert "note: all items are ranked, because 99+1 is missing. 99 negatives cannot be drawn" in " ".join(err.split())
    code, _, err = run(monkeypatch, capsys, "compare", runs[0], runs[2], "--ranking", "99+1")
    assert (code, "99 negatives cannot be drawn" in err) == (3, True)


def test_command_failures(runs, log, tmp_path, capsys, monkeypatch):
    for arguments, code, message in (
        ((runs[0],), 2, "needs two runs or more; got one"),
        ((runs[0], runs[1], "--ranking", "full"), 2, "needs two groups"),
        ((*runs, "--metric", "mrr"), 2, "--metric must be one of"),
        ((*runs, "--ranking", "all"), 2, "got 'all'"),
        ((runs[0], runs[2] / "model"), 2, "is no training run"),
        ((runs[0], tmp_path / "absent"), 3, "There is no run"),
    ):
        exit_code, out, err = run(monkeypatch, capsys, "compare", *arguments)
        assert (exit_code, out) == (code, ""), err
        assert message in " ".join(err.split())
        assert "Traceback" not in err
