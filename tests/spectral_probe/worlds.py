"""Small made-up worlds in which every confound is present: sink, mean, causal averaging, repeats, odd graphs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy.linalg

from spectral_probe.cli.main import main
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import ProbeSequences, probe_sequences
from spectral_probe.spectrum.energy import SpectralEnergy

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class ArrayGrams:
    """Grams in float64, so that comparisons need no tolerance for the float32 of stored Grams."""

    grams: Array
    lengths: Array
    layer_names: tuple[str, ...]
    layer_states: tuple[str, ...]
    is_causal: bool = True


@dataclass(frozen=True, eq=False)
class World:
    dataset: Dataset
    probe: ProbeSequences
    states: Array
    """(n, n_layers, T, d), zero where padded."""

    @property
    def train_sets(self) -> list[set[int]]:
        return [set(s.tolist()) for s in self.dataset.train.sequences()]

    @property
    def targets(self) -> list[list[int]]:
        return [row[:n].tolist() for row, n in zip(self.probe.targets, self.probe.lengths, strict=True)]

    def grams(self, **changes: object) -> ArrayGrams:
        return grams_of(self.states, self.probe.lengths, **changes)


def layer_labels(n_layers: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and states of ``embed``, the blocks between, and ``final_norm``."""
    names = ("embed", *(f"block {i}" for i in range(1, n_layers - 1)), "final_norm")
    states = ("embed", *(["block"] * (n_layers - 2)), "final_norm")
    return names[:n_layers], states[:n_layers]


def grams_of(states: Array, lengths: Array, *, is_causal: bool = True) -> ArrayGrams:
    """Return the Gram of every layer of states (n, n_layers, T, d)."""
    names, kinds = layer_labels(states.shape[1])
    real = np.arange(states.shape[2]) < np.asarray(lengths)[:, None]
    clean = np.where(real[:, None, :, None], states, 0.0)
    return ArrayGrams(np.einsum("nlsd,nltd->nlst", clean, clean), np.asarray(lengths), names, kinds, is_causal)


def make_world(seed: int, *, n_users: int = 60, n_items: int = 40, n_layers: int = 4, d: int = 6) -> World:
    """Return users with tastes, whose histories repeat items, and states with a sink and causal averaging.

    The last six items belong to one user alone, whose graph therefore has no edge from other users.
    """
    rng = np.random.default_rng(seed)
    taste_of_item = rng.integers(0, 3, n_items - 6)
    histories = []
    for _ in range(n_users):
        liked = np.flatnonzero(taste_of_item == rng.integers(0, 3))
        chosen = rng.choice(liked, size=int(rng.integers(4, 11)))
        other = rng.integers(0, n_items - 6, size=2)
        histories.append(rng.permutation(np.concatenate([chosen, other])))
    histories[3] = np.arange(n_items - 6, n_items)
    data = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=n_items))
    probe = probe_sequences(data)
    n, T = probe.targets.shape
    item_states = rng.normal(size=(n_items, d)) + 2.0 * rng.normal(size=(4, d))[np.append(taste_of_item, [3] * 6)]
    states = np.zeros((n, n_layers, T, d))
    states[:, 0] = item_states[probe.targets] + rng.normal(size=(n, T, d))
    for layer in range(1, n_layers):
        before = states[:, layer - 1]
        average = np.cumsum(before, axis=1) / np.arange(1, T + 1)[:, None]
        states[:, layer] = 0.8 * before + 0.4 * average + rng.normal(size=(n, T, d)) + 0.5
    states[:, 1:, 0] *= 30.0
    real = np.arange(T) < probe.lengths[:, None]
    return World(data, probe, states * real[:, None, :, None])


