"""The item graph and local graphs against counting loops and NetworkX."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array

from spectral_probe.errors import ConfigError, DataError, ShapeError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.log import Interactions
from tests.spectral_probe.worlds import World, slow_cooccurrence, slow_laplacian, slow_local_adjacency


def graph_of(histories, n_items, **options):
    return ItemGraph.from_interactions(Interactions.from_sequences(histories, n_items=n_items).user_items, **options)


def random_histories(seed: int, n_users: int = 15, n_items: int = 12) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, n_items - 2, rng.integers(1, 9)).tolist() for _ in range(n_users)]


def projection(histories: list[set[int]], n_items: int, without: int | None = None) -> nx.Graph:
    """Return NetworkX's item side of the user–item graph: weight = common users, one user left out."""
    bipartite = nx.Graph()
    bipartite.add_nodes_from(("item", i) for i in range(n_items))
    users = [("user", v) for v in range(len(histories)) if v != without]
    bipartite.add_nodes_from(users)
    bipartite.add_edges_from((("user", v), ("item", i)) for _, v in users for i in histories[v])
    items = nx.bipartite.weighted_projected_graph(bipartite, [("item", i) for i in range(n_items)])
    return nx.relabel_nodes(items, {("item", i): i for i in range(n_items)})


def local_by_networkx(graph: nx.Graph, targets: list[int]) -> np.ndarray:
    """Return the weights between positions, looked up edge by edge; the same item twice is no edge."""
    A = np.zeros((len(targets), len(targets)))
    for s, t in itertools.permutations(range(len(targets)), 2):
        if graph.has_edge(targets[s], targets[t]) and targets[s] != targets[t]:
            A[s, t] = graph[targets[s]][targets[t]]["weight"]
    return A


# --- W -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_weights_count_common_users(seed, self_loops):
    histories = random_histories(seed)
    sets = [set(h) for h in histories]
    graph = graph_of(histories, 12, self_loops=self_loops)
    expected = np.array([[slow_cooccurrence(sets, i, j) for j in range(12)] for i in range(12)])
    assert graph.item_counts.tolist() == np.diag(expected).tolist()
    if not self_loops:
        np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(graph.W.toarray(), expected)
    assert graph.W.nnz == np.count_nonzero(expected), "no stored zeros"
    assert graph.W.has_sorted_indices


def test_weights_are_the_product_of_the_interaction_matrix_with_itself():
    R = np.random.default_rng(0).integers(0, 2, (20, 9))
    np.testing.assert_array_equal(ItemGraph.from_interactions(csr_array(R), self_loops=True).W.toarray(), R.T @ R)


def test_weights_equal_the_projection_of_networkx():
    histories = random_histories(5)
    expected = nx.to_numpy_array(projection([set(h) for h in histories], 12), nodelist=range(12))
    np.testing.assert_array_equal(graph_of(histories, 12).W.toarray(), expected)


def test_a_large_catalogue_is_never_densified():
    n_items = 300_000  # dense: 720 GB
    rng = np.random.default_rng(0)
    graph = graph_of([rng.integers(0, n_items, 5).tolist() for _ in range(20)], n_items)
    assert graph.W.shape == (n_items, n_items)
    assert graph.W.nnz <= 20 * 5 * 4
    assert graph.laplacian().nnz <= n_items + graph.W.nnz


@pytest.mark.parametrize("values", [[0.5, 1.0], [1.7, 1.0], [2, 1], [-1, 1], [np.nan, 1.0]])
def test_a_matrix_that_is_not_binary_is_refused(values):
    matrix = csr_array((np.array(values), ([0, 0], [0, 1])), shape=(1, 2))
    with pytest.raises(DataError, match=r"must be binary.*Clip"):
        ItemGraph.from_interactions(matrix)


def test_the_same_interaction_stored_twice_is_refused():
    twice = csr_array((np.ones(3, dtype=int), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2))
    for matrix in (twice, coo_array(([1, 1], ([0, 0], [1, 1])), shape=(1, 2))):
        with pytest.raises(DataError, match=r"must be binary; got values from . to 2"):
            ItemGraph.from_interactions(matrix)
    assert twice.nnz == 3, "the caller's matrix stays as it was"


def test_a_stored_zero_is_no_interaction():
    stored = csr_array((np.array([1, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 2, 4])), shape=(2, 2))
    bases = ItemGraph.from_interactions(stored).local_bases([[0, 1]], [2], users=[0])
    assert bases.adjacency[0, 0, 1] == 1, "user 0 has item 0 only, so nothing of theirs is subtracted"


