"""The histories of a data set with their local graphs, and what the worlds are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import svds

from frellm4rec.data.movielens import load_movielens
from frellm4rec.data.s3rec import read_s3rec
from spectral_probe.analysis.exchanged_items import exchange_items
from spectral_probe.analysis.node_graphs import NodeGraphs
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import ProbeSequences, probe_sequences
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.types import FloatArray, IntArray

#: Width of the states of every world.
WIDTH = 16
#: Most targets of a history: 50 as in an analysis, fewer where few users have more than 30.
MAX_LENGTH = {"LastFM": 50, "ml-100k": 50, "Luxury_Beauty": 30}
#: Variants of a probe.
REPEATS, REWIRED = "repeats", "rewired log"
#: Trades per user of a rewired log.
TRADES = 20
#: Part of the positions that repeat an earlier item where histories are made to.
REPEATED = 0.3


def load_dataset(folder: Path, name: str) -> Dataset:
    """Read a data set from its subfolder of ``folder``."""
    if name == "ml-100k":
        return load_movielens(folder / name, "100k")
    return read_s3rec(folder / name / f"{name}.txt", name=name)


@dataclass(frozen=True, eq=False)
class Probe:
    """Histories of all users and everything that depends on the data set alone."""

    dataset: Dataset
    graph: ItemGraph
    sequences: ProbeSequences
    options: AnalysisOptions
    cache_dir: Path | None

    @classmethod
    def of(cls, dataset: Dataset, *, max_length: int, cache_dir: Path | None, n_pseudo: int = 32) -> Probe:
        """Return the probe of a data set, with the options of an analysis by default."""
        options = AnalysisOptions(max_length=max_length, n_pseudo=n_pseudo)
        sequences = probe_sequences(dataset, part=options.sequence, max_length=max_length)
        return cls(dataset, ItemGraph.from_interactions(dataset.train.user_items), sequences, options, cache_dir)

    def variant(self, name: str) -> Probe:
        """Return the probe itself, or its variant ``repeats`` or ``rewired log``."""
        variants = {REPEATS: self.with_repeats, REWIRED: self.rewired}
        return variants[name]() if name else self

    def with_repeats(self) -> Probe:
        """Return the probe whose histories repeat earlier items at 30 % of the positions; the graph is the same."""
        rng = np.random.default_rng(self.options.seed)
        known = self.sequences
        inputs, targets = known.inputs.copy(), known.targets.copy()
        for u, length in enumerate(known.lengths.tolist()):
            history = np.append(known.inputs[u, :length], known.targets[u, length - 1])
            for t in range(1, length + 1):
                if rng.random() < REPEATED:
                    history[t] = history[rng.integers(t)]
            inputs[u, :length], targets[u, :length] = history[:-1], history[1:]
        return replace(self, sequences=ProbeSequences(inputs, targets, known.lengths, known.users))

    def rewired(self) -> Probe:
        """Return the probe of a log in which only the counts of users and items are real: there is no taste in it."""
        rng = np.random.default_rng(self.options.seed)
        log = Interactions.from_sequences(rewired_log(self.dataset.sequences, rng))
        options = self.options
        return Probe.of(
            Dataset.from_interactions(log, name="rewired"),
            max_length=options.max_length,
            cache_dir=self.cache_dir,
            n_pseudo=options.n_pseudo,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of users and of positions."""
        n, T = self.sequences.inputs.shape
        return n, T

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Whether each position is one of the history, (n, T)."""
        return np.asarray(np.arange(self.shape[1]) < self.sequences.lengths[:, None])

    def grams(self, states: list[npt.NDArray[np.float32]], names: list[str]) -> LayerGrams:
        """Return the plain and treated Grams of states, one (n, T, d) array per layer."""
        s = self.sequences
        items = {"users": s.users, "targets": s.targets, "inputs": s.inputs}
        counts = self.graph.item_counts
        return LayerGrams.from_states(states, s.lengths, names, **items, item_counts=counts, seed=self.options.seed)

    @cached_property
    def nodes(self) -> NodeGraphs:
        """Graphs of the carried nodes."""
        s, (n, T) = self.sequences, self.shape
        empty = np.zeros((n, 1, T, T), dtype=np.float32)
        grams = LayerGrams(empty, s.lengths, ("embed",), ("embed",), users=s.users, targets=s.targets, inputs=s.inputs)
        return NodeGraphs.build(grams, self.graph, "carried", self.options, self.cache_dir)

    @cached_property
    def weights(self) -> FloatArray:
        """Weight of each user in the mean of carried taste, (n,); 0 for users who are not measured."""
        nodes = self.nodes
        is_valid = (nodes.measured.lengths >= self.options.min_targets - 1) & nodes.bases.has_edges
        return np.where(is_valid, nodes.operators.weights, 0.0)

    @cached_property
    def exchanged_sd(self) -> float:
        """Standard deviation of z of the control ``exchanged-items``, from random item vectors."""
        vectors = np.random.default_rng(self.options.seed).standard_normal((self.graph.n_items, WIDTH))
        grams = self.grams([np.zeros((*self.shape, 1), dtype=np.float32)], ["embed"])
        control = exchange_items(vectors.astype(np.float32), grams, self.graph, self.options, cache_dir=self.cache_dir)
        return control.sd

    @cached_property
    def popularity(self) -> npt.NDArray[np.float32]:
        """Log training count of the item that each position reads, standardised over the positions, (n, T)."""
        return self.standardised(np.log1p(self.graph.item_counts)[self.sequences.inputs])

    @cached_property
    def predicted_popularity(self) -> npt.NDArray[np.float32]:
        """The same of the item that each position predicts, (n, T)."""
        return self.standardised(np.log1p(self.graph.item_counts)[self.sequences.targets])

    def standardised(self, values: FloatArray) -> npt.NDArray[np.float32]:
        """Return values (n, T) with mean 0 and variance 1 over the positions; 0 where padded."""
        known = values[self.valid]
        return np.where(self.valid, (values - known.mean()) / known.std(), 0.0).astype(np.float32)

    def popularity_bins(self, n_bins: int) -> IntArray:
        """Return the quantile of popularity of each position, (n, T), with items of one count in one bin."""
        edges = np.quantile(self.popularity[self.valid], np.arange(1, n_bins) / n_bins)
        return np.asarray(np.searchsorted(edges, self.popularity, side="right"))

    @cached_property
    def item_vectors(self) -> npt.NDArray[np.float32]:
        """Item vectors of unit mean square, (n_items, WIDTH), from an SVD of the training interactions.

        Columns are divided by the root of the item's count first and rows scaled to equal norm afterwards, so that
        popularity is in neither. Items without training interactions are 0.
        """
        counts = np.maximum(self.graph.item_counts, 1.0)
        scaled = self.graph.user_items.astype(float).multiply(1.0 / np.sqrt(counts)).tocsr()
        n_factors = min(WIDTH, min(scaled.shape) - 1)
        _, singular, right = svds(scaled, k=n_factors, v0=np.ones(min(scaled.shape)))
        X = right.T * singular
        X /= np.maximum(np.sqrt((X**2).mean(axis=1, keepdims=True)), 1e-9)
        return np.asarray(np.pad(X, ((0, 0), (0, WIDTH - n_factors))), dtype=np.float32)

    @cached_property
    def density(self) -> FloatArray:
        """Rank in 0 … 1 of each user's mean edge weight among the carried nodes, (n,)."""
        A, m = self.nodes.bases.adjacency, self.nodes.bases.lengths
        return _ranks(A.sum(axis=(1, 2)) / np.maximum(m * (m - 1), 1))

    @cached_property
    def locality(self) -> FloatArray:
        r"""Rank in 0 … 1 of each user's correlation of :math:`A_{ij}` with :math:`-|i - j|`, (n,)."""
        correlation = np.zeros(self.shape[0])
        for u, m in enumerate(self.nodes.bases.lengths.tolist()):
            i, j = np.triu_indices(m, 1)
            edges = self.nodes.bases.adjacency[u, i, j]
            if m > 2 and edges.std() > 0:
                correlation[u] = np.corrcoef(edges, i - j)[0, 1]
        return _ranks(correlation)


def rewired_log(sequences: Sequence[IntArray], rng: np.random.Generator) -> list[IntArray]:
    """Return histories with the counts of users and items and nothing else of the log, in random order.

    Pairs of users trade the items that only one of them has, at random (curveball trades).
    """
    histories = [set(np.asarray(s).tolist()) for s in sequences]
    for _ in range(TRADES * len(histories)):
        a, b = rng.choice(len(histories), 2, replace=False).tolist()
        only_a, only_b = histories[a] - histories[b], histories[b] - histories[a]
        pool = rng.permutation(sorted(only_a) + sorted(only_b)).tolist()
        both = histories[a] & histories[b]
        histories[a], histories[b] = both | set(pool[: len(only_a)]), both | set(pool[len(only_a) :])
    return [rng.permutation(sorted(items)).astype(np.int64) for items in histories]


def _ranks(values: FloatArray) -> FloatArray:
    order = np.empty(len(values))
    order[np.argsort(values, kind="stable")] = np.arange(len(values))
    return order / max(1, len(values) - 1)
