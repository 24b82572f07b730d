"""One list of models: name = file = recipe = entry point; every recipe can be read."""

from importlib import resources

import pytest
import yaml

import frellm4rec
from frellm4rec.models.registry import model_class, model_entry, model_names
from frellm4rec.runs.defaults import ModelDefaults, model_defaults
from frellm4rec.runs.recipe import Recipe
from frellm4rec.training import TrainingConfig
from spectral_probe.errors import ConfigError, MissingDependencyError

every_model = pytest.mark.parametrize("name", model_names())


def test_every_recipe_and_every_model_is_registered():
    recipes = {file.name.removesuffix(".yaml") for file in (resources.files("frellm4rec") / "recipes").iterdir()}
    assert recipes == set(model_names())
    assert {"sasrec", "frellm4rec", "popularity", "markov", "itemknn"} <= recipes


@every_model
def test_file_class_and_entry_point_have_the_name_of_the_model(name):
    kind, entry = model_class(name), model_entry(name)
    assert kind.name == name
    assert kind.__name__ == entry.attr
    assert kind.config_class.__name__.endswith("Config")
    assert entry.module in (f"frellm4rec.models.{name}", f"frellm4rec.models.{name}.model")


@every_model
def test_class_and_config_are_importable_from_the_top(name):
    kind = model_class(name)
    assert getattr(frellm4rec, kind.__name__) is kind
    assert getattr(frellm4rec, f"{kind.__name__}Config") is kind.config_class
    with pytest.raises(AttributeError, match="Nobody"):
        _ = frellm4rec.Nobody
    with pytest.raises(AttributeError):
        _ = frellm4rec.nobody


@every_model
def test_the_recipe_can_be_read_and_every_value_of_its_grid_is_allowed(name):
    defaults, kind = model_defaults(name), model_class(name)
    assert defaults.title
    assert defaults.source
    recipe = Recipe(model=name)
    assert recipe.training == TrainingConfig.from_dict(defaults.training_of(recipe.config(1).to_dict()))
    for setting, values in defaults.search.items():
        assert len(values) > 1
        for value in values:
            recipe.merged({setting: value})
    kind.config_class.from_dict({"n_items": 12, **defaults.tiny})
    for by, blocks in defaults.training_by.items():
        for value, settings in blocks.items():
            training = recipe.merged({by: value}).training.to_dict()
            assert {key: training[key] for key in settings} == settings


@every_model
def test_a_grid_gives_the_published_value_in_a_comment(name):
    text = (resources.files("frellm4rec") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    published = [line for line in text.splitlines() if "# paper:" in line or "# published:" in line]
    assert bool(published) == model_class(name).traits.is_trained


def test_defaults_are_those_of_before_the_recipes():
    """The values that stood in the code until recipes were files."""
    assert Recipe(model="sasrec").training == TrainingConfig()
    expected = {"batch_size": 32, "learning_rate": 5e-4, "optimizer": "adamw", "patience": 5}
    for mode, epochs in {"prefix": (80, 4), "causal": (50, 2), "two_sided_leaky": (50, 2)}.items():
        training = Recipe().merged({"architecture.mode": mode}).training
        changed = {**expected, "n_epochs": epochs[0], "validate_every": epochs[1]}
        assert training == TrainingConfig(**changed)


def test_what_a_registry_refuses(monkeypatch):
    with pytest.raises(ConfigError, match="Did you mean 'sasrec'"):
        model_class("sasrek")
    entry = model_entry("sasrec")
    broken = type(entry)("sasrec", "frellm4rec.models.absent:Nobody", entry.group)
    monkeypatch.setattr("frellm4rec.models.registry.registered", lambda: (broken,))
    with pytest.raises(MissingDependencyError, match="could not be imported"):
        model_class("sasrec")


@pytest.mark.parametrize(
    ("text", "says"),
    [("titel: X", "Did you mean 'title'"), ("source: X", "must give the title"), ("title: 3", "must give the title")],
)
def test_what_a_recipe_refuses(text, says):
    with pytest.raises(ConfigError, match=says):
        ModelDefaults.from_dict(yaml.safe_load(text), "recipes/x.yaml")
