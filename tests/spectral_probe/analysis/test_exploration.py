"""Other settings on saved Grams: the same numbers as a new analysis with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spectral_probe.analysis import exploration_files
from spectral_probe.analysis.exploration import Exploration
from spectral_probe.analysis.exploration_files import explore_profile
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import Analysis, analyze, run_analysis
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve
from tests.spectral_probe.tiny_models import MixingModel, knowing
from tests.spectral_probe.worlds import tastes

NUMBERS = ["excess", "excess_low", "excess_high", "retention", "retention_low", "retention_high"]
FAST = {"n_bootstrap": 200, "n_pseudo": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Analysis:
    dataset, taste = tastes([6 + user % 9 for user in range(90)])
    model = knowing(dataset, taste, 4.0)
    return run_analysis(model, dataset, AnalysisOptions(**FAST), out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exploration(run) -> Exploration:
    return explore_profile(DecayProfile.load(run.run.path), taus=(0.5, 1, 2))


def assert_same(curve, reference) -> None:
    assert curve["layer_name"].tolist() == reference["layer_name"].tolist()
    np.testing.assert_allclose(curve[NUMBERS], reference[NUMBERS], rtol=1e-6, atol=1e-9)
    assert curve["n_users"].tolist() == reference["n_users"].tolist()


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weights", ["graph", "equal"])
def test_every_component_is_that_of_an_analysis_with_the_setting(run, exploration, tau, weights) -> None:
    again = reanalyze(run.run.path, {"tau": tau, "weights": weights}).profile
    for component in ("taste", "popularity", "lag"):
        setting = replace(exploration.default(), component=component, tau=tau, weights=weights)
        outcome = exploration.outcome(setting)
        assert_same(outcome.curve, again.curve(component))
        if component != "lag":
            expected = again.verdicts[component]
            assert (outcome.verdict.label, outcome.verdict.note) == (expected.label, expected.note)
            assert outcome.verdict.users_needed == expected.users_needed


@pytest.mark.parametrize("null", ["swap", "permutation", "cyclic"])
def test_the_whole_is_that_of_an_analysis_over_every_null_and_in_every_band(run, exploration, null) -> None:
    again = reanalyze(run.run.path, {"whole_tau": 2.0, "bands": "pooled:3"}).profile
    table = again.table[again.table["nodes"] == "carried"]
    for band in ("low", "1", "3"):
        setting = replace(exploration.default(), component="whole", tau=2.0, null=null, bands="pooled:3", band=band)
        assert_same(exploration.outcome(setting).curve, select_curve(table, null=null, band=band))
    outcome = exploration.outcome(replace(setting, band="low"))
    assert outcome.curve["excess"].abs().max() > 0.001


def test_a_range_of_lengths_shows_these_users_and_keeps_all_as_references(run, exploration) -> None:
    setting = replace(exploration.default(), least=8, most=10)
    outcome = exploration.outcome(setting)
    energy = run.profile.energy
    chosen = energy.is_valid & (energy.measured >= 8) & (energy.measured <= 10)
    assert 0 < chosen.sum() < energy.is_valid.sum()
    values = energy.component_excess["taste"][chosen]
    np.testing.assert_allclose(
        outcome.curve["excess"], np.average(values, axis=0, weights=energy.weights[chosen]), rtol=1e-6
    )
    assert set(outcome.curve["n_users"]) == {int(chosen.sum())}
    assert len(outcome.users) == chosen.sum()


def test_a_stored_exploration_is_the_same_and_reads_no_gram(run, exploration, monkeypatch) -> None:
    monkeypatch.setattr(exploration_files.LayerGrams, "load", None)
    again = explore_profile(DecayProfile.load(run.run.path), taus=(0.5, 1, 2))
    for component in ("taste", "whole"):
        setting = replace(exploration.default(), component=component, tau=2.0)
        first, second = exploration.outcome(setting), again.outcome(setting)
        np.testing.assert_array_equal(first.curve[NUMBERS], second.curve[NUMBERS])


def test_without_a_run_folder_the_grams_in_memory_are_explored() -> None:
    dataset, taste = tastes([8 + user % 7 for user in range(60)])
    profile = analyze(knowing(dataset, taste), dataset, **FAST)
    exploration = explore_profile(profile, taus=())
    assert exploration.taus("taste") == [1.0]
    assert_same(exploration.outcome(exploration.default()).curve, profile.curve())


def test_what_has_no_verdict_gets_none(exploration) -> None:
    default = exploration.default()
    assert exploration.outcome(replace(default, component="lag")).verdict.label == "none"
    assert exploration.outcome(replace(default, component="whole", tau=5.0, band="2")).verdict.label == "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": 3.0}, r"tau must be one of 0.5, 1, 2; got '3'"),
        ({"component": "tast"}, "Did you mean 'taste'"),
        ({"null": "cyclic"}, r"null must be one of swap;"),
        ({"weights": "equals"}, "Did you mean 'equal'"),
        ({"component": "whole", "band": "9"}, "band must be one of"),
        ({"component": "whole", "bands": "third"}, "bands must be"),
        ({"least": 90, "most": 99}, "No user is measured on 90 to 99 nodes"),
        ({"least": 90}, "No user is measured on at least 90 nodes; the measured users have"),
    ],
)
def test_a_choice_that_is_in_no_menu_is_refused(exploration, change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        exploration.outcome(replace(exploration.default(), **{"band": "1", **change}))


def test_a_profile_without_grams_says_so(run, tmp_path) -> None:
    with pytest.raises(DataError, match="does not know where its Grams are"):
        explore_profile(replace(run.profile, source=None))
    run.profile.save(tmp_path)
    with pytest.raises(DataError):
        explore_profile(DecayProfile.load(tmp_path))


def test_rows_that_have_seen_their_answers_have_nothing_to_explore() -> None:
    dataset, _ = tastes([8 + user % 7 for user in range(40)])
    model = MixingModel(dataset.n_items)
    model.is_causal = False
    profile = analyze(model, dataset, prefixes=False, **FAST)
    with pytest.raises(ConfigError, match="have seen the items"):
        explore_profile(profile)