@pytest.mark.parametrize("matrix", [csr_array((3, 4), dtype=int), csr_array(([0], ([0], [0])), shape=(2, 2))])
def test_an_empty_interaction_matrix_is_refused(matrix):
    with pytest.raises(DataError, match=r"is empty; a graph needs at least one interaction"):
        ItemGraph.from_interactions(matrix)


# --- the Laplacian of W ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("self_loops", [False, True])
def test_the_laplacian_is_that_of_the_definition_and_isolated_items_are_not_smooth(self_loops):
    graph = graph_of(random_histories(1), 12, self_loops=self_loops)
    L = graph.laplacian().toarray()
    np.testing.assert_allclose(L, slow_laplacian(graph.W.toarray()), atol=1e-14)
    assert graph.item_counts[-1] == 0
    assert L[-1, -1] == 1.0


def test_the_laplacian_without_loops_is_that_of_networkx_where_there_are_edges():
    graph = graph_of(random_histories(2), 12)
    has_edges = np.flatnonzero(graph.W.toarray().sum(axis=1))
    expected = nx.normalized_laplacian_matrix(graph.to_networkx(), nodelist=has_edges.tolist()).toarray()
    np.testing.assert_allclose(graph.laplacian().toarray()[np.ix_(has_edges, has_edges)], expected, atol=1e-14)


@pytest.mark.parametrize("self_loops", [False, True])
def test_the_quadratic_form_is_the_sum_over_edges_of_degree_scaled_differences(self_loops):
    graph = graph_of(random_histories(3), 12, self_loops=self_loops)
    W, L = graph.W.toarray(), graph.laplacian().toarray()
    degree = W.sum(axis=1)
    values, vectors = np.linalg.eigh(L)
    rng = np.random.default_rng(0)
    for f in rng.normal(size=(5, 12)):
        scaled = [f[i] / np.sqrt(degree[i]) if degree[i] else 0.0 for i in range(12)]
        over_edges = 0.5 * sum(W[i, j] * (scaled[i] - scaled[j]) ** 2 for i in range(12) for j in range(12))
        isolated = sum(f[i] ** 2 for i in range(12) if degree[i] == 0)
        assert f @ L @ f == pytest.approx(over_edges + isolated)
        assert f @ L @ f == pytest.approx(sum(values * (vectors.T @ f) ** 2))


def test_eq_1_as_printed_does_not_hold_for_the_normalised_laplacian():
    graph = graph_of([[0, 1, 2], [0, 1], [0, 1]], 3)
    W, L, f = graph.W.toarray(), graph.laplacian().toarray(), np.ones(3)
    printed = 0.5 * sum(W[i, j] * (f[i] - f[j]) ** 2 for i in range(3) for j in range(3))
    assert printed == 0
    assert f @ L @ f > 0.05


def test_with_the_diagonal_the_laplacian_stays_below_one_and_without_it_reaches_two():
    with_loops = np.linalg.eigvalsh(graph_of(random_histories(4), 12, self_loops=True).laplacian().toarray())
    assert with_loops.max() <= 1 + 1e-12
    without = np.linalg.eigvalsh(graph_of([[0, 1]], 2).laplacian().toarray())
    np.testing.assert_allclose(without, [0, 2], atol=1e-14)


def test_the_exported_graph_has_every_item_and_every_weight():
    graph = graph_of(random_histories(1), 12)
    exported = graph.to_networkx()
    assert sorted(exported.nodes) == list(range(12))
    assert exported.number_of_edges() == graph.W.nnz // 2
    assert all(data["weight"] == graph.W[i, j] for i, j, data in exported.edges(data=True))


# --- local graphs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("own_user", ["drop", "keep"])
def test_local_graphs_of_a_batch_of_mixed_lengths_equal_counting(world: World, own_user, self_loops):
    graph = ItemGraph.from_interactions(world.dataset.train.user_items, self_loops=self_loops)
    adjacency = graph.local_adjacency(
        world.probe.targets, world.probe.lengths, users=world.probe.users, own_user=own_user
    )
    has_repeat = False
    for row, targets in enumerate(world.targets):
        left_out = int(world.probe.users[row]) if own_user == "drop" else None
        T = len(targets)
        expected = np.zeros_like(adjacency[row])
        expected[:T, :T] = slow_local_adjacency(world.train_sets, targets, left_out, self_loops)
        np.testing.assert_array_equal(adjacency[row], expected)
        has_repeat |= len(set(targets)) < T
    assert has_repeat


