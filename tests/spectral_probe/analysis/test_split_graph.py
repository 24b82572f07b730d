"""The control split-graph: two halves of the users, and both measurements averaged, against a loop over users."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectral_probe.analysis.options import MAIN, AnalysisOptions
from spectral_probe.analysis.pipeline import analyze
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.analysis.split_graph import split_graph_energy, user_halves
from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import ISOLATED, PopularityMatch
from spectral_probe.recording.capture import capture
from spectral_probe.recording.layer_grams import LayerGrams
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import World, make_world, slow_cooccurrence, slow_heat

OPTIONS = AnalysisOptions(n_pseudo=2, seed=3)


@pytest.fixture(scope="module")
def small() -> tuple[World, ItemGraph, LayerGrams]:
    world = make_world(seed=4, n_users=36)
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    model, probe = MixingModel(world.dataset.n_items), world.probe
    grams = capture(model, probe.inputs, probe.lengths, users=probe.users, targets=probe.targets)
    return world, graph, grams


def test_halves_share_no_user_and_are_all_users(small) -> None:
    _, graph, _ = small
    first, second = user_halves(graph.user_items, seed=3)
    assert (first + second - graph.user_items).nnz == 0
    of = [set(np.flatnonzero(np.diff(half.indptr)).tolist()) for half in (first, second)]
    assert of[0].isdisjoint(of[1])
    assert len(of[0]) == len(of[1]) == 18
    again = user_halves(graph.user_items, seed=3)
    assert (again[0] != first).nnz == 0
    assert (user_halves(graph.user_items, seed=4)[0] != first).nnz > 0


def slow_split(world: World, graph: ItemGraph, grams: LayerGrams) -> tuple[np.ndarray, np.ndarray]:
    """Return popularity and taste of unit rows, averaged over the halves, by loops; NaN for users without both."""
    n, n_layers = grams.grams.shape[:2]
    users, train = world.probe.users.tolist(), world.train_sets
    nodes, rows = [], []
    for u in range(n):
        items, at = [], []
        for t in range(1, int(world.probe.lengths[u])):
            if (item := int(world.probe.inputs[u, t])) not in items:
                items.append(item)
                at.append(t)
        nodes.append(items)
        rows.append(at)
    lengths = np.array([len(items) for items in nodes])
    padded = np.zeros((n, lengths.max()), dtype=np.int64)
    for u, items in enumerate(nodes):
        padded[u, : len(items)] = items
    order = np.random.default_rng([3, len(train)]).permutation(len(train))
    halves = [set(order[: len(train) // 2].tolist()), set(order[len(train) // 2 :].tolist())]
    sums = np.zeros((2, n, n_layers))
    is_valid = np.ones(n, dtype=bool)
    for half in halves:
        histories = [train[v] if v in half else set() for v in range(len(train))]
        rows_of_half = np.isin(np.arange(len(train)), list(half))
        half_graph = ItemGraph.from_interactions(graph.user_items.multiply(rows_of_half[:, None]).tocsr())
        match = PopularityMatch.draw(half_graph, padded, lengths, world.probe.users, n_pseudo=2, seed=3)

        def adjacency(u, T, histories=histories):
            A = np.zeros((T, T))
            for s in range(T):
                for t in range(T):
                    if s != t:
                        A[s, t] = slow_cooccurrence(histories, nodes[u][s], nodes[u][t], without=users[u])
            return A

        def operators(u, T, histories=histories, match=match, adjacency=adjacency):
            popularity = np.zeros((T, T))
            for r in range(2):
                items, A = match.replacements[u, r, :T].tolist(), np.zeros((T, T))
                for s in range(T):
                    for t in range(T):
                        if s != t and ISOLATED not in (items[s], items[t]):
                            A[s, t] = slow_cooccurrence(histories, items[s], items[t])
                popularity += slow_heat(A, 1.0) / 2
            rest = slow_heat(adjacency(u, T), 1.0) - popularity
            lag = np.array([[np.diagonal(rest, k).mean() for k in range(T)]])[0]
            return popularity, rest - lag[np.abs(np.subtract.outer(range(T), range(T)))]

        def state(u, layer, T):
            G = grams.grams[u, layer][np.ix_(rows[u][:T], rows[u][:T])].astype(np.float64)
            scale = 1 / np.sqrt(np.diag(G))
            J = np.eye(T) - 1 / T
            G = J @ (scale[:, None] * G * scale) @ J
            return G / np.trace(G)

        measured = [
            max((T for T in range(1, lengths[u] + 1) if sum(np.delete(lengths, u) >= T) >= 20), default=0)
            for u in range(n)
        ]
        for u in range(n):
            T = measured[u]
            if T < 3 or not adjacency(u, T).any():
                is_valid[u] = False
                continue
            others = [v for v in range(n) if v != u and lengths[v] >= T]
            means = [np.mean(parts, axis=0) for parts in zip(*(operators(v, T) for v in others), strict=True)]
            for layer in range(n_layers):
                g = state(u, layer, T) - np.mean([state(v, layer, T) for v in others], axis=0)
                for part, (own, mean) in enumerate(zip(operators(u, T), means, strict=True)):
                    sums[part, u, layer] += ((own - mean) * g).sum() / 2
    sums[:, ~is_valid] = np.nan
    return sums[0], sums[1]


def test_the_two_halves_are_averaged_user_by_user(small) -> None:
    world, graph, grams = small
    energy = split_graph_energy({MAIN: grams}, graph, OPTIONS, None)
    popularity, taste = slow_split(world, graph, grams)
    assert energy.is_valid.sum() > 20
    np.testing.assert_array_equal(energy.is_valid, np.isfinite(taste[:, 0]))
    np.testing.assert_allclose(energy.split["rows"]["popularity"], popularity, atol=1e-6)
    np.testing.assert_allclose(energy.split["rows"]["taste"], taste, atol=1e-6)
    assert (energy.weights[energy.is_valid] > 0).all()
    assert not energy.weights[~energy.is_valid].any()
    again = split_graph_energy({MAIN: grams}, graph, OPTIONS, None)
    np.testing.assert_array_equal(again.split["rows"]["taste"], energy.split["rows"]["taste"])


def test_a_model_with_a_graph_of_its_own_is_probed_on_the_other_half(small) -> None:
    """Each half has the capture of the model whose own graph is the other's; the main capture is not used."""
    _, graph, grams = small
    model = MixingModel(graph.n_items)
    for block in model.blocks:
        block.weight.data += 1.0
    other = capture(model, grams.inputs, grams.lengths, users=grams.users, targets=grams.targets)
    both = {MAIN: other, "split-graph-1": grams, "split-graph-2": grams}
    alone = split_graph_energy({MAIN: grams}, graph, OPTIONS, None)
    np.testing.assert_array_equal(
        split_graph_energy(both, graph, OPTIONS, None).split["rows"]["taste"], alone.split["rows"]["taste"]
    )
    mixed = split_graph_energy({**both, "split-graph-2": other}, graph, OPTIONS, None).split["rows"]["taste"]
    plain = split_graph_energy({MAIN: other}, graph, OPTIONS, None).split["rows"]["taste"]
    first, rest = alone.split["rows"]["taste"][:, 1], plain[:, 1]
    valid = alone.is_valid
    assert not np.allclose(mixed[valid, 1], first[valid])
    assert not np.allclose(mixed[valid, 1], rest[valid])