def tastes(lengths: list[int], seed: int = 0, n_items: int = 120, n_tastes: int = 4) -> tuple[Dataset, Array]:
    """Return users who read from one taste each, with histories of the given lengths, and the taste of each item."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, n_tastes, n_items)
    popularity = 1.0 / np.arange(1, n_items + 1) ** 0.5
    histories = []
    for length in lengths:
        p = popularity * np.where(taste == rng.integers(0, n_tastes), 9.0, 1.0)
        histories.append(rng.choice(n_items, size=length, replace=False, p=p / p.sum()))
    log = Interactions.from_sequences(histories, n_items=n_items)
    return Dataset.from_interactions(log, name="tastes"), taste


# The obvious slow versions: loops, counting, dense matrices; written from the definitions, not from the package.


def slow_cooccurrence(histories: Sequence[set[int]], i: int, j: int, without: int | None = None) -> int:
    """Return how many users, one of them left out, touched both items."""
    return sum(1 for v, items in enumerate(histories) if v != without and i in items and j in items)


def slow_local_adjacency(
    histories: Sequence[set[int]], targets: Sequence[int], user: int | None, self_loops: bool = False
) -> Array:
    """Count common users of every two targets, ``user`` left out (None: nobody left out)."""
    T = len(targets)
    A = np.zeros((T, T))
    for s in range(T):
        for t in range(T):
            if s == t:
                A[s, t] = sum(targets[s] in items for items in histories) if self_loops else 0
            elif targets[s] != targets[t]:
                A[s, t] = slow_cooccurrence(histories, targets[s], targets[t], without=user)
    return A


def slow_laplacian(A: Array) -> Array:
    """Return the normalised Laplacian, entry by entry; a node without edges has 1 on the diagonal."""
    T = len(A)
    L = np.zeros((T, T))
    degree = [sum(A[s, t] for t in range(T)) for s in range(T)]
    for s in range(T):
        for t in range(T):
            L[s, t] = 1.0 if s == t else 0.0
            if degree[s] > 0 and degree[t] > 0:
                L[s, t] -= A[s, t] / np.sqrt(degree[s] * degree[t])
    return L


def slow_heat(A: Array, tau: float) -> Array:
    """Return exp(−τL) of a graph by the matrix exponential."""
    return scipy.linalg.expm(-tau * slow_laplacian(A))


def slow_treated(H: Array, drop_first: int, center: bool, normalize_rows: bool) -> Array:
    """Return the Gram of the treated *states*: first rows dropped, then scaled, then centred."""
    H = np.array(H[drop_first:], dtype=np.float64)
    if normalize_rows:
        for t in range(len(H)):
            norm = np.sqrt(sum(x * x for x in H[t]))
            H[t] = H[t] / norm if norm > 0 else 0.0
    if center:
        H = H - sum(H) / len(H)
    return H @ H.T


def slow_unit_trace(G: Array) -> Array:
    return G / sum(G[t, t] for t in range(len(G)))


def slow_eigenspaces(A: Array) -> list[tuple[float, Array]]:
    """Return (λ, projector) of every eigenspace of the Laplacian of A, ascending."""
    values, vectors = scipy.linalg.eigh(slow_laplacian(A))
    spaces: list[tuple[float, Array]] = []
    for k, value in enumerate(values):
        projector = np.outer(vectors[:, k], vectors[:, k])
        if spaces and abs(values[k - 1] - value) < 1e-7:
            spaces[-1] = (spaces[-1][0], spaces[-1][1] + projector)
        else:
            spaces.append((float(value), projector))
    return spaces


def slow_by_eigenspace(A: Array, per_frequency: Array) -> Array:
    """Sum a quantity per frequency over the eigenspaces of A, which are all that is defined."""
    sizes = [round(np.trace(projector)) for _, projector in slow_eigenspaces(A)]
    ends = np.cumsum(sizes)
    assert ends[-1] == len(per_frequency)
    return np.array([per_frequency[end - size : end].sum() for end, size in zip(ends, sizes, strict=True)])


def slow_swap_null(
    gram_of: Callable[[int, int], Array],
    heat_of: Callable[[int, int], Array],
    u: int,
    T: int,
    references: Sequence[int],
) -> tuple[Array, float]:
    """Return ḡ_u and the two-sided null share of the low band of user u with T targets, by a loop.

    ``gram_of(v, T)`` and ``heat_of(v, T)`` belong to v's leading T targets: the Gram of the treated states, and
    exp(−τL) of the local graph, each after the drop.
    """
    g_bar, P_bar, n = 0.0, 0.0, 0
    for v in references:
        if v == u:
            continue
        g_bar = g_bar + slow_unit_trace(gram_of(v, T))
        P_bar = P_bar + heat_of(v, T)
        n += 1
    g_bar, P_bar = np.asarray(g_bar) / n, np.asarray(P_bar) / n
    P_u, g_u = heat_of(u, T), slow_unit_trace(gram_of(u, T))
    return g_bar, float(np.trace(P_u @ g_bar) + np.trace(P_bar @ g_u) - np.trace(P_bar @ g_bar))


def slow_rank_weights(eigenvalues: list[float], n_bands: int) -> Array:
    """Overlap of [k/T, (k+1)/T] with [b/B, (b+1)/B] in units of 1/T, in fractions; then equal eigenvalues averaged."""
    T = len(eigenvalues)
    overlap = [
        [
            T
            * max(
                Fraction(0),
                min(Fraction(k + 1, T), Fraction(b + 1, n_bands)) - max(Fraction(k, T), Fraction(b, n_bands)),
            )
            for b in range(n_bands)
        ]
        for k in range(T)
    ]
    weights = np.zeros((T, n_bands))
    for k in range(T):
        equal = [j for j in range(T) if abs(eigenvalues[j] - eigenvalues[k]) < 1e-9]
        for b in range(n_bands):
            weights[k, b] = float(sum(overlap[j][b] for j in equal) / len(equal))
    return weights


def made_up(low: np.ndarray, null: np.ndarray, n_layers: int | None = None) -> SpectralEnergy:
    """Return energies of five frequencies with the low shares and null low shares given, (n, n_layers)."""
    n, n_layers = low.shape
    names, states = layer_labels(n_layers)
    energy = np.random.default_rng(0).random((n, n_layers, 5)) + 0.5
    total = energy.sum(axis=2)
    return SpectralEnergy(
        energy=energy,
        total=total,
        null_energy={"swap": np.repeat(total[..., None] / 5, 5, axis=2)},
        low=low,
        null_low={"swap": null},
        eigenvalues=np.tile([0.0, 0.5, 1.0, 1.3, 1.6], (n, 1)),
        lengths=np.full(n, 6),
        is_valid=np.ones(n, dtype=bool),
        skipped={},
        layer_names=names,
        layer_states=states,
        layer_index=tuple(range(n_layers)),
        settings={"tau": 1.0, "whole_tau": 5.0, "normalize_rows": False},
        weights=np.ones(n),
    )


def with_excess(*factors: float, n: int = 200, noise: float = 0.0, seed: int = 0) -> SpectralEnergy:
    """Return energies whose excess at layer l is ``factors[l]`` times that of ``embed``, user by user."""
    rng = np.random.default_rng(seed)
    embed = rng.normal(0.1, 0.05, n)
    excess = np.stack([embed * f + noise * rng.normal(size=n) for f in factors], axis=1)
    null = rng.uniform(0.2, 0.3, size=excess.shape)
    return made_up(null + excess, null)


def run_probe(arguments: list[str], monkeypatch, capsys) -> tuple[int, str, str]:
    """Run ``spectral-probe`` in this process; return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["spectral-probe", *arguments])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err
