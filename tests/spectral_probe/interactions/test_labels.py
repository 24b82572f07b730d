"""One rule for labels, at every door of both packages."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from frellm4rec.data import read_recbole, read_s3rec, read_table
from frellm4rec.runs.recommendation import find_user, parse_history
from spectral_probe.errors import DataError
from spectral_probe.inputs.vector_files import load_embeddings
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import clean_labels, label_of
from spectral_probe.interactions.log import Interactions
from spectral_probe.plugins.datasets import resolve_dataset

#: Six events of two users and two items, each label written in two ways.
ROWS = [
    ("u1", "12 ", 1),
    (" u1", "12", 2),
    ("u1", " a", 3),
    ("u2", "a\u00a0", 1),
    ("u2", "\ufeff12", 2),
    ("u2", "12.0", 3),
]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("12 ", "12"), ("\t12\u200b\u00a0", "12"), (12, "12"), (12.0, "12"), ("12.0", "12"), (np.float32(7), "7"),
        ("007", "007"), ("1.10", "1.10"), (b"ab", "ab"), ("e\u0301", "\u00e9"), (True, "True"), ("a  b", "a  b"),
        ("0.5", "0.5"), (-3, "-3"), ("1e3", "1e3"),
    ],
)  # fmt: skip
def test_what_is_a_label(value, label) -> None:
    assert label_of(value) == label
    assert label_of(label) == label


@pytest.mark.parametrize(
    "value",
    ["", "  ", "NaN", "nan", r"\N", "NULL", "null", "None", "N/A", "NA ", "<NA>", None, pd.NA, pd.NaT, np.nan, np.inf],
)
def test_what_is_missing(value) -> None:
    assert label_of(value) == ""


def histories(dataset: Dataset) -> dict[str, list[str]]:
    return {
        str(user): [str(dataset.item_ids[item]) for item in sequence]
        for user, sequence in zip(dataset.user_ids, dataset.sequences, strict=True)
    }


def test_every_table_merges_what_differs_in_white_space_alone_and_says_so(tmp_path, caplog) -> None:
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp"])
    frame.to_csv(tmp_path / "log.csv", index=False)
    frame.to_csv(tmp_path / "log.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "log.parquet")
    typed = frame.set_axis(["user_id:token", "item_id:token", "timestamp:float"], axis=1)
    typed.to_csv(tmp_path / "log.inter", index=False, sep="\t")
    expected = {"u1": ["12", "12", "a"], "u2": ["a", "12", "12"]}
    doors = [lambda: resolve_dataset(frame), lambda: read_recbole(tmp_path / "log.inter")]
    doors += [lambda name=name: read_table(tmp_path / name) for name in ("log.csv", "log.tsv", "log.parquet")]
    for door in doors:
        caplog.clear()
        dataset = door()
        assert histories(dataset) == expected
        assert (dataset.n_users, dataset.n_items) == (2, 2)
        assert "'item_id': 5 of 6 labels (5 rows)" in caplog.text
        assert "4 labels became equal to another" in caplog.text
    (note, *_) = [note for note in read_table(tmp_path / "log.csv").report.notes if "item_id" in note]
    assert "4 labels became equal" in note


def test_clean_labels_are_as_they_were_and_nothing_is_logged(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        log = Interactions.from_frame(pd.DataFrame({"user_id": [5, 5], "item_id": ["007", "7"], "timestamp": [1, 2]}))
    assert (log.user_ids.tolist(), log.item_ids.tolist(), caplog.text) == ([5], ["007", "7"], "")
    assert log.user_ids.dtype.kind == "i"


def test_numbers_with_decimals_are_whole_numbers_and_mixed_types_one_label() -> None:
    assert clean_labels(pd.Series([1.0, 2.0]), "x").values.tolist() == [1, 2]
    assert clean_labels(pd.Series([1, "1", 1.0], dtype=object), "x").values.tolist() == ["1", "1", "1"]
    assert clean_labels(pd.Series([1.0, None]), "x").is_missing.tolist() == [False, True]
    assert clean_labels(pd.Series(["a", "b", "a"], dtype="category"), "x").values.tolist() == ["a", "b", "a"]
    with pytest.raises(DataError, match="floats from 2"):
        clean_labels(pd.Series([2.0**53, 1.0]), "x")


@pytest.mark.parametrize("word", ["NaN", r"\N", "NULL", " "])
def test_a_word_for_a_missing_value_is_no_item(word, tmp_path) -> None:
    rows = [("u", "a", 1), ("u", word, 2), ("u", "b", 3)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    with pytest.raises(DataError, match="first in row 1 "):
        resolve_dataset(frame)
    frame.to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=r"'item_id' .*line 3"):
        read_table(tmp_path / "log.csv")
    if word.strip():
        (tmp_path / "log.txt").write_text(f"u a b\nv {word} c\n")
        with pytest.raises(DataError, match="line 2"):
            read_s3rec(tmp_path / "log.txt")


def test_titles_embeddings_users_and_histories_meet_the_same_labels(tmp_path) -> None:
    pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp"]).to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "titles.csv").write_text("item_id,title\n12.0,Twelve\n a ,Ay\nNaN,None\n")
    dataset = read_table(tmp_path / "log.csv", titles=tmp_path / "titles.csv")
    assert dict(zip(dataset.item_ids, dataset.item_titles, strict=True)) == {"12": "Twelve", "a": "Ay"}
    (tmp_path / "v.csv").write_text("item_id,x\n a,1\n12.0,2\n")
    assert load_embeddings(tmp_path / "v.csv", 2, dataset.item_ids)[:, 0].tolist() == [2, 1]
    assert dataset.user_ids[find_user(dataset, " u2 ")] == "u2"
    assert parse_history(dataset, "12.0, a ,\u00a012").tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="no user"):
        find_user(dataset, "nan")
    frame = pd.DataFrame({"user_id": [1] * 3, "item_id": [1.0, 2, 3], "timestamp": [1, 2, 3], "title": ["", "B", "C"]})
    frame = pd.concat([frame, frame.assign(title="Late")])
    assert resolve_dataset(frame).item_titles == ["Late", "B", "C"]
