import json

import numpy as np
import pandas as pd
import pytest

from frellm4rec.evaluation import Candidates, Evaluation, evaluate, sample_candidates
from frellm4rec.models import SASRec
from frellm4rec.runs import evaluations
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.storage.cache import CACHE_VARIABLE
from tests.frellm4rec.tiny_recommenders import make_model, make_run, run, write_log


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_log(tmp_path / "log.csv")


@pytest.fixture
def folder(log, tmp_path):
    return make_run(tmp_path / "runs", log)


def test_numbers_protocol_and_files(folder, log, capsys, monkeypatch):
    code, out, err = run(monkeypatch, capsys, "evaluate", folder, "--ranking", "9+1", "--ranking", "full", "--k", "5")
    assert (code, err) == (0, "")
    dataset = resolve_dataset(str(log))
    model = SASRec.from_pretrained(folder / "model")
    lists = sample_candidates(dataset, n_negatives=9)
    for name, candidates in (("9+1", lists), ("full", None)):
        expected = evaluate(model, dataset, candidates=candidates, k=5)
        kept = Evaluation.load(folder / "evaluation" / f"test-{name}-k5.npz")
        np.testing.assert_array_equal(kept.ndcg, expected.ndcg)
        assert f"{expected.ndcg.mean():.4f}" in out
        assert f"{expected.recall.mean():.4f}" in out
        assert expected.rule in out.replace("\n", " ")
        users = pd.read_csv(folder / "evaluation" / f"test-{name}-k5.csv.gz")
        assert users["user_id"].tolist() == [f"u{user}" for user in range(30)]
        np.testing.assert_allclose(users["ndcg"], expected.ndcg)


def test_json(folder, capsys, monkeypatch):
    code, out, _ = run(monkeypatch, capsys, "evaluate", folder, "--ranking", "9+1", "--part", "valid", "--json")
    (found,) = json.loads(out)
    assert code == 0
    assert (found["run"], found["part"], found["ranking"], found["n_users"]) == (str(folder), "valid", "9+1", 30)
    assert found["protocol"].startswith("log ")
    assert (folder / "evaluation" / "valid-9+1.npz").exists()


def test_a_stored_evaluation_is_used_until_the_model_changes(folder, log, capsys, monkeypatch):
    arguments = ("evaluate", folder, "--ranking", "9+1", "--json")
    first = json.loads(run(monkeypatch, capsys, *arguments)[1])
    with monkeypatch.context() as patch:
        patch.setattr(evaluations, "evaluate", None)
        assert json.loads(run(monkeypatch, capsys, *arguments)[1]) == first
        patch.setattr(SASRec, "from_pretrained", None)
        assert run(monkeypatch, capsys, *arguments)[0] == 0
    make_model(25, seed=9).save_pretrained(folder / "model")
    second = json.loads(run(monkeypatch, capsys, *arguments)[1])
    assert second[0]["revision"] != first[0]["revision"]
    assert Evaluation.load(folder / "evaluation" / "test-9+1.npz").revision == second[0]["revision"]
    assert second[0]["candidates"] == first[0]["candidates"]


def test_a_damaged_stored_evaluation_is_made_again(folder, capsys, monkeypatch):
    arguments = ("evaluate", folder, "--ranking", "9+1", "--json")
    first = run(monkeypatch, capsys, *arguments)[1]
    path = folder / "evaluation" / "test-9+1.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert run(monkeypatch, capsys, *arguments)[1] == first
    assert Evaluation.load(path).k == 10


def test_seeds_of_the_candidates_lie_apart(folder, capsys, monkeypatch):
    found = [
        json.loads(run(monkeypatch, capsys, "evaluate", folder, "--ranking", "9+1", "--seed", s, "--json")[1])[0]
        for s in (0, 1)
    ]
    assert found[0]["candidates"] != found[1]["candidates"]
    assert {path.name for path in (folder / "evaluation").glob("*.npz")} == {"test-9+1.npz", "test-9+1-seed1.npz"}


def test_candidates_of_ones_own(folder, log, tmp_path, capsys, monkeypatch):
    lists = sample_candidates(resolve_dataset(str(log)), n_negatives=7, seed=5)
    few = Candidates(lists.items[:12], lists.users[:12], lists.part, lists.seed, lists.fingerprint)
    path = few.save(tmp_path / "own.npz")
    code, out, _ = run(monkeypatch, capsys, "evaluate", folder, "--candidates", path, "--k", "5", "--json")
    (found,) = json.loads(out)
    assert (code, found["ranking"], found["n_users"], found["candidates"]) == (0, "7+1", 12, few.digest)
    assert (folder / "evaluation" / f"test-7+1-lists-{few.digest}-k5.npz").exists()
    assert not (tmp_path / "cache").exists()
    code, _, err = run(monkeypatch, capsys, "evaluate", folder, "--candidates", path, "--ranking", "full")
    assert (code, "holds 7+1 candidates" in err) == (2, True)
    path.write_bytes(b"junk")
    assert run(monkeypatch, capsys, "evaluate", folder, "--candidates", path)[0] == 3


