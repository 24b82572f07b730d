"""The components of the swap excess against double loops over users and pseudo-histories, and their weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import ISOLATED, PopularityMatch
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.components import COMPONENTS, graph_weights, lag_profile
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from spectral_probe.spectrum.nodes import distinct_nodes, measured_lengths, row_items
from tests.spectral_probe.worlds import World, layer_labels, make_world, slow_cooccurrence, slow_heat

TAU, N_PSEUDO = 1.0, 3


@pytest.fixture(scope="module")
def small() -> World:
    return make_world(seed=11, n_users=30, n_layers=3)


def grams_of(world: World, **changes) -> LayerGrams:
    names, kinds = layer_labels(world.states.shape[1])
    arguments = {"users": world.probe.users, "targets": world.probe.targets, **changes}
    return LayerGrams.from_states(world.states, world.probe.lengths, names, layer_states=kinds, **arguments)


def components_of(grams: LayerGrams, graph: ItemGraph, *, nodes: str = "carried", **options) -> SpectralEnergy:
    """Return the energies of Grams, split into components."""
    own_user, n_pseudo = options.pop("own_user", "drop"), options.pop("n_pseudo", N_PSEUDO)
    items = row_items(grams, nodes)
    bases = graph.local_bases(items, grams.lengths, users=grams.users, own_user=own_user)
    match = PopularityMatch.draw(graph, items, grams.lengths, grams.users, own_user=own_user, n_pseudo=n_pseudo)
    return spectral_energy(grams, bases, matched=match, **{"nulls": ("swap",), **options})


def slow_components(world: World, nodes: str, own_user: str) -> tuple[dict, np.ndarray, dict]:
    """Return excess, measured lengths and noise variances by loops over users, references, pseudo-histories, layers."""
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    n, n_layers = world.states.shape[:2]
    histories, positions = [], []
    for u in range(n):
        targets = world.probe.targets[u, : world.probe.lengths[u]].tolist()
        items, rows = [], []
        for t in range(1, len(targets)):
            item = targets[t - 1] if nodes == "carried" else targets[t]
            if item not in items:
                items.append(item)
                rows.append(t)
        histories.append(items)
        positions.append(rows)
    lengths = np.array([len(items) for items in histories])
    of_rows = row_items(grams_of(world), nodes)
    match = PopularityMatch.draw(
        graph, of_rows, world.probe.lengths, world.probe.users, own_user=own_user, n_pseudo=N_PSEUDO
    )
    train = world.train_sets
    # World users are rows of the training log.
    users = world.probe.users.tolist()

    def adjacency(u: int, T: int) -> np.ndarray:
        A = np.zeros((T, T))
        for s in range(T):
            for t in range(T):
                if s != t:
                    without = users[u] if own_user == "drop" else None
                    A[s, t] = slow_cooccurrence(train, histories[u][s], histories[u][t], without=without)
        return A

    def pseudo_adjacency(u: int, r: int, T: int) -> np.ndarray:
        A, items = np.zeros((T, T)), match.replacements[u, r, positions[u][:T]].tolist()
        own = train[users[u]]
        for s in range(T):
            for t in range(T):
                if s != t and ISOLATED not in (items[s], items[t]):
                    A[s, t] = slow_cooccurrence(train, items[s], items[t])
                    A[s, t] += own_user == "keep" and histories[u][s] in own and histories[u][t] in own
        return A

    def operators(u: int, T: int) -> dict[str, np.ndarray]:
        whole = slow_heat(adjacency(u, T), TAU)
        popularity = sum(slow_heat(pseudo_adjacency(u, r, T), TAU) for r in range(N_PSEUDO)) / N_PSEUDO
        rest = whole - popularity
        lag = np.zeros((T, T))
        for s in range(T):
            for t in range(T):
                same = [rest[i, j] for i in range(T) for j in range(T) if abs(i - j) == abs(s - t)]
                lag[s, t] = sum(same) / len(same)
        return {"whole": whole, "popularity": popularity, "lag": lag, "taste": rest - lag}

    def state(u: int, layer: int, T: int) -> np.ndarray:
        H = world.states[u, layer, positions[u][:T]].astype(np.float32).astype(np.float64)
        H = H / np.linalg.norm(H, axis=1, keepdims=True)
        H = H - H.mean(axis=0)
        return H @ H.T / np.trace(H @ H.T)

    measured = np.zeros(n, dtype=int)
    for u in range(n):
        enough = [T for T in range(1, lengths[u] + 1) if sum(lengths[v] >= T for v in range(n) if v != u) >= 20]
        T = max(enough, default=0)
        measured[u] = T if T >= 3 and adjacency(u, T).any() else 0
    excess = {name: np.full((n, n_layers), np.nan) for name in COMPONENTS}
    variance = {}
    for T in sorted(set(measured.tolist()) - {0}):
        pool = [v for v in range(n) if lengths[v] >= T]
        of_user = {v: operators(v, T) for v in pool}
        states = {(v, layer): state(v, layer, T) for v in pool for layer in range(n_layers)}
        J = np.eye(T) - 1.0 / T
        mean = sum(of_user[v]["taste"] for v in pool) / len(pool)
        norms = [np.linalg.norm(J @ (of_user[v]["taste"] - mean) @ J) ** 2 for v in pool]
        variance[T] = sum(norms) / len(norms) / (T - 1) ** 2
        for u in np.flatnonzero(measured == T).tolist():
            others = [v for v in pool if v != u]
            for layer in range(n_layers):
                g_bar = sum(states[v, layer] for v in others) / len(others)
                for name in COMPONENTS:
                    X_bar = sum(of_user[v][name] for v in others) / len(others)
                    difference = (of_user[u][name] - X_bar) * (states[u, layer] - g_bar)
                    excess[name][u, layer] = difference.sum()
    return excess, measured, variance


@pytest.mark.parametrize(("nodes", "own_user"), [("carried", "drop"), ("foreseen", "drop"), ("carried", "keep")])
def test_components_equal_double_loops(small, nodes, own_user) -> None:
    graph = ItemGraph.from_interactions(small.dataset.train.user_items)
    result = components_of(grams_of(small), graph, nodes=nodes, own_user=own_user)
    expected, measured, variance = slow_components(small, nodes, own_user)
    np.testing.assert_array_equal(result.measured, measured)
    assert 20 < result.is_valid.sum() <= 30
    for name in COMPONENTS:
        np.testing.assert_allclose(result.component_excess[name], expected[name], atol=2e-6, err_msg=name)
    total = sum(result.component_excess[name] for name in ("popularity", "lag", "taste"))
    np.testing.assert_allclose(total, result.component_excess["whole"], atol=1e-12)
    np.testing.assert_allclose(result.weights, graph_weights(measured, variance), rtol=1e-6)
    assert sum(result.skipped.values()) == 30 - result.is_valid.sum()


def test_the_whole_component_is_the_two_sided_swap_excess(small) -> None:
    """Two ways to one number: the split at tau, and the low-pass share on the same states at the same tau."""
    graph = ItemGraph.from_interactions(small.dataset.train.user_items)
    for treatment, rows in (("plain", False), ("rows", True)):
        result = components_of(grams_of(small), graph, treatment=treatment, normalize_rows=rows, tau=2.0, whole_tau=2.0)
        np.testing.assert_allclose(
            result.component_excess["whole"], result.low - result.null_low["swap"], atol=1e-10, err_msg=treatment
        )


def test_treated_states_give_the_taste(small) -> None:
    graph = ItemGraph.from_interactions(small.dataset.train.user_items)
    grams = grams_of(small, item_counts=graph.item_counts)
    result = components_of(grams, graph)
    assert result.treatment_of("taste") == "residual"
    assert result.treatment_of("popularity") == "rows"
    as_plain = replace(grams, grams=grams.treated, treated=None)
    expected = components_of(as_plain, graph, treatment="plain")
    np.testing.assert_allclose(
        result.component_excess["taste"][result.is_valid],
        expected.component_excess["taste"][result.is_valid],
        atol=1e-12,
    )
    assert np.abs(result.split["rows"]["taste"] - result.split["residual"]["taste"])[result.is_valid].max() > 1e-3


def test_a_stored_match_gives_the_same_bytes(small, tmp_path) -> None:
    graph = ItemGraph.from_interactions(small.dataset.train.user_items)
    grams, items = grams_of(small), small.probe.targets
    fresh = components_of(grams, graph, nodes="foreseen")
    arguments = {"users": small.probe.users, "n_pseudo": N_PSEUDO, "cache_dir": tmp_path}
    bases = graph.local_bases(items, grams.lengths, users=grams.users)
    for _ in range(2):
        match = PopularityMatch.draw(graph, items, grams.lengths, **arguments)
        again = spectral_energy(grams, bases, matched=match, nulls=("swap",), cache_dir=tmp_path)
        assert again.match_error == fresh.match_error
        for name in COMPONENTS:
            np.testing.assert_array_equal(again.component_excess[name], fresh.component_excess[name])
        np.testing.assert_array_equal(again.weights, fresh.weights)
    assert len(list(tmp_path.glob("pseudo-*.npz"))) == len(list(tmp_path.glob("matched-*.npz"))) == 1
    for path in tmp_path.glob("*.npz"):  # a damaged file is computed anew
        path.write_bytes(path.read_bytes()[:100])
    match = PopularityMatch.draw(graph, items, grams.lengths, **arguments)
    again = spectral_energy(grams, bases, matched=match, nulls=("swap",), cache_dir=tmp_path)
    np.testing.assert_array_equal(again.component_excess["taste"], fresh.component_excess["taste"])


def test_a_reference_without_variation_leaves_the_means_of_the_others(small) -> None:
    """The sums over references are stored with the data set; a flat user must be taken out of them."""
    graph = ItemGraph.from_interactions(small.dataset.train.user_items)
    grams = grams_of(small)
    whole = components_of(grams, graph)
    longest = int(np.argmax(whole.measured))
    flat = grams.grams.copy()
    flat[longest, 1] = 1.0
    result = components_of(replace(grams, grams=flat), graph)
    assert not result.is_valid[longest]
    others = result.is_valid
    assert others.sum() == whole.is_valid.sum() - 1
    # The same number, computed from the whole: low-pass share minus null, whose references are the same users.
    check = components_of(replace(grams, grams=flat), graph, normalize_rows=True, whole_tau=1.0)
    low = check.low - check.null_low["swap"]
    np.testing.assert_allclose(result.component_excess["whole"][others], low[others], atol=1e-10)
    assert np.abs(result.component_excess["taste"][others, 0] - whole.component_excess["taste"][others, 0]).max() > 1e-6


def test_nodes_are_the_items_read_or_predicted_each_once() -> None:
    targets, inputs = (
        np.array([[5, 7, 5, 9, 9, 2], [1, 2, 3, 0, 0, 0]]),
        np.array([[8, 5, 7, 5, 9, 9], [4, 1, 2, 0, 0, 0]]),
    )
    lengths = np.array([6, 3])
    grams = LayerGrams(
        np.zeros((2, 1, 6, 6), np.float32), lengths, ("embed",), ("embed",), targets=targets, inputs=inputs
    )
    for known in (grams, replace(grams, inputs=None)):  # older Grams have no inputs: the targets shifted by one
        items, index, n_nodes = distinct_nodes(row_items(known, "carried"), lengths, drop_first=1)
        assert n_nodes.tolist() == [3, 2]
        assert items[0, :3].tolist() == [5, 7, 9]
        assert index[0, :3].tolist() == [1, 2, 4]
        assert (items[1, :2].tolist(), index[1, :2].tolist()) == ([1, 2], [1, 2])
    items, index, n_nodes = distinct_nodes(row_items(grams, "foreseen"), lengths, drop_first=1)
    assert n_nodes.tolist() == [4, 2]
    assert (items[0, :4].tolist(), index[0, :4].tolist()) == ([7, 5, 9, 2], [1, 2, 3, 5])
    items, index, n_nodes = distinct_nodes(row_items(grams, "carried"), lengths, drop_first=2)
    assert (items[0, :3].tolist(), index[0, :3].tolist()) == ([7, 5, 9], [2, 3, 4])


def test_nobody_leaves_because_the_others_are_short() -> None:
    lengths = np.array([50, 48, *range(3, 25)])
    measured = measured_lengths(lengths)
    for u, length in enumerate(lengths.tolist()):
        enough = [T for T in range(1, length + 1) if sum(other >= T for v, other in enumerate(lengths) if v != u) >= 20]
        assert measured[u] == max(enough, default=0)
    assert measured[0] == measured[1] == 6
    assert measured_lengths(np.full(21, 9)).tolist() == [9] * 21
    # Without 20 others nobody has references, and nobody is shortened.
    assert measured_lengths(np.array([5] * 19 + [9])).tolist() == [5] * 19 + [9]
    assert measured_lengths(np.array([2] * 5 + [9] * 19), min_nodes=3).tolist() == [2] * 5 + [9] * 19


def test_weights_are_the_inverse_of_a_smoothed_variance() -> None:
    measured = np.array([0, 4, 8, 16, 32, 48, 24])
    quadratic = {T: float(np.exp(-3 - 1.5 * np.log(T) + 0.2 * np.log(T) ** 2)) for T in (4, 8, 16, 32, 48)}
    weights = graph_weights(measured, quadratic)
    assert weights[0] == 0
    np.testing.assert_allclose(weights[1:6], [1 / quadratic[T] for T in (4, 8, 16, 32, 48)])
    constant = graph_weights(np.array([4, 8, 0]), {4: 1.0, 8: 4.0, 9: float("nan")})
    np.testing.assert_allclose(constant, [0.5, 0.5, 0.0])  # the geometric mean of 1 and 4 is 2
    np.testing.assert_allclose(graph_weights(np.array([3, 0]), {}), [1.0, 0.0])


def test_the_lag_profile_keeps_the_mean_of_every_diagonal() -> None:
    rng = np.random.default_rng(0)
    operators = rng.normal(size=(2, 5, 5))
    profile = lag_profile(operators)
    for lag in range(5):
        upper, lower = np.diagonal(operators, lag, 1, 2), np.diagonal(operators, -lag, 1, 2)
        mean = np.concatenate([upper, lower], axis=1).mean(axis=1)
        np.testing.assert_allclose(np.diagonal(profile, lag, 1, 2), np.repeat(mean[:, None], 5 - lag, axis=1))
    np.testing.assert_allclose(lag_profile(profile), profile)


def world_of(kind: str, n_users: int = 300, seed: int = 3, *, treated: bool) -> tuple[LayerGrams, ItemGraph]:
    """Return Grams of states that know taste alone, popularity alone, or nothing, on histories that have both."""
    rng = np.random.default_rng(seed)
    n_items, n_tastes, d = 240, 6, 24
    taste_of_item = rng.integers(0, n_tastes, n_items)
    popularity = 1.0 / np.arange(1, n_items + 1) ** 0.7
    histories = []
    for _ in range(n_users):
        liked = taste_of_item == rng.integers(0, n_tastes)
        p = popularity * np.where(liked, 6.0, 1.0)
        histories.append(rng.choice(n_items, size=int(rng.integers(10, 22)), replace=False, p=p / p.sum()))
    data = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=n_items))
    graph = ItemGraph.from_interactions(data.train.user_items)
    probe = probe_sequences(data)
    vectors = {
        "taste": rng.normal(size=(n_tastes, d))[taste_of_item],
        "popularity": np.log1p(graph.item_counts)[:, None] * rng.normal(size=d),
        "nothing": np.zeros((n_items, d)),
    }[kind]
    vectors = vectors - vectors.mean(axis=0)
    scale = np.sqrt(np.square(vectors).mean()) or 1.0
    read = np.concatenate([probe.targets[:, :1], probe.targets[:, :-1]], axis=1)
    states = (vectors / scale)[read] + rng.normal(size=(*read.shape, d))
    states = np.repeat(states[:, None], 2, axis=1)
    counts = {"item_counts": graph.item_counts} if treated else {}
    names = ["embed", "block 1"]
    return LayerGrams.from_states(
        states, probe.lengths, names, users=probe.users, targets=probe.targets, **counts
    ), graph


def means_and_z(kind: str, *, treated: bool) -> dict[str, tuple[float, float]]:
    """Return the weighted mean excess of both components at the input, and its z."""
    grams, graph = world_of(kind, treated=treated)
    result = components_of(grams, graph, n_pseudo=16)
    rows, values = result.is_valid, {}
    w = result.weights[rows]
    for name in ("taste", "popularity"):
        x = result.component_excess[name][rows, 0]
        mean = np.average(x, weights=w)
        values[name] = (mean, mean / np.sqrt(np.square(w * (x - mean)).sum() / w.sum() ** 2))
    return values


def test_states_of_taste_and_states_of_popularity_are_told_apart() -> None:
    taste, popularity, nothing = (means_and_z(kind, treated=True) for kind in ("taste", "popularity", "nothing"))
    assert taste["taste"][1] > 15
    assert abs(taste["popularity"][0]) < taste["taste"][0] / 10
    assert popularity["popularity"][1] > 15
    assert abs(popularity["taste"][1]) < 3
    assert max(abs(z) for _, z in nothing.values()) < 3
    # Without the residuals a little of a strong axis is left: the most popular of 240 items have no equal.
    assert means_and_z("popularity", treated=False)["taste"][1] > 3.5


def test_in_random_order_what_is_foreseen_is_below_zero() -> None:
    """The operator of taste sums to 0 along diagonals: an item that is carried counts against the next one."""
    grams, graph = world_of("taste", n_users=400, treated=True)
    ratios = {}
    for T in (6, 14):
        cut = replace(grams, lengths=np.minimum(grams.lengths, T))
        means = {}
        for nodes in ("carried", "foreseen"):
            result = components_of(cut, graph, nodes=nodes, n_pseudo=8)
            rows = result.is_valid
            taste = result.component_excess["taste"][rows, 0]
            means[nodes] = np.average(taste, weights=result.weights[rows])
            length = np.average(result.measured, weights=result.weights)
        ratios[T] = means["foreseen"] / means["carried"] * (length - 1)
    assert all(-2.5 < ratio < -0.5 for ratio in ratios.values()), ratios


def test_what_cannot_be_split_is_refused(small) -> None:
    graph = ItemGraph.from_interactions(small.dataset.train.user_items)
    grams = grams_of(small)
    for changes, message in (
        ({"nodes": "read"}, "nodes must be"),
        ({"n_references": 5}, "n_references must be at least 20"),
        ({"treatment": "residual"}, "no treated states"),
    ):
        with pytest.raises(ConfigError, match=message):
            components_of(grams, graph, **changes)
    with pytest.raises(ConfigError, match="no targets"):
        row_items(grams_of(small, targets=None), "carried")
    with pytest.raises(ConfigError, match="later items"):
        components_of(grams_of(small, is_causal=False), graph)
    few = replace(
        *(grams,),
        **{name: getattr(grams, name)[:15] for name in ("grams", "lengths", "users", "targets")},
    )
    result = components_of(few, graph)
    assert result.is_valid.sum() >= 10
    assert np.isnan(result.component_excess["taste"]).all()
