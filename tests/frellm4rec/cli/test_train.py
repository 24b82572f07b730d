"""``frellm4rec train``: run folders and the command line."""

import json
import sys

import pytest
import yaml
from safetensors import SafetensorError

from frellm4rec.models.frellm4rec import config as config_module
from frellm4rec.models.registry import load_model
from frellm4rec.runs.recipe import Recipe
from frellm4rec.runs.train import identity, load_run, read_recipe, train_recipe
from spectral_probe.errors import ModelError
from spectral_probe.interactions import dataset as dataset_module
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.folder import RunFolder
from tests.frellm4rec.cli.conftest import FILES, metrics, only
from tests.frellm4rec.tiny_recommenders import run


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
        (["--set", "training={}"], "training is a part of a recipe"),
        (["--model", "sasrec", "--set", "model=bert4rec"], "model is named twice: 'sasrec' by its option and"),
        (["--epochs", "2", "--set", "training.n_epochs=3"], "training.n_epochs is named twice: 2 by its option and 3"),
        (["--set", "seed=1", "--set", " seed=2"], "seed is named twice: 1 by --set and 2 by --set. Leave one out."),
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


def test_numbers_from_outside_are_read_or_refused_by_name(recipe, tmp_path, monkeypatch, capsys):
    long = tmp_path / ("x" * 300)
    for changes, words, code, message in (
        ({"WORLD_SIZE": "abc"}, (recipe,), 2, "got WORLD_SIZE=abc"),
        ({}, (recipe, "--seed", "9" * 20), 2, "seed must be a whole number"),
        ({}, (recipe, "--out", long), 2, "too long"),
    ):
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setenv(name, value)
            found, _, err = run(patch, capsys, "train", *words)
        assert (found, message in " ".join(err.split())) == (code, True), err
    recipe.write_text(recipe.read_text() + "\nseed: 3\nseed: 4\n")
    found, _, err = run(monkeypatch, capsys, "train", recipe)
    assert (found, "the key 'seed' is given twice" in " ".join(err.split())) == (2, True), err


@pytest.mark.parametrize("name", ["frellm4rec.models.base.save_file", "frellm4rec.training.checkpoints.save_file"])
def test_a_full_disk_under_safetensors_ends_with_6(name, recipe, tmp_path, monkeypatch, capsys):
    def full(*_args, **_kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(name, full)
        code, _, err = run(patch, capsys, "train", recipe, "--out", tmp_path / "runs")
    assert (code, "No space left" in err, "Traceback" in err) == (6, True, False), err
    assert RunFolder(only(tmp_path / "runs")).state()["status"] == "failed"
    assert run(monkeypatch, capsys, "train", only(tmp_path / "runs"), "--resume")[0] == 0


@pytest.mark.parametrize("command", [["train"], ["compare", "absent", "absent"]])
def test_a_field_that_no_result_has_is_refused_before_the_work(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("frellm4rec.runs.train.train_recipe", lambda *_, **__: pytest.fail("work"))
    code, out, err = run(monkeypatch, capsys, *command, "--fields", "seed,nope")
    assert (code, out) == (2, "")
    assert "--fields has no field" in err


def test_seeds_share_a_name_and_no_name_is_empty(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = RunFolder.create(tmp_path / "runs", kind="training", model="m", dataset="d", config={}).path
    RunFolder(path).finish(request={"name": "base"})
    assert run(monkeypatch, capsys, "train", "--name=base", "--seed=1", "--dry-run")[0] == 0
    code, _, err = run(monkeypatch, capsys, "train", "--name=", "--dry-run")
    assert (code, "must not be empty" in err) == (2, True)
