r"""Popularity-matched graphs: what a user's local graph would be if only the popularity of the items mattered.

The eigenvector of :math:`\lambda = 0` of a connected local graph is :math:`\sqrt{\text{degree}}`, which is popularity.
A pseudo-history replaces every distinct item of a user by a random item of the same popularity. The mean heat kernel
of the graphs of many pseudo-histories, :math:`\tilde P_u`, keeps what popularity says about the user's graph and
nothing of which items go together. :math:`P_u - \tilde P_u` is the part of the graph that popularity does not explain.

Source: ours; the paper has no such control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError
from spectral_probe.graph.filters import heat_operators
from spectral_probe.graph.item_graph import ItemGraph, OwnUser, checked_targets
from spectral_probe.graph.threads import for_each
from spectral_probe.storage.atomic import write_npz
from spectral_probe.storage.cache import only_a_cache
from spectral_probe.storage.hashing import digest
from spectral_probe.storage.reading import read_npz
from spectral_probe.types import FloatArray, IntArray

#: A replacement is at most this many ranks away, and at least this many ranks are searched.
MAX_RANKS, MIN_RANKS = 25, 3
#: The width of the search, as a part of the rank from the top.
RANK_SHARE = 0.05
#: The search is widened until so many items are eligible.
MIN_ELIGIBLE = 6
#: Ranks looked at on each side at first; only small catalogues and long histories need more.
_NEARBY = 64
#: Stands for a missing replacement: the node has no edges.
ISOLATED = -1


@dataclass(frozen=True, eq=False)
class PopularityMatch:
    r"""Pseudo-histories of many users, and the mean heat kernels of their graphs.

    Attributes
    ----------
    graph : ItemGraph
    nodes : (n, T) int
        Items of each user in order, right-padded.
    lengths : (n,) int
    replacements : (n, n_pseudo, T) int
        The item at each position of each pseudo-history; -1 for a node that stays isolated, and where padded.
    extra : (n, T, T) bool
        Pairs of nodes that have one more common user, the user's own; empty for ``own_user="drop"``.
    log_ratios : (n,) float
        Mean over replaced nodes of :math:`|\log(\text{count of the replacement} / \text{count of the item})|`; NaN for
        a user without one.
    key : str
        SHA-256, in hex, of all that the pseudo-histories depend on.
    """

    graph: ItemGraph
    nodes: IntArray
    lengths: IntArray
    replacements: IntArray
    log_ratios: FloatArray
    extra: npt.NDArray[np.bool_]
    key: str

    @classmethod
    def draw(
        cls,
        graph: ItemGraph,
        nodes: npt.ArrayLike,
        lengths: npt.ArrayLike,
        users: npt.ArrayLike,
        *,
        own_user: OwnUser = "drop",
        n_pseudo: int = 32,
        seed: int = 0,
        cache_dir: Path | None = None,
    ) -> PopularityMatch:
        r"""Draw the pseudo-histories.

        The popularity of an item for a user is its training count without the user for ``own_user="drop"``, because its
        edges come from the others, and its training count for ``"keep"``. A replacement is drawn at random among the
        items near that count in the order of counts, with ties in random order: within
        ``min(25, max(3, 5 % of the rank))`` ranks, or more if fewer than 6 items are eligible. It is never an item of
        the user's training part or nodes, and no item comes twice in a pseudo-history.

        A draw depends on ``seed``, the user's row in the graph, the item and the number of the pseudo-history, not on
        the other users. Where a history is cut counts only for items whose draws would be equal.

        Parameters
        ----------
        graph : ItemGraph
            Of the training interactions.
        nodes : (n, T) int
            Items of each user in order, right-padded; an item may come again.
        lengths : (n,) int
            Number of nodes.
        users : (n,) int
            Row of each user in ``graph.user_items``.
        own_user : {"drop", "keep"}
        n_pseudo : int
            Pseudo-histories per user.
        seed : int
        cache_dir : Path, optional
            Where draws, which depend on the data set only, are stored.

        Raises
        ------
        ConfigError
            If ``n_pseudo`` is not positive or ``own_user`` is unknown.
        ShapeError, DataError
            As in :meth:`ItemGraph.local_adjacency`.

        Notes
        -----
        An item without others' interactions has no popularity to match, and an item without any eligible replacement
        has no match: both stay nodes without edges. Cost: O(n · T · n_pseudo) draws.
        """
        if n_pseudo < 1:
            raise ConfigError(f"n_pseudo must be at least 1; got {n_pseudo}.")
        items, n_nodes = checked_targets(nodes, lengths, graph.n_items)
        is_own = graph.own_items(items, users)
        rows = np.asarray(users, dtype=np.int64)
        if own_user not in ("drop", "keep"):
            raise ConfigError(f"own_user must be 'drop' or 'keep'; got {own_user!r}.")
        R = graph.user_items
        settings = repr(("each item on its own", own_user, n_pseudo, seed, R.shape, items.shape))
        # Of one type, because W may have been read from a file with another one.
        key = digest([settings, *(np.asarray(x, dtype=np.int64) for x in (R.indptr, R.indices, items, n_nodes, rows))])
        path = None if cache_dir is None else cache_dir / f"pseudo-{key[:32]}.npz"
        stored = None if path is None else _read_draws(path, (len(items), n_pseudo, items.shape[1]))
        if stored is None:
            stored = _draw_all(graph, items, n_nodes, rows, own_user=own_user, n_pseudo=n_pseudo, seed=seed)
            if path is not None:
                with only_a_cache(path):
                    write_npz(path, {"replacements": stored[0].astype(np.int32), "log_ratios": stored[1]})
        extra = np.zeros((len(items), 0, 0), dtype=bool)
        if own_user == "keep":
            extra = is_own[:, :, None] & is_own[:, None, :] & (items[:, :, None] != items[:, None, :])
        return cls(graph, items, n_nodes, *stored, extra=extra, key=key)

    def select(self, index: IntArray, n_nodes: IntArray) -> PopularityMatch:
        """Return the match of some of the nodes, in the order of ``index`` (n, T), right-padded after ``n_nodes``."""
        is_real = np.arange(index.shape[1]) < n_nodes[:, None]
        at = np.where(is_real, index, 0)
        rows = np.arange(len(index))[:, None]
        extra = self.extra
        if extra.size:
            extra = extra[rows[:, :, None], at[:, :, None], at[:, None, :]] & is_real[:, :, None] & is_real[:, None, :]
        return replace(
            self,
            nodes=np.where(is_real, self.nodes[rows, at], 0),
            lengths=n_nodes,
            replacements=np.where(
                is_real[:, None], np.take_along_axis(self.replacements, at[:, None, :], axis=2), ISOLATED
            ),
            extra=extra,
            key=digest([self.key, at, n_nodes]),
        )

    @property
    def match_error(self) -> float:
        """Mean over users of ``log_ratios``: how far the replacements are from the popularity of the items."""
        return float(np.nanmean(self.log_ratios)) if np.isfinite(self.log_ratios).any() else float("nan")

    @cached_property
    def adjacency(self) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
        """Edge weights of all pseudo-graphs, (n, n_pseudo, T, T), 0 where padded."""
        n, n_pseudo, T = self.replacements.shape
        highest = int(self.graph.W.data.max(initial=0)) + 1
        dtype = np.uint16 if highest < 2**16 else np.uint32
        weights = np.zeros((n, n_pseudo, T, T), dtype=dtype)
        first, second = np.triu_indices(T, 1)

        def fill(u: int) -> None:
            present = second < self.lengths[u]
            s, t = first[present], second[present]
            left, right = self.replacements[u][:, s], self.replacements[u][:, t]
            is_edge = (left != right) & (left != ISOLATED) & (right != ISOLATED)
            pair = np.zeros(left.shape)
            pair[is_edge] = self.graph.pair_weights(left[is_edge], right[is_edge])
            if self.extra.size:
                pair += self.extra[u, s, t] & is_edge
            weights[u][:, s, t] = pair
            weights[u][:, t, s] = pair

        for_each(fill, range(n))
        return weights

    def heat(self, tau: float, T: int, rows: npt.ArrayLike | None = None, *, drop_first: int = 0) -> FloatArray:
        r"""Return :math:`\tilde P_u`, the mean of :math:`e^{-\tau L}` over the pseudo-graphs.

        Parameters
        ----------
        tau : float
            Diffusion time.
        T : int
            Leading nodes of each user that are used.
        rows : (m,) int, optional
            Users, each with at least T nodes; all users with so many when left out.
        drop_first : int
            Of the T nodes, so many leading ones are removed; Laplacians are computed of what is left.

        Returns
        -------
        (m, T − drop_first, T − drop_first) float

        Raises
        ------
        ConfigError
            If a user has fewer than T nodes, or ``drop_first`` leaves none.
        """
        return np.asarray(self.heats((tau,), T, rows, drop_first=drop_first)[0])

    def heats(
        self, taus: Sequence[float], T: int, rows: npt.ArrayLike | None = None, *, drop_first: int = 0
    ) -> FloatArray:
        """Return :meth:`heat` at several diffusion times, (n_taus, m, T − drop_first, T − drop_first)."""
        chosen = np.flatnonzero(self.lengths >= T) if rows is None else np.asarray(rows, dtype=np.int64)
        if not 0 <= drop_first < T or (chosen.size and self.lengths[chosen].min() < T):
            raise ConfigError(
                f"T={T} must be at most the number of nodes of every user and more than drop_first={drop_first}."
            )
        mean = np.empty((len(taus), len(chosen), T - drop_first, T - drop_first))

        def average(m: int) -> None:
            block = self.adjacency[chosen[m], :, drop_first:T, drop_first:T].astype(np.float64)
            mean[:, m] = heat_operators(block, taus).mean(axis=1)

        for_each(average, range(len(chosen)))
        return mean


def _draw_all(
    graph: ItemGraph, items: IntArray, n_nodes: IntArray, rows: IntArray, *, own_user: str, n_pseudo: int, seed: int
) -> tuple[IntArray, FloatArray]:
    """Return the replacements (n, n_pseudo, T) and the mean absolute log count ratio of each user (n,)."""
    draws = _Draws(graph.item_counts, n_pseudo, seed)
    replacements = np.full((len(items), n_pseudo, items.shape[1]), ISOLATED, dtype=np.int64)
    log_ratios = np.full(len(items), np.nan)

    def match(u: int) -> None:
        history = items[u, : n_nodes[u]]
        start, end = graph.user_items.indptr[rows[u] : rows[u] + 2]
        training = graph.user_items.indices[start:end].astype(np.int64)
        table = draws.of_user(int(rows[u]), training, history, without_user=own_user == "drop")
        replacements[u, :, : n_nodes[u]] = np.stack([table[item][0] for item in history.tolist()], axis=1)
        errors = [table[item][1] for item in dict.fromkeys(history.tolist())]
        known = np.concatenate([error[~np.isnan(error)] for error in errors])
        log_ratios[u] = known.mean() if known.size else np.nan

    for_each(match, np.flatnonzero(n_nodes > 0).tolist())
    return replacements, log_ratios


def _read_draws(path: Path, shape: tuple[int, ...]) -> tuple[IntArray, FloatArray] | None:
    try:
        stored = read_npz(path, {"replacements": ("iu", 3), "log_ratios": ("f", 1)})
    except (OSError, ValueError):
        return None
    if stored["replacements"].shape != shape or len(stored["log_ratios"]) != shape[0]:
        return None
    return stored["replacements"].astype(np.int64), stored["log_ratios"]


class _Draws:
    """The order of counts, with ties in an order of its own for each pseudo-history, and the draws from it."""

    def __init__(self, counts: IntArray, n_pseudo: int, seed: int) -> None:
        self.counts, self.seed = counts, seed
        self.pseudo = np.arange(n_pseudo)
        items = np.arange(len(counts))
        ties = _uniform(seed, 1, self.pseudo[:, None], items[None, :])
        self.order = np.stack([np.lexsort((tie, -counts)) for tie in ties])
        self.falling = -np.sort(-counts)

    def of_user(
        self, user: int, training: IntArray, history: IntArray, *, without_user: bool
    ) -> dict[int, tuple[IntArray, FloatArray]]:
        """Return, for each item of a history, its replacements (n_pseudo,) and their log count ratios (n_pseudo,).

        Each item is drawn on its own; where two draws of a pseudo-history are equal, the later item of the catalogue is
        drawn again among the items that are left. Only there does a draw depend on which other nodes there are.
        """
        is_own = np.zeros(len(self.counts), dtype=bool)
        is_own[training] = True
        is_allowed = ~is_own & (self.counts > 0)
        is_allowed[history] = False
        is_free = np.tile(is_allowed, (len(self.pseudo), 1))
        allowed = is_free.copy()
        table: dict[int, tuple[IntArray, FloatArray]] = {}
        for item in np.unique(history).tolist():
            count = int(self.counts[item]) - int(without_user and is_own[item])
            chosen = np.full(len(self.pseudo), ISOLATED)
            if count > 0:
                chosen = self._choose(user, item, count, allowed)
                is_taken = (chosen != ISOLATED) & ~is_free[self.pseudo, chosen]
                if is_taken.any():
                    chosen = np.where(is_taken, self._choose(user, item, count, is_free), chosen)
            is_matched = chosen != ISOLATED
            is_free[self.pseudo[is_matched], chosen[is_matched]] = False
            ratios = np.full(len(chosen), np.nan)
            ratios[is_matched] = np.abs(np.log(self.counts[chosen[is_matched]] / max(count, 1)))
            table[item] = (chosen, ratios)
        return table

    def _choose(self, user: int, item: int, count: int, is_free: npt.NDArray[np.bool_]) -> IntArray:
        """Return one free item near a count for each pseudo-history; -1 where none is free."""
        first = int(np.searchsorted(-self.falling, -count, side="left"))
        end = int(np.searchsorted(-self.falling, -count, side="right"))
        where, which = (_uniform(self.seed, purpose, self.pseudo, item, user) for purpose in (2, 3))
        # A count that no item has lies between two ranks.
        rank = first + np.floor(where * (end - first)).astype(np.int64)
        width = np.clip(np.ceil(RANK_SHARE * (rank + 1)), MIN_RANKS, MAX_RANKS)
        for reach in (min(_NEARBY, len(self.counts)), len(self.counts)):
            steps = np.arange(-reach, reach + 1)
            ranks = rank[:, None] + steps
            inside = (ranks >= 0) & (ranks < len(self.counts))
            candidates = np.take_along_axis(self.order, np.where(inside, ranks, 0), axis=1)
            eligible = inside & np.take_along_axis(is_free, candidates, axis=1)
            by_distance = np.argsort(np.abs(steps), kind="stable")
            n_within = eligible[:, by_distance].cumsum(axis=1)
            if reach == len(self.counts) or (n_within[:, -1] >= MIN_ELIGIBLE).all():
                break
        enough = np.minimum(MIN_ELIGIBLE, n_within[:, -1])
        nearest = np.abs(steps)[by_distance][np.argmax(n_within >= enough[:, None], axis=1)]
        eligible &= np.abs(steps) <= np.maximum(width, nearest)[:, None]
        total = eligible.sum(axis=1)
        index = np.argmax(eligible.cumsum(axis=1) > np.floor(which * total)[:, None], axis=1)
        chosen = np.take_along_axis(candidates, index[:, None], axis=1)[:, 0]
        return np.where(total > 0, chosen, ISOLATED)


def _uniform(seed: int, *keys: npt.ArrayLike) -> FloatArray:
    """Return numbers in [0, 1) that depend on the keys alone (SplitMix64), broadcast over them."""
    state: npt.NDArray[np.uint64] = np.asarray(seed, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            z = (state ^ np.asarray(key).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = z ^ (z >> np.uint64(31))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)