def test_a_saved_model_without_a_run(log, tmp_path, capsys, monkeypatch):
    saved = make_model(25).save_pretrained(tmp_path / "saved")
    code, _, err = run(monkeypatch, capsys, "evaluate", saved, "--ranking", "full")
    assert (code, "Name the data set with --dataset" in err) == (2, True)
    assert run(monkeypatch, capsys, "evaluate", saved, "--ranking", "full", "--dataset", log)[0] == 0
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    run(monkeypatch, capsys, "evaluate", saved, "--ranking", "full", "--dataset", log, "--out", tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"test-full.npz", "test-full.csv.gz"}


def test_several_runs_share_lists_and_protocol(log, folder, tmp_path, capsys, monkeypatch):
    other = make_run(tmp_path / "runs", log, seed=1)
    code, out, _ = run(monkeypatch, capsys, "evaluate", folder, other, "--ranking", "9+1")
    assert code == 0
    assert len([line for line in out.splitlines() if line.startswith("protocol")]) == 1
    digests = {Evaluation.load(path / "evaluation" / "test-9+1.npz").candidates for path in (folder, other)}
    assert len(digests) == 1


def test_an_unfinished_run_is_evaluated_with_a_note(log, tmp_path, capsys, monkeypatch):
    folder = make_run(tmp_path / "runs", log, status="running")
    code, _, err = run(monkeypatch, capsys, "evaluate", folder, "--ranking", "9+1")
    assert (code, "is not finished" in err) == (0, True)


def test_other_data_than_the_runs(folder, log, tmp_path, capsys, monkeypatch):
    write_log(log, seed=1)
    code, _, err = run(monkeypatch, capsys, "evaluate", folder)
    assert code == 3
    assert "was trained on" in err
    assert "fingerprint" in err
    moved = write_log(tmp_path / "moved.csv")
    log.unlink()
    code, _, err = run(monkeypatch, capsys, "evaluate", folder, "--ranking", "full")
    assert code == 3
    assert run(monkeypatch, capsys, "evaluate", folder, "--ranking", "full", "--dataset", moved)[0] == 0


def test_a_model_that_diverged(folder, capsys, monkeypatch):
    model = make_model(25)
    model.final_norm.weight.data[0] = np.nan
    model.save_pretrained(folder / "model")
    code, _, err = run(monkeypatch, capsys, "evaluate", folder, "--ranking", "full")
    assert (code, "NaN" in err) == (3, True)
    assert not (folder / "evaluation").exists()


def test_a_catalogue_too_small_for_the_candidates_still_has_the_full_ranking(folder, capsys, monkeypatch):
    code, out, err = run(monkeypatch, capsys, "evaluate", folder, "--json")
    assert (code, [row["ranking"] for row in json.loads(out)]) == (0, ["full"])
    n_users = json.loads(out)[0]["n_users"]
    assert "99+1 is missing" in err
    assert f"for {n_users} of {n_users} users" in err
    code, out, err = run(monkeypatch, capsys, "evaluate", folder, "--ranking", "99+1", "--ranking", "full", "--json")
    assert (code, [row["ranking"] for row in json.loads(out)]) == (3, ["full"])
    assert "99+1 is missing" in err


def test_failures_end_with_their_exit_code(folder, log, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "run.json").write_text(
        '{"format": 1, "status": "finished", "config_hash": "0", "request": {"model": "minilm"}}'
    )
    broken = make_run(tmp_path / "broken", log)
    (broken / "model" / "model.safetensors").write_bytes(b"junk")
    other = make_model(24).save_pretrained(tmp_path / "other")
    for arguments, code, message in (
        ((folder, "--ranking", "99"), 2, "got '99'"),
        ((folder, "--ranking", "0+1"), 2, "got '0+1'"),
        ((folder, "--part", "tset"), 2, "Did you mean 'test'"),
        ((folder, "--ranking", "full", "--k", "99"), 2, "1…25"),
        ((folder, folder, "--out", "x"), 2, "--out holds"),
        ((folder, "--device", "gpu"), 2, "device must be"),
        ((folder.with_name(f"x{folder.name}"),), 3, f"Did you mean '{folder.name}'"),
        ((folder, "--ranking", "99+1"), 3, "99 negatives cannot be drawn"),
        ((tmp_path / "wrong",), 3, "not a training run"),
        ((other, "--dataset", log, "--ranking", "full"), 3, "has 24 items"),
        ((tmp_path / "empty", "--dataset", log), 4, "config.json"),
        ((broken, "--ranking", "full"), 4, "Give such a folder, or train the model again"),
    ):
        found, out, err = run(monkeypatch, capsys, "evaluate", *arguments)
        assert (found, out) == (code, ""), err
        assert message in " ".join(err.split())
        assert "Traceback" not in err


def test_weights_that_changed_after_the_training_are_refused(log, tmp_path, capsys, monkeypatch):
    recipe = ("--model", "sasrec", "--dataset", log, "--epochs", "1", "--out", tmp_path / "runs")
    assert run(monkeypatch, capsys, "train", *recipe)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    path = folder / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    code, _, err = run(monkeypatch, capsys, "evaluate", folder, "--ranking", "full")
    assert code == 4
    assert "not those that the training ended with" in err
    (folder / "summary.json").unlink()
    assert run(monkeypatch, capsys, "evaluate", folder, "--ranking", "full")[0] == 0
