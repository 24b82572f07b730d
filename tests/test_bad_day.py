"""Bad input and bad luck on the command line: a message to act on, the documented exit code, nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spectral_probe.cli import main as cli
from spectral_probe.errors import SpectralProbeError
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.plugins.datasets import resolve_dataset

COLUMNS = ["user_id", "item_id", "timestamp"]


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{rng.integers(40)}", t) for u in range(240) for t in range(int(rng.integers(6, 14)))]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture(scope="module")
def vectors(log, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(path, np.random.default_rng(1).standard_normal((log["item_id"].nunique(), 8)).astype(np.float32))
    return path


def run(arguments: list[str], monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["spectral-probe", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), capsys.readouterr().err


def analyze(dataset: Path, vectors: Path, out: Path, *more: str) -> list[str]:
    inputs = ["--dataset", str(dataset), "--embeddings", str(vectors), "--out", str(out)]
    return ["analyze", "--model", "tiny-random:qwen2", *inputs, *more]


def _empty(log: pd.DataFrame, path: Path) -> None:
    path.write_bytes(b"")


def _header_only(log: pd.DataFrame, path: Path) -> None:
    log.head(0).to_csv(path, index=False)


def _one_item_users(log: pd.DataFrame, path: Path) -> None:
    log.drop_duplicates("user_id").to_csv(path, index=False)


def _unknown_column(log: pd.DataFrame, path: Path) -> None:
    log.rename(columns={"item_id": "ittem_id"}).to_csv(path, index=False)


def _nan_time(log: pd.DataFrame, path: Path) -> None:
    log.assign(timestamp=log["timestamp"].astype(float).where(log.index != 3)).to_csv(path, index=False)


def _not_utf8(log: pd.DataFrame, path: Path) -> None:
    path.write_bytes(log.to_csv(index=False).replace("u1,", "\xff\xfe,", 1).encode("latin-1"))


def _twice_the_header(log: pd.DataFrame, path: Path) -> None:
    path.write_text(log.to_csv(index=False).replace("user_id,item_id,", "user_id,user_id,", 1))


def _truncated_gzip(log: pd.DataFrame, path: Path) -> None:
    path.write_bytes(gzip.compress(log.to_csv(index=False).encode())[:-40])


@pytest.mark.parametrize(
    ("damage", "name", "says"),
    [
        (_empty, "log.csv", "log.csv"),
        (_header_only, "log.csv", "no rows"),
        (_one_item_users, "log.csv", "three interactions"),
        (_unknown_column, "log.csv", "Did you mean 'ittem_id'"),
        (_nan_time, "log.csv", "timestamp"),
        (_not_utf8, "log.csv", "UTF-8"),
        (_twice_the_header, "log.csv", "user_id"),
        (_truncated_gzip, "log.csv.gz", "log.csv.gz"),
    ],
)
def test_a_damaged_log_ends_with_3(damage, name, says, log, vectors, tmp_path, monkeypatch, capsys) -> None:
    damage(log, tmp_path / name)
    code, err = run(analyze(tmp_path / name, vectors, tmp_path / "runs"), monkeypatch, capsys)
    assert code == 3, err
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_vectors_that_are_not_finite_end_with_3_and_name_the_item(log, tmp_path, monkeypatch, capsys) -> None:
    log.to_csv(tmp_path / "log.csv", index=False)
    table = np.ones((log["item_id"].nunique(), 8), dtype=np.float32)
    table[5, 2] = np.inf
    np.save(tmp_path / "inf.npy", table)
    code, err = run(analyze(tmp_path / "log.csv", tmp_path / "inf.npy", tmp_path / "runs"), monkeypatch, capsys)
    assert code == 3
    assert "item 5" in err


def test_a_state_that_is_not_finite_ends_with_4_and_names_layer_and_user(
    log, vectors, tmp_path, monkeypatch, capsys
) -> None:
    import torch

    from spectral_probe.backbones import HFDecoder

    log.to_csv(tmp_path / "log.csv", index=False)
    before = HFDecoder.forward_sequences

    def overflowing(self, inputs, lengths):
        with torch.no_grad():
            self.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
        return before(self, inputs, lengths)

    monkeypatch.setattr(HFDecoder, "forward_sequences", overflowing)
    code, err = run(analyze(tmp_path / "log.csv", vectors, tmp_path / "runs"), monkeypatch, capsys)
    assert code == 4
    assert "block 2" in err
    assert "user " in err


def test_vectors_wider_than_the_model_end_with_2(log, tmp_path, monkeypatch, capsys) -> None:
    log.to_csv(tmp_path / "log.csv", index=False)
    np.save(tmp_path / "wide.npy", np.ones((log["item_id"].nunique(), 65), dtype=np.float32))
    code, err = run(analyze(tmp_path / "log.csv", tmp_path / "wide.npy", tmp_path / "runs"), monkeypatch, capsys)
    assert code == 2
    assert "65" in err
    assert "64" in err


def test_a_full_disk_ends_with_6_and_keeps_the_grams(log, vectors, tmp_path, monkeypatch, capsys) -> None:
    log.to_csv(tmp_path / "log.csv", index=False)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    arguments = analyze(tmp_path / "log.csv", vectors, tmp_path / "runs")
    code, err = run(arguments, monkeypatch, capsys)
    assert code == 6
    assert "No space left on device" in err
    monkeypatch.undo()
    code, _ = run([*arguments, "--resume"], monkeypatch, capsys)
    assert code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1


def _of_same_items(path: Path, *, shuffled: bool) -> Path:
    rng = np.random.default_rng(2)
    orders = [rng.permutation(10) if shuffled else np.arange(10) for _ in range(60)]
    rows = [(f"u{u}", f"i{item}", t) for u, order in enumerate(orders) for t, item in enumerate(order)]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    np.save(path.with_suffix(".npy"), np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32))
    return path


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_retention_without_a_measurable_input_is_not_available(shuffled, tmp_path, monkeypatch, capsys) -> None:
    data = _of_same_items(tmp_path / "same.csv", shuffled=shuffled)
    monkeypatch.setattr(
        sys,
        "argv",
        ["spectral-probe", *analyze(data, data.with_suffix(".npy"), tmp_path / "runs", "--own-user", "keep")],
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "verdict on taste: no measurable taste" in out
    assert "verdict on popularity: no measurable popularity" in out
    layers = [line for line in out.splitlines() if line.startswith(("embed", "block", "final_norm"))]
    # Both retentions and their intervals.
    assert [line.count("n/a") for line in layers] == [4] * 4
    assert "by null: swap n/a," in out
    (folder,) = (tmp_path / "runs").iterdir()
    assert "inf" not in (folder / "summary.json").read_text().replace("information", "")
    page = (folder / "report.html").read_text()
    assert page.count("n/a") >= 8
    if not shuffled:  # every user's states are those of every other user: an excess of 0 to rounding
        curves = pd.read_csv(folder / "bands.csv")
        assert curves.loc[curves["component"] == "taste", "retention"].isna().all()


def test_the_users_are_counted_alike_everywhere(log, vectors, tmp_path, monkeypatch, capsys) -> None:
    short = log.groupby("user_id").cumcount() < 4  # three targets: fewer than the least that is measured
    mixed = log[~log["user_id"].isin([f"u{u}" for u in range(30)]) | short]
    mixed.to_csv(tmp_path / "log.csv", index=False)
    np.save(tmp_path / "v.npy", np.load(vectors)[: mixed["item_id"].nunique()])
    arguments = analyze(tmp_path / "log.csv", tmp_path / "v.npy", tmp_path / "runs", "--users", "150")
    monkeypatch.setattr(sys, "argv", ["spectral-probe", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    (folder,) = (tmp_path / "runs").iterdir()
    out = " ".join(capsys.readouterr().out.split())
    users = json.loads((folder / "summary.json").read_text())["users"]
    assert users["probed"] == users["measured"] + sum(users["skipped"].values()) == 150
    assert 0 < users["measured"] < 150
    line = f"{users['probed']} users probed, {users['measured']} measured, {users['shortened']} of them on fewer nodes"
    assert line in out
    assert line in " ".join((folder / "report.html").read_text().split())
    skipped = "; ".join(f"{reason}: {count}" for reason, count in users["skipped"].items() if count)
    assert f"left out: {skipped}." in out
    curves = pd.read_csv(folder / "bands.csv", keep_default_na=False, na_values=[""])
    shown = curves[curves["control"].isin(["none", "raw"]) & (curves["band"] == "low") & (curves["null"] == "swap")]
    assert set(shown["n_users"]) == {users["measured"]}
    assert pd.read_csv(folder / "per_user.csv.gz")["user_id"].nunique() == users["measured"]


def test_a_run_given_as_out_ends_with_2(log, vectors, tmp_path, monkeypatch, capsys) -> None:
    log.to_csv(tmp_path / "log.csv", index=False)
    assert run(analyze(tmp_path / "log.csv", vectors, tmp_path / "runs"), monkeypatch, capsys)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    code, err = run(analyze(tmp_path / "log.csv", vectors, folder), monkeypatch, capsys)
    assert code == 2
    assert "never overwritten" in err


def test_kill_9_in_the_middle_of_capture_and_resume_give_the_same_bytes(log, vectors, tmp_path) -> None:
    log.to_csv(tmp_path / "log.csv", index=False)
    command = [sys.executable, "-m", "spectral_probe.cli.main"]

    def arguments(out: str) -> list[str]:
        return [*command, *analyze(tmp_path / "log.csv", vectors, tmp_path / out, "--batch-size", "1")]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(arguments("straight"), check=True, capture_output=True, env=environment)
    killed = subprocess.Popen(
        arguments("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("*/grams/main/shard-00001.npz")):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (before,) = (tmp_path / "killed").iterdir()
    n_shards = len(list((tmp_path / "straight").glob("*/grams/main/shard-*.npz")))
    assert len(list(before.glob("grams/main/shard-*.npz"))) < n_shards
    subprocess.run([*arguments("killed"), "--resume"], check=True, capture_output=True, env=environment)
    (straight,), (resumed,) = (list((tmp_path / name).iterdir()) for name in ("straight", "killed"))
    for name in ("bands.csv", "per_user.csv.gz", "summary.json"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.tuples(
                st.sampled_from("abc"), st.sampled_from(["x", "y", "", "1e999", "nan", "\x00"]), st.integers(-3, 3)
            ),
            max_size=30,
        ).map(lambda rows: "\n".join(["user_id,item_id,timestamp", *(f"{u},{i},{t}" for u, i, t in rows)]).encode()),
    ),
    suffix=st.sampled_from([".csv", ".csv.gz", ".tsv", ".txt", ".inter", ".parquet"]),
)
@example(content=b"\xef\xbb\xbf", suffix=".csv")  # a byte order mark alone
@example(content=b"\x1c\n\xc2\xa0", suffix=".tsv")  # spaces of other kinds
def test_any_bytes_are_a_data_set_or_an_error_to_act_on(content, suffix, tmp_path) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_bytes(content)
    failure = None
    try:
        probe_sequences(resolve_dataset(str(path)))
    except SpectralProbeError as error:  # anything else is a bug, and fails the test
        failure = error
    assert failure is None or (failure.exit_code in (2, 3, 5) and len(str(failure)) > 20)