@pytest.mark.parametrize("own_user", ["drop", "keep"])
def test_local_graphs_equal_networkx_without_the_user(world: World, own_user):
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    bases = graph.local_bases(world.probe.targets, world.probe.lengths, users=world.probe.users, own_user=own_user)
    for row in range(0, len(world.targets), 3):
        user = int(world.probe.users[row]) if own_user == "drop" else None
        expected = local_by_networkx(projection(world.train_sets, 40, without=user), world.targets[row])
        T = len(expected)
        np.testing.assert_array_equal(bases.adjacency[row, :T, :T], expected)


def test_a_pair_that_the_user_did_not_train_on_keeps_its_full_weight():
    graph = graph_of([[0, 1], [0, 1, 2], [0, 2]], 3)
    A = graph.local_adjacency([[0, 1, 2]], [3], users=[0], own_user="drop")[0]
    assert A.tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]], "only {0, 1} lies in the training row of user 0"


def test_keeping_the_own_user_joins_every_pair_of_their_items_and_dropping_it_does_not():
    histories = [[0, 1, 2, 3], [0, 1]]
    graph = graph_of(histories, 4)
    with_own = graph.local_adjacency([[0, 1, 2, 3]], [4], users=None, own_user="keep")[0]
    dropped = graph.local_adjacency([[0, 1, 2, 3]], [4], users=[0], own_user="drop")[0]
    assert (with_own[~np.eye(4, dtype=bool)] >= 1).all()
    assert dropped.sum() == 2


def test_an_item_at_two_positions_has_no_edge_to_itself_and_the_same_edges_to_others():
    graph = graph_of([[0, 1], [0, 1], [1, 2]], 3)
    A = graph.local_adjacency([[0, 1, 0]], [3], users=None, own_user="keep")[0]
    assert A.tolist() == [[0, 2, 0], [2, 0, 2], [0, 2, 0]]


def test_self_loops_are_the_users_of_an_item_also_at_repeats_and_without_the_own_user():
    graph = graph_of([[0, 1], [0, 2]], 3, self_loops=True)
    A = graph.local_adjacency([[0, 1, 0]], [3], users=[0], own_user="drop")[0]
    assert A.tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 2]]


def test_a_user_of_isolated_items_has_frequency_one_everywhere_and_no_edge():
    graph = graph_of([[0, 1], [2]], 5)
    bases = graph.local_bases([[2, 3, 4]], [3], users=[1])
    assert bases.eigenvalues.tolist() == [[1.0, 1.0, 1.0]]
    assert not bases.has_edges[0]


def test_equal_weights_give_the_spectrum_of_the_complete_graph():
    T, times = 6, 5
    graph = graph_of([list(range(T))] * times, T)
    bases = graph.local_bases([list(range(T))], [T], users=[0])
    assert bases.adjacency[0, 0, 1] == times - 1
    np.testing.assert_allclose(bases.eigenvalues[0], [0] + [T / (T - 1)] * (T - 1), atol=1e-12)
    projector = np.outer(bases.eigenvectors[0, :, 0], bases.eigenvectors[0, :, 0])
    np.testing.assert_allclose(projector, np.full((T, T), 1 / T), atol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 3, 17, 128, 512])
