import json

import numpy as np
import pytest
import torch

from frellm4rec.models import SASRec
from frellm4rec.runs.recommendation import parse_history, recommend
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.plugins.datasets import resolve_dataset
from tests.frellm4rec.tiny_recommenders import make_model, make_run, run, write_log


@pytest.fixture
def model():
    return make_model(25)


def test_best_unseen_items_first(model):
    history = [3, 1, 4, 1, 5]
    recommendation = recommend(model, history, k=7)
    scores = model.score(torch.tensor([history]), torch.tensor([5]))[0].tolist()
    slow = sorted((item for item in range(25) if item not in history), key=lambda item: (-scores[item], item))
    assert recommendation.items.tolist() == slow[:7]
    assert recommendation.scores.tolist() == [scores[item] for item in slow[:7]]
    assert (recommendation.n_read, recommendation.is_truncated) == (5, False)
    everything = recommend(model, history, k=25, include_seen=True)
    assert sorted(everything.items.tolist()) == list(range(25))


def test_only_the_most_recent_items_are_read_but_all_are_left_out(model):
    long = [9, 8, 7, 0, 1, 2, 3, 4, 5]
    recommendation = recommend(model, long, k=16)
    assert (recommendation.n_read, recommendation.is_truncated) == (6, True)
    assert not set(long) & set(recommendation.items.tolist())
    short = recommend(model, long[3:], k=25)
    scores = dict(zip(short.items, short.scores, strict=True))
    assert recommendation.scores.tolist() == [scores[item] for item in recommendation.items]


@pytest.mark.parametrize("n_items", range(1, 71))
def test_ties_come_in_the_order_of_the_catalogue(n_items):
    model = make_model(n_items)
    with torch.no_grad():
        model.items.weight[:] = 1.0
    everything = recommend(model, [0], k=n_items, include_seen=True)
    assert everything.items.tolist() == list(range(n_items))
    if n_items > 3:
        assert recommend(model, [2], k=3).items.tolist() == [0, 1, 3]


@pytest.mark.parametrize("n_items", [2, 7, 16, 25, 33, 64, 70])
def test_two_equal_items_come_in_the_order_of_the_catalogue_wherever_they_are(n_items):
    model = make_model(n_items)
    weights = model.items.weight.data.clone()
    for position in range(1, n_items):
        model.items.weight.data = weights.clone()
        model.items.weight.data[position] = weights[0]
        ranked = recommend(model, [0], k=n_items, include_seen=True).items.tolist()
        assert ranked.index(position) == ranked.index(0) + 1


def test_what_cannot_be_recommended(model):
    for history, options, error, message in (
        ([], {}, DataError, "at least one item"),
        ([25], {}, DataError, "0…24"),
        ([1], {"k": 0}, ConfigError, "1…25"),
        ([1], {"k": 26}, ConfigError, "1…25"),
        (list(range(25)), {}, DataError, "--include-seen"),
    ):
        with pytest.raises(error, match=message):
            recommend(model, history, **options)
    assert len(recommend(model, range(22), k=10).items) == 3
    model.final_norm.weight.data[0] = np.nan
    with pytest.raises(DataError, match="25 are NaN"):
        recommend(model, [1])


def test_histories_in_words():
    titles = ["Emma", "The Trial, a Novel", "Emma", "", "0"]
    data = Dataset.from_interactions(
        Interactions.from_sequences([range(5)], item_ids=["0", "1", "x", "y", "z"]), item_titles=titles
    )
    assert parse_history(data, "1, x,0").tolist() == [1, 2, 0]
    assert parse_history(data, 'y,"the trial, A NOVEL",, z').tolist() == [3, 1, 4]
    assert parse_history(data, "0").tolist() == [0]  # an id comes before a title
    for text, message in (
        ("emma", "2 items have the title 'emma'.*: 0, x"),
        ("Ema", "Did you mean 'Emma'"),
        ("", "at least one item"),
        (" , ", "at least one item"),
    ):
        with pytest.raises(DataError, match=message):
            parse_history(data, text)


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv")


@pytest.fixture
def folder(log, tmp_path):
    return make_run(tmp_path / "runs", log)


def test_command_for_users(folder, log, capsys, monkeypatch):
    code, out, err = run(monkeypatch, capsys, "recommend", folder, "--user", "u3", "--user", "u5", "--k", "4")
    assert (code, err) == (0, "")
    data = resolve_dataset(str(log))
    model = SASRec.from_pretrained(folder / "model")
    for user in (3, 5):
        history = data.sequences[user]
        assert f"user u{user}: {len(history)} items" in out
        assert f"{data.item_ids[history[-1]]} ({data.item_titles[history[-1]]})" in out
        for item in recommend(model, history, k=4).items:
            assert data.item_titles[item] in out


def test_command_for_a_history(folder, log, capsys, monkeypatch):
    words = 'b3,"the book, volume 7",Solo'
    arguments = ("recommend", folder, "--history", words, "--k", "3", "--json")
    code, out, _ = run(monkeypatch, capsys, *arguments)
    (printed,) = json.loads(out)
    data = resolve_dataset(str(log))
    ids = data.item_ids.tolist()
    assert code == 0
    assert [item["item_id"] for item in printed["history"]] == ["b3", "b7", "b0"]
    expected = recommend(SASRec.from_pretrained(folder / "model"), [ids.index(i) for i in ("b3", "b7", "b0")], k=3)
    assert [row["item_id"] for row in printed["items"]] == [ids[item] for item in expected.items]
    assert printed["items"][0]["rank"] == 1
    assert not printed["is_truncated"]


def test_command_says_what_was_not_read(folder, capsys, monkeypatch):
    words = ",".join(f"b{i}" for i in range(9))
    code, out, _ = run(monkeypatch, capsys, "recommend", folder, "--history", words)
    assert code == 0
    assert "9 items; the model reads the last 6 of them" in out.replace("\n", " ")


def test_command_failures(folder, log, tmp_path, capsys, monkeypatch):
    saved = make_model(25).save_pretrained(tmp_path / "saved")
    for arguments, code, message in (
        ((folder,), 2, "--user ID or --history"),
        ((folder, "--user", "u1", "--history", "b1"), 2, "--user ID or --history"),
        ((folder, "--user", "u1", "--k", "0"), 2, "1…25"),
        ((saved, "--user", "u1"), 2, "--dataset"),
        ((folder, "--user", "user1"), 3, "no user 'user1'"),
        ((folder, "--user", "u11", "--user", "u111"), 3, "Did you mean 'u11'"),
        ((folder, "--history", "b1,b77"), 3, "Did you mean 'b7'"),
        ((folder, "--history", 'b1,"b2'), 3, "Close the quote"),
        ((folder, "--history", "b1", "--dataset", tmp_path / "absent.csv"), 3, "no file"),
        ((tmp_path, "--user", "u1"), 4, "neither"),
    ):
        exit_code, out, err = run(monkeypatch, capsys, "recommend", *arguments)
        assert (exit_code, out) == (code, ""), err
        assert message in " ".join(err.split())
    assert run(monkeypatch, capsys, "recommend", saved, "--user", "u1", "--dataset", log)[0] == 0
