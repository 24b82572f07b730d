"""The global graph low-pass filter on item embeddings: order 1, any polynomial, or the ideal low-pass."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from spectral_probe.errors import ConfigError, ShapeError
from spectral_probe.graph.item_graph import ItemGraph

Response = Callable[[torch.Tensor], torch.Tensor]
#: Above this share of the spectrum a dense eigendecomposition is faster than the truncated solver.
_DENSE_FROM = 0.2
#: Eigenvalues closer than this to the last one that is kept belong to its eigenspace.
_SAME_EIGENVALUE = 1e-7


class GraphLowPassFilter(nn.Module):
    r"""Polynomial low-pass of item embeddings on the co-occurrence graph, :math:`E' = h(L) E`.

    .. math:: h(\lambda) = (1 - \alpha\lambda)^K, \qquad L = I - D^{-1/2} W D^{-1/2}

    Order 1 is one sparse product; a higher order runs through the Chebyshev recurrence, as does any other ``response``.

    Parameters
    ----------
    graph : ItemGraph
        Of training interactions.
    alpha : float in [0, 1]
        Strength; 0 is the identity to the bit, 1 the strongest.
    order : int
        Degree K of the polynomial.
    self_loops : bool
        Keep the diagonal of :math:`R^\top R`. With it :math:`\lambda \in [0, 1]` and h is never negative; without it
        :math:`\lambda` reaches 2 and :math:`1 - \alpha\lambda` turns negative from :math:`\alpha > 0.5` on.
    learnable : bool
        Fit alpha, kept in (0, 1) by a sigmoid.
    response : callable, optional
        Another h, taking eigenvalues in [0, 2]; it is replaced by its Chebyshev interpolant of degree ``order``.

    Notes
    -----
    Source: FreLLM4Rec Eqs. (5) to (7). The published filter is order 1. A learnable alpha is beyond the paper.
    """

    def __init__(
        self,
        graph: ItemGraph,
        alpha: float = 0.3,
        order: int = 1,
        self_loops: bool = True,
        *,
        learnable: bool = False,
        response: Response | None = None,
    ) -> None:
        super().__init__()
        check_alpha(alpha, order)
        if response is not None and learnable:
            raise ConfigError("A custom response has no alpha to learn. Leave out response, or set learnable=False.")
        if learnable and not 0.0 < alpha < 1.0:
            raise ConfigError(f"A learnable alpha starts inside (0, 1); got {alpha}. Start at 0.3.")
        self.alpha, self.order, self.response = float(alpha), order, response
        self.logit = nn.Parameter(torch.tensor(float(alpha)).logit()) if learnable else None
        self.register_buffer("adjacency", normalized_adjacency(graph, self_loops=self_loops), persistent=False)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the filtered embeddings, (n_items, feature), in the dtype of ``embeddings``.

        Raises
        ------
        ShapeError
            If there is not one row for each item of the graph.
        """
        n_items = self.adjacency.shape[0]
        if embeddings.ndim != 2 or len(embeddings) != n_items:
            raise ShapeError(
                f"Item embeddings must be ({n_items}, d), one row for each item of the graph; got "
                f"{tuple(embeddings.shape)}."
            )
        if self.response is None and self.logit is None and self.alpha == 0.0:
            return embeddings
        if embeddings.dtype in (torch.bfloat16, torch.float16):  # torch has no sparse products in these dtypes
            return self.forward(embeddings.float()).to(embeddings.dtype)
        if self.response is None and self.logit is None and self.order == 1:
            return filter_once(self.adjacency, embeddings, self.alpha)
        return combine(self.basis(embeddings), self.coefficients())

    def basis(self, embeddings: torch.Tensor) -> torch.Tensor:
        r"""Return :math:`T_k(L - I) E` for k = 0…K, (order + 1, n_items, feature), by the Chebyshev recurrence."""
        terms = [embeddings, -self._adjacent(embeddings)]
        for _ in range(1, self.order):
            terms.append(-2.0 * self._adjacent(terms[-1]) - terms[-2])
        return torch.stack(terms[: self.order + 1])

    def coefficients(self) -> torch.Tensor:
        """Return the weights of :meth:`basis`, (order + 1,); differentiable where alpha is learnable."""
        if self.response is not None:
            return chebyshev_coefficients(self.response, self.order)
        alpha = torch.tensor(self.alpha, dtype=torch.float64) if self.logit is None else self.logit.sigmoid().double()
        return power_coefficients(alpha, self.order)

    def _adjacent(self, embeddings: torch.Tensor) -> torch.Tensor:
        return (self.adjacency.to(embeddings.dtype) @ embeddings).to(embeddings.dtype)


