"""Popularity-matched graphs against the rules of the matching, by loops, and against the matrix exponential."""

from __future__ import annotations

import numpy as np
import pytest

from spectral_probe.errors import ConfigError
from spectral_probe.graph.filters import heat_operator
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import ISOLATED, MIN_ELIGIBLE, PopularityMatch
from spectral_probe.interactions.log import Interactions
from tests.spectral_probe.worlds import slow_cooccurrence, slow_heat

TAU = 1.0


@pytest.fixture(scope="module")
def world():
    """Sixty users of unequal length over eighty items whose popularity falls steeply; some items repeat."""
    rng = np.random.default_rng(5)
    popularity = 1.0 / np.arange(1, 81) ** 0.8
    histories = [rng.choice(80, size=rng.integers(5, 14), p=popularity / popularity.sum()) for _ in range(60)]
    log = Interactions.from_sequences(histories, n_items=81)  # the last item is nobody's
    graph = ItemGraph.from_interactions(log.user_items)
    nodes = np.zeros((60, 13), dtype=np.int64)
    for u, history in enumerate(histories):
        nodes[u, : len(history)] = history
    nodes[0, 1] = 80  # a node that is not in the training part, and that nobody has
    for u in range(1, 6):  # the most popular item that is not in the user's training part, as a held-out target
        nodes[u, len(histories[u]) - 1] = next(item for item in range(80) if item not in histories[u])
    lengths = np.array([len(history) for history in histories])
    return graph, nodes, lengths, [set(history.tolist()) for history in histories]


def draw(world, **options) -> PopularityMatch:
    graph, nodes, lengths, _ = world
    return PopularityMatch.draw(graph, nodes, lengths, np.arange(len(nodes)), **{"n_pseudo": 8, **options})


@pytest.mark.parametrize("own_user", ["drop", "keep"])
def test_replacements_follow_the_rules(world, own_user) -> None:
    graph, nodes, lengths, train = world
    match = draw(world, own_user=own_user)
    counts = graph.item_counts
    order = np.sort(counts)[::-1]
    n_matched = 0
    for u in range(len(nodes)):
        history = nodes[u, : lengths[u]].tolist()
        errors = []
        for r in range(8):
            replaced = match.replacements[u, r, : lengths[u]].tolist()
            by_item = dict(zip(history, replaced, strict=True))
            # A repeated item has one replacement, and no item replaces two.
            assert replaced == [by_item[item] for item in history]
            real = [item for item in by_item.values() if item != ISOLATED]
            assert len(real) == len(set(real))
            for item, other in by_item.items():
                count = counts[item] - (own_user == "drop" and item in train[u])
                if count == 0:
                    assert other == ISOLATED
                    continue
                n_matched += 1
                assert other not in train[u]
                assert other not in history
                assert counts[other] > 0
                # Within the window, or the window was widened: then few items of this popularity are eligible.
                rank = int((order > count).sum())
                last = max(rank, int((order >= count).sum()) - 1)
                width = min(25, max(3, np.ceil(0.05 * (last + 1))))
                distance = max(
                    0, rank - int((order >= counts[other]).sum() - 1), int((order > counts[other]).sum()) - last
                )
                if distance > width:
                    near = [j for j in range(81) if counts[j] > 0 and j not in train[u] and j not in history]
                    ranks = [int((order > counts[j]).sum()) for j in near]
                    assert sum(abs(k - rank) <= width for k in ranks) < MIN_ELIGIBLE + len(by_item)
                errors.append(abs(np.log(counts[other] / count)))
        # Each distinct item counts once in every pseudo-history.
        assert match.log_ratios[u] == pytest.approx(np.mean(errors)) if errors else np.isnan(match.log_ratios[u])
    assert n_matched > 1000
    assert match.match_error == pytest.approx(np.nanmean(match.log_ratios))


def test_draws_depend_on_user_item_and_number_alone(world) -> None:
    graph, nodes, lengths, _ = world
    match = draw(world)
    some = np.array([41, 3, 17])
    alone = PopularityMatch.draw(graph, nodes[some], lengths[some], some, n_pseudo=3)
    for row, u in enumerate(some):
        np.testing.assert_array_equal(alone.replacements[row], match.replacements[u, :3])
    # A history in another order has the same replacements; one that is cut differs only where two draws were equal.
    u = int(np.argmax(lengths))
    T = int(lengths[u])
    shuffled = np.random.default_rng(0).permutation(T)
    of_other_order = PopularityMatch.draw(graph, nodes[u : u + 1, shuffled], [T], [u], n_pseudo=8)
    np.testing.assert_array_equal(of_other_order.replacements[0], match.replacements[u][:, shuffled])
    for positions in (np.arange(T)[3:], np.arange(T)[:-2]):
        cut = PopularityMatch.draw(graph, nodes[u : u + 1, positions], [len(positions)], [u], n_pseudo=8)
        is_same = cut.replacements[0] == match.replacements[u][:, positions]
        assert 0.8 < is_same.mean() <= 1
    # The first item of the catalogue is drawn first, whatever the others are.
    first = int(np.argmin(nodes[u, :T]))
    single = PopularityMatch.draw(graph, nodes[u : u + 1, [first]], [1], [u], n_pseudo=8)
    np.testing.assert_array_equal(single.replacements[0, :, 0], match.replacements[u][:, first])


