"""Sentences and numbers of the reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.words import nulls_in_words, retention_in_words, verdict_in_words
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from tests.spectral_probe.worlds import World


@pytest.fixture(scope="module")
def energy(world: World) -> SpectralEnergy:
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    return spectral_energy(
        world.grams(), graph.local_bases(world.probe.targets, world.probe.lengths, users=world.probe.users)
    )


@pytest.mark.parametrize("nodes", ["carried", "foreseen"])
def test_the_retention_is_told_where_the_input_has_a_signal_and_nowhere_else(nodes, energy) -> None:
    profile = DecayProfile.from_energy(energy, nodes=nodes, component="whole", control="raw")
    strong = replace(profile, embed_excess={"whole": Interval(0.1, 0.05, 0.15)})
    assert retention_in_words(strong, "whole") == str(profile.retention["whole"])
    weak = replace(profile, embed_excess={"whole": Interval(0.1, -0.05, 0.15)})
    assert retention_in_words(weak, "whole") == "n/a"
    assert retention_in_words(profile, "taste") == "n/a"


def test_what_is_left_under_a_null_without_a_signal_is_not_available(energy) -> None:
    profile = DecayProfile.from_energy(energy, component="whole")
    is_embed = (profile.table["state"] == "embed") & (profile.table["null"] == "cyclic")
    profile.table.loc[is_embed, "excess_low"] = -0.1
    profile.table.loc[~is_embed & (profile.table["state"] == "embed"), "excess_low"] = 0.1
    assert profile.whole_retention()["cyclic"] is None
    assert "cyclic n/a" in nulls_in_words(profile)
    assert profile.whole_retention()["swap"] is not None


@pytest.mark.parametrize(
    ("low", "words"),
    [
        (0.02, "is, as a share of the energy of its states, 6 % (95 % CI 2 to 9 %) of the input's at"),
        (-0.02, "carries no measurable popularity; the 95 % CI of its retention is −0.02 to 0.09: attenuated."),
    ],
)
def test_what_is_not_measurably_above_0_is_no_percentage(low, words, energy) -> None:
    profile = DecayProfile.from_energy(energy, component="whole")
    retention = {"popularity": Interval(0.06, low, 0.09)}
    verdict = replace(next(iter(profile.verdicts.values())), label="attenuated", depends_on=(), note="")
    assert words in verdict_in_words(replace(profile, retention=retention, verdicts={"popularity": verdict}))