class IdealLowPassFilter(nn.Module):
    r"""Ideal low-pass: keep the smoothest part of the spectrum and drop the rest, :math:`E' = U_p U_p^\top E`.

    The smallest ``keep`` × n_items eigenvalues of L are kept. If the cut falls inside an eigenspace, all its vectors
    are kept with an equal weight below 1, so the result does not depend on the basis that a solver chooses.

    Parameters
    ----------
    graph : ItemGraph
    keep : float in (0, 1]
        Share of the spectrum to keep; 1 is the identity to the bit.
    self_loops : bool
        See :class:`GraphLowPassFilter`.

    Notes
    -----
    Source: FreLLM4Rec Fig. 3 (Eq. 5 with a step as response). A truncated eigensolver up to a fifth of the spectrum,
    a dense decomposition, O(n_items³), beyond it.
    """

    def __init__(self, graph: ItemGraph, keep: float = 0.5, self_loops: bool = True) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise ConfigError(f"keep is the part of the spectrum that is kept, in (0, 1]; got {keep}.")
        self.keep = float(keep)
        vectors, weights = (torch.empty(0), torch.empty(0)) if keep == 1.0 else _smoothest(graph, keep, self_loops)
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the filtered embeddings, (n_items, feature)."""
        if self.keep == 1.0:
            return embeddings
        if embeddings.ndim != 2 or len(embeddings) != len(self.vectors):
            raise ShapeError(f"Item embeddings must be ({len(self.vectors)}, d); got {tuple(embeddings.shape)}.")
        exact = embeddings.double()
        return (self.vectors @ (self.weights[:, None] * (self.vectors.T @ exact))).to(embeddings.dtype)


def check_alpha(alpha: float, order: int) -> None:
    """Refuse an alpha outside [0, 1] and an order below 1."""
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"alpha must lie in [0, 1]; got {alpha}. 0 switches the graph filter off.")
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ConfigError(f"order must be a whole number of at least 1; got {order!r}. The paper's is 1.")


def normalized_adjacency(graph: ItemGraph, *, self_loops: bool, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    r"""Return :math:`D^{-1/2} W D^{-1/2} = I - L` as a sparse CSR tensor, (n_items, n_items)."""
    S = _scipy_adjacency(graph, self_loops)
    indices = (torch.from_numpy(part.astype(np.int64)) for part in (S.indptr, S.indices))
    with warnings.catch_warnings():  # torch warns that CSR support is in beta; the product used here is tested
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(
            *indices, torch.from_numpy(S.data).to(dtype), size=S.shape, check_invariants=False
        )


def filter_once(adjacency: torch.Tensor, embeddings: torch.Tensor, alpha: float) -> torch.Tensor:
    r"""Return :math:`(I - \alpha L)E = (1 - \alpha)E + \alpha D^{-1/2}WD^{-1/2}E`: one sparse product."""
    if adjacency.dtype != embeddings.dtype:
        adjacency = adjacency.to(embeddings.dtype)
    return torch.addmm(embeddings, adjacency, embeddings, beta=1.0 - alpha, alpha=alpha)


def combine(basis: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Return the sum of the terms (n_terms, n_items, feature), weighted by the coefficients (n_terms,)."""
    return torch.einsum("k,kid->id", coefficients.to(basis.device, basis.dtype), basis)


def power_coefficients(alpha: torch.Tensor, order: int) -> torch.Tensor:
    r"""Return the Chebyshev coefficients of :math:`(1 - \alpha\lambda)^K` on [0, 2]; exact, and differentiable."""
    return chebyshev_coefficients(lambda eigenvalues: (1.0 - alpha * eigenvalues) ** order, order)


def chebyshev_coefficients(response: Response, order: int) -> torch.Tensor:
    r"""Return :math:`c_0 … c_K` with :math:`h(\lambda) \approx \sum_k c_k T_k(\lambda - 1)` on [0, 2], float64.

    Interpolation at the K + 1 Chebyshev nodes, which is exact for a polynomial of degree K.
    """
    angles = (torch.arange(order + 1, dtype=torch.float64) + 0.5) * (math.pi / (order + 1))
    values = response(1.0 + torch.cos(angles))
    waves = torch.cos(torch.arange(order + 1, dtype=torch.float64)[:, None] * angles)
    scale = torch.full((order + 1,), 2.0 / (order + 1), dtype=torch.float64)
    scale[0] /= 2.0
    return scale * (waves @ values.double())


def _scipy_adjacency(graph: ItemGraph, self_loops: bool):  # type: ignore[no-untyped-def]
    from scipy.sparse import csr_array, identity

    if graph.self_loops != self_loops:
        graph = ItemGraph.from_interactions(graph.user_items, self_loops=self_loops)
    S = csr_array(identity(graph.n_items, format="csr") - graph.laplacian())
    S.eliminate_zeros()
    S.sort_indices()
    return S


def _smoothest(graph: ItemGraph, keep: float, self_loops: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvectors of the smallest eigenvalues of L, (n_items, n), and the weight of each, (n,)."""
    S = _scipy_adjacency(graph, self_loops)
    n_items = S.shape[0]
    n_kept = max(1, round(keep * n_items))
    if n_kept < _DENSE_FROM * n_items:
        start = np.random.default_rng(0).standard_normal(n_items)
        values, vectors = eigsh(S, k=n_kept + 1, which="LA", v0=start)
        order = np.argsort(-values, kind="stable")
        values, vectors = values[order], vectors[:, order]
        if values[-1] < values[n_kept - 1] - _SAME_EIGENVALUE:  # the cut falls between two eigenspaces
            return torch.from_numpy(vectors[:, :n_kept].copy()), torch.ones(n_kept, dtype=torch.float64)
    values, vectors = np.linalg.eigh(S.toarray())
    values, vectors = values[::-1], vectors[:, ::-1]
    edge = values[n_kept - 1]
    is_inside, is_edge = values > edge + _SAME_EIGENVALUE, np.abs(values - edge) <= _SAME_EIGENVALUE
    weights = is_inside + is_edge * ((n_kept - is_inside.sum()) / is_edge.sum())
    is_used = weights > 0
    return torch.from_numpy(vectors[:, is_used].copy()), torch.from_numpy(weights[is_used])
