"""Run folders are found by what they computed, newest first, and by whether they ended."""

from __future__ import annotations

import json
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import yaml

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.folder import RunFolder
from spectral_probe.runs.interruptions import Terminated
from spectral_probe.storage.hashing import settings_hash

CONFIG = {"dataset": "demo", "seed": 0}


def test_runs_are_found_by_configuration_and_state(tmp_path) -> None:
    run = RunFolder.create(tmp_path, kind="analysis", model="m", dataset="demo", config=CONFIG)
    RunFolder.create(tmp_path, kind="analysis", model="m", dataset="demo", config={**CONFIG, "seed": 1})
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) == run
    assert RunFolder.newest_finished(tmp_path, CONFIG) is None
    for status in ("failed", "interrupted"):
        run.write_state(status)
        assert RunFolder.newest_unfinished(tmp_path, CONFIG) == run
        assert RunFolder.newest_finished(tmp_path, CONFIG) is None
    run.write_state("finished")
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) is None
    assert RunFolder.newest_finished(tmp_path, CONFIG) == run


def test_a_folder_whose_record_cannot_be_read_is_passed_over(tmp_path) -> None:
    run = RunFolder.create(tmp_path, kind="analysis", model="m", dataset="demo", config=CONFIG)
    (run.path / "run.json").write_text("{")
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"format": 1, "status": "running"},
        {"format": 1, "status": None, "config_hash": settings_hash(CONFIG)},
        {"format": "1", "status": "running", "config_hash": settings_hash(CONFIG)},
        {"format": 1, "status": "running", "config_hash": 7},
    ],
)
def test_a_run_of_which_a_key_is_missing_or_of_another_type_blocks_no_other(tmp_path, content) -> None:
    run = RunFolder.create(tmp_path, kind="analysis", model="m", dataset="demo", config=CONFIG)
    broken = tmp_path / run.path.name.replace("-m-", "-z-")
    broken.mkdir()
    (broken / "run.json").write_text(json.dumps(content))
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) == run
    with pytest.raises(DataError, match="is not a readable run"):
        RunFolder.open(broken)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"request": "abc"}, "request must be a mapping"),
        ({"request": {"model": 3}}, "request.model must be text; it is 3"),
        ({"compared_runs": "../a"}, "compared_runs must be a list"),
        ({"grams_from": ["../a"]}, "grams_from must be text"),
    ],
)
def test_what_a_run_says_of_itself_is_of_the_right_type(tmp_path, state, message) -> None:
    with pytest.raises(DataError, match=message):
        AnalysisRun.open(old_run(tmp_path, **state).path)


def test_a_request_without_its_data_cannot_be_finished(tmp_path) -> None:
    with pytest.raises(DataError, match="lacks 'dataset'"):
        old_run(tmp_path, request={"model": "m", "from_dir": None}).request()


@pytest.mark.parametrize("text", ["", "[1]", "dataset: demo\ndataset: other", "a: [", "{dataset: 3}"])
def test_a_damaged_config_is_named(tmp_path, text) -> None:
    run = old_run(tmp_path)
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=r"config.yaml cannot be read"):
        run.read_config({"dataset": str})


def graph_of(**changes):
    arrays = {"indptr": [0, 2, 3], "indices": [0, 1, 1], "shape": [2, 2], "user_ids": ["a", "b"]}
    return {name: np.array(array) for name, array in {**arrays, **changes}.items() if array is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"indptr": None},
        {"shape": [[2, 2]]},
        {"shape": [2]},
        {"indices": [0.0, 1.0, 1.0]},
        {"indices": [0, 1, 9]},
        {"indptr": [0, 3, 2]},
        {"indptr": [0, 2]},
        {"user_ids": ["a"]},
        {"user_ids": [1, 2]},
    ],
)
def test_a_graph_whose_parts_do_not_fit_is_refused(tmp_path, changes) -> None:
    run = AnalysisRun(old_run(tmp_path).path)
    np.savez(run.path / "graph.npz", **graph_of())
    assert run.load_graph().n_items == 2
    assert run.load_user_ids(2).tolist() == ["a", "b"]
    np.savez(run.path / "graph.npz", **graph_of(**changes))
    with pytest.raises(DataError, match=r"graph.npz cannot be read"):
        (run.load_graph(), run.load_user_ids(2))


