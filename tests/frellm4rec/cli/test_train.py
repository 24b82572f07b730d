"""``frellm4rec train``: run folders, the command line, and what a stopped, killed or failed run leaves behind."""

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
from frellm4rec.models.frellm4rec import config as config_module
from frellm4rec.models.registry import load_model
from frellm4rec.runs import pretrained
from frellm4rec.runs.recipe import Recipe
from frellm4rec.runs.train import identity, load_run, read_recipe, train_recipe
from frellm4rec.training import TrainingConfig
from frellm4rec.training.checkpoints import CheckpointFolder
from spectral_probe.errors import ConfigError, DataError, ModelError, NonFiniteStateError
from spectral_probe.interactions import dataset as dataset_module
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.folder import RunFolder
from tests.frellm4rec.tiny_recommenders import run, write_log

TINY = {
    "model": "sasrec",
    "seed": 1,
    "device": "cpu",
    "architecture": {"n_features": 8, "n_inner": 8, "max_length": 6},
    "training": {"n_epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "validate_every": 1, "save_every": 1},
}
FILES = ["checkpoints", "config.yaml", "log.txt", "metrics.jsonl", "model", "run.json", "summary.json"]


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv")


@pytest.fixture
def recipe(tmp_path, log):
    """A recipe file for a tiny SASRec on the log."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**TINY, "dataset": str(log)}))
    return path


@pytest.fixture
def quick_ids(tmp_path, monkeypatch):
    """Train ID embeddings for two epochs, and keep them in a folder of the test."""
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    trained, short = pretrained.pretrained, TrainingConfig(n_epochs=2, validate_every=2)
    monkeypatch.setattr(pretrained, "pretrained", lambda *args, **kw: trained(*args, **kw, training=short))


def metrics(path):
    """Return the entries of a run without the times."""
    entries = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


def weights(path):
    return (path / "model" / "model.safetensors").read_bytes()


def only(folder):
    (path,) = folder.iterdir()
    return path


def test_a_run_folder_holds_everything(recipe, tmp_path, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "train", recipe, "--out", tmp_path / "runs", "--name", "tiny")
    path = only(tmp_path / "runs")
    assert code == 0
    assert str(path) in out
    assert sorted(p.name for p in path.iterdir()) == FILES
    state = RunFolder(path).state()
    assert (state["status"], state["request"]["name"], state["request"]["kind"]) == ("finished", "tiny", "training")
    entries = metrics(path)
    assert [e["epoch"] for e in entries] == [1, 2, 3, 4]
    assert [e["step"] for e in entries] == [4, 8, 12, 16]
    assert all({"loss", "ndcg", "learning_rate"} <= set(e) for e in entries)
    summary = json.loads((path / "summary.json").read_text())
    assert summary["revision"] == load_model(path).revision
    assert f"{max(e['ndcg'] for e in entries):.4f} (full ranking) in epoch {summary['record']['best_epoch']}" in out
    # The resolved recipe names every setting, and leads back to the same run.
    again = read_recipe(path)
    assert again.to_dict() == Recipe.from_yaml(recipe).merged({"name": "tiny"}).to_dict()
    assert "validate_every: 1" in (path / "config.yaml").read_text()
    assert RunFolder.newest_finished(tmp_path / "runs", identity(again, resolve_dataset(again.dataset))).path == path
    assert load_run(path).record.best_epoch == summary["record"]["best_epoch"]
    # A finished run is handed back, and nothing is trained.
    before = (path / "run.json").read_text()
    code, out, _ = run(monkeypatch, capsys, "train", path, "--resume", "--json")
    assert (code, json.loads(out)["run"]) == (0, str(path))
    assert only(tmp_path / "runs") == path
    assert (path / "run.json").read_text() == before
    code, _, err = run(monkeypatch, capsys, "train", path)
    assert (code, "is a run folder; finish it with --resume" in err) == (2, True)


def test_an_unfinished_run_of_an_older_version_is_resumed(recipe, tmp_path):
    path = train_recipe(read_recipe(recipe), out=tmp_path / "runs").path
    state = RunFolder(path).state()
    assert state.pop("kind") == state["request"]["kind"] == "training"  # version 0.1.0 wrote the second alone
    (path / "run.json").write_text(json.dumps({**state, "status": "interrupted"}))
    assert train_recipe(read_recipe(path), out=tmp_path / "runs", resume=True).path == path
    assert RunFolder(path).state()["status"] == "finished"
    assert only(tmp_path / "runs") == path


def test_recipe_and_log_are_resolved_once_for_a_whole_training(recipe, tmp_path, monkeypatch):
    calls = {"recipe": 0, "log": 0}
    resolve, hash_parts = Recipe.to_dict, dataset_module.digest

    def counted_recipe(self):
        calls["recipe"] += 1
        return resolve(self)

    def counted_log(parts):
        calls["log"] += 1
        return hash_parts(parts)

    monkeypatch.setattr(Recipe, "to_dict", counted_recipe)
    monkeypatch.setattr(dataset_module, "digest", counted_log)
    for _ in range(2):  # the second finds the first, which is finished
        run = train_recipe(read_recipe(recipe), out=tmp_path / "runs", resume=True)
    assert len(run.record.epochs) == 4  # four validations, each an evaluation
    assert calls == {"recipe": 2, "log": 2}


def test_flags_win_over_the_recipe(recipe, tmp_path, monkeypatch, capsys):
    flags = ["--epochs", "2", "--lr", "2e-3", "--seed", "5", "--set", "training.patience=3", "--max-length", "4"]
    code, out, _ = run(monkeypatch, capsys, "train", recipe, *flags, "--dry-run", "--out", tmp_path / "runs")
    resolved = yaml.safe_load(out)
    assert code == 0
    assert not (tmp_path / "runs").exists()
    assert {n: resolved["training"][n] for n in ("n_epochs", "learning_rate", "patience", "batch_size")} == {
        "n_epochs": 2,
        "learning_rate": 2e-3,
        "patience": 3,
        "batch_size": 8,
    }
    assert (resolved["seed"], resolved["architecture"]["max_length"]) == (5, 4)
    code, out, _ = run(monkeypatch, capsys, "train", "--cutoff", "off", "--mode", "causal", "--alpha", "0", "--dry-run")
    architecture = yaml.safe_load(out)["architecture"]
    assert (architecture["cutoff"], architecture["mode"], architecture["alpha"]) == (None, "causal", 0.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "training.patiense=3"], "Did you mean 'training.patience'?"),
        (["--model", "sasrek"], "Did you mean 'sasrec'?"),
        (["--cutoff", "low"], "got 'low'"),
        (["--set", "training.patience"], "NAME=VALUE"),
        (["--epochs", "0"], "n_epochs must be at least 1"),
        (["--dataset", "lastfn"], "Did you mean 'lastfm'?"),
        (["--mixed-precision", "fp16"], "needs a GPU"),
    ],
)
def test_what_is_wrong_ends_with_2_and_a_suggestion(arguments, says, recipe, tmp_path, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "train", recipe, *arguments, "--out", tmp_path / "runs")
    assert (code, says in err) == (2, True), err
    assert "Traceback" not in err


def test_a_launcher_of_several_processes_is_refused(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(monkeypatch, capsys, "train", recipe, "--out", tmp_path / "runs")
    assert (code, "got WORLD_SIZE=2" in err) == (2, True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("training: {n_epoch: 3}", "Did you mean 'training.n_epochs'?"),
        ("trainings: {n_epochs: 3}", "Did you mean 'training'?"),
        ("training: {n_epochs: 3\nseed: [", "failed: while parsing"),
    ],
)
def test_a_recipe_that_cannot_be_used_ends_with_2_and_one_line(text, says, tmp_path, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    code, _, err = run(monkeypatch, capsys, "train", path)
    assert (code, says in err, err.count("\n")) == (2, True, 1), err


def test_a_backbone_that_cannot_be_loaded_leaves_no_run_folder(recipe, tmp_path, monkeypatch, capsys):
    arguments = ["--model", "frellm4rec", "--backbone", "minilmm", "--out", tmp_path / "runs"]
    code, _, err = run(monkeypatch, capsys, "train", recipe, *arguments)
    assert (code, "Did you mean 'minilm'?" in err) == (4, True), err
    assert not (tmp_path / "runs").exists()


def test_frellm4rec_on_a_named_backbone(log, tmp_path, quick_ids, monkeypatch, capsys):
    arguments = ["--dataset", log, "--backbone", "tiny-random:llama", "--inputs", "id", "--name", "full"]
    arguments += ["--epochs", "2", "--max-length", "6", "--set", "training.validate_every=1", "--device", "cpu"]
    code, out, err = run(monkeypatch, capsys, "train", *arguments, "--out", tmp_path / "runs", "--json")
    assert code == 0, err
    path = only(tmp_path / "runs")
    assert path.name.split("-", 1)[1].startswith("frellm4rec-full-log")
    model = load_model(path)
    assert model.revision == json.loads(out)["revision"]
    assert (model.config.backbone, model.config.mode, model.config.inputs) == ("tiny-random:llama", "prefix", "id")
    monkeypatch.setattr(config_module, "weights_fingerprint", lambda module: "0" * 64)
    with pytest.raises(ModelError, match="backbone changed during training"):
        train_recipe(read_recipe(path).merged({"seed": 3}), out=tmp_path / "other")


# What stops a run


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


@pytest.mark.parametrize(("by", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_process_goes_on_to_the_same_bytes(by, code, recipe, tmp_path, monkeypatch, capsys):
    straight = train_recipe(long_recipe(recipe), out=tmp_path / "straight").path
    process = start(recipe, "--out", tmp_path / "runs")
    wait_for_checkpoint(process, tmp_path / "runs", least=30)
    message = stop(process, by)
    assert process.returncode == code, message
    path = only(tmp_path / "runs")
    assert RunFolder(path).state()["status"] == "running"
    assert len(metrics(path)) < N_EPOCHS
    if by == signal.SIGINT:
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


# TensorBoard


def test_tensorboard_gets_what_the_log_gets(recipe, tmp_path, monkeypatch, capsys):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    code, _, err = run(monkeypatch, capsys, "train", recipe, "--out", tmp_path / "runs", "--tensorboard")
    assert code == 0, err
    path = only(tmp_path / "runs")
    reader = events.EventAccumulator(str(path / "tensorboard")).Reload()
    for name in ("loss", "ndcg", "learning_rate"):
        written = [(event.step, event.value) for event in reader.Scalars(name)]
        assert written == [(e["step"], pytest.approx(e[name], rel=1e-6)) for e in metrics(path)]


def test_without_tensorboard_the_command_ends_with_5(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = run(monkeypatch, capsys, "train", recipe, "--out", tmp_path / "runs", "--tensorboard")
    assert (code, "spectral-probe[tensorboard]" in err) == (5, True)


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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("architecture.loss=bce", "training.loss=sampled"), "says how a softmax"),
        (("training.mixed_precision=fp16",), "needs a GPU"),
        (("training.gradient_checkpointing=true",), "no backbone to recompute"),
        (("training.k=25",), "training.k must be below the number of items"),
        (("architecture.loss=gbce", "architecture.n_negatives=100000"), "has at most 24 negatives"),
        (("architecture.loss=bce", "architecture.gbce_t=0.1"), "gbce_t is of the loss gbce"),
        (("training.learning_rate=true",), "learning_rate must be a number"),
        (("training.supervision=own",), "supervision must be one of"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(settings, says, recipe, tmp_path, monkeypatch, capsys):
    options = [part for setting in settings for part in ("--set", setting)]
    code, out, err = run(monkeypatch, capsys, "train", recipe, *options, "--device", "cpu", "--out", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert says in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


def test_settings_of_a_training_are_refused_for_a_model_without_one(log, tmp_path, monkeypatch, capsys):
    for option in (("--epochs", "5"), ("--threads", "2"), ("--set", "training.supervision=prefix")):
        code, _, err = run(monkeypatch, capsys, "train", "--model", "markov", "--dataset", log, *option)
        assert code == 2
        assert "is counted, not trained" in " ".join(err.split())
    assert Recipe.from_dict({"training": {"mixed_precision": False}}).training.mixed_precision == "no"  # YAML's no


def test_a_damaged_line_of_the_log_does_not_stop_a_run(recipe, tmp_path, monkeypatch, capsys):
    path = stopped_run(recipe, tmp_path, monkeypatch)
    log = path / "metrics.jsonl"
    log.write_text(log.read_text() + '\n{"epoch": 9, "st')
    code, _, err = run(monkeypatch, capsys, "train", path, "--resume")
    assert code == 0, err
    assert [entry["epoch"] for entry in metrics(path)] == [1, 2, 3, 4]


def test_a_request_that_is_no_mapping_is_named(recipe, tmp_path, monkeypatch, capsys):
    path = stopped_run(recipe, tmp_path, monkeypatch)
    state = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**state, "request": "abc"}))
    code, out, err = run(monkeypatch, capsys, "train", path, "--resume")
    assert (code, out) == (3, "")
    assert "its request is 'abc'" in " ".join(err.split())
