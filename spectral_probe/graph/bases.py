r"""Graph Fourier bases of many small graphs at once.

.. math:: L = I - D^{-1/2} A D^{-1/2} = U \Lambda U^\top, \qquad \hat x = U^\top x, \qquad x = U \hat x

Source: FreLLM4Rec, section 2.2. Its Eq. (1) does not hold for the normalised Laplacian; the identity that does is
:math:`x^\top L x = \tfrac12 \sum_{st} A_{st} (x_s/\sqrt{d_s} - x_t/\sqrt{d_t})^2 = \sum_k \lambda_k \hat x_k^2`
for nodes with edges; a node without edges adds :math:`x_s^2`, as its :math:`L_{ss}` is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, ShapeError
from spectral_probe.graph.threads import for_each
from spectral_probe.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class GraphBases:
    r"""Eigenvalues and eigenvectors of the normalised Laplacians of n graphs with up to T nodes.

    Attributes
    ----------
    eigenvalues : (n, T)
        Graph frequencies :math:`0 \le \lambda_1 \le … \le 2`, NaN where padded.
    eigenvectors : (n, T, T)
        Column k is :math:`u_k`; 0 where padded.
    adjacency : (n, T, T)
        Edge weights, 0 where padded.
    lengths : (n,) int
        Number of nodes.
    """

    eigenvalues: FloatArray
    eigenvectors: FloatArray
    adjacency: FloatArray
    lengths: IntArray

    @classmethod
    def from_adjacency(cls, adjacency: FloatArray, lengths: IntArray) -> GraphBases:
        """Decompose the leading ``lengths[i]`` nodes of every graph, one batched ``eigh`` per distinct length.

        Grouping by length instead of padding keeps a user's basis independent of the other users in the batch.

        Raises
        ------
        ShapeError
            If the shapes do not fit, or a matrix is not symmetric or has a negative weight.
        """
        n, T = adjacency.shape[0], adjacency.shape[-1]
        if adjacency.shape != (n, T, T) or lengths.shape != (n,):
            raise ShapeError(
                f"adjacency must be (n, T, T) and lengths (n,); got {adjacency.shape} and {lengths.shape}."
            )
        if (adjacency < 0).any() or not np.array_equal(adjacency, adjacency.transpose(0, 2, 1)):
            raise ShapeError("Adjacency matrices must be symmetric with weights >= 0; use ItemGraph.local_adjacency.")
        eigenvalues = np.full((n, T), np.nan)
        eigenvectors = np.zeros((n, T, T))

        def decompose(group: tuple[int, IntArray]) -> None:
            length, rows = group
            values, vectors = eigenbasis(adjacency[rows, :length, :length])
            eigenvalues[rows, :length] = values
            eigenvectors[rows, :length, :length] = vectors

        for_each(decompose, groups_by_length(lengths))
        return cls(eigenvalues, eigenvectors, adjacency, lengths)

    @classmethod
    def path(cls, lengths: IntArray, T: int) -> GraphBases:
        r"""Return the bases of path graphs, :math:`A_{t,t+1} = 1`: the control whose low band is smoothness in time."""
        step = np.eye(T, k=1) + np.eye(T, k=-1)
        real = np.arange(T) < lengths[:, None]
        return cls.from_adjacency(step * (real[:, :, None] & real[:, None, :]), lengths)

    @property
    def has_edges(self) -> npt.NDArray[np.bool_]:
        """Whether each graph has an edge between two different nodes, (n,)."""
        off_diagonal = self.adjacency.sum(axis=(1, 2)) - np.trace(self.adjacency, axis1=1, axis2=2)
        return np.asarray(off_diagonal > 0)

    def gft(self, x: npt.ArrayLike) -> FloatArray:
        r"""Return :math:`\hat x = U^\top x` for x of shape (n, T) or (n, T, d)."""
        return self._transform(self.eigenvectors.transpose(0, 2, 1), x)

    def igft(self, x_hat: npt.ArrayLike) -> FloatArray:
        r"""Return :math:`x = U \hat x` for x̂ of shape (n, T) or (n, T, d)."""
        return self._transform(self.eigenvectors, x_hat)

    def _transform(self, matrices: FloatArray, x: npt.ArrayLike) -> FloatArray:
        signal = np.asarray(x, dtype=np.float64)
        if signal.shape[:2] != self.eigenvalues.shape or signal.ndim > 3:
            raise ShapeError(
                f"A signal on these graphs must be {self.eigenvalues.shape} or {(*self.eigenvalues.shape, 'd')}; "
                f"got {signal.shape}."
            )
        if signal.ndim == 2:
            return np.asarray(np.matmul(matrices, signal[..., None])[..., 0])
        return np.asarray(np.matmul(matrices, signal))

    def drop_first(self, k: int) -> GraphBases:
        """Return the bases of the graphs without their first k nodes; degrees and Laplacians are computed anew."""
        if not 0 <= k <= self.adjacency.shape[-1]:
            raise ConfigError(f"drop_first must lie in 0…{self.adjacency.shape[-1]}; got {k}.")
        if k == 0:
            return self
        return GraphBases.from_adjacency(self.adjacency[:, k:, k:], np.maximum(self.lengths - k, 0))


def inverse_sqrt(degree: FloatArray) -> FloatArray:
    """Return ``degree ** -1/2`` where the degree is positive and 0 elsewhere."""
    return np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)


def normalized_laplacian(adjacency: FloatArray) -> FloatArray:
    r"""Return :math:`I - D^{-1/2} A D^{-1/2}` of each (…, T, T) adjacency; 1 on the diagonal without edges."""
    scale = inverse_sqrt(adjacency.sum(axis=-1))
    return np.asarray(np.eye(adjacency.shape[-1]) - scale[..., :, None] * adjacency * scale[..., None, :])


def eigenbasis(adjacency: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ascending eigenvalues (m, T) and eigenvectors (m, T, T) of m graphs of equal size, in float64."""
    values, vectors = np.linalg.eigh(normalized_laplacian(adjacency))
    return np.clip(values, 0.0, 2.0), vectors


def groups_by_length(lengths: IntArray) -> Iterator[tuple[int, IntArray]]:
    """Yield every distinct positive length with the rows that have it."""
    for length in np.unique(lengths[lengths > 0]):
        yield int(length), np.flatnonzero(lengths == length)