def old_run(root, **state) -> RunFolder:
    """Write a run as version 0.1.0 did, without a kind."""
    path = root / f"20261125T045001Z-m-demo-{settings_hash(CONFIG)[:8]}"
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    values = {"format": 1, "config_hash": settings_hash(CONFIG), "status": "running", **state}
    (path / "run.json").write_text(json.dumps(values))
    return RunFolder(path)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"request": {"model": "m", "dataset": "demo", "from_dir": None}}, "analysis"),
        ({}, "analysis"),  # made from objects in memory
        ({"compared_runs": ["../a", "../b"]}, "comparison"),
        ({"request": {"model": "m", "kind": "training", "dataset": "demo"}}, "training"),
    ],
)
def test_runs_of_an_older_version_have_a_kind_and_are_found_again(tmp_path, state, kind) -> None:
    run = old_run(tmp_path, **state)
    assert run.kind == kind
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) == run
    run.write_state("failed")
    assert RunFolder.open(run.path).kind == kind
    assert "kind" not in run.state()


def test_the_kind_is_written_and_changes_no_identity(tmp_path) -> None:
    runs = [RunFolder.create(tmp_path / k, kind=k, model="m", dataset="demo", config=CONFIG) for k in ("analysis", "x")]
    assert [run.kind for run in runs] == [run.state()["kind"] for run in runs] == ["analysis", "x"]
    assert {run.state()["config_hash"] for run in runs} == {settings_hash(CONFIG)}
    assert "kind" not in runs[0].config()
    # The kind that a run says is the one it has, whatever its request says.
    runs[0].write_state("running", request={"kind": "training"}, compared_runs=["../a"])
    assert runs[0].kind == "analysis"


def test_runs_of_another_kind_are_refused_with_what_they_are(tmp_path) -> None:
    run = RunFolder.create(tmp_path, kind="training", model="m", dataset="demo", config=CONFIG)
    with pytest.raises(ConfigError, match="is a training run: it holds no Grams, and no model"):
        AnalysisRun.open(run.path)
    (run.path / "model").mkdir()
    (run.path / "model" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"a training run: it holds a model and no Grams. .*--model {run.path}"):
        AnalysisRun.open(run.path)
    for kind in ("analysis", "comparison"):
        run.write_state("finished", kind=kind)
        assert AnalysisRun.open(run.path).kind == kind


class TestAtWork:
    """What a run says while a process works in it, and after it has ended early."""

    def work(self, run, error=None, **values):
        with run.at_work(logging.getLogger("test"), "An analysis", **values):
            assert run.state()["status"] == "running"
            assert (run.path / ".lock-process").read_text() == str(os.getpid())
            if error is not None:
                raise error

    @pytest.mark.parametrize(
        ("error", "status", "reason"),
        [
            (DataError("no rows"), "failed", "DataError: no rows"),
            (KeyboardInterrupt(), "interrupted", "interrupted by Ctrl-C (SIGINT)"),
            (Terminated(signal.SIGTERM), "interrupted", "interrupted by SIGTERM"),
        ],
    )
    def test_an_early_end_is_in_the_status_and_in_the_log(self, error, status, reason, tmp_path) -> None:
        run = old_run(tmp_path)
        (run.path / ".partial-7-x-summary.json").write_text("half")
        (run.path / "model").mkdir()
        (run.path / "model" / ".partial-7-x-model.safetensors").write_text("half")
        with pytest.raises(type(error)):
            self.work(run, error, request={"model": "m"})
        state = run.state()
        assert (state["status"], state["error"], state["request"]) == (status, reason, {"model": "m"})
        assert (run.path / "log.txt").read_text().rstrip().endswith(f"ERROR {reason}")
        assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "log.txt", "model", "run.json"]
        assert not list((run.path / "model").iterdir())
        self.work(run)
        assert run.state()["error"] is None

    def test_a_full_disk_does_not_hide_the_first_error(self, tmp_path, monkeypatch) -> None:
        run = old_run(tmp_path)
        before = RunFolder.write_state

        def full(self, status, **values):
            if status != "running":
                raise OSError(28, "No space left on device")
            before(self, status, **values)

        monkeypatch.setattr(RunFolder, "write_state", full)
        with pytest.raises(DataError, match="no rows"):
            self.work(run, DataError("no rows"))

    def test_a_folder_has_one_process(self, tmp_path) -> None:
        run = old_run(tmp_path)
        refused = pytest.raises(ConfigError, match=f"process {os.getpid()} is at work there")
        with run.at_work(logging.getLogger("test"), "An analysis"), ThreadPoolExecutor(1) as other, refused:
            other.submit(self.work, run).result()
