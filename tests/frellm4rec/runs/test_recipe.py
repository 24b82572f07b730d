"""Recipes: what is read, what is refused, and that the resolved one is read back."""

from pathlib import Path

import pytest
import yaml

from frellm4rec.experiments.tables import read_table
from frellm4rec.models.registry import model_class, model_names
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.runs.recipe import Recipe, parse_assignment
from frellm4rec.runs.train import recipe_text
from frellm4rec.training import TrainingConfig
from spectral_probe.errors import ConfigError
from spectral_probe.storage.hashing import settings_hash

ROOT = Path(__file__).resolve().parents[3]


def write(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_names_what_it_changes(tmp_path):
    recipe = Recipe.from_yaml(
        write(
            tmp_path,
            """
model: frellm4rec
dataset: demo:3
name: full
seed: 4
architecture: {mode: causal, cutoff: null, layers: [1, 2], glpf_targets: [id, text]}
training: {learning_rate: 1e-4, weight_decay: 1E-2, n_epochs: 7}
""",
        )
    )
    config = recipe.config(n_items=9)
    assert (recipe.dataset, recipe.name, recipe.seed) == ("demo:3", "full", 4)
    assert (config.n_items, config.mode, config.cutoff, config.alpha) == (9, "causal", None, 0.3)
    assert (config.layers, config.glpf_targets) == ((1, 2), ("id", "text"))
    # Without a dot, YAML reads these two as text.
    assert (recipe.training.learning_rate, recipe.training.weight_decay) == (1e-4, 1e-2)
    assert (recipe.training.n_epochs, recipe.training.optimizer) == (7, "adamw")


@pytest.mark.parametrize("model", model_names())
def test_the_resolved_recipe_names_every_setting_and_is_read_back(model, tmp_path):
    is_trained = model_class(model).traits.is_trained
    change = {"training.learning_rate": 3e-5} if is_trained else {"training.k": 5}
    recipe = Recipe(model=model, seed=2, name="x").merged(change)
    text = recipe_text(recipe)
    assert Recipe.from_yaml(write(tmp_path, text)) == Recipe.from_dict(recipe.to_dict())
    values = yaml.safe_load(text)
    assert Recipe.from_dict(values).to_dict() == recipe.to_dict() == values
    assert set(values["training"]) == (set(TrainingConfig().to_dict()) if is_trained else {"k"})
    assert not {"n_items", "backbone_weights", "backbone_dtype"} & set(values["architecture"])
    assert ("learning_rate: 3.0e-05" if is_trained else "k: 5") in text


def test_flags_win_over_yaml_and_leave_the_rest(tmp_path):
    start = Recipe.from_yaml(write(tmp_path, "training: {n_epochs: 3, patience: 2}\narchitecture: {alpha: 0.1}"))
    changed = start.merged({"training.n_epochs": 5, "architecture.cutoff": 0.5, "seed": 1})
    assert (changed.training.n_epochs, changed.training.patience) == (5, 2)
    assert (changed.architecture["alpha"], changed.architecture["cutoff"], changed.seed) == (0.1, 0.5, 1)
    assert (start.training.n_epochs, start.seed) == (3, 0)


def test_another_model_keeps_the_data_and_the_device_but_not_the_settings():
    start = Recipe.from_dict(
        {
            **{"dataset": "lastfm", "from_dir": "raw", "name": "n", "seed": 3, "device": "cpu", "dtype": "float32"},
            "architecture": {"alpha": 0.2},
            "training": {"n_epochs": 3},
        }
    )
    other = start.merged({"model": "sasrec"})
    same = ("dataset", "from_dir", "name", "seed", "device", "dtype")
    assert [getattr(other, n) for n in same] == ["lastfm", "raw", "n", 3, "cpu", "float32"]
    assert other.architecture == {}
    assert other.training == TrainingConfig()
    assert start.merged({"model": "sasrec", "seed": 9}).seed == 9


def test_defaults_follow_the_mode_unless_given():
    for mode, epochs in model_defaults("frellm4rec").training_by["architecture.mode"].items():
        assert Recipe().merged({"architecture.mode": mode}).training.n_epochs == epochs["n_epochs"]
        assert Recipe().merged({"architecture.mode": mode, "training.n_epochs": 3}).training.n_epochs == 3
    assert (
        Recipe.from_dict({"training": {"n_epochs": 3}}).merged({"architecture.mode": "causal"}).training.n_epochs == 3
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modell: sasrec", "Unknown recipe setting 'modell'. Did you mean 'model'?"),
        ("training: {learning_rte: 1e-3}", "Did you mean 'training.learning_rate'?"),
        ("architecture: {cutof: 0.3}", "Did you mean 'architecture.cutoff'?"),
        ("model: sasrec\narchitecture: {n_head: 2}", "Did you mean 'architecture.n_heads'?"),
        ("model: sasrec\narchitecture: {alpha: 0.1}", "Unknown recipe setting 'architecture.alpha'"),
        ("architecture: {n_items: 5}", "Unknown recipe setting 'architecture.n_items'"),
        ("architecture: {backbone_weights: abc}", "Unknown recipe setting"),
        ("model: frellmrec", "Did you mean 'frellm4rec'?"),
        ("model: [sasrec]", "model must be text; got ['sasrec']"),
        ("dataset: 3", "dataset must be text; got 3"),
        ("seed: -1", "seed must be a whole number of at least 0; got -1"),
        ("seed: true", "seed must be a whole number"),
        ("training: {learning_rate: fast}", "learning_rate must be above 0"),
        ("training: {max_grad_norm: small}", "max_grad_norm must be above 0"),
        ("training: {learning_rate: 1e39}", "learning_rate must be above 0, and at most 1e+30; got 1e+39"),
        ("training: {weight_decay: 1e39}", "weight_decay must be at least 0, and at most 1e+30; got 1e+39"),
        (f"training: {{learning_rate: {10**400}}}", "learning_rate must be above 0, and at most 1e+30"),
        (f"training: {{max_grad_norm: {10**400}}}", "max_grad_norm must be above 0, and at most 1e+30"),
        (f"model: gru4rec\narchitecture: {{penalty: {10**400}}}", "penalty must be at most 1e+30"),
        ("model: sasrec\narchitecture: {n_blocks: 65536}", "n_blocks must be at most 1000; got 65536"),
        ("model: srgnn\narchitecture: {n_steps: 65536}", "n_steps must be at most 1000; got 65536"),
        (f"model: bert4rec\narchitecture: {{n_features: {2**31 - 1}, n_heads: 2}}", "n_heads must divide n_features"),
        ("training: {optimizer: adamww}", "Did you mean 'adamw'?"),
        ("training: 3", "training must be a mapping"),
        ("architecture: {cutoff: 2}", "cutoff is a fraction of the Nyquist frequency"),
        ("architecture: {alpha: much}", "of the wrong type"),
        ("architecture: {mode: casual}", "Did you mean 'causal'?"),
        ("- model", "holds a list"),
        ("a: [", "reading"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_is_named(text, says, tmp_path):
    with pytest.raises(ConfigError) as caught:
        Recipe.from_yaml(write(tmp_path, text))
    assert says in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml failed"):
        Recipe.from_yaml(tmp_path / "none.yaml")


def test_settings_on_the_command_line():
    assert parse_assignment("training.patience=5") == ("training.patience", 5)
    assert parse_assignment("architecture.cutoff=null") == ("architecture.cutoff", None)
    assert parse_assignment("architecture.layers=[1, 3]") == ("architecture.layers", [1, 3])
    recipe = Recipe().merged(dict([parse_assignment("training.learning_rate=1e-4")]))
    assert recipe.training.learning_rate == 1e-4
    for text in ("training.patience", "=3"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            parse_assignment(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_assignment("architecture.layers=[1")


def test_the_hash_of_a_run_is_that_of_before_later_settings():
    """The hashes in the committed tables are of runs that knew no supervision, and follow from their settings."""
    cells = read_table(ROOT / "figures" / "lastfm" / "recommender" / "cells.csv")
    off = {"full": {}, "base": {"architecture.alpha": 0.0, "architecture.cutoff": None}}
    # Other backbones are named by a folder, which is part of the hash.
    rows = cells[(cells["backbone"] == "minilm") & (cells["ranking"] == "full")].to_dict("records")
    assert len(rows) == 4
    for row in rows:
        settings = dict(parse_assignment(text) for text in row["settings"].split())
        settings |= {"architecture.backbone": "minilm", "architecture.mode": row["mode"], **off[row["variant"]]}
        recipe = Recipe(seed=int(row["seed"])).merged(settings)
        content = {**recipe.identity(), "dataset": row["dataset"], "dataset_fingerprint": row["fingerprint"]}
        assert settings_hash(content) == row["recipe_hash"]
        later = recipe.merged({"training.supervision": "all-prefixes"})
        assert later.identity()["training"]["supervision"] == "all-prefixes"
        assert "supervision" not in recipe.identity()["training"]
