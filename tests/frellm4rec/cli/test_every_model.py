"""Every registered recommender goes through every command: trained, resumed, evaluated, used, exported, probed."""

import json

import numpy as np
import pytest
import yaml

from frellm4rec.models.registry import model_class, model_names
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.training import loop
from spectral_probe.cli.main import app as probe
from tests.frellm4rec.cli.conftest import metrics, only, weights
from tests.frellm4rec.tiny_recommenders import run

#: FreLLM4Rec needs a language model; its commands are tested in test_train.py.
MODELS = [name for name in model_names() if name != "frellm4rec"]


class Killed(BaseException):
    """Stands for the end of a process: nothing of it is left but its files."""


@pytest.fixture
def recipe_of(log, tmp_path):
    def write(name):
        path = tmp_path / f"{name}.yaml"
        values = {"model": name, "dataset": str(log), "seed": 3, "architecture": dict(model_defaults(name).tiny)}
        if model_class(name).traits.is_trained:
            values["training"] = {"n_epochs": 3, "batch_size": 8, "validate_every": 1, "save_every": 1}
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.mark.parametrize("name", MODELS)
def test_trained_evaluated_used_exported_and_probed(name, recipe_of, tmp_path, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "train", recipe_of(name), "--out", tmp_path / "runs")
    assert code == 0, err
    trained = only(tmp_path / "runs")

    code, out, err = run(monkeypatch, capsys, "evaluate", trained, "--ranking", "full", "--json")
    assert code == 0, err
    assert 0.0 <= json.loads(out)[0]["ndcg"] <= 1.0

    code, out, err = run(monkeypatch, capsys, "recommend", trained, "--user", "u1", "--k", "3", "--json")
    assert code == 0, err
    assert len(json.loads(out)[0]["items"]) == 3

    code, _, err = run(monkeypatch, capsys, "export", trained, "--out", tmp_path / "items.npy")
    if model_class(name).traits.is_inner_product:
        assert code == 0, err
        assert len(np.load(tmp_path / "items.npy")) == 25
    else:
        assert (code, "no inner products" in err) == (2, True)


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).traits.is_trained])
def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(name, recipe_of, tmp_path, monkeypatch, capsys):
    recipe = recipe_of(name)
    assert run(monkeypatch, capsys, "train", recipe, "--out", tmp_path / "straight")[0] == 0
    original, n_saved = loop.TrainingLoop._save, 0

    def killed(self):
        nonlocal n_saved
        original(self)
        n_saved += 1
        if n_saved == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_save", killed)
        with pytest.raises(Killed):
            run(patch, capsys, "train", recipe, "--out", tmp_path / "killed")
    code, _, err = run(monkeypatch, capsys, "train", recipe, "--out", tmp_path / "killed", "--resume")
    assert code == 0, err
    straight, resumed = only(tmp_path / "straight"), only(tmp_path / "killed")
    assert weights(resumed) == weights(straight)
    assert metrics(resumed) == metrics(straight)


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_probed_or_says_why_not(name, recipe_of, log, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, capsys, "train", recipe_of(name), "--out", tmp_path / "runs")[0] == 0
    trained = only(tmp_path / "runs")
    words = ["analyze", "--model", str(trained), "--out", str(tmp_path / "probed")]
    words += ["--max-length", "6", "--users", "20"]
    from typer.testing import CliRunner

    result = CliRunner().invoke(probe, words)
    reason = model_class(name).traits.why_no_layers
    if reason:
        assert result.exit_code != 0
        assert reason in f"{result.exception} {result.output}"
    else:
        assert result.exit_code == 0, result.output
        assert (only(tmp_path / "probed") / "bands.csv").exists()
