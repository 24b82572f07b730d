r"""The item–item co-occurrence graph :math:`W = R^\top R` and the local graphs of users.

Source: FreLLM4Rec, sections 2.2 and 3.1. Deviation: the diagonal of W is dropped by default, and by default a user's
own co-occurrences are subtracted from their local graph, because every pair of one user's items co-occurs at least
once through that user.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, dia_array, sparray

from spectral_probe.errors import ConfigError, DataError, ShapeError
from spectral_probe.graph.bases import GraphBases, inverse_sqrt
from spectral_probe.types import IntArray

OwnUser = Literal["drop", "keep"]


@dataclass(frozen=True, eq=False)
class ItemGraph:
    r"""Items as nodes, numbers of common users as edge weights.

    Attributes
    ----------
    user_items : csr_array, (n_users, n_items)
        Binary training interactions R.
    W : csr_array, (n_items, n_items)
        :math:`W = R^\top R`, sorted indices, int32 counts; the diagonal only with ``self_loops``.
    item_counts : (n_items,) int
        Users of each item: the diagonal of :math:`R^\top R`, kept also if W drops it.
    self_loops : bool
    """

    user_items: csr_array
    W: csr_array
    item_counts: IntArray
    self_loops: bool = False

    @classmethod
    def from_interactions(cls, user_items: sparray, *, self_loops: bool = False) -> ItemGraph:
        """Count common users of every pair of items; W is never densified.

        Raises
        ------
        DataError
            If there is no interaction, or a value is not 0 or 1.
        """
        R = csr_array(user_items, copy=True)
        # Stored zeros are not interactions, and entries stored twice would count twice.
        R.sum_duplicates()
        R.eliminate_zeros()
        if R.nnz == 0:
            raise DataError(f"The interaction matrix {R.shape} is empty; a graph needs at least one interaction.")
        if not (R.data == 1).all():
            raise DataError(
                f"The interaction matrix must be binary; got values from {R.data.min()} to {R.data.max()}. "
                "Clip repeated interactions to 1 (Interactions does)."
            )
        R = R.astype(np.int32)
        # 32-bit indices halve the memory of W if its number of entries allows them.
        R.indices, R.indptr = R.indices.astype(np.int32), R.indptr.astype(np.int32)
        W = csr_array(R.T.tocsr() @ R)
        W.sort_indices()
        item_counts = np.asarray(R.sum(axis=0), dtype=np.int64)
        if not self_loops:
            _drop_diagonal(W)
        return cls(R, W, item_counts, self_loops)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self.W.shape[0])

    def laplacian(self) -> csr_array:
        r"""Return :math:`L = I - D^{-1/2} W D^{-1/2}`, (n_items, n_items); 1 on the diagonal of isolated items."""
        degree = np.asarray(self.W.sum(axis=1), dtype=np.float64)
        scale = dia_array((inverse_sqrt(degree)[None], [0]), shape=self.W.shape)
        identity = dia_array((np.ones((1, self.n_items)), [0]), shape=self.W.shape)
        return csr_array(identity - scale @ self.W @ scale)

    def to_networkx(self) -> nx.Graph[Any]:
        """Return the graph with edge attribute ``weight``; every item is a node, also without an edge."""
        return nx.from_scipy_sparse_array(self.W)

    def local_adjacency(
        self,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike,
        *,
        users: npt.ArrayLike | None,
        own_user: OwnUser,
    ) -> npt.NDArray[np.float64]:
        r"""Return the adjacency matrices of the users' local graphs, (n, T, T), zero where padded.

        .. math:: A_{st} = W[i_s, i_t] - \mathbb 1[\text{own\_user = "drop"},\ i_s \ne i_t,\ \{i_s, i_t\} \subset R_u]

        and 0 where the same item is at both positions.

        Raises
        ------
        ConfigError
            If ``own_user`` is unknown, or ``"drop"`` without ``users``.
        ShapeError
            If the arrays do not fit together.
        DataError
            If a target or a user is not in the graph.
        """
        items, n_targets = checked_targets(targets, lengths, self.n_items)
        if own_user not in ("drop", "keep"):
            raise ConfigError(f"own_user must be 'drop' or 'keep'; got {own_user!r}.")
        is_own: npt.NDArray[np.bool_] | None = None
        if own_user == "drop":
            is_own = self.own_items(items, users)
        n, T = items.shape
        adjacency = np.zeros((n, T, T))
        first, second = np.triu_indices(T, 1)
        present = second[None, :] < n_targets[:, None]
        row, pair = np.nonzero(present)
        s, t = first[pair], second[pair]
        left, right = items[row, s], items[row, t]
        weight = np.where(left == right, 0.0, self.pair_weights(left, right))
        if is_own is not None:
            weight -= (left != right) & is_own[row, s] & is_own[row, t]
        adjacency[row, s, t] = weight
        adjacency[row, t, s] = weight
        if self.self_loops:
            row, t = np.nonzero(np.arange(T) < n_targets[:, None])
            adjacency[row, t, t] = self.item_counts[items[row, t]]
        return adjacency

    def local_bases(
        self,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike,
        *,
        users: npt.ArrayLike | None = None,
        own_user: OwnUser = "drop",
    ) -> GraphBases:
        """Return the Fourier bases of the users' local graphs.

        Parameters
        ----------
        targets : (n, T) int
            Items :math:`v_2 … v_{T+1}` of each user in order, right-padded; the nodes of the local graph.
        lengths : (n,) int
            Number of targets.
        users : (n,) int, optional
            Row of each sequence in ``user_items``; needed for ``own_user="drop"``.
        own_user : {"drop", "keep"}
            Whether the user's own interactions count in their graph. ``"keep"`` is the paper's.

        Raises
        ------
        ConfigError, ShapeError, DataError
            See :meth:`local_adjacency`.
        """
        adjacency = self.local_adjacency(targets, lengths, users=users, own_user=own_user)
        return GraphBases.from_adjacency(adjacency, np.asarray(lengths, dtype=np.int64))

    def local_networkx(
        self, targets: npt.ArrayLike, *, user: int | None = None, own_user: OwnUser = "drop"
    ) -> nx.Graph[Any]:
        """Return one user's local graph; nodes are positions, with the item as attribute ``item``."""
        items = np.asarray(targets, dtype=np.int64)[None, :]
        users = None if user is None else [user]
        adjacency = self.local_adjacency(items, [items.shape[1]], users=users, own_user=own_user)[0]
        graph = nx.from_numpy_array(adjacency)
        nx.set_node_attributes(graph, {t: int(item) for t, item in enumerate(items[0])}, "item")
        return graph

    @cached_property
    def _keys(self) -> IntArray:
        """Position of every stored entry in the row-major order of W: sorted, for look-up by bisection."""
        rows = np.repeat(np.arange(self.n_items, dtype=np.int64), np.diff(self.W.indptr))
        return np.asarray(rows * self.n_items + self.W.indices, dtype=np.int64)

    def pair_weights(self, left: IntArray, right: IntArray) -> npt.NDArray[np.float64]:
        """Return W at the pairs (left, right), each by bisection in the sorted keys."""
        if not self._keys.size or not left.size:
            return np.zeros(len(left))
        keys = left * self.n_items + right
        # Bisection in sorted order reads memory sequentially, which halves the time including the sort.
        order = np.argsort(keys)
        index = np.empty(len(keys), dtype=np.int64)
        index[order] = np.searchsorted(self._keys, keys[order])
        index = np.minimum(index, len(self._keys) - 1)
        return np.where(self._keys[index] == keys, self.W.data[index], 0).astype(np.float64)

    def own_items(self, items: IntArray, users: npt.ArrayLike | None) -> npt.NDArray[np.bool_]:
        """Return which targets lie in the user's own training row, (n, T)."""
        if users is None:
            raise ConfigError(
                "own_user='drop' subtracts each user's own co-occurrences and needs users=, the row of each sequence "
                "in the interaction matrix; pass it, or choose own_user='keep'."
            )
        rows = np.asarray(users, dtype=np.int64)
        if rows.shape != (len(items),):
            raise ShapeError(f"users must have one row per sequence, ({len(items)},); got shape {rows.shape}.")
        n_users = int(self.user_items.shape[0])
        if rows.size and (rows.min() < 0 or rows.max() >= n_users):
            raise DataError(f"User rows must lie in 0…{n_users - 1}; seen {rows.min()}…{rows.max()}.")
        user_rows = self.user_items[rows]
        user_keys = np.repeat(np.arange(len(rows)), np.diff(user_rows.indptr)) * self.n_items + user_rows.indices
        target_keys = np.arange(len(rows))[:, None] * self.n_items + items
        return np.isin(target_keys, user_keys)


