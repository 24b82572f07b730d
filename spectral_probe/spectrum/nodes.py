"""The nodes that a user is measured on: each item once, and only as many leading ones as enough others have.

Nodes are the items that the rows read (``carried``) or the items that they predict (``foreseen``, as in the paper).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from spectral_probe.errors import ConfigError, check_choice
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.recording.pilot import read_items
from spectral_probe.spectrum.nulls import MIN_REFERENCES
from spectral_probe.types import Float32Array, FloatArray, IntArray

Nodes = Literal["carried", "foreseen"]
NODES: tuple[Nodes, ...] = ("carried", "foreseen")


@dataclass(frozen=True, eq=False)
class MeasuredNodes:
    """The nodes of every sequence after the drop, each item at its first position only.

    Attributes
    ----------
    items : (n, T) int
        Item of each node, right-padded with 0.
    index : (n, T) int
        Row of the Gram that belongs to each node.
    n_nodes : (n,) int
        Nodes that each user has.
    measured : (n,) int
        Leading nodes that each user is measured on, as many as at least 20 others have; ``n_nodes`` for all if fewer
        than 21 users have enough nodes, because then nobody has references.
    """

    items: IntArray
    index: IntArray
    n_nodes: IntArray
    measured: IntArray

    @classmethod
    def of(cls, items: IntArray, lengths: IntArray, *, drop_first: int, min_nodes: int) -> MeasuredNodes:
        """Return the measured nodes of sequences whose row t stands for ``items[:, t]``.

        Parameters
        ----------
        items : (n, T) int
        lengths : (n,) int
        drop_first : int
            Leading rows that are removed.
        min_nodes : int
            Fewest nodes of a user who can be measured; others are no references either.
        """
        distinct, index, n_nodes = distinct_nodes(items, lengths, drop_first=drop_first)
        return cls(distinct, index, n_nodes, measured_lengths(n_nodes, min_nodes=min_nodes))

    @property
    def width(self) -> int:
        """Nodes of the user who is measured on the most."""
        return max(1, int(self.measured.max()))

    @property
    def lengths(self) -> IntArray:
        """Measured nodes, at least 1: users without a node keep a placeholder and are left out by their length."""
        return np.maximum(self.measured, 1)

    def select(self, grams: LayerGrams) -> LayerGrams:
        """Return the Grams of the measured nodes; row t is node t."""
        T = self.width
        rows, at = np.arange(len(self.index))[:, None, None], self.index[:, :T]
        is_padding = np.arange(T) >= self.lengths[:, None]
        blank = is_padding[:, None, :, None] | is_padding[:, None, None, :]

        def block(values: Float32Array) -> Float32Array:
            chosen = np.empty((*values.shape[:2], T, T), dtype=values.dtype)
            for layer in range(values.shape[1]):
                chosen[:, layer] = values[rows, layer, at[:, :, None], at[:, None, :]]
            np.copyto(chosen, 0, where=blank)
            return chosen

        return replace(
            grams,
            grams=block(grams.grams),
            treated=None if grams.treated is None else block(grams.treated),
            lengths=self.lengths,
            targets=self.items[:, :T],
            inputs=None,
        )

    def adjacency(self, adjacency: FloatArray) -> FloatArray:
        """Return the adjacency (n, T, T) among the measured nodes, from that among all rows."""
        T = self.width
        rows, at = np.arange(len(self.index))[:, None, None], self.index[:, :T]
        is_real = np.arange(T) < self.lengths[:, None]
        return np.asarray(adjacency[rows, at[:, :, None], at[:, None, :]] * (is_real[:, :, None] & is_real[:, None, :]))


def row_items(grams: LayerGrams, nodes: Nodes) -> IntArray:
    """Return the item that each row stands for, (n, T): the item it reads, or the item it predicts.

    Raises
    ------
    ConfigError
        If ``nodes`` is unknown or the Grams have no targets.
    """
    check_choice("nodes", nodes, NODES)
    if grams.targets is None:
        raise ConfigError("Nodes are items, and these Grams have no targets; capture them with targets=.")
    return read_items(grams.inputs, grams.targets) if nodes == "carried" else grams.targets


def distinct_nodes(items: IntArray, lengths: IntArray, *, drop_first: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return the items of each user after the drop, each at its first position only.

    Returns
    -------
    items : (n, T − drop_first) int
        Right-padded with 0.
    index : (n, T − drop_first) int
        Row that belongs to each item.
    n_nodes : (n,) int
    """
    n, width = len(items), max(1, items.shape[1] - drop_first)
    distinct, index = np.zeros((n, width), dtype=np.int64), np.zeros((n, width), dtype=np.int64)
    n_nodes = np.zeros(n, dtype=np.int64)
    for u, length in enumerate(lengths.tolist()):
        history = items[u, drop_first:length]
        first = np.sort(np.unique(history, return_index=True)[1])
        n_nodes[u] = len(first)
        distinct[u, : len(first)] = history[first]
        index[u, : len(first)] = first + drop_first
    return distinct, index, n_nodes


def measured_lengths(n_nodes: IntArray, *, min_nodes: int = 1, n_others: int = MIN_REFERENCES) -> IntArray:
    """Return, for each user, the most leading nodes that at least ``n_others`` other users have too.

    If no more than ``n_others`` users have ``min_nodes``, nobody is shortened.
    """
    falling = -np.sort(-n_nodes)
    if len(falling) <= n_others or falling[n_others] < min_nodes:
        return n_nodes
    return np.asarray(np.minimum(n_nodes, falling[n_others]))
