"""Algebra of Gram matrices: operations on the states that need only their Gram matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.graph.bases import inverse_sqrt
from spectral_probe.types import FloatArray


def prepare_gram(
    G: npt.NDArray[np.floating[Any]], *, drop_first: int, center: bool, normalize_rows: bool
) -> FloatArray:
    r"""Return :math:`\tilde G` in float64: leading positions dropped, rows scaled to unit norm, centred."""
    gram: FloatArray = G[..., drop_first:, drop_first:].astype(np.float64)
    if normalize_rows:
        scale = inverse_sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
        gram = scale[..., :, None] * gram * scale[..., None, :]
    return centre(gram) if center else gram


def centre(G: FloatArray) -> FloatArray:
    r"""Return :math:`J G J` with :math:`J = I - 11^\top/T`: the Gram of the states minus their mean over positions."""
    mean = G.mean(axis=-1, keepdims=True)
    return np.asarray(G - mean - np.swapaxes(mean, -1, -2) + mean.mean(axis=-2, keepdims=True))


def energies(G: FloatArray, eigenvectors: FloatArray) -> FloatArray:
    r"""Return :math:`u_k^\top G u_k` for every frequency, (…, T)."""
    return np.asarray((eigenvectors * np.matmul(G, eigenvectors)).sum(axis=-2))
