r"""The exact nulls: the curve to expect if the states were unrelated to the graph.

An energy :math:`u^\top G u` is linear in the Gram matrix, so its expectation over a family of relabellings is the
energy of the *averaged* Gram. No relabelling is sampled.

- **swap**: the graph of this user with the states of other users. Exact if Grams are exchangeable over users given
  position; it keeps the mean, the attention sink, the norm profile, causal averaging, temporal smoothing and the
  temporal structure of the graph. The verdict uses it.
- **permutation**: all T! orders of the positions. **cyclic**: all T − 1 rotations other than the identity. Both assume
  exchangeable positions, which real local graphs do not have; they are reported as weaker nulls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.graph.bases import GraphBases, eigenbasis
from spectral_probe.graph.filters import graph_operator, heat_kernel
from spectral_probe.graph.threads import for_each
from spectral_probe.spectrum.gram_algebra import centre, energies
from spectral_probe.storage.atomic import write_npz
from spectral_probe.storage.cache import only_a_cache
from spectral_probe.storage.hashing import digest
from spectral_probe.storage.reading import read_npz
from spectral_probe.types import FloatArray, IntArray

#: With fewer other users as references, the swap null is NaN.
MIN_REFERENCES = 20


def permutation_energy(G: FloatArray, eigenvectors: FloatArray) -> FloatArray:
    r"""Return the mean energy of each frequency over all permutations of the positions.

    .. math:: E^0_k = a + b\,((\textstyle\sum_i u_{ik})^2 - 1), \quad
              a = \tfrac{\operatorname{tr} G}{T}, \quad b = \tfrac{1^\top G 1 - \operatorname{tr} G}{T(T-1)}

    Parameters
    ----------
    G, eigenvectors : (…, T, T)

    Returns
    -------
    (…, T)
    """
    T = G.shape[-1]
    trace = np.trace(G, axis1=-2, axis2=-1)
    off_diagonal = G.sum(axis=(-2, -1)) - trace
    a, b = trace / T, off_diagonal / max(T * (T - 1), 1)
    return np.asarray(a[..., None] + b[..., None] * (eigenvectors.sum(axis=-2) ** 2 - 1.0))


def cyclic_gram(G: FloatArray) -> FloatArray:
    r"""Return the mean of G over the T − 1 rotations of the positions other than the identity.

    :math:`\bar G = (T\,\bar G_{circ} - G)/(T-1)` with the circulant part :math:`\bar G_{circ}`; G itself for T = 1.
    """
    T = G.shape[-1]
    if T == 1:
        return G
    s = np.arange(T)
    by_shift = G[..., s[:, None], (s[:, None] + s[None, :]) % T].mean(axis=-2)
    circulant = by_shift[..., (s[None, :] - s[:, None]) % T]
    return np.asarray((T * circulant - G) / (T - 1))


@dataclass(frozen=True, eq=False)
class SwapReferences:
    r"""For every length, the users whose states and graphs are the references for a user of that length.

    Attributes
    ----------
    rows : {length: (m,) int}
        Reference rows, the same at all layers.
    heat : {length: (T, T)}
        :math:`\sum_v e^{-\tau L_v}` over the references, each graph restricted to its leading ``length`` targets.
        It depends on the data set only.
    """

    rows: dict[int, IntArray]
    heat: dict[int, FloatArray]

    @classmethod
    def draw(
        cls,
        bases: GraphBases,
        is_usable: npt.NDArray[np.bool_],
        wanted_lengths: IntArray,
        *,
        is_causal: bool,
        drop_first: int,
        tau: float,
        n_references: int,
        seed: int,
        cache_dir: Path | None = None,
    ) -> SwapReferences:
        """Draw at most ``n_references`` users per length, once, and average their heat kernels.

        Parameters
        ----------
        is_usable : (n, T) bool
            ``is_usable[v, m − 1]``: the leading m rows of user v's Gram have energy at every layer.
        is_causal : bool
            If True, a state does not depend on later items, and the leading blocks of longer users are references
            too. If False, references have equal length.
        """
        rows: dict[int, IntArray] = {}
        for length in np.unique(wanted_lengths):
            pool = np.flatnonzero(bases.lengths >= length if is_causal else bases.lengths == length)
            if len(pool) > n_references:
                generator = np.random.default_rng([seed, int(length)])
                pool = np.sort(generator.choice(pool, n_references, replace=False))
            rows[int(length)] = pool[is_usable[pool, int(length) - drop_first - 1]]
        return cls(rows, _cached_heat_sums(bases, rows, drop_first, tau, cache_dir))


def _heat_sums(bases: GraphBases, rows: dict[int, IntArray], drop_first: int, tau: float) -> dict[int, FloatArray]:
    heat: dict[int, FloatArray] = {}

    def sum_kernels(length: int) -> None:
        values, vectors = eigenbasis(bases.adjacency[rows[length], drop_first:length, drop_first:length])
        heat[length] = graph_operator(vectors, heat_kernel(values, tau)).sum(axis=0)

    for_each(sum_kernels, rows)
    return heat


def _cached_heat_sums(
    bases: GraphBases, rows: dict[int, IntArray], drop_first: int, tau: float, cache_dir: Path | None
) -> dict[int, FloatArray]:
    """Return the heat sums, from ``cache_dir`` if those of the same graphs and references are stored there."""
    if cache_dir is None:
        return _heat_sums(bases, rows, drop_first, tau)
    parts: list[str | bytes | npt.NDArray[Any]] = [repr((drop_first, tau, bases.adjacency.shape)), bases.adjacency]
    for length, references in rows.items():
        parts += [np.int64(length).tobytes(), references]
    path = cache_dir / f"heat-{digest(parts)[:32]}.npz"
    try:
        stored = read_npz(path, {str(length): ("f", 2) for length in rows})
        if any(stored[str(length)].shape != (length - drop_first, length - drop_first) for length in rows):
            raise ValueError("a stored heat sum has another size")
        return {length: stored[str(length)] for length in rows}
    except (OSError, ValueError):
        heat = _heat_sums(bases, rows, drop_first, tau)
    with only_a_cache(path):
        write_npz(path, {str(length): total for length, total in heat.items()})
    return heat


class SwapNull:
    r"""The swap null of users of equal length: :math:`\bar g_u` and :math:`\bar P_u` over all references but the user.

    Sums over all references are formed once; for a user who is a reference, their own term is subtracted.
    """

    def __init__(self, rows: IntArray, references: IntArray, heat_sum: FloatArray, P: FloatArray) -> None:
        self.references = references
        self.P = P
        self.is_reference = np.isin(rows, references).astype(np.float64)
        count = len(references) - self.is_reference
        self.count = np.where(count >= MIN_REFERENCES, count, np.nan)
        self.heat_others = heat_sum - self.is_reference[:, None, None] * P

    def __call__(
        self,
        blocks: FloatArray,
        center: bool,
        g: FloatArray,
        share: FloatArray,
        low: FloatArray,
        eigenvectors: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        r"""Return the one-sided null share of each frequency (k, T) and the two-sided null low share (k,).

        .. math:: \operatorname{tr}(P_u \bar g) + \operatorname{tr}(\bar P g_u) - \operatorname{tr}(\bar P \bar g)
        """
        trace = np.trace(blocks, axis1=-2, axis2=-1)
        if center:
            trace = trace - blocks.sum(axis=(-2, -1)) / blocks.shape[-1]
        # Centring is linear: centre the weighted sum once instead of every reference.
        summed = np.einsum("v,vst->st", 1.0 / trace, blocks)
        summed = centre(summed) if center else summed
        is_reference = self.is_reference
        null_share = (energies(summed, eigenvectors) - is_reference[:, None] * share) / self.count[:, None]
        states_others = summed - is_reference[:, None, None] * g
        own_graph = ((self.P * summed).sum(axis=(-2, -1)) - is_reference * low) / self.count
        own_states = (self.heat_others * g).sum(axis=(-2, -1)) / self.count
        neither = (self.heat_others * states_others).sum(axis=(-2, -1)) / self.count**2
        return null_share, own_graph + own_states - neither
