"""Trials that fail: when they are tried again, and with which time."""

import pytest

from frellm4rec.models.registry import model_class, model_names
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.runs.recipe import Recipe, flatten
from frellm4rec.tuning import search as search_module
from frellm4rec.tuning.search import Budget, Search
from frellm4rec.tuning.tables import changed_settings
from frellm4rec.tuning.trials import System
from spectral_probe.errors import ModelError
from tests.frellm4rec.tiny_recommenders import write_log

SASREC = System("sasrec", base={"architecture.n_features": 8, "architecture.max_length": 6})
BUDGET = Budget(seconds=0.05, n_validations=2, patience=3)


def test_a_trial_that_failed_before_its_epochs_were_measured_has_the_time_of_the_others(tmp_path, monkeypatch):
    search = Search.open(tmp_path / "search", dataset=str(write_log(tmp_path / "log.csv")), budget=BUDGET)

    def absent(*args, **options):
        raise ModelError("The weights are not here yet.")

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "measure_pace", absent)
        search.run([SASREC], n_trials=2)
    assert search.tables().trials["status"].tolist() == ["failed", "failed"]
    tables = search.run([SASREC], n_trials=2)
    assert tables.trials["status"].tolist() == ["finished", "finished"]
    assert set(tables.trials["patience"]) == {BUDGET.patience}
    recipe = search.recipe(SASREC, 0)
    assert recipe.training.n_epochs < Recipe(model="sasrec").training.n_epochs
    search.run([SASREC], n_trials=2)  # and is not measured again
    assert search.recipe(SASREC, 0) == recipe


def dependent_settings():
    """Settings of a training with a default of their own under a setting of the model: model, the setting, the name."""
    for model in model_names():
        for name, blocks in model_defaults(model).training_by.items():
            for value, block in blocks.items():
                for setting in block:
                    yield model, {name: value}, f"training.{setting}"


@pytest.mark.parametrize(("model", "architecture", "name"), dependent_settings())
def test_the_settings_of_a_trial_make_its_recipe_again(model, architecture, name):
    """Also where a value is the default of the plain model, but not the one that the other setting brings along."""
    plain = flatten(Recipe(model=model).to_dict())[name]
    recipe = Recipe(model=model).merged({**architecture, name: plain})
    assert flatten(recipe.to_dict())[name] == plain
    assert Recipe(model=model).merged(changed_settings(recipe)).to_dict() == recipe.to_dict()


@pytest.mark.parametrize("model", [name for name in model_names() if model_class(name).traits.is_trained])
def test_a_recipe_at_its_defaults_has_no_changed_settings(model):
    assert changed_settings(Recipe(model=model)) == {}
