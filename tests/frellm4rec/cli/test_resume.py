"""What a stopped, killed or failed training leaves behind, and how it goes on."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from frellm4rec.models import SASRec
from frellm4rec.models.registry import load_model
from frellm4rec.runs.recipe import Recipe
from frellm4rec.runs.train import load_run, read_recipe, train_recipe
from frellm4rec.training.checkpoints import CheckpointFolder
from spectral_probe.errors import ConfigError, DataError, NonFiniteStateError
from spectral_probe.runs.folder import RunFolder
from tests.frellm4rec.cli.conftest import TINY, metrics, only, weights
from tests.frellm4rec.tiny_recommenders import run, write_log


def start(*arguments):
    """Start the command as a process of its own."""
    command = [sys.executable, "-m", "frellm4rec.cli.main", "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # In a group of its own: a signal to it is none to the tests.
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, the shell has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_checkpoint(process, folder, least):
    """Wait until a checkpoint of step ``least`` or later lies in the only run of a folder."""
    while process.poll() is None:
        steps = [int(path.name.split("-")[1]) for path in folder.glob("*/checkpoints/step-*")]
        if any(step >= least for step in steps):
            return
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"the process ended by itself: {process.stderr.read()}")


def stop(process, by):
    """Send a signal, again after four seconds; return stderr."""
    while process.poll() is None:
        os.kill(process.pid, by)
        try:
            return process.communicate(timeout=4)[1]
        except subprocess.TimeoutExpired:
            continue
    return process.communicate()[1]


#: Enough that on a busy machine, too, a signal reaches the process long before its end.
N_EPOCHS = 100
LONG = {"training.n_epochs": N_EPOCHS, "training.patience": 1000, "training.validate_every": 10}


def long_recipe(recipe):
    values = Recipe.from_yaml(recipe).merged(LONG).to_dict()
    recipe.write_text(yaml.safe_dump(values))
    return Recipe.from_yaml(recipe)


@pytest.mark.parametrize(
    ("by", "code"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["kill -9", "Ctrl-C", "SIGTERM"],
)
def test_a_stopped_process_goes_on_to_the_same_bytes(by, code, recipe, tmp_path, monkeypatch, capsys):
    straight = train_recipe(long_recipe(recipe), out=tmp_path / "straight").path
    process = start(recipe, "--out", tmp_path / "runs")
    wait_for_checkpoint(process, tmp_path / "runs", least=30)
    message = stop(process, by)
    assert process.returncode == code, message
    path = only(tmp_path / "runs")
    assert RunFolder(path).state()["status"] == ("running" if by == signal.SIGKILL else "interrupted")
    assert len(metrics(path)) < N_EPOCHS
    if by != signal.SIGKILL:
        assert (
            f"interrupted by {'Ctrl-C (SIGINT)' if by == signal.SIGINT else 'SIGTERM'}"
            in RunFolder(path).state()["error"]
        )
        assert "interrupted by" in (path / "log.txt").read_text()
        assert "interrupted: " in message
        assert "--resume" in message
        assert "Traceback" not in message
    code, _, err = run(monkeypatch, capsys, "train", path, "--resume")
    assert code == 0, err
    assert only(tmp_path / "runs") == path
    assert weights(path) == weights(straight)
    assert (path / "model" / "config.json").read_bytes() == (straight / "model" / "config.json").read_bytes()
    assert metrics(path) == metrics(straight)
    summaries = [json.loads((each / "summary.json").read_text()) for each in (path, straight)]
    efforts = [summary["record"].pop("effort") for summary in summaries]
    assert summaries[0] == summaries[1]
    for name in ("n_steps", "n_samples", "n_tokens"):
        assert efforts[0][name] == efforts[1][name] > 0
    assert min(effort["seconds"] for effort in efforts) > 0
    assert min(effort["peak_memory"] for effort in efforts) > 1e7
    assert [p.name for p in (path / "checkpoints").iterdir()] == [f"step-{N_EPOCHS * 4:09d}-end"]


def stop_at(monkeypatch, error, *, call):
    """Let the model fail in a training step."""
    forward, calls = SASRec.forward, []

    def failing(self, inputs, lengths):
        states = forward(self, inputs, lengths)
        calls.extend([1] * self.training)
        if len(calls) < call:
            return states
        if error is not None:
            raise error
        return states * float("nan")

    monkeypatch.setattr(SASRec, "forward", failing)


def test_a_broken_loss_fails_the_run_and_keeps_what_was_good(recipe, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_at(patch, None, call=11)
        code, _, err = run(patch, capsys, "train", recipe, "--out", tmp_path / "runs")
    path = only(tmp_path / "runs")
    assert (code, "nan in epoch 3, step 3" in err) == (NonFiniteStateError.exit_code, True), err
    state = RunFolder(path).state()
    assert (state["status"], "NonFiniteStateError" in state["error"]) == ("failed", True)
    assert "NonFiniteStateError" in (path / "log.txt").read_text()
    assert [p.name for p in (path / "checkpoints").iterdir()] == ["step-000000010"]
    best = load_model(path)
    assert all(bool(torch.isfinite(p).all()) for p in best.parameters())
    short = Recipe.from_yaml(recipe).merged({"training.n_epochs": 2})
    assert train_recipe(short, out=tmp_path / "short").model.revision == best.revision
    # Once the cause is gone, the run goes on and ends as if nothing had been.
    straight = train_recipe(Recipe.from_yaml(recipe), out=tmp_path / "straight").path
    assert run(monkeypatch, capsys, "train", path, "--resume")[0] == 0
    assert weights(path) == weights(straight)
    assert metrics(path) == metrics(straight)
    assert RunFolder(path).state()["error"] is None


def test_entries_after_the_last_checkpoint_are_replaced(recipe, tmp_path, monkeypatch):
    """Stopped between an epoch's entry and its checkpoint: the epoch is run again, and logged once."""
    settings = Recipe.from_yaml(recipe).merged({"training.save_every": 0})
    write, calls = CheckpointFolder.save, []

    def failing(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", failing)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(settings, out=tmp_path / "runs")
    path = only(tmp_path / "runs")
    assert [e["epoch"] for e in metrics(path)] == [1, 2, 3]
    train_recipe(settings, out=tmp_path / "runs", resume=True)
    straight = train_recipe(settings, out=tmp_path / "straight").path
    assert metrics(path) == metrics(straight)
    assert weights(path) == weights(straight)


def test_a_damaged_checkpoint_ends_with_4(recipe, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_at(patch, KeyboardInterrupt(), call=7)
        assert run(patch, capsys, "train", recipe, "--out", tmp_path / "runs")[0] == 130
    path = only(tmp_path / "runs")
    file = only(path / "checkpoints") / "state.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    code, _, err = run(monkeypatch, capsys, "train", path, "--resume")
    assert (code, "cannot be read" in err, "Delete it" in err) == (4, True, True)
    only(path / "checkpoints").joinpath("state.json").unlink()
    file.unlink()
    file.parent.rmdir()
    assert run(monkeypatch, capsys, "train", path, "--resume")[0] == 0
    assert weights(path) == weights(train_recipe(Recipe.from_yaml(recipe), out=tmp_path / "straight").path)


def test_another_recipe_or_log_is_another_run(recipe, tmp_path, monkeypatch):
    settings = Recipe.from_yaml(recipe)
    with monkeypatch.context() as patch:
        stop_at(patch, KeyboardInterrupt(), call=7)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(settings, out=tmp_path / "runs")
    changed = settings.merged({"training.learning_rate": 2e-2, "training.n_epochs": 1})
    other_log = replace(changed, dataset=str(write_log(tmp_path / "other.csv", seed=1)))
    paths = {train_recipe(r, out=tmp_path / "runs", resume=True).path for r in (changed, other_log)}
    assert len(list((tmp_path / "runs").iterdir())) == 3
    unfinished = [p for p in (tmp_path / "runs").iterdir() if p not in paths]
    renamed = replace(settings, name="label", from_dir=None)
    assert [train_recipe(renamed, out=tmp_path / "runs", resume=True).path] == unfinished, "a name decides nothing"


def test_threads_are_recorded_and_kept(recipe, tmp_path, monkeypatch, capsys):
    """They are no part of the identity: the run is found without them, keeps its own, and refuses others."""
    with monkeypatch.context() as patch:
        stop_at(patch, KeyboardInterrupt(), call=7)
        code, _, _ = run(patch, capsys, "train", recipe, "--out", tmp_path / "runs", "--threads", 2)
        assert code == 130
    path = only(tmp_path / "runs")
    assert read_recipe(path).threads == 2
    code, _, err = run(monkeypatch, capsys, "train", recipe, "--out", tmp_path / "runs", "--resume", "--threads", 1)
    assert (code, "began with 2; got 1" in err, "--threads 2" in err) == (2, True, True), err
    assert only(tmp_path / "runs") == path
    assert run(monkeypatch, capsys, "train", path, "--resume")[0] == 0
    summary, state = json.loads((path / "summary.json").read_text()), RunFolder(path).state()
    assert summary["record"]["threads"] == state["threads"] == 2
    assert "threads: 2; attention in training steps: None" in (path / "log.txt").read_text()
    straight = train_recipe(Recipe.from_yaml(recipe).merged({"threads": 2}), out=tmp_path / "straight").path
    assert weights(path) == weights(straight)
    code, _, err = run(monkeypatch, capsys, "train", path, "--resume", "--threads", 1)
    assert (code, "began with 2; got 1" in err) == (2, True)
    assert train_recipe(Recipe.from_yaml(recipe), out=tmp_path / "runs", resume=True).path == path


def test_a_run_of_the_instrument_is_no_recipe(tmp_path):
    folder = RunFolder.create(tmp_path, kind="analysis", model="m", dataset="d", config={"a": 1})
    folder.write_state("finished", request={"model": "m", "dataset": "d", "from_dir": None})
    with pytest.raises(DataError, match="not a training run"):
        read_recipe(folder.path)
    with pytest.raises(DataError, match="not a finished training run"):
        load_run(folder.path)
    with pytest.raises(ConfigError, match="is a run already"):
        train_recipe(Recipe.from_dict(TINY), out=folder.path)


# Exactly the run that was named


def stopped_run(recipe, tmp_path, monkeypatch):
    """Return a run that stopped in its second epoch."""
    with monkeypatch.context() as patch:
        stop_at(patch, KeyboardInterrupt, call=7)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(Recipe.from_yaml(recipe), out=tmp_path / "runs")
    return only(tmp_path / "runs")


def test_a_run_under_another_name_is_the_one_that_goes_on(recipe, tmp_path, monkeypatch, capsys):
    path = stopped_run(recipe, tmp_path, monkeypatch)
    renamed = path.rename(tmp_path / "runs" / "renamed")
    code, out, err = run(monkeypatch, capsys, "train", renamed, "--resume", "--json")
    assert code == 0, err
    assert json.loads(out)["run"] == str(renamed)
    assert only(tmp_path / "runs") == renamed
    again = run(monkeypatch, capsys, "train", renamed, "--resume", "--json")
    assert json.loads(again[1])["run"] == str(renamed)
    straight = train_recipe(Recipe.from_yaml(recipe), out=tmp_path / "straight")
    assert weights(renamed) == weights(straight.path)


@pytest.mark.parametrize(
    ("change", "says"), [(("--seed", "3"), "seed"), (("--set", "training.batch_size=7"), "training.batch_size")]
)
def test_a_run_goes_on_with_its_own_settings_only(change, says, recipe, tmp_path, monkeypatch, capsys):
    path = stopped_run(recipe, tmp_path, monkeypatch)
    code, out, err = run(monkeypatch, capsys, "train", path, "--resume", *change)
    assert (code, out) == (2, "")
    assert f"the settings it began with; {says} would" in " ".join(err.split())
    assert only(tmp_path / "runs") == path
    assert RunFolder(path).state()["status"] != "finished"


def test_a_damaged_line_of_the_log_does_not_stop_a_run(recipe, tmp_path, monkeypatch, capsys):
    path = stopped_run(recipe, tmp_path, monkeypatch)
    log = path / "metrics.jsonl"
    log.write_text(log.read_text() + '\n{"epoch": 9, "st')
    code, _, err = run(monkeypatch, capsys, "train", path, "--resume")
    assert code == 0, err
    assert [entry["epoch"] for entry in metrics(path)] == [1, 2, 3, 4]


def test_a_lost_entry_of_the_log_is_named_before_a_run_goes_on(recipe, tmp_path, monkeypatch, capsys):
    """The last line is cut, and no epoch to come would write it again."""
    path = train_recipe(Recipe.from_yaml(recipe), out=tmp_path / "runs").path
    log, state = path / "metrics.jsonl", path / "run.json"
    whole = log.read_text()
    log.write_text(whole[:-20])
    code, _, err = run(monkeypatch, capsys, "train", path, "--resume")
    assert (code, "metrics.jsonl, line 4: " in err, "restore the file" in err) == (3, True, True)
    state.write_text(state.read_text().replace('"finished"', '"interrupted"'))
    for text, says in ((whole[:-20], "of the 4 epochs that are trained: line 4 is damaged"), ("", "it has no entries")):
        log.write_text(text)
        code, _, err = run(monkeypatch, capsys, "train", path, "--resume")
        assert (code, says in " ".join(err.split()), log.read_text()) == (3, True, text)
    log.write_text(whole)
    assert run(monkeypatch, capsys, "train", path, "--resume")[0] == 0
    assert log.read_text() == whole


def test_a_request_that_is_no_mapping_is_named(recipe, tmp_path, monkeypatch, capsys):
    path = stopped_run(recipe, tmp_path, monkeypatch)
    state = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**state, "request": "abc"}))
    code, out, err = run(monkeypatch, capsys, "train", path, "--resume")
    assert (code, out) == (3, "")
    assert "request must be a mapping or null; it is 'abc'" in " ".join(err.split())
