r"""The low-pass excess of many layers, with everything that depends on the graphs alone computed once.

:func:`spectral_probe.spectral_energy` decomposes every graph anew; thousands of repetitions on the same graphs need
not. Centring moves from the Gram to the operator, :math:`\operatorname{tr}(P\,JGJ) = \langle JPJ, G\rangle`, so a
repetition costs inner products only. A test asserts that both give the same excess and the same verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spectral_probe.graph.bases import GraphBases, eigenbasis
from spectral_probe.graph.filters import graph_operator, heat_kernel
from spectral_probe.profiles.bootstrap import Interval, percentile_interval, resampled_means
from spectral_probe.profiles.verdict import judge
from spectral_probe.spectrum.bands import SAME_EIGENVALUE, Bands
from spectral_probe.spectrum.nulls import MIN_REFERENCES
from spectral_probe.types import IntArray

FloatArray = npt.NDArray[np.floating]
#: ``two-sided`` is the headline, ``one-sided`` the swap null with the user's own graph only.
NULLS = ("two-sided", "one-sided", "permutation", "cyclic")
QUARTER = "lowest quarter"
N_REFERENCES = 256


def operator_name(tau: float) -> str:
    """Return what the tables call the heat kernel at ``tau``."""
    return f"tau = {tau:g}"


def without_lowest(name: str) -> str:
    """Return what the tables call an operator that is 0 at λ = 0."""
    return f"{name}, without λ = 0"


def _responses(
    eigenvalues: FloatArray, taus: Sequence[float], has_quarter: bool, has_lowest_removed: bool
) -> dict[str, FloatArray]:
    """Return the response of each low-pass at the eigenvalues (r, m) of graphs of equal size."""
    responses = {operator_name(tau): heat_kernel(eigenvalues, tau) for tau in taus}
    if has_quarter:
        responses[QUARTER] = Bands.parse("rank:4").weights(eigenvalues)[..., 0]
    if has_lowest_removed:
        is_above = eigenvalues > SAME_EIGENVALUE
        responses |= {without_lowest(name): response * is_above for name, response in responses.items()}
    return responses


@dataclass(frozen=True, eq=False)
class Members:
    """The users of one repetition, grouped by length: all inputs of the excess except their Grams."""

    n: int
    groups: list[_Group]


@dataclass(frozen=True, eq=False)
class _Group:
    length: int
    indices: IntArray  # of the users of this length, in the repetition
    references: IntArray  # indices of their references
    is_reference: FloatArray
    count: FloatArray
    operators: FloatArray  # (k, J, m²), centred like the Gram
    operator_sum: FloatArray  # (J, m²) over the references
    trace: FloatArray  # (k, J) of the operators before centring
    total: FloatArray  # (k, J) sum of all their entries before centring


class LowPassProbe:
    """Low-pass operators of every user's graph, also cut to the lengths of shorter users.

    Parameters
    ----------
    bases : GraphBases, (n, T)
        Graphs of users with at least 4 targets and an edge.
    taus : sequence of float
        Diffusion times of the heat kernels.
    has_quarter : bool
        Whether the lowest quarter of the frequencies is an operator as well.
    has_lowest_removed : bool
        Whether every operator is also taken without the eigenspace of λ = 0, which is the root of the degree.
    is_raw : bool
        Keep the first position and the mean, like ``spectral_energy(drop_first=0, center=False)``.
    """

    def __init__(
        self,
        bases: GraphBases,
        *,
        taus: Sequence[float] = (5.0,),
        has_quarter: bool = False,
        has_lowest_removed: bool = False,
        is_raw: bool = False,
    ) -> None:
        self.lengths = bases.lengths
        self.drop_first, self.center = (0, False) if is_raw else (1, True)
        self.operators: tuple[str, ...] = ()
        self._tables: dict[int, tuple[IntArray, FloatArray, FloatArray, FloatArray]] = {}
        for length in np.unique(self.lengths):
            rows = np.flatnonzero(self.lengths >= length)
            adjacency = bases.adjacency[rows, self.drop_first : length, self.drop_first : length]
            values, vectors = eigenbasis(adjacency)
            responses = _responses(values, taus, has_quarter, has_lowest_removed)
            self.operators = tuple(responses)
            P = np.stack([graph_operator(vectors, h) for h in responses.values()], axis=1)
            trace, total = np.trace(P, axis1=-2, axis2=-1), P.sum(axis=(-2, -1))
            if self.center:
                mean = P.mean(axis=-1, keepdims=True)
                P = P - mean - mean.swapaxes(-1, -2) + mean.mean(axis=-2, keepdims=True)
            row_of_user = np.full(len(self.lengths), -1)
            row_of_user[rows] = np.arange(len(rows))
            self._tables[int(length)] = (row_of_user, P.reshape(*P.shape[:2], -1).astype(np.float32), trace, total)

    def members(self, users: IntArray, *, seed: int = 0) -> Members:
        """Group users (rows of the bases, repeats allowed) by length and draw their references like the probe."""
        lengths = self.lengths[users]
        groups = []
        for length in np.unique(lengths):
            row_of_user, P, trace, total = self._tables[int(length)]
            indices, references = np.flatnonzero(lengths == length), np.flatnonzero(lengths >= length)
            if len(references) > N_REFERENCES:
                generator = np.random.default_rng([seed, int(length)])
                references = np.sort(generator.choice(references, N_REFERENCES, replace=False))
            is_reference = np.isin(indices, references).astype(np.float32)
            count = len(references) - is_reference
            rows = row_of_user[users[indices]]
            distinct, times = np.unique(row_of_user[users[references]], return_counts=True)
            groups.append(
                _Group(
                    length=int(length),
                    indices=indices,
                    references=references,
                    is_reference=is_reference,
                    count=np.where(count >= MIN_REFERENCES, count, np.nan).astype(np.float32),
                    operators=P[rows],
                    operator_sum=np.tensordot(times.astype(np.float32), P[distinct], axes=1),
                    trace=trace[rows],
                    total=total[rows],
                )
            )
        return Members(len(users), groups)

    def excess(self, members: Members, grams: FloatArray, nulls: Sequence[str] = NULLS) -> dict[str, FloatArray]:
        """Return the excess of the low-pass share over each null, (n, n_layers, J), from Grams (n, n_layers, T, T)."""
        n, n_layers = grams.shape[:2]
        result = {name: np.empty((n, n_layers, len(self.operators)), dtype=np.float32) for name in nulls}
        grams = grams[:, :, self.drop_first :, self.drop_first :]
        if self.center:
            # Centring a block removes any a_s + a_t. Removing it here keeps precision when the mean vector is large.
            mean = grams.mean(axis=-1, keepdims=True)
            grams = grams - mean - mean.swapaxes(-1, -2) + mean.mean(axis=-2, keepdims=True)
        totals = self._leading_totals(grams)
        summed = self._reference_sums(members, grams, totals)
        for number, group in enumerate(members.groups):
            m = group.length - self.drop_first
            G, scale = grams[group.indices, :, :m, :m], 1.0 / totals[group.indices, :, m - 1]
            g = G.reshape(*G.shape[:2], -1) * scale[..., None]
            states = summed[:, number, :m, :m].reshape(n_layers, -1)
            P, is_reference = group.operators, group.is_reference[:, None, None]
            count = group.count[:, None, None]
            low = np.matmul(g, P.swapaxes(1, 2))
            own_graph = np.matmul(P, states.T).swapaxes(1, 2)
            if "two-sided" in nulls:
                # Sums over the other users' graphs and states: all references minus the user, if among them.
                own_states = np.matmul(g, group.operator_sum.T)
                both = states @ group.operator_sum.T - is_reference * (own_graph + own_states - low)
                one_side = own_graph - is_reference * low + own_states - is_reference * low
                null = one_side / count - both / count**2
                result["two-sided"][group.indices] = low - null
            if "one-sided" in nulls:
                result["one-sided"][group.indices] = low - (own_graph - is_reference * low) / count
            if "permutation" in nulls:
                result["permutation"][group.indices] = low - self._permutation(g, group, m)
            if "cyclic" in nulls:
                circulant = m * m * np.matmul(_circulant(g, m), _circulant(P, m).swapaxes(1, 2))
                result["cyclic"][group.indices] = low - (circulant - low) / (m - 1)
        return result

    def _leading_totals(self, grams: FloatArray) -> FloatArray:
        """Return the trace of every leading block after centring, (n, n_layers, T)."""
        diagonal = np.diagonal(grams, axis1=-2, axis2=-1)
        trace = np.cumsum(diagonal, axis=-1, dtype=np.float64)
        if not self.center:
            return trace
        T = grams.shape[-1]
        below = (2.0 * np.tril(np.ones((T, T)), -1) + np.eye(T)).astype(np.float32)
        block_sum = np.cumsum(np.einsum("nlst,st->nls", grams, below), axis=-1, dtype=np.float64)
        return trace - block_sum / np.arange(1, T + 1)

    def _reference_sums(self, members: Members, grams: FloatArray, totals: FloatArray) -> FloatArray:
        """Return the sum of the references' Grams of unit trace for every length, (n_layers, n_lengths, T, T)."""
        n, n_layers, T = grams.shape[:3]
        weights = np.zeros((n_layers, len(members.groups), n), dtype=np.float32)
        for number, group in enumerate(members.groups):
            rows = group.references
            weights[:, number, rows] = 1.0 / totals[rows, :, group.length - self.drop_first - 1].T
        # One product for all lengths; entries outside the leading block of a length are never read.
        sums = [weights[layer] @ grams[:, layer].reshape(n, -1) for layer in range(n_layers)]
        return np.stack(sums).reshape(n_layers, -1, T, T)

    def _permutation(self, g: FloatArray, group: _Group, m: int) -> FloatArray:
        entry_sum = np.zeros(g.shape[:2]) if self.center else g.sum(axis=-1)
        b = (entry_sum - 1.0) / (m * (m - 1))
        spread = group.total - group.trace
        return np.asarray(group.trace[:, None] / m + b[..., None] * spread[:, None])


