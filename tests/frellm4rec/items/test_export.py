import builtins
import json

import numpy as np
import pytest
from safetensors import safe_open

from frellm4rec.items.export import write_embeddings
from spectral_probe.cli import main as probe
from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, ResourceError
from spectral_probe.inputs.vector_files import load_embeddings
from spectral_probe.plugins.datasets import resolve_dataset
from tests.frellm4rec.tiny_recommenders import make_run, run, write_log

VECTORS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32) * np.float32(1e-7)
IDS = ["b,1", 'b"2', "10", "x y", "é"]
FORMATS = (".safetensors", ".npy", ".parquet", ".csv")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("ids", [IDS, [4, 3, 2, 1, 0], ["0.5", "1e3", "007", "7", "-1"]])
def test_round_trip_through_the_instrument(tmp_path, suffix, ids):
    written = write_embeddings(tmp_path / "new" / f"items{suffix}", VECTORS, ids, model="sasrec abc")
    np.testing.assert_array_equal(load_embeddings(written[0], 5, item_ids=ids), VECTORS)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "new").iterdir()}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_rows_are_found_by_id_in_any_order(tmp_path, suffix):
    order = [3, 0, 4, 1, 2]
    (path,) = write_embeddings(tmp_path / f"items{suffix}", VECTORS[order], [IDS[row] for row in order])
    np.testing.assert_array_equal(load_embeddings(path, 5, item_ids=IDS), VECTORS)
    with pytest.raises(DataError, match="must be an item of the data set"):
        load_embeddings(path, 5, item_ids=["other", *IDS[1:]])


def test_ids_lie_in_the_file_or_beside_it(tmp_path):
    (path,) = write_embeddings(tmp_path / "items.safetensors", VECTORS, IDS, model="sasrec abc")
    with safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["item_ids"]) == IDS
        assert file.metadata()["model"] == "sasrec abc"
    path, beside = write_embeddings(tmp_path / "items.npy", VECTORS, ["a", "b", "c", "d,e", "f"])
    assert beside.name == "items.ids.csv"
    assert beside.read_text() == 'item_id\na\nb\nc\n"d,e"\nf\n'


def test_refuses(tmp_path, monkeypatch):
    for vectors, ids in ((VECTORS, IDS[1:]), (VECTORS[0], IDS), (np.empty((0, 3)), []), (np.empty((5, 0)), IDS)):
        with pytest.raises(DataError, match="one id each"):
            write_embeddings(tmp_path / "items.npy", vectors, ids)
    with pytest.raises(DataError, match="'10' is not finite"):
        write_embeddings(tmp_path / "items.npy", np.where(np.arange(5)[:, None] == 2, np.inf, VECTORS), IDS)
    with pytest.raises(ConfigError, match=r"Did you mean '\.parquet'"):
        write_embeddings(tmp_path / "items.parqet", VECTORS, IDS)
    assert not list(tmp_path.iterdir())
    write_embeddings(tmp_path / "items.npy", VECTORS, IDS)
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        write_embeddings(tmp_path / "items.npy", VECTORS, IDS)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError):
        write_embeddings(tmp_path / "file" / "items.npy", VECTORS, IDS)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_embeddings(tmp_path / "items.npy", VECTORS, IDS)
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    (path,) = write_embeddings(tmp_path / "items.parquet", VECTORS, IDS)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for do in (lambda: write_embeddings(tmp_path / "b.parquet", VECTORS, IDS), lambda: load_embeddings(path, 5)):
        with pytest.raises(MissingDependencyError, match=r'pip install "spectral-probe\[parquet\]"') as error:
            do()
        assert error.value.exit_code == 5
    assert not (tmp_path / "b.parquet").exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_command_writes_what_scores_are_taken_with(tmp_path, capsys, monkeypatch, suffix):
    log = write_log(tmp_path / "log.csv")
    folder = make_run(tmp_path / "runs", log)
    out = tmp_path / f"items{suffix}"
    code, printed, _ = run(monkeypatch, capsys, "export", folder, "--out", out)
    assert (code, "25 items × 8 features" in printed) == (0, True)
    from frellm4rec.models import SASRec

    expected = SASRec.from_pretrained(folder / "model").item_embeddings().detach().numpy()
    ids = resolve_dataset(str(log)).item_ids
    np.testing.assert_array_equal(load_embeddings(out, 25, item_ids=ids), expected)
    assert run(monkeypatch, capsys, "export", folder, "--out", out)[0] == 2


def test_analyze_takes_what_export_writes(tmp_path, capsys, monkeypatch):
    log = write_log(tmp_path / "log.csv", n_users=60)
    folder = make_run(tmp_path / "runs", log)
    out = tmp_path / "items.parquet"
    assert run(monkeypatch, capsys, "export", folder, "--out", out)[0] == 0
    arguments = ["analyze", "--model", "tiny-random:qwen2", "--dataset", log, "--embeddings", out]
    monkeypatch.setattr("sys.argv", ["spectral-probe", *map(str, arguments), "--out", str(tmp_path / "probed")])
    with pytest.raises(SystemExit) as done:
        probe.main()
    assert (done.value.code, capsys.readouterr().err.count("error")) == (0, 0)


def test_command_failures(tmp_path, capsys, monkeypatch):
    log = write_log(tmp_path / "log.csv")
    folder = make_run(tmp_path / "runs", log)
    for arguments, code, message in (
        ((folder,), 2, "Missing option"),
        ((folder, "--out", tmp_path / "items.txt"), 2, "got 'items.txt'"),
        ((tmp_path / "absent", "--out", tmp_path / "items.npy"), 3, "There is no run"),
        ((tmp_path, "--out", tmp_path / "items.npy"), 4, "neither"),
    ):
        exit_code, out, err = run(monkeypatch, capsys, "export", *arguments)
        assert (exit_code, out) == (code, ""), err
        assert message in " ".join(err.split())


def test_data_writes_the_order_of_the_items(tmp_path, capsys, monkeypatch):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,title\nu,b,1,Bee\nu,a,2,\nv,b,1,\n")
    out = tmp_path / "items.csv"
    assert run(monkeypatch, capsys, "data", tmp_path / "log.csv", "--export-items", out)[0] == 0
    assert out.read_text() == "position,item_id,title\n0,b,Bee\n1,a,\n"
    assert run(monkeypatch, capsys, "data", tmp_path / "log.csv", "--export-items", out)[0] == 2