def _drop_diagonal(W: csr_array) -> None:
    """Remove the diagonal in place, without a second copy of W."""
    rows = np.repeat(np.arange(W.shape[0], dtype=W.indices.dtype), np.diff(W.indptr))
    W.data[W.indices == rows] = 0
    W.eliminate_zeros()


def checked_targets(targets: npt.ArrayLike, lengths: npt.ArrayLike, n_items: int) -> tuple[IntArray, IntArray]:
    """Return targets (n, T), 0 where padded, and lengths (n,) as int64, or raise ShapeError or DataError."""
    items, n_targets = np.asarray(targets), np.asarray(lengths)
    if items.ndim != 2 or n_targets.shape != (len(items),):
        raise ShapeError(
            f"targets must be (n, T) and lengths (n,); got {items.shape} and {n_targets.shape}. "
            "Pad shorter histories on the right."
        )
    if not (np.issubdtype(items.dtype, np.integer) and np.issubdtype(n_targets.dtype, np.integer)):
        raise ShapeError(f"targets and lengths must be integers; got {items.dtype} and {n_targets.dtype}.")
    if n_targets.size and (n_targets.min() < 0 or n_targets.max() > items.shape[1]):
        raise ShapeError(
            f"lengths must lie in 0…{items.shape[1]}, the padded width; seen {n_targets.min()}…{n_targets.max()}."
        )
    real = np.arange(items.shape[1]) < n_targets[:, None]
    outside = real & ((items < 0) | (items >= n_items))
    if outside.any():
        row, t = np.argwhere(outside)[0]
        raise DataError(
            f"Item {items[row, t]} at position {t} of sequence {row} is not in the graph of {n_items} items. "
            "Build the graph from the log that the sequences come from."
        )
    return np.where(real, items, 0).astype(np.int64), n_targets.astype(np.int64)
