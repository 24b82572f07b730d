r"""Synthetic states with a known truth: independent of the graphs, or smooth on them by a known amount.

Every world has the layers ``embed`` and one or more alternatives for the last block, which share part of their noise
with ``embed`` as a residual stream does. Arrays are (n, n_layers, T, d), float32.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.filters import graph_operator

FloatArray = npt.NDArray[np.floating]
#: Width of the states.
WIDTH = 32
#: Correlation of the noise of the last block with that of ``embed``.
SHARED_NOISE = 0.7
#: Each confound at ``embed`` and at the last block.
MEAN_NORM = (1.0, 5.0)
FIRST_ROW = (3.0, 100.0)
NORM_GROWTH = (1.0, 4.0)
AR_COEFFICIENT = (0.5, 0.9)
RUNNING_SHARE = (0.3, 0.9)
DEPTH_SCALE = 20.0
CONFOUNDS = ("mean vector", "first row", "norm", "AR(1)", "running mean")
#: Covariance (I + SMOOTHNESS · L)^-1 of the injected signal on the user's own graph.
SMOOTHNESS = 8.0


def noise(rng: np.random.Generator, n: int, T: int, n_last: int = 1, d: int = WIDTH) -> FloatArray:
    """Return white noise for ``embed`` and ``n_last`` blocks, each correlated with ``embed``, unit variance."""
    H = rng.standard_normal((n, 1 + n_last, T, d), dtype=np.float32)
    H[:, 1:] *= np.float32(np.sqrt(1 - SHARED_NOISE**2))
    H[:, 1:] += np.float32(SHARED_NOISE) * H[:, :1]
    return H


def confound(rng: np.random.Generator, H: FloatArray, names: Collection[str]) -> FloatArray:
    """Return the states (n, 2, T, d) with the named confounds, each far stronger at the last block."""
    unknown = set(names) - set(CONFOUNDS)
    if unknown:
        raise ValueError(f"confounds must be among {CONFOUNDS}; got {sorted(unknown)}.")
    H = H.copy()
    T, d = H.shape[2:]
    for layer in range(2):
        X = H[:, layer]
        if "AR(1)" in names:
            phi = AR_COEFFICIENT[layer]
            innovation = np.float32(np.sqrt(1 - phi**2))
            for t in range(1, T):
                X[:, t] = np.float32(phi) * X[:, t - 1] + innovation * X[:, t]
        if "running mean" in names:
            share = np.float32(RUNNING_SHARE[layer])
            count = np.arange(1, T + 1, dtype=np.float32)[:, None]
            X[:] = (1 - share) * X + share * np.cumsum(X, axis=1) / count
        if "norm" in names:
            position = np.arange(T, dtype=np.float32)[:, None] / T
            X *= (1 + NORM_GROWTH[layer] * position) * np.float32(DEPTH_SCALE**layer)
        size = np.float32(np.sqrt((X**2).mean()))
        if "mean vector" in names:
            direction = rng.standard_normal(d).astype(np.float32)
            X += np.float32(MEAN_NORM[layer]) * size * direction
        if "first row" in names:
            direction = rng.standard_normal(d).astype(np.float32)
            X[:, 0] += np.float32(FIRST_ROW[layer]) * size * direction
    return H


def signal_roots(bases: GraphBases) -> FloatArray:
    r"""Return the square root of :math:`(I + \gamma L)^{-1}` of each graph, its diagonal 1 on average, (n, T, T)."""
    gain = np.nan_to_num(1.0 / (1.0 + SMOOTHNESS * bases.eigenvalues), nan=0.0)
    gain *= (bases.lengths / gain.sum(axis=1))[:, None]
    return graph_operator(bases.eigenvectors, np.sqrt(gain)).astype(np.float32)


def smooth_signal(rng: np.random.Generator, roots: FloatArray, d: int = WIDTH) -> FloatArray:
    """Return fresh states smooth on each user's graph, (n, T, d), unit variance on average."""
    return np.matmul(roots, rng.standard_normal((*roots.shape[:2], d), dtype=np.float32))


def with_signal(S: FloatArray, E: FloatArray, strength: float, retained: FloatArray) -> FloatArray:
    """Return ``embed`` and one last block per entry of ``retained``, (n, 1 + len(retained), T, d).

    The signal has ``strength`` times the energy of the noise at ``embed``. A last block keeps the given part of the
    signal's energy and the total energy of ``embed``, so that the share of the signal is what changes. ``retained`` is
    (n_last,) or, where users differ, (n, n_last).
    """
    shares = np.concatenate([np.ones((*np.shape(retained)[:-1], 1)), np.asarray(retained, dtype=float)], axis=-1)
    signal = np.sqrt(strength * shares).astype(np.float32)[..., None, None]
    rest = np.sqrt(1 + strength * (1 - shares)).astype(np.float32)[..., None, None]
    return signal * S[:, None] + rest * E


def white_item_vectors(rng: np.random.Generator, n_items: int, d: int = WIDTH) -> FloatArray:
    """Return one fresh vector per item, (n_items, d): users share items; the vectors do not depend on the graph."""
    return rng.standard_normal((n_items, d), dtype=np.float32)


def factorised_item_vectors(user_items: csr_array, d: int = WIDTH) -> FloatArray:
    """Return item vectors of unit mean square, (n_items, d), from a truncated SVD of the training interactions.

    Columns are divided by the root of the item's count first, rows scaled to equal norm afterwards, so that popularity
    is in neither. Items without training interactions are 0.
    """
    count = np.asarray(user_items.sum(axis=0), dtype=float)
    scaled = user_items.astype(float).multiply(1.0 / np.sqrt(np.maximum(count, 1.0))).tocsr()
    _, singular, right = svds(scaled, k=min(d, min(scaled.shape) - 1), v0=np.ones(min(scaled.shape)))
    X = right.T * singular
    X /= np.maximum(np.sqrt((X**2).mean(axis=1, keepdims=True)), 1e-9)
    return np.asarray(X, dtype=np.float32)


def popularity(user_items: csr_array) -> FloatArray:
    """Return the standardised logarithm of every item's training count, (n_items,)."""
    score = np.log1p(np.asarray(user_items.sum(axis=0), dtype=float))
    return np.asarray((score - score.mean()) / score.std(), dtype=np.float32)


def equal_row_norms(H: FloatArray) -> FloatArray:
    """Return the states with every row scaled to the same norm: row normalisation, before the Gram."""
    return H / np.sqrt((H**2).mean(axis=-1, keepdims=True))


def grams(H: FloatArray) -> FloatArray:
    """Return the Grams (n, n_layers, T, T) of states (n, n_layers, T, d)."""
    return np.matmul(H, H.swapaxes(-1, -2))
