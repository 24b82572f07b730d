"""The control exchanged-items: vectors move among equally popular items, and the real ones stand out if they know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from spectral_probe.analysis.exchanged_items import (
    ENTRY,
    ExchangedItems,
    _within,
    embed_sd,
    exchange_items,
    item_vectors,
)
from spectral_probe.analysis.exploration_files import explore_profile
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import analyze, run_analysis
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.recording.pilot import popularity_bins
from spectral_probe.spectrum.energy import spectral_energy
from tests.spectral_probe.tiny_models import MixingModel

OPTIONS = AnalysisOptions(n_pseudo=4)


@pytest.fixture(scope="module")
def world() -> tuple[Dataset, ItemGraph, LayerGrams, np.ndarray]:
    """Users with one taste each; the vectors know the tastes."""
    rng = np.random.default_rng(2)
    taste = rng.integers(0, 4, 100)
    popularity = 1.0 / np.arange(1, 101) ** 0.5
    histories = []
    for _ in range(80):
        p = popularity * np.where(taste == rng.integers(0, 4), 9.0, 1.0)
        histories.append(rng.choice(100, size=int(rng.integers(9, 16)), replace=False, p=p / p.sum()))
    data = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=100), name="tastes")
    probe = probe_sequences(data)
    vectors = (2.0 * np.eye(4)[taste] @ rng.normal(size=(4, 12)) + rng.normal(size=(100, 12))).astype(np.float32)
    grams = LayerGrams.from_states(
        [vectors[probe.inputs]],
        *(probe.lengths, ["embed"]),
        users=probe.users,
        targets=probe.targets,
        inputs=probe.inputs,
    )
    return data, ItemGraph.from_interactions(data.train.user_items), grams, vectors


def test_an_exchange_is_a_permutation_within_the_popularity_bins(world) -> None:
    _, graph, grams, _ = world
    read = grams.inputs[np.arange(grams.inputs.shape[1]) < grams.lengths[:, None]]
    bins = popularity_bins(graph.item_counts, read, n_pilot_positions=len(read))
    order = _within(bins, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(100))
    np.testing.assert_array_equal(bins[order], bins)
    assert (order != np.arange(100)).mean() > 0.7


def test_the_real_vectors_stand_out_and_the_exchanged_do_not(world) -> None:
    _, graph, grams, vectors = world
    result = exchange_items(vectors, grams, graph, OPTIONS, cache_dir=None, n_exchanges=12)
    assert result.real > 6
    assert abs(result.exchanged.mean()) < 1.5
    assert result.exchanged.max() < result.real / 2
    assert len(set(result.exchanged.tolist())) == 12
    again = exchange_items(vectors, grams, graph, OPTIONS, cache_dir=None, n_exchanges=12)
    assert (again.real, again.exchanged.tolist()) == (result.real, result.exchanged.tolist())
    other = exchange_items(vectors, grams, graph, AnalysisOptions(n_pseudo=4, seed=1), cache_dir=None, n_exchanges=12)
    assert other.exchanged.tolist() != result.exchanged.tolist()


def test_the_real_z_is_that_of_the_measure_at_embed(world) -> None:
    _, graph, grams, vectors = world
    result = exchange_items(vectors, grams, graph, OPTIONS, cache_dir=None, n_exchanges=2)
    treated = LayerGrams.from_states(
        [vectors[grams.inputs]],
        *(grams.lengths, ["embed"]),
        users=grams.users,
        targets=grams.targets,
        inputs=grams.inputs,
        item_counts=graph.item_counts,
    )
    bases = graph.local_bases(grams.inputs, grams.lengths, users=grams.users)
    match = PopularityMatch.draw(graph, grams.inputs, grams.lengths, grams.users, n_pseudo=4)
    energy = spectral_energy(treated, bases, matched=match, nulls=("swap",))
    x, w = energy.component_excess["taste"][:, 0], energy.weights
    users = np.flatnonzero(energy.is_valid)
    mean = sum(w[u] * x[u] for u in users) / sum(w[u] for u in users)
    variance = sum((w[u] * (x[u] - mean)) ** 2 for u in users) / sum(w[u] for u in users) ** 2
    assert result.real == pytest.approx(mean / variance**0.5, rel=1e-3)


def test_only_a_spread_above_its_tolerance_makes_the_test_stricter() -> None:
    narrow = ExchangedItems(5.0, np.array([-1.0, 0.0, 1.0]))
    assert (narrow.sd, embed_sd({ENTRY: narrow.to_dict()})) == (1.0, 1.0)
    wide = ExchangedItems(5.0, np.array([-2.0, 0.0, 2.0]))
    assert (wide.sd, embed_sd({ENTRY: wide.to_dict()})) == (2.0, 2.0)
    assert embed_sd({}) == 1.0
    assert wide.to_dict() == {"z": 5.0, "mean_z": 0.0, "sd_z": 2.0, "n_exchanges": 3}


def test_through_analyze_the_numbers_are_in_the_protocol(world, monkeypatch) -> None:
    dataset, _, _, vectors = world

    class Known(MixingModel):
        item_embeddings = torch.from_numpy(vectors)

    monkeypatch.setattr("spectral_probe.analysis.exchanged_items.N_EXCHANGES", 3)
    monkeypatch.setattr(exchange_items, "__kwdefaults__", {"n_exchanges": 3})
    profile = analyze(Known(100), dataset, controls=["exchanged-items"], n_bootstrap=100, n_pseudo=4)
    numbers = profile.protocol["exchanged_items"]
    assert numbers["n_exchanges"] == 3
    assert numbers["z"] > 6
    with pytest.raises(ConfigError, match="has no item_embeddings"):
        item_vectors(MixingModel(100))


@pytest.fixture
def strict_run(world, monkeypatch, tmp_path):
    """A finished run whose exchanges spread so much that no taste is measurable."""

    class Known(MixingModel):
        item_embeddings = torch.from_numpy(world[3])

    wide = ExchangedItems(5.0, np.array([-99.0, 0.0, 99.0]))
    monkeypatch.setattr("spectral_probe.analysis.pipeline.exchange_items", lambda *_, **__: wide)
    options = AnalysisOptions(controls=("exchanged-items",), n_bootstrap=100, n_pseudo=4)
    done = run_analysis(Known(100), world[0], options, out=tmp_path)
    assert done.profile.verdicts["taste"].label == "no measurable taste"
    return done.run


def test_a_re_analysis_is_as_strict_as_its_source_and_says_why(strict_run, tmp_path) -> None:
    again = reanalyze(strict_run.path, {"tau": 0.5}, out=tmp_path)
    assert again.profile.verdicts["taste"].label == "no measurable taste"
    assert again.profile.protocol[ENTRY] == DecayProfile.load(strict_run.path).protocol[ENTRY]
    assert "exchanged_items.sd_z" in (again.run.path / "report.html").read_text(encoding="utf-8")
    assert explore_profile(DecayProfile.load(again.run.path), taus=()).embed_sd == 99.0
    for profile in (again.profile, DecayProfile.load(again.run.path)):
        earlier = {name: value for name, value in profile.protocol.items() if name != ENTRY}
        assert explore_profile(replace(profile, protocol=earlier), taus=()).embed_sd == 99.0


def test_a_run_that_was_stopped_before_it_was_measured_is_analysed_again(strict_run, tmp_path, caplog) -> None:
    (strict_run.path / "summary.json").unlink()
    again = reanalyze(strict_run.path, {}, out=tmp_path)
    assert "was stopped before exchanged-items was computed" in caplog.text
    assert ENTRY not in again.profile.protocol
    assert again.profile.verdicts["taste"].label != "no measurable taste"
    assert explore_profile(again.profile, taus=()).embed_sd == 1.0


def test_a_model_without_item_vectors_is_refused_before_it_runs(world, monkeypatch) -> None:
    def forward(self, inputs, lengths):
        raise AssertionError("the model was run")

    monkeypatch.setattr(MixingModel, "forward_sequences", forward)
    with pytest.raises(ConfigError, match="has no item_embeddings"):
        analyze(MixingModel(100), world[0], controls=["exchanged-items"], n_bootstrap=100, n_pseudo=4)