def _circulant(flat: FloatArray, m: int) -> FloatArray:
    """Return the mean over each cyclic diagonal of matrices (…, m²), (…, m)."""
    s = np.arange(m)
    positions = s[None, :] * m + (s[:, None] + s[None, :]) % m
    return np.asarray(flat[..., positions].mean(axis=-1))


class Judge:
    """Intervals and verdicts of many columns at once, with the probe's own resamples."""

    def __init__(self, *, n_bootstrap: int = 1000) -> None:
        self.n_bootstrap = n_bootstrap
        self._counts: dict[tuple[int, int], FloatArray] = {}

    def counts(self, n: int, seed: int) -> FloatArray:
        """Return how often every user is in each resample, divided by n, (n_bootstrap, n)."""
        if (n, seed) not in self._counts:
            self._counts[n, seed] = resampled_means(np.eye(n), n_bootstrap=self.n_bootstrap, seed=seed)
        return self._counts[n, seed]

    def __call__(self, excess: FloatArray, *, seed: int) -> dict[str, npt.NDArray]:
        """Return statistics of every last layer and operator, (n_layers − 1, J), layer 0 being ``embed``."""
        values = excess.astype(np.float64)
        present = ~np.isnan(values[:, 0, 0])
        n = int(present.sum())
        shape = (values.shape[1] - 1, values.shape[2])
        known = np.where(present[:, None, None], values, 0.0)
        mean = known.sum(axis=0) / n
        deviation = np.where(present[:, None, None], values - mean, 0.0)
        z = mean / np.sqrt((deviation**2).sum(axis=0) / (n - 1) / n)
        weights = self.counts(len(values), seed)
        flat = weights @ known.reshape(len(values), -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = (flat / (weights @ present.astype(float))[:, None]).reshape(-1, *values.shape[1:])
            ratios, value = resampled[:, 1:] / resampled[:, :1], mean[1:] / mean[:1]
        embed_low, embed_high = percentile_interval(resampled[:, 0])
        low, high = percentile_interval(ratios)
        verdict = np.empty(shape, dtype=object)
        for layer, j in np.ndindex(shape):
            embed = Interval(mean[0, j], embed_low[j], embed_high[j])
            verdict[layer, j] = judge(embed, Interval(value[layer, j], low[layer, j], high[layer, j]), n).label
        return {
            "verdict": verdict,
            "users": np.full(shape, n),
            "embed_mean": np.broadcast_to(mean[0], shape),
            "last_mean": mean[1:],
            "embed_z": np.broadcast_to(z[0], shape),
            "last_z": z[1:],
            "embed_low": np.broadcast_to(embed_low, shape),
            "retention": value,
            "low": low,
            "high": high,
        }
