"""Frequency bands: the share of each graph frequency that belongs to each band.

Bands are for display. The verdict uses the heat kernel, which has no band edges (see ``graph.filters``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from spectral_probe.errors import ConfigError
from spectral_probe.types import FloatArray

#: Neighbouring eigenvalues that differ by at most this much form one eigenspace.
SAME_EIGENVALUE = 1e-9


@dataclass(frozen=True)
class Bands:
    """A rule that divides the frequencies of every user into B bands.

    Attributes
    ----------
    kind : {"rank", "pooled", "deciles"}
        ``rank``: by rank within the user; ``pooled``: by quantiles of the eigenvalues of all users; ``deciles``: the
        authors' ten groups of ⌊T/10⌋ eigenvalues; the last group takes the rest.
    n_bands : int
    """

    kind: Literal["rank", "pooled", "deciles"]
    n_bands: int

    @classmethod
    def parse(cls, spec: int | str | Bands) -> Bands:
        """Read ``4``, ``"4"``, ``"rank:4"``, ``"pooled:4"`` or ``"deciles"``.

        Raises
        ------
        ConfigError
            If ``spec`` is none of these.
        """
        if isinstance(spec, Bands):
            return spec
        text = str(spec)
        if text == "deciles":
            return cls("deciles", 10)
        kind, _, count = text.rpartition(":")
        if kind in ("", "rank", "pooled") and count.isdecimal() and 1 <= int(count) <= 512:
            return cls("pooled" if kind == "pooled" else "rank", int(count))
        raise ConfigError(f"bands must be B, 'rank:B', 'pooled:B' (B from 1 to 512) or 'deciles'; got {spec!r}.")

    def __str__(self) -> str:
        return "deciles" if self.kind == "deciles" else f"{self.kind}:{self.n_bands}"

    @property
    def edges(self) -> FloatArray:
        """Lower and upper edge of each band as fractions of the rank, (B, 2)."""
        cuts = np.arange(self.n_bands + 1) / self.n_bands
        return np.stack([cuts[:-1], cuts[1:]], axis=1)

    def weights(self, eigenvalues: FloatArray) -> FloatArray:
        r"""Return the share of each frequency that belongs to each band, (n, T, B).

        The energy of band b is :math:`\sum_k w_{kb} E_k`. By rank, eigenvalue k of T covers [k/T, (k+1)/T] and is
        divided among the bands by overlap, so no band is empty. Then the weights of equal eigenvalues are averaged,
        which spreads their energy evenly over the eigenspace. A band that is empty for a user is NaN for ``pooled``
        and 0 for ``deciles``.
        """
        if self.kind == "deciles":
            return self._decile_weights(eigenvalues)
        if self.kind == "pooled":
            return self._pooled_weights(eigenvalues)
        T = eigenvalues.shape[1]
        lengths = np.maximum((~np.isnan(eigenvalues)).sum(axis=1), 1)[:, None]
        k = np.arange(T)[None, :]
        weights = self._overlap(k / lengths, (k + 1) / lengths)
        weights[np.isnan(eigenvalues)] = 0.0
        return _average_over_eigenspaces(eigenvalues, weights)

    def _overlap(self, low: FloatArray, high: FloatArray) -> FloatArray:
        """Return the fraction of each interval [low, high] that lies in each band."""
        edges = self.edges
        inside = np.minimum(high[..., None], edges[:, 1]) - np.maximum(low[..., None], edges[:, 0])
        return np.asarray(np.maximum(inside, 0.0) / (high - low)[..., None])

    def _pooled_weights(self, eigenvalues: FloatArray) -> FloatArray:
        real = ~np.isnan(eigenvalues)
        pooled = eigenvalues[real]
        order = np.argsort(pooled, kind="stable")
        space = np.concatenate([[0], np.cumsum(np.diff(pooled[order]) > SAME_EIGENVALUE)])
        ends = np.cumsum(np.bincount(space)) / len(pooled)
        starts = np.concatenate([[0.0], ends[:-1]])
        weights = np.zeros((*eigenvalues.shape, self.n_bands))
        flat = np.empty((len(pooled), self.n_bands))
        flat[order] = self._overlap(starts, ends)[space]
        weights[real] = flat
        absent = ~(weights.sum(axis=1, keepdims=True) > 0)
        return np.asarray(np.where(absent, np.nan, weights))

    def _decile_weights(self, eigenvalues: FloatArray) -> FloatArray:
        lengths = (~np.isnan(eigenvalues)).sum(axis=1)
        width = np.maximum(1, lengths // 10)[:, None]
        k = np.arange(eigenvalues.shape[1])[None, :]
        band = np.minimum(k // width, self.n_bands - 1)
        weights: FloatArray = np.equal(band[..., None], np.arange(self.n_bands)).astype(np.float64)
        weights[np.isnan(eigenvalues)] = 0.0
        return weights


def _average_over_eigenspaces(eigenvalues: FloatArray, weights: FloatArray) -> FloatArray:
    """Replace the weights of equal eigenvalues of one graph by their mean."""
    n, T = eigenvalues.shape
    # NaN differences (padding) open a new group each time; their weights are zero anyway.
    is_new = ~(np.diff(eigenvalues, axis=1, prepend=np.inf) <= SAME_EIGENVALUE)
    is_new[:, :1] = True
    group = (np.cumsum(is_new, axis=1) - 1 + np.arange(n)[:, None] * T).ravel()
    flat = weights.reshape(n * T, -1)
    sums = np.zeros_like(flat)
    np.add.at(sums, group, flat)
    counts = np.bincount(group, minlength=n * T)
    return np.asarray((sums[group] / counts[group, None]).reshape(weights.shape))