def test_local_graphs_of_every_length_equal_the_sub_matrix_and_its_dense_spectrum(T):
    rng = np.random.default_rng(T)
    R = (rng.random((40, 600)) < 0.1).astype(int)
    R[0] = 0
    targets = rng.choice(600, T, replace=False)
    R[0, targets[: T // 2]] = 1
    bases = ItemGraph.from_interactions(csr_array(R)).local_bases(targets[None], [T], users=[0])
    others = R[1:, targets]
    expected = (others.T @ others).astype(float)
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(bases.adjacency[0], expected)
    degree = expected.sum(axis=0)
    scale = np.array([d**-0.5 if d else 0.0 for d in degree])
    dense = np.eye(T) - scale[:, None] * expected * scale
    np.testing.assert_allclose(bases.eigenvalues[0], np.linalg.eigvalsh(dense), atol=1e-10)
    rebuilt = (bases.eigenvectors[0] * bases.eigenvalues[0]) @ bases.eigenvectors[0].T
    np.testing.assert_allclose(rebuilt, dense, atol=1e-10)


def test_a_sequence_alone_and_in_a_batch_has_the_same_basis(world: World):
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    probe = world.probe
    together = graph.local_bases(probe.targets, probe.lengths, users=probe.users)
    for row in range(0, len(probe), 7):
        T = int(probe.lengths[row])
        alone = graph.local_bases(probe.targets[[row], :T], [T], users=probe.users[[row]])
        np.testing.assert_array_equal(together.adjacency[row, :T, :T], alone.adjacency[0])
        np.testing.assert_allclose(together.eigenvalues[row, :T], alone.eigenvalues[0], atol=1e-12)


def test_what_stands_in_the_padding_does_not_matter():
    graph = graph_of(random_histories(0), 12)
    clean = graph.local_bases([[1, 2, 3, 0, 0]], [3], users=[0])
    for filler in (9, -1, 10_000):
        other = graph.local_bases([[1, 2, 3, filler, filler]], [3], users=[0])
        np.testing.assert_array_equal(other.adjacency, clean.adjacency)
        np.testing.assert_array_equal(other.eigenvalues, clean.eigenvalues)
    assert np.isnan(clean.eigenvalues[0, 3:]).all()
    assert not clean.eigenvectors[0, 3:].any()
    assert not clean.eigenvectors[0, :, 3:].any()


def test_a_sequence_of_length_zero_is_all_padding():
    bases = graph_of(random_histories(0), 12).local_bases([[1, 2], [1, 2]], [0, 2], users=[0, 1])
    assert np.isnan(bases.eigenvalues[0]).all()
    assert not bases.adjacency[0].any()


def test_the_exported_local_graph_has_positions_items_and_weights():
    histories = random_histories(6)
    graph = graph_of(histories, 12)
    targets = [3, 1, 3, 11]
    local = graph.local_networkx(targets, user=2)
    expected = slow_local_adjacency([set(h) for h in histories], targets, 2)
    np.testing.assert_array_equal(nx.to_numpy_array(local, nodelist=range(4)), expected)
    assert nx.get_node_attributes(local, "item") == dict(enumerate(targets))


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"users": None}, ConfigError, r"own_user='drop' .* needs users=.*or choose own_user='keep'"),
        ({"own_user": "remove"}, ConfigError, r"must be 'drop' or 'keep'; got 'remove'"),
        ({"users": [0, 1]}, ShapeError, r"one row per sequence, \(1,\); got shape \(2,\)"),
        ({"users": [15]}, DataError, r"User rows must lie in 0…14; seen 15…15"),
        ({"users": [-1]}, DataError, r"User rows must lie in 0…14; seen -1…-1"),
        ({"targets": [[0, 12, 1]]}, DataError, r"Item 12 at position 1 of sequence 0 .* 12 items\. Build the graph"),
        ({"targets": [[0, 1, -1]]}, DataError, r"Item -1 at position 2"),
        ({"targets": [0, 1, 2]}, ShapeError, r"must be \(n, T\).*got \(3,\).*Pad shorter"),
        ({"lengths": [3, 3]}, ShapeError, r"got \(1, 3\) and \(2,\)"),
        ({"lengths": [4]}, ShapeError, r"lengths must lie in 0…3, the padded width; seen 4…4"),
        ({"lengths": [-1]}, ShapeError, r"seen -1…-1"),
        ({"targets": [[0.0, 1.0, 2.0]]}, ShapeError, r"must be integers; got float64"),
        ({"lengths": [2.5]}, ShapeError, r"must be integers; got int64 and float64"),
    ],
)
def test_bad_input_is_refused_with_rule_value_and_next_step(arguments, error, message):
    graph = graph_of(random_histories(0), 12)
    good = {"targets": [[0, 1, 2]], "lengths": [3], "users": [0], "own_user": "drop"}
    with pytest.raises(error, match=message):
        graph.local_bases(**{**good, **arguments})


# --- real data ---------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_local_graphs_of_real_users_equal_networkx(shared_dir):
    lines = (shared_dir / "data" / "LastFM" / "LastFM.txt").read_text(encoding="utf-8").splitlines()
    histories = [[int(item) - 1 for item in line.split()[1:]][:-2] for line in lines]
    sets = [set(h) for h in histories]
    n_items = max(map(max, histories)) + 1
    graph = graph_of(histories, n_items)
    for user in (0, 137, 1089):
        targets = histories[user][1:51]
        others = [sets[v] for v in range(len(sets)) if v != user]
        expected = local_by_networkx(projection([s & set(targets) for s in others], n_items), targets)
        actual = graph.local_adjacency([targets], [len(targets)], users=[user], own_user="drop")[0]
        np.testing.assert_array_equal(actual, expected)
        assert actual.any()