def test_a_long_training_part_does_not_coarsen_the_match() -> None:
    """Only the nodes are replaced: the items of a long training part take no replacements away from them."""
    rng = np.random.default_rng(1)
    histories = [rng.choice(300, size=12, replace=False) for _ in range(200)] + [rng.permutation(300)[:200]]
    graph = ItemGraph.from_interactions(Interactions.from_sequences(histories, n_items=300).user_items)
    nodes = histories[-1][None, :10]
    match = PopularityMatch.draw(graph, nodes, [10], [200], n_pseudo=16)
    free = np.setdiff1d(np.arange(300), histories[-1])
    for item, drawn in zip(nodes[0], match.replacements[0].T, strict=True):
        count = graph.item_counts[item] - 1
        nearest = np.sort(np.abs(graph.item_counts[free] - count))[:30]
        assert np.abs(graph.item_counts[drawn] - count).max() <= nearest.max() + 2


def test_twelve_items_are_enough_and_none_left_is_isolated() -> None:
    histories = [list(range(0, 6)), list(range(3, 9)), list(range(6, 12)), list(range(0, 12)), [0, 5, 9, 11]]
    graph = ItemGraph.from_interactions(Interactions.from_sequences(histories, n_items=12).user_items)
    nodes = np.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
    match = PopularityMatch.draw(graph, nodes, [6, 6], [0, 3])
    assert set(match.replacements[0].ravel().tolist()) == set(range(6, 12))
    for r in range(32):
        assert len(set(match.replacements[0, r].tolist())) == 6
    # The user who has the whole catalogue has nothing to be matched with.
    assert (match.replacements[1] == ISOLATED).all()
    assert np.isnan(match.log_ratios[1])
    np.testing.assert_allclose(match.heat(TAU, 6, [1])[0], np.exp(-TAU) * np.eye(6))


def test_popularity_is_counted_without_the_user_only_where_their_edges_are_dropped() -> None:
    # Item 0 has the user and one other; items 1 to 8 have one user, items 9 to 16 two.
    histories = [[0, 17], [0, 18], *[[item] for item in range(1, 9)], *[[item] for item in range(9, 17)] * 2]
    graph = ItemGraph.from_interactions(Interactions.from_sequences(histories, n_items=19).user_items)
    for own_user, expected in (("drop", 1), ("keep", 2)):
        match = PopularityMatch.draw(graph, [[0]], [1], [0], own_user=own_user, n_pseudo=64)
        counts = graph.item_counts[match.replacements[0, :, 0]]
        assert np.bincount(counts, minlength=3)[expected] > 40, own_user


@pytest.mark.parametrize("own_user", ["drop", "keep"])
@pytest.mark.parametrize("drop_first", [0, 1])
def test_the_mean_heat_kernel_equals_loops_and_the_matrix_exponential(world, own_user, drop_first) -> None:
    _, nodes, lengths, train = world
    match = draw(world, own_user=own_user, n_pseudo=3)
    for T in (4, 9):
        rows = np.flatnonzero(lengths >= T)[[0, 3, -1]]
        fast = match.heat(TAU, T, rows, drop_first=drop_first)
        for row, u in enumerate(rows):
            total = 0.0
            for r in range(3):
                items = match.replacements[u, r, :T].tolist()
                A = np.zeros((T, T))
                for s in range(T):
                    for t in range(T):
                        if items[s] != items[t] and ISOLATED not in (items[s], items[t]):
                            both_own = nodes[u, s] in train[u] and nodes[u, t] in train[u]
                            A[s, t] = slow_cooccurrence(train, items[s], items[t])
                            A[s, t] += own_user == "keep" and both_own and nodes[u, s] != nodes[u, t]
                total = total + slow_heat(A[drop_first:, drop_first:], TAU)
            np.testing.assert_allclose(fast[row], total / 3, atol=1e-10)
    assert len(match.heat(TAU, 9)) == (lengths >= 9).sum()


@pytest.mark.parametrize("tau", [0.2, 1.0, 2.0, 5.0, 20.0, 500.0])
def test_the_heat_operator_is_the_matrix_exponential(world, tau) -> None:
    graph, nodes, lengths, _ = world
    adjacency = graph.local_adjacency(nodes, lengths, users=np.arange(60), own_user="drop")
    adjacency[5] = 0.0
    operator = heat_operator(adjacency, tau)
    for u in (0, 5, 17, 59):
        np.testing.assert_allclose(operator[u], slow_heat(adjacency[u], tau), atol=1e-11)


def test_options_out_of_range(world) -> None:
    with pytest.raises(ConfigError, match="n_pseudo must be at least 1"):
        draw(world, n_pseudo=0)
    with pytest.raises(ConfigError, match="own_user must be"):
        draw(world, own_user="both")
    match = draw(world, n_pseudo=1)
    with pytest.raises(ConfigError, match="T=13 must be at most"):
        match.heat(TAU, 13, [int(np.argmin(match.lengths))])
    with pytest.raises(ConfigError, match="drop_first=4"):
        match.heat(TAU, 4, drop_first=4)
    with pytest.raises(ConfigError, match="tau must be"):
        match.heat(0.0, 4)
