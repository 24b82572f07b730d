"""The obvious slow versions: loops, counting, dense matrices; written from the definitions, not from the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import scipy.linalg

Array = np.ndarray


def cooccurrence(histories: Sequence[set[int]], i: int, j: int, without: int | None = None) -> int:
    """Return how many users, one of them left out, touched both items."""
    return sum(1 for v, items in enumerate(histories) if v != without and i in items and j in items)


def local_adjacency(
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
                A[s, t] = cooccurrence(histories, targets[s], targets[t], without=user)
    return A


def laplacian(A: Array) -> Array:
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


def heat(A: Array, tau: float) -> Array:
    """Return exp(−τL) of a graph by the matrix exponential."""
    return scipy.linalg.expm(-tau * laplacian(A))


def treated(H: Array, drop_first: int, center: bool, normalize_rows: bool) -> Array:
    """Return the Gram of the treated *states*: first rows dropped, then scaled, then centred."""
    H = np.array(H[drop_first:], dtype=np.float64)
    if normalize_rows:
        for t in range(len(H)):
            norm = np.sqrt(sum(x * x for x in H[t]))
            H[t] = H[t] / norm if norm > 0 else 0.0
    if center:
        H = H - sum(H) / len(H)
    return H @ H.T


def unit_trace(G: Array) -> Array:
    return G / sum(G[t, t] for t in range(len(G)))


def eigenspaces(A: Array) -> list[tuple[float, Array]]:
    """Return (λ, projector) of every eigenspace of the Laplacian of A, ascending."""
    values, vectors = scipy.linalg.eigh(laplacian(A))
    spaces: list[tuple[float, Array]] = []
    for k, value in enumerate(values):
        projector = np.outer(vectors[:, k], vectors[:, k])
        if spaces and abs(values[k - 1] - value) < 1e-7:
            spaces[-1] = (spaces[-1][0], spaces[-1][1] + projector)
        else:
            spaces.append((float(value), projector))
    return spaces


def by_eigenspace(A: Array, per_frequency: Array) -> Array:
    """Sum a quantity per frequency over the eigenspaces of A, which are all that is defined."""
    sizes = [round(np.trace(projector)) for _, projector in eigenspaces(A)]
    ends = np.cumsum(sizes)
    assert ends[-1] == len(per_frequency)
    return np.array([per_frequency[end - size : end].sum() for end, size in zip(ends, sizes, strict=True)])


def swap_null(
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
        g_bar = g_bar + unit_trace(gram_of(v, T))
        P_bar = P_bar + heat_of(v, T)
        n += 1
    g_bar, P_bar = np.asarray(g_bar) / n, np.asarray(P_bar) / n
    P_u, g_u = heat_of(u, T), unit_trace(gram_of(u, T))
    return g_bar, float(np.trace(P_u @ g_bar) + np.trace(P_bar @ g_u) - np.trace(P_bar @ g_bar))


def rank_weights(eigenvalues: list[float], n_bands: int) -> Array:
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
