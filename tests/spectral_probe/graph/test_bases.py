"""The graph Fourier transform and the heat kernel against dense NumPy, SciPy and NetworkX, user by user."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.linalg

from spectral_probe.errors import ConfigError, ShapeError
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.filters import graph_operator, heat_kernel, heat_operator
from spectral_probe.graph.item_graph import ItemGraph
from tests.spectral_probe.worlds import World, slow_eigenspaces, slow_laplacian


@pytest.fixture(scope="module")
def bases(world: World) -> GraphBases:
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    return graph.local_bases(world.probe.targets, world.probe.lengths, users=world.probe.users)


def dense_laplacian(A: np.ndarray) -> np.ndarray:
    """Return I − D^(−1/2) A D^(−1/2) with the pseudo-inverse of D for nodes without edges."""
    root = np.sqrt(np.linalg.pinv(np.diag(A.sum(axis=1))))
    return np.eye(len(A)) - root @ A @ root


def test_every_basis_diagonalises_the_dense_laplacian_of_its_user(bases: GraphBases):
    for row, T in enumerate(bases.lengths):
        U, values = bases.eigenvectors[row, :T, :T], bases.eigenvalues[row, :T]
        np.testing.assert_allclose(U.T @ U, np.eye(T), atol=1e-12)
        np.testing.assert_allclose(U @ np.diag(values) @ U.T, dense_laplacian(bases.adjacency[row, :T, :T]), atol=1e-12)
        assert (np.diff(values) >= 0).all()


def test_eigenspaces_equal_those_of_an_independent_solver(bases: GraphBases):
    for row in range(0, len(bases.lengths), 5):
        T = int(bases.lengths[row])
        start = 0
        for value, projector in slow_eigenspaces(bases.adjacency[row, :T, :T]):
            size = round(np.trace(projector))
            u = bases.eigenvectors[row, :T, start : start + size]
            np.testing.assert_allclose(bases.eigenvalues[row, start : start + size], value, atol=1e-10)
            np.testing.assert_allclose(u @ u.T, projector, atol=1e-9)
            start += size
        assert start == T


def test_padding_is_nan_in_eigenvalues_and_zero_elsewhere(bases: GraphBases):
    for row, T in enumerate(bases.lengths):
        assert np.isnan(bases.eigenvalues[row, T:]).all()
        assert not np.isnan(bases.eigenvalues[row, :T]).any()
        for matrix in (bases.eigenvectors[row], bases.adjacency[row]):
            assert not matrix[T:].any()
            assert not matrix[:, T:].any()


@pytest.mark.parametrize("d", [None, 1, 5])
def test_the_transform_of_a_batch_equals_a_dot_product_per_user_frequency_and_feature(bases: GraphBases, d):
    n, T = bases.eigenvalues.shape
    x = np.random.default_rng(0).normal(size=(n, T) if d is None else (n, T, d))
    x_hat, back = bases.gft(x), bases.igft(x)
    assert x_hat.shape == back.shape == x.shape
    for row in range(0, n, 11):
        U, length = bases.eigenvectors[row], bases.lengths[row]
        for k in range(T):
            expected = sum(U[t, k] * x[row, t] for t in range(length))
            np.testing.assert_allclose(x_hat[row, k], expected, atol=1e-12)
            expected = sum(U[k, j] * x[row, j] for j in range(length))
            np.testing.assert_allclose(back[row, k], expected, atol=1e-12)


def test_dropping_positions_is_the_local_graph_of_the_rest_with_its_own_degrees(bases: GraphBases):
    for k in (0, 1, 3):
        dropped = bases.drop_first(k)
        assert dropped.lengths.tolist() == [max(T - k, 0) for T in bases.lengths]
        for row, T in enumerate(bases.lengths):
            A = bases.adjacency[row, k:T, k:T]
            expected = scipy.linalg.eigvalsh(slow_laplacian(A))
            np.testing.assert_allclose(dropped.eigenvalues[row, : T - k], expected, atol=1e-10)
            np.testing.assert_array_equal(dropped.adjacency[row, : T - k, : T - k], A)


def test_dropping_a_position_is_not_a_sub_matrix_of_the_old_laplacian():
    star = np.zeros((1, 3, 3))
    star[0, 0, 1:] = star[0, 1:, 0] = star[0, 1, 2] = star[0, 2, 1] = 1
    dropped = GraphBases.from_adjacency(star, np.array([3])).drop_first(1)
    np.testing.assert_allclose(dropped.eigenvalues, [[0, 2]], atol=1e-12)


@pytest.mark.parametrize("k", [-1, 11])
def test_more_positions_than_there_are_cannot_be_dropped(bases: GraphBases, k):
    with pytest.raises(ConfigError, match=rf"drop_first must lie in 0…10; got {k}"):
        bases.drop_first(k)


def test_has_edges_counts_edges_between_different_nodes_only():
    adjacency = np.zeros((3, 2, 2))
    adjacency[1] = np.eye(2)
    adjacency[2, 0, 1] = adjacency[2, 1, 0] = 1
    assert GraphBases.from_adjacency(adjacency, np.array([2, 2, 2])).has_edges.tolist() == [False, False, True]


@pytest.mark.parametrize("T", [1, 2, 5, 9])
def test_the_path_graph_is_that_of_networkx(T):
    bases = GraphBases.path(np.array([T, max(T - 1, 0)]), T)
    path = nx.path_graph(T)
    np.testing.assert_array_equal(bases.adjacency[0], nx.to_numpy_array(path))
    if T > 1:
        expected = np.linalg.eigvalsh(nx.normalized_laplacian_matrix(path).toarray())
        np.testing.assert_allclose(bases.eigenvalues[0], expected, atol=1e-10)
        # The normalised path has the spectrum 1 − cos(π k / (T − 1)).
        np.testing.assert_allclose(expected, 1 - np.cos(np.pi * np.arange(T) / (T - 1)), atol=1e-10)
    np.testing.assert_array_equal(bases.adjacency[1, : T - 1, : T - 1], nx.to_numpy_array(nx.path_graph(T - 1)))
    assert not bases.adjacency[1, T - 1 :].any()


@pytest.mark.parametrize(
    ("adjacency", "lengths", "message"),
    [
        (np.zeros((2, 3, 4)), [3, 3], r"must be \(n, T, T\).*got \(2, 3, 4\)"),
        (np.zeros((2, 3, 3)), [3], r"lengths \(n,\); got \(2, 3, 3\) and \(1,\)"),
        (np.triu(np.ones((1, 3, 3))), [3], r"symmetric with weights >= 0; use ItemGraph"),
        (-np.ones((1, 3, 3)), [3], r"symmetric with weights >= 0"),
        (np.full((1, 3, 3), np.nan), [3], r"symmetric with weights >= 0"),
    ],
)
def test_a_matrix_that_is_no_adjacency_is_refused(adjacency, lengths, message):
    with pytest.raises(ShapeError, match=message):
        GraphBases.from_adjacency(adjacency, np.array(lengths))


@pytest.mark.parametrize("shape", [(60, 9), (59, 10), (60, 10, 3, 2), (60,)])
def test_a_signal_of_another_shape_is_refused(bases: GraphBases, shape):
    with pytest.raises(ShapeError, match=r"A signal on these graphs must be \(60, 10\) or .*; got"):
        bases.gft(np.zeros(shape))


# --- heat kernel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.5, 5.0, 20.0])
def test_the_heat_kernel_is_the_matrix_exponential(bases: GraphBases, tau):
    operators = graph_operator(bases.eigenvectors, heat_kernel(bases.eigenvalues, tau))
    for row in range(0, len(bases.lengths), 6):
        T = int(bases.lengths[row])
        expected = scipy.linalg.expm(-tau * slow_laplacian(bases.adjacency[row, :T, :T]))
        np.testing.assert_allclose(operators[row, :T, :T], expected, atol=1e-10)
        assert not operators[row, T:].any()


def test_the_heat_kernel_is_one_at_zero_falls_and_is_zero_in_the_padding():
    h = heat_kernel(np.array([0.0, 0.2, 1.0, 2.0, np.nan]), 5.0)
    np.testing.assert_allclose(h, [1.0, np.exp(-1), np.exp(-5), np.exp(-10), 0.0])


@pytest.mark.parametrize("tau", [0, -1.0, 501.0, 1e308, np.inf, np.nan])
def test_a_diffusion_time_out_of_range_is_refused(tau):
    for operator, argument in ((heat_kernel, np.zeros(2)), (heat_operator, np.ones((2, 2)))):
        with pytest.raises(ConfigError, match="tau must be a positive number of at most 500; got "):
            operator(argument, tau)