class OwnGraph(MixingModel):
    """A model whose item vectors depend on the interactions of the training."""

    has_graph = True

    def on_graph(self, other, training) -> MixingModel:
        assert other.nnz < training.nnz
        twin = MixingModel(len(self.table.weight))
        twin.table.weight.data += torch.from_numpy(np.asarray(other.sum(axis=0), dtype=np.float32))[:, None]
        return twin


def test_a_model_with_a_graph_of_its_own_is_run_again_on_the_other_half(small, tmp_path) -> None:
    world, _, _ = small
    fast = {"n_bootstrap": 100, "n_pseudo": 2}
    model, controls = OwnGraph(world.dataset.n_items), ("split-graph",)
    made = analyze(model, world.dataset, controls=controls, out=tmp_path / "a", **fast)
    run = next((tmp_path / "a").iterdir())
    assert {path.name for path in (run / "grams").iterdir()} == {MAIN, "split-graph-1", "split-graph-2"}
    first, second = (LayerGrams.load(run / "grams" / f"split-graph-{half}") for half in (1, 2))
    assert np.abs(first.grams - second.grams).max() > 1e-3
    assert made.controls["split-graph"].retention["taste"] != made.retention["taste"]
    # Its saved states went through the graph of all users, so the control cannot be taken from them later.
    analyze(OwnGraph(world.dataset.n_items), world.dataset, out=tmp_path / "b", **fast)
    with pytest.raises(ConfigError, match="must run the model again"):
        reanalyze(next((tmp_path / "b").iterdir()), {"controls": ["split-graph"]})
    plain = tmp_path / "c"
    analyze(MixingModel(world.dataset.n_items), world.dataset, out=plain, **fast)
    again = reanalyze(next(plain.iterdir()), {"controls": ["split-graph"]})
    assert "split-graph" in again.profile.controls
