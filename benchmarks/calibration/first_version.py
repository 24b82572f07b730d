r"""The measure of the first version: nodes are the targets, plain states, heat kernel at 5, equal weights.

It equals ``low`` minus ``null_low["swap"]`` of :func:`spectral_probe.spectral_energy`, which decomposes every graph
anew; here what depends on the graphs is computed once. Centring moves from the Gram to the operator,
:math:`\operatorname{tr}(P\,JGJ) = \langle JPJ, G\rangle`. A test asserts that both agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spectral_probe.graph.bases import GraphBases, groups_by_length
from spectral_probe.graph.filters import heat_operator
from spectral_probe.spectrum.components import centred_traces, references_of
from spectral_probe.spectrum.energy import MIN_TARGETS
from spectral_probe.spectrum.gram_algebra import centre
from spectral_probe.spectrum.nulls import MIN_REFERENCES
from spectral_probe.types import FloatArray, IntArray

TAU = 5.0
N_REFERENCES = 256


@dataclass(frozen=True, eq=False)
class _Group:
    """Users of one length; all operators are centred, (…, m²) for m = length − 1."""

    rows: IntArray
    m: int
    references: IntArray
    is_reference: FloatArray
    operators: FloatArray
    of_references: FloatArray


class FirstVersion:
    """The swap excess of the low-pass share, as the first version measured it.

    Parameters
    ----------
    bases : GraphBases, (n, T)
        Graphs of the targets.
    seed : int
        Of the draw of the references.
    """

    def __init__(self, bases: GraphBases, *, seed: int = 0) -> None:
        lengths = bases.lengths
        has_edges = bases.drop_first(1).has_edges
        self.is_valid = (lengths >= MIN_TARGETS) & has_edges
        self.n = len(lengths)
        self._groups: list[_Group] = []
        for length, rows in groups_by_length(np.where(self.is_valid, lengths, 0)):
            references = references_of(lengths, length, N_REFERENCES, seed)
            if len(references) <= MIN_REFERENCES:
                continue  # such users have no null, and the first version left them out
            every = np.union1d(rows, references)
            P = centre(heat_operator(bases.adjacency[every, 1:length, 1:length], TAU)).reshape(len(every), -1)
            operators, reference = P[np.searchsorted(every, rows)], P[np.searchsorted(every, references)]
            is_reference = np.isin(rows, references).astype(float)
            self._groups.append(_Group(rows, length - 1, references, is_reference, operators, reference))

    def excess(self, grams: npt.NDArray[np.float32]) -> FloatArray:
        """Return the excess (n, n_layers) of plain Grams (n, n_layers, T, T); NaN for users who are left out."""
        excess = np.full((self.n, grams.shape[1]), np.nan)
        for layer in range(grams.shape[1]):
            G = centre(grams[:, layer, 1:, 1:].astype(np.float64))
            traces = centred_traces(G)
            for group in self._groups:
                excess[group.rows, layer] = self._of(group, G, traces)
        return excess

    def _of(self, group: _Group, G: FloatArray, traces: FloatArray) -> FloatArray:
        m, references = group.m, group.references
        # A reference without variation is none.
        varies = np.isfinite(traces[references, m - 1])
        total, references = group.of_references[varies].sum(axis=0), references[varies]
        scale = 1.0 / traces[references, m - 1]
        states = np.tensordot(scale, G[references, :m, :m], axes=1).ravel()
        own_states = G[group.rows, :m, :m].reshape(len(group.rows), -1) / traces[group.rows, m - 1][:, None]
        low = (group.operators * own_states).sum(axis=1)
        own_graph, all_graphs = group.operators @ states, own_states @ total
        # Means over the references without the user.
        inside = group.is_reference
        count = len(references) - inside
        both = total @ states - inside * (own_graph + all_graphs - low)
        return np.asarray(low - (own_graph + all_graphs - 2 * inside * low) / count + both / count**2)
