"""The demo data set as a world whose truth is known: states that keep taste, popularity, both or neither."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from frellm4rec.data.demo import DemoConfig, demo_truth, make_demo
from spectral_probe.analysis.controls import shuffle_history
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy

#: What each layer knows of the item that a row reads: (taste, popularity).
LAYERS = {
    "input": (True, True),
    "both": (True, True),
    "taste": (True, False),
    "popularity": (False, True),
    "neither": (False, False),
}


def test_the_truth_is_that_of_the_items() -> None:
    world = make_demo(DemoConfig(n_users=60))
    truth = demo_truth(world)
    assert truth.communities.argmax(axis=1).tolist() == world.item_community.tolist()
    assert truth.communities.sum(axis=1).tolist() == [1.0] * 400
    counts = np.zeros(400)
    for history in world.dataset.train.sequences():
        counts[history] += 1
    order = np.argsort(counts)
    assert (np.diff(truth.log_counts[order]) >= 0).all()
    assert (truth.log_counts.mean(), truth.log_counts.std()) == pytest.approx((0.0, 1.0), abs=1e-12)


@pytest.fixture(scope="module")
def energy() -> SpectralEnergy:
    """Energies of five layers.

    A taste that a layer does not know is that of another item of the same user, so that the other parts keep their
    share of the energy; a popularity that it does not know is absent.
    """
    world = make_demo(DemoConfig(n_users=300, n_items=256))
    truth, dataset = demo_truth(world), world.dataset
    graph, probe = ItemGraph.from_interactions(dataset.train.user_items), probe_sequences(dataset)
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(9, 16))
    tastes = 2.0 * (truth.communities - truth.communities.mean(axis=0)) @ axes[:8]
    popularity = 1.5 * truth.log_counts[:, None] * axes[8]
    other = shuffle_history(probe).inputs
    states = []
    for parts in LAYERS.values():
        state = 1.5 * rng.normal(size=(*probe.inputs.shape, 16))
        state += tastes[probe.inputs if parts[0] else other]
        states.append(state + parts[1] * popularity[probe.inputs])
    known = {"users": probe.users, "targets": probe.targets, "inputs": probe.inputs}
    names = [f"block {i}" for i in range(len(states))]
    grams = LayerGrams.from_states(states, probe.lengths, names, item_counts=graph.item_counts, **known)
    bases = graph.local_bases(probe.inputs, probe.lengths, users=probe.users)
    match = PopularityMatch.draw(graph, probe.inputs, probe.lengths, probe.users, n_pseudo=8)
    return spectral_energy(grams, bases, matched=match, nulls=("swap",))


def from_to(energy: SpectralEnergy, first: str, last: str) -> DecayProfile:
    """Return the profile of a model of one block, whose input and block have the states of these layers."""
    at = [list(LAYERS).index(name) for name in (first, last)]
    two = replace(
        energy,
        energy=energy.energy[:, at],
        total=energy.total[:, at],
        low=energy.low[:, at],
        null_energy={name: values[:, at] for name, values in energy.null_energy.items()},
        null_low={name: values[:, at] for name, values in energy.null_low.items()},
        split={t: {name: values[:, at] for name, values in parts.items()} for t, parts in energy.split.items()},
        layer_names=("embed", "block 1"),
        layer_states=("embed", "block"),
        layer_index=(0, 1),
    )
    return DecayProfile.from_energy(two, n_bootstrap=200)


@pytest.mark.parametrize(
    ("last", "taste", "popularity"),
    [
        ("both", "preserved", "preserved"),
        ("taste", "preserved", "attenuated"),
        ("popularity", "attenuated", "preserved"),
        ("neither", "attenuated", "attenuated"),
    ],
)
def test_of_inputs_that_know_both_the_words_say_what_a_block_keeps(energy, last, taste, popularity) -> None:
    profile = from_to(energy, "input", last)
    assert {name: verdict.label for name, verdict in profile.verdicts.items()} == {
        "taste": taste,
        "popularity": popularity,
    }
    for component, word in (("taste", taste), ("popularity", popularity)):
        retention = profile.retention[component]
        assert abs(retention.value - (word == "preserved")) < 0.1


@pytest.mark.parametrize(
    ("first", "taste", "popularity"),
    [
        ("taste", "attenuated", "no measurable popularity"),
        ("popularity", "no measurable taste", "attenuated"),
        ("neither", "no measurable taste", "no measurable popularity"),
    ],
)
def test_what_the_inputs_do_not_know_is_not_measurable(energy, first, taste, popularity) -> None:
    profile = from_to(energy, first, "neither")
    assert {name: verdict.label for name, verdict in profile.verdicts.items()} == {
        "taste": taste,
        "popularity": popularity,
    }
