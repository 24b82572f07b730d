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
    only_with = model_defaults(system.model).only_with
    for settings in trials[1:]:
        for name, values in system.grid.items():
            if name in settings:
                assert settings[name] in values
            else:
                assert settings[only_with[name]] == 0


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


def test_the_same_column_cannot_be_given_another_loss():
    with pytest.raises(ConfigError, match="has the softmax as its loss"):
        System("sasrec", "same", {"architecture.loss": "bce"})
    with pytest.raises(ConfigError, match="use --column same"):
        System("sasrec", "own", {"architecture.loss": "softmax"})
    trials = System("sasrec", "own", {"architecture.loss": "gbce"}).trials(4)
    assert {settings["architecture.loss"] for settings in trials} == {"gbce"}


@pytest.mark.parametrize(
    "name", ["dataset", "seed", "threads", "model", "training.n_epochs", "training.patience", "training.validate_every"]
)
def test_what_the_search_decides_cannot_be_set(name):
    with pytest.raises(ConfigError, match="use the option for it"):
        System("sasrec", base={name: 1})


def test_a_setting_of_all_trials_is_not_drawn():
    trials = System("sasrec", base={"architecture.dropout": 0.2}).trials(12)
    assert {settings["architecture.dropout"] for settings in trials} == {0.2}
    assert len({settings["training.learning_rate"] for settings in trials[1:]}) > 1


def test_a_setting_of_a_part_that_is_off_makes_no_second_trial():
    """Without masks their number changes nothing: 9 points of rate and dropout instead of 18."""
    trials = System("maerec").trials(1000)
    without = [settings for settings in trials if settings.get("architecture.mae_weight") == 0.0]
    assert len(without) == 9
    assert not any("architecture.n_seeds" in settings for settings in without)
    assert len(trials) == 9 + 3 * 3 * 2 * 2


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_trials_is_whole_and_positive(n):
    with pytest.raises(ConfigError, match="--trials"):
        System("sasrec").trials(n)


def test_settings_of_all_trials_are_in_every_one():
    system = System("frellm4rec", base={"architecture.inputs": "id"}, label="FreLLM4Rec on ids")
    assert system.label == "FreLLM4Rec on ids"
    assert System("frellm4rec").label == model_defaults("frellm4rec").title
    assert all(settings["architecture.inputs"] == "id" for settings in system.trials(6))
