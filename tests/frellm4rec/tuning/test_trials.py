"""Which settings a search tries."""

import itertools

import pytest

from frellm4rec.models.registry import model_names
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.runs.recipe import Recipe
from frellm4rec.tuning.trials import System, has_same_column, systems_of
from spectral_probe.errors import ConfigError

SYSTEMS = [system for model in model_names() for system in systems_of(model)]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_published_settings_come_first_and_no_trial_twice(system):
    trials = system.trials(12)
    assert trials[0] == system.settings
    recipes = [Recipe(model=system.model).merged(settings).to_dict() for settings in trials]
    assert all(a != b for a, b in itertools.combinations(recipes, 2))
    size = 1
    for values in system.grid.values():
        size *= len(values)
    # The published settings may lie outside the grid: then all its points are left.
    assert len(trials) == min(12, size) or len(trials) == min(12, size + 1)
    for settings in trials[1:]:
        assert {name: settings[name] in values for name, values in system.grid.items()} == dict.fromkeys(
            system.grid, True
        )


def test_a_trial_does_not_depend_on_how_many_there_are_but_on_the_seed():
    system = System("sasrec")
    assert system.trials(12)[:5] == system.trials(5)
    assert system.trials(12) == system.trials(12)
    assert system.trials(12)[1:] != system.trials(12, seed=1)[1:]
    assert System("sasrec").trials(12)[1:] != System("sasrec", "same").trials(12)[1:]


def test_draws_are_uniform_over_the_grid():
    """Each value of a setting is drawn about equally often over many seeds."""
    counts = {}
    for seed in range(90):
        value = System("sasrec").trials(2, seed=seed)[1]["architecture.n_blocks"]
        counts[value] = counts.get(value, 0) + 1
    assert sorted(counts) == [1, 2, 3]
    assert min(counts.values()) > 15


def test_the_same_column_has_the_softmax_and_does_not_vary_the_loss():
    own, same = systems_of("gru4rec")
    assert (own.name, same.name) == ("gru4rec-own", "gru4rec-same")
    assert "architecture.loss" in own.grid
    assert "architecture.loss" not in same.grid
    assert {settings["architecture.loss"] for settings in same.trials(12)} == {"softmax"}
    assert System("sasrec").settings == {"architecture.loss": "bce"}
    assert "architecture.n_targets" not in System("caser", "same").grid


def test_a_model_whose_loss_is_the_softmax_has_one_column():
    assert [system.column for system in systems_of("frellm4rec")] == ["own"]
    assert not has_same_column("itemknn")
    with pytest.raises(ConfigError, match="softmax already"):
        System("frellm4rec", "same")


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_trials_is_whole_and_positive(n):
    with pytest.raises(ConfigError, match="--trials"):
        System("sasrec").trials(n)


def test_settings_of_all_trials_are_in_every_one():
    system = System("frellm4rec", base={"architecture.inputs": "id"}, label="FreLLM4Rec on ids")
    assert system.label == "FreLLM4Rec on ids"
    assert System("frellm4rec").label == model_defaults("frellm4rec").title
    assert all(settings["architecture.inputs"] == "id" for settings in system.trials(6))
