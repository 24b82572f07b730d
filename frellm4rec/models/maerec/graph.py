"""The graph of items that follow each other in training, and products with it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.autograd.function import once_differentiable

from spectral_probe.interactions.log import Interactions


def transition_edges(log: Interactions, reach: int) -> torch.Tensor:
    """Return the pairs of items at most ``reach`` apart in a sequence, (2, n_edges) int; i < j, each pair once."""
    lengths = log.lengths()
    users = np.repeat(np.arange(log.n_users), lengths)
    keys: list[npt.NDArray[np.int64]] = []
    for distance in range(1, min(reach + 1, int(lengths.max(initial=0)))):
        first, second = log.events[:-distance], log.events[distance:]
        is_edge = (users[:-distance] == users[distance:]) & (first != second)
        low, high = np.minimum(first, second)[is_edge], np.maximum(first, second)[is_edge]
        keys.append(low.astype(np.int64) * log.n_items + high)
    pairs = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)
    return torch.from_numpy(np.stack([pairs // log.n_items, pairs % log.n_items]))


class TransitionGraph(nn.Module):
    r"""An undirected graph of items with self loops, and products with its matrix.

    .. math:: \hat A = D^{-1/2} (A + I) D^{-1/2}

    A mask of items takes all their edges away, except the self loops. Every matrix here has the entries of the full
    graph, with other values: a mask costs no new matrix.

    Parameters
    ----------
    edges : (2, n_edges) int
        From :func:`transition_edges`.
    n_items : int
    """

    def __init__(self, edges: torch.Tensor, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("edges", edges.to(torch.int32))
        for name in ("starts", "columns", "rows", "edge_of"):
            self.register_buffer(name, None, persistent=False)
        self.index()

    @torch.no_grad()
    def index(self) -> None:
        """Lay the entries of the matrix out by rows; to be called again when other edges were loaded."""
        device, n = self.edges.device, self.n_items
        first, second = self.edges.long().cpu()
        nodes, numbers = torch.arange(n), torch.arange(len(first))
        rows, columns = torch.cat([first, second, nodes]), torch.cat([second, first, nodes])
        edge_of = torch.cat([numbers, numbers, torch.full((n,), -1)])
        order = torch.argsort(rows * n + columns)
        self.rows, self.columns, self.edge_of = (part[order].to(device) for part in (rows, columns, edge_of))
        starts = torch.zeros(n + 1, dtype=torch.long)
        starts[1:] = torch.bincount(rows, minlength=n).cumsum(0)
        self.starts = starts.to(device)
        #: Which items are neighbours, or the same: (n_items, n_items).
        parts = (np.ones(len(order), np.int8), self.columns.cpu().numpy(), self.starts.cpu().numpy())
        self.neighbours = csr_array(parts, shape=(n, n))
        with warnings.catch_warnings():  # PyTorch says once that sparse tensors are young
            warnings.simplefilter("ignore")
            _multiply(self.starts, self.columns, torch.ones(len(order), device=device), torch.ones(n, 1, device=device))

    @property
    def n_edges(self) -> int:
        """Number of edges, self loops left out."""
        return int(self.edges.shape[1])

    def normalised(self, is_masked: torch.Tensor | None = None) -> torch.Tensor:
        """Return the values of the normalised matrix, (n_entries,) float, without the edges of masked items."""
        if is_masked is None:
            remains = torch.ones(len(self.rows), device=self.rows.device)
        else:
            is_gone = (is_masked[self.rows] | is_masked[self.columns]) & (self.edge_of >= 0)
            remains = (~is_gone).float()
        degrees = torch.zeros(self.n_items, device=self.rows.device).index_add_(0, self.rows, remains)
        scale = degrees.rsqrt()  # at least 1, the self loop
        return remains * scale[self.rows] * scale[self.columns]

    def kept_edges(self, is_kept: torch.Tensor) -> torch.Tensor:
        """Return the values of the matrix of some edges (n_edges,) bool without self loops, (n_entries,) float."""
        values = torch.cat([is_kept, is_kept.new_zeros(1)])  # the last, −1, of the self loops
        return values[self.edge_of].float()

    def product(self, values: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return the product of the symmetric matrix with these values with vectors (n_items, feature)."""
        with torch.autocast(vectors.device.type, enabled=False):
            result: torch.Tensor = _SymmetricProduct.apply(self.starts, self.columns, values, vectors)  # type: ignore[no-untyped-call]
        return result

    def row_sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sums of the rows of the matrix with these values, (n_items,) float."""
        return torch.zeros(self.n_items, device=values.device).index_add_(0, self.rows, values)

    def propagate(self, embeddings: torch.Tensor, values: torch.Tensor, n_layers: int) -> list[torch.Tensor]:
        r"""Return :math:`\hat A^l E` for l = 0…n_layers, each (n_items, feature)."""
        layers = [embeddings]
        for _ in range(n_layers):
            layers.append(self.product(values, layers[-1]))
        return layers

    def is_adjacent(self, is_chosen: torch.Tensor) -> torch.Tensor:
        """Return which items are chosen or have a chosen neighbour, (n_items,) bool."""
        return self.row_sums(is_chosen[self.columns].float()) > 0


class _SymmetricProduct(torch.autograd.Function):
    """A sparse symmetric matrix times a dense one; the backward pass is the same product."""

    @staticmethod
    def forward(
        ctx: Any, starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor
    ) -> torch.Tensor:
        """Return the product, (n_items, feature)."""
        ctx.save_for_backward(starts, columns, values)
        return _multiply(starts, columns, values, vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, None, None, torch.Tensor]:  # type: ignore[override]
        """Return the product with the gradient."""
        return None, None, None, _multiply(*ctx.saved_tensors, grad)


def _multiply(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    n = len(starts) - 1
    values = values.to(vectors.dtype)
    return torch.sparse_csr_tensor(starts, columns, values, (n, n), check_invariants=False) @ vectors
