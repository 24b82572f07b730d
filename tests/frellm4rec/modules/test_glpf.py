"""Graph filters against the dense eigenbasis: with and without self loops, isolated items, degenerate cuts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from frellm4rec.modules import GraphLowPassFilter, IdealLowPassFilter, glpf
from frellm4rec.modules.glpf import chebyshev_coefficients, normalized_adjacency
from spectral_probe.errors import ConfigError, ShapeError
from spectral_probe.graph.item_graph import ItemGraph

N_ITEMS = 14


def graph(seed=0, n_items=N_ITEMS, n_users=12):
    """A random log; the last item stands alone in its user's history, and the one before in nobody's."""
    R = (np.random.default_rng(seed).random((n_users, n_items)) < 0.3).astype(int)
    R[:, -2:] = 0
    R[0] = 0
    R[0, -1] = 1
    R[1, :3] = 1
    return ItemGraph.from_interactions(csr_array(R))


def complete(n_items=8):
    """All weights equal: every eigenvalue but the first is the same."""
    return ItemGraph.from_interactions(csr_array(np.ones((3, n_items), dtype=int)))


def dense(item_graph, self_loops):
    """Return eigenvalues and eigenvectors of the Laplacian, from the definition."""
    R = item_graph.user_items.toarray()
    W = (R.T @ R).astype(float)
    if not self_loops:
        np.fill_diagonal(W, 0)
    degree = W.sum(1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    return np.linalg.eigh(np.eye(len(W)) - scale[:, None] * W * scale)


def embeddings(n_items=N_ITEMS, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n_items, 5)))


def exact(module, x):
    """Run a filter with its adjacency in float64: what is compared is the algebra, not the dtype."""
    return module.double()(x).detach().numpy()


def filter64(item_graph, *arguments, **options):
    module = GraphLowPassFilter(item_graph, *arguments, **options)
    module.adjacency = normalized_adjacency(item_graph, self_loops=options.get("self_loops", True), dtype=torch.float64)
    return module


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3, 7, 20])
def test_powers_equal_the_dense_eigenbasis(order, self_loops):
    item_graph, x = graph(), embeddings()
    eigenvalues, U = dense(item_graph, self_loops)
    expected = (U * (1 - 0.4 * eigenvalues) ** order) @ (U.T @ x.numpy())
    module = filter64(item_graph, 0.4, order, self_loops=self_loops)
    np.testing.assert_allclose(module(x), expected, atol=1e-12)


@given(st.integers(0, 1000), st.floats(0, 1), st.integers(1, 12), st.booleans())
@settings(deadline=None, max_examples=50)
def test_powers_equal_the_dense_eigenbasis_on_any_graph(seed, alpha, order, self_loops):
    item_graph, x = graph(seed), embeddings(seed=seed + 1)
    eigenvalues, U = dense(item_graph, self_loops)
    expected = (U * (1 - alpha * eigenvalues) ** order) @ (U.T @ x.numpy())
    module = filter64(item_graph, alpha, order, self_loops=self_loops)
    np.testing.assert_allclose(module(x), expected, atol=1e-11)


@pytest.mark.parametrize("graph_loops", [True, False])
def test_the_filter_decides_on_self_loops_whatever_the_graph_has(graph_loops):
    R = graph().user_items
    of_graph = ItemGraph.from_interactions(R, self_loops=graph_loops)
    for self_loops in (True, False):
        eigenvalues, U = dense(of_graph, self_loops)
        S = normalized_adjacency(of_graph, self_loops=self_loops, dtype=torch.float64).to_dense().numpy()
        np.testing.assert_allclose(S, (U * (1 - eigenvalues)) @ U.T, atol=1e-12)


def test_with_self_loops_no_frequency_changes_sign():
    """R^T R is positive semi-definite, so every eigenvalue lies in [0, 1]; without its diagonal it reaches beyond 1."""
    assert dense(graph(), True)[0].max() <= 1 + 1e-12
    assert dense(graph(), False)[0].max() > 1.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("order", [1, 3])
def test_alpha_0_is_the_identity_to_the_bit(dtype, order):
    x = embeddings().to(dtype)
    assert torch.equal(GraphLowPassFilter(graph(), 0.0, order)(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeping_all_of_the_spectrum_is_the_identity_to_the_bit(dtype):
    x = embeddings().to(dtype)
    assert torch.equal(IdealLowPassFilter(graph(), 1.0)(x), x)


@pytest.mark.parametrize(("order", "tolerance"), [(1, 2e-2), (4, 1e-1)])
def test_bf16_stays_bf16_and_near(order, tolerance):
    x = embeddings()
    module = GraphLowPassFilter(graph(), 0.4, order)
    low = module(x.bfloat16())
    assert low.dtype == torch.bfloat16
    np.testing.assert_allclose(low.double(), filter64(graph(), 0.4, order)(x), atol=tolerance)


def test_isolated_items():
    """An item without any interaction has L = 1; one alone in its history has a self loop only, and is smooth."""
    x = embeddings()
    with_loops = filter64(graph(), 0.4)(x)
    torch.testing.assert_close(with_loops[-2], 0.6 * x[-2])
    torch.testing.assert_close(with_loops[-1], x[-1])
    without = filter64(graph(), 0.4, self_loops=False)(x)
    torch.testing.assert_close(without[-2:], 0.6 * x[-2:])


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("keep", [0.07, 0.15, 0.4, 0.5, 0.9])
def test_the_ideal_filter_equals_the_dense_projection(keep, self_loops):
    item_graph, x = graph(n_items=40, n_users=30), embeddings(40)
    eigenvalues, U = dense(item_graph, self_loops)
    n_kept = round(keep * 40)
    edge = eigenvalues[n_kept - 1]
    is_inside, is_edge = eigenvalues < edge - 1e-7, np.abs(eigenvalues - edge) <= 1e-7
    weights = is_inside + is_edge * (n_kept - is_inside.sum()) / is_edge.sum()
    expected = (U * weights) @ (U.T @ x.numpy())
    np.testing.assert_allclose(exact(IdealLowPassFilter(item_graph, keep, self_loops), x), expected, atol=1e-9)


def test_the_truncated_solver_and_the_dense_one_agree(monkeypatch):
    item_graph, x = graph(n_items=60, n_users=50), embeddings(60)
    truncated = exact(IdealLowPassFilter(item_graph, 0.1), x)
    monkeypatch.setattr(glpf, "_DENSE_FROM", 0.0)
    monkeypatch.setattr(glpf, "eigsh", None)
    np.testing.assert_allclose(exact(IdealLowPassFilter(item_graph, 0.1), x), truncated, atol=1e-9)


def test_a_cut_through_an_eigenspace_keeps_all_of_it_in_part():
    """Of a complete graph only the constant vector is smooth; the other seven eigenvalues are one."""
    item_graph, x = complete(), embeddings(8)
    mean = x.mean(0, keepdim=True).expand(8, 5)
    for n_kept in (1, 2, 4, 7):
        part = (n_kept - 1) / 7
        expected = mean + part * (x - mean)
        filtered = exact(IdealLowPassFilter(item_graph, n_kept / 8), x)
        np.testing.assert_allclose(filtered, expected, atol=1e-9)


def test_a_cut_through_an_eigenspace_does_not_depend_on_the_names_of_the_items():
    item_graph, x = graph(3), embeddings()
    order = np.random.default_rng(5).permutation(N_ITEMS)
    renamed = ItemGraph.from_interactions(csr_array(item_graph.user_items.toarray()[:, order]))
    for keep in (0.1, 0.5, 0.8):
        filtered = exact(IdealLowPassFilter(item_graph, keep), x)
        np.testing.assert_allclose(exact(IdealLowPassFilter(renamed, keep), x[order]), filtered[order], atol=1e-9)


@pytest.mark.parametrize("order", [1, 5, 30])
def test_any_response_is_met_by_its_interpolant(order):
    def response(eigenvalues):
        return torch.exp(-3 * eigenvalues)

    item_graph, x = graph(), embeddings()
    eigenvalues, U = dense(item_graph, False)
    module = filter64(item_graph, 0.3, order, self_loops=False, response=response)
    coefficients = chebyshev_coefficients(response, order).numpy()
    interpolant = np.polynomial.chebyshev.chebval(eigenvalues - 1, coefficients)
    np.testing.assert_allclose(module(x), (U * interpolant) @ (U.T @ x.numpy()), atol=1e-12)
    if order == 30:
        np.testing.assert_allclose(interpolant, np.exp(-3 * eigenvalues), atol=1e-12)


@pytest.mark.parametrize("order", [1, 3])
def test_the_gradient_of_a_learnable_alpha_equals_finite_differences(order):
    x = embeddings()
    module = filter64(graph(), 0.35, order, learnable=True)
    np.testing.assert_allclose(module(x).detach(), filter64(graph(), 0.35, order)(x), atol=1e-6)
    module.double()
    module(x).square().sum().backward()
    slope = module.logit.grad.item()
    with torch.no_grad():
        ends = []
        for step in (-1e-5, 2e-5):
            module.logit += step
            ends.append(module(x).square().sum().item())
    assert slope == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-6)


def test_nothing_of_the_graph_is_saved_with_the_weights():
    assert list(GraphLowPassFilter(graph(), learnable=True).state_dict()) == ["logit"]
    assert not IdealLowPassFilter(graph(), 0.3).state_dict()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GraphLowPassFilter(graph(), 1.5), r"alpha must lie in \[0, 1\]; got 1\.5"),
        (lambda: GraphLowPassFilter(graph(), float("nan")), "alpha must lie"),
        (lambda: GraphLowPassFilter(graph(), 0.3, 0), "order must be a whole number"),
        (lambda: GraphLowPassFilter(graph(), 0.0, learnable=True), "starts inside"),
        (lambda: GraphLowPassFilter(graph(), learnable=True, response=torch.cos), "no alpha to learn"),
        (lambda: IdealLowPassFilter(graph(), 0.0), r"in \(0, 1\]; got 0\.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize("module", [GraphLowPassFilter(graph()), IdealLowPassFilter(graph(), 0.3)])
def test_other_numbers_of_items_are_refused(module):
    with pytest.raises(ShapeError, match=r"\(14, d\).*got \(13, 5\)"):
        module(embeddings(13))
