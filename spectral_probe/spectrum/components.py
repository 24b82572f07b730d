r"""The swap excess split into popularity, lag profile and taste.

The two-sided swap excess of a user, :math:`\operatorname{tr}((P_u - \bar P)(g_u - \bar g))` with
:math:`P = e^{-\tau L}`, is linear in P. With :math:`\tilde P_u` of the popularity-matched graphs it splits exactly, on
the same states:

- **popularity**: P replaced by :math:`\tilde P_u`.
- **lag**: the mean of each diagonal :math:`|i - j|` of :math:`P_u - \tilde P_u`; it says only how alike near and far
  positions are.
- **taste**: :math:`P_u - \tilde P_u` minus its lag profile: which items go together beyond their popularity.
- **whole**: P itself, the sum of the three.

Source: ours; the paper has no such split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, ShapeError
from spectral_probe.graph.bases import GraphBases, groups_by_length, inverse_sqrt
from spectral_probe.graph.filters import graph_operator, heat_kernel, heat_operator, heat_operators
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.graph.threads import for_each
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.gram_algebra import centre
from spectral_probe.spectrum.nulls import MIN_REFERENCES
from spectral_probe.storage.atomic import write_npz
from spectral_probe.storage.cache import only_a_cache
from spectral_probe.storage.hashing import digest
from spectral_probe.storage.reading import read_npz
from spectral_probe.types import FloatArray, IntArray

Treatment = Literal["plain", "rows", "residual"]
COMPONENTS = ("whole", "popularity", "lag", "taste")
#: Diffusion time of the components: from 2 on, the split is no longer calibrated.
COMPONENT_TAU = 1.0
#: From so many distinct lengths on, the weights follow a quadratic in the logarithm of the length.
MIN_LENGTHS_OF_FIT = 5
#: A centred Gram with less than this part of the uncentred energy is rounding, not signal.
MIN_CENTRED_ENERGY = 1e-5
#: Users of one length whose operators are held at once.
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class ComponentOperators:
    r"""The graph side of the components: it depends on the data set only, and is computed once.

    Attributes
    ----------
    bases : GraphBases, (n, T)
        Local graphs of the measured nodes.
    matched : PopularityMatch
    tau : float
    references : {length: (m,) int}
        Users whose leading nodes are the references of users of that length.
    popularity : (n, T, T)
        :math:`\tilde P_u` of each user; 0 where padded.
    sums : {length: (2, T, T)}
        Sums over the references of :math:`P` and :math:`\tilde P` of their leading nodes.
    variance : {length: float}
        :math:`E \lVert J (D - \bar D) J \rVert_F^2 / (T - 1)^2` over the references, with D the operator of taste.
    """

    bases: GraphBases
    matched: PopularityMatch
    tau: float
    references: dict[int, IntArray]
    popularity: FloatArray
    sums: dict[int, FloatArray]
    variance: dict[int, float]

    @classmethod
    def build(
        cls,
        bases: GraphBases,
        matched: PopularityMatch,
        *,
        tau: float = COMPONENT_TAU,
        n_references: int = 256,
        seed: int = 0,
        cache_dir: Path | None = None,
    ) -> ComponentOperators:
        """Compute the operators of all users, or read them from ``cache_dir``.

        Raises
        ------
        ShapeError
            If ``matched`` is of other nodes than ``bases``.
        """
        n, T = bases.eigenvalues.shape
        if len(matched.nodes) != n or (matched.lengths[bases.lengths > 1] < bases.lengths[bases.lengths > 1]).any():
            raise ShapeError(
                f"matched must have the nodes of the {n} graphs; got {matched.nodes.shape} nodes for graphs of up to "
                f"{T}. Draw it for the same items."
            )
        references = {
            length: references_of(bases.lengths, length, n_references, seed)
            for length, _ in groups_by_length(np.where(bases.lengths > 1, bases.lengths, 0))
        }
        path = None
        if cache_dir is not None:
            key = digest([repr((tau, n_references, seed, bases.adjacency.shape)), bases.adjacency, matched.key])
            path = cache_dir / f"matched-{key[:32]}.npz"
        stored = None if path is None else _read(path, references, (n, T, T))
        if stored is None:
            (stored,) = _compute(bases, matched, (tau,), references)
            if path is not None:
                popularity, sums, variance = stored
                lengths = sorted(references)
                arrays = {f"sums.{length}": sums[length] for length in lengths}
                with only_a_cache(path):
                    write_npz(path, {**arrays, "popularity": popularity, "variance": [variance[m] for m in lengths]})
        return cls(bases, matched, tau, references, *stored)

    def at_taus(self, taus: Sequence[float]) -> dict[float, ComponentOperators]:
        """Return the same operators at other diffusion times, computed together: times that double cost little."""
        computed = _compute(self.bases, self.matched, taus, self.references)
        return {
            tau: replace(self, tau=tau, popularity=popularity, sums=sums, variance=variance)
            for tau, (popularity, sums, variance) in zip(taus, computed, strict=True)
        }

    def whole_at(self, tau: float) -> ComponentOperators:
        """Return operators of the whole alone at another diffusion time, without popularity-matched graphs."""
        sums = {
            length: heat_operator(self.bases.adjacency[pool, :length, :length], tau).sum(axis=0)
            for length, pool in self.references.items()
        }
        return replace(
            self,
            tau=tau,
            popularity=np.zeros_like(self.popularity),
            sums={length: np.stack([P, np.zeros_like(P)]) for length, P in sums.items()},
        )

    @property
    def weights(self) -> FloatArray:
        """Weight of each user in a mean, (n,): the inverse of the noise variance at the length of their graph."""
        return graph_weights(np.where(self.bases.lengths > 1, self.bases.lengths, 0), self.variance)

    def of_users(self, rows: IntArray, length: int) -> FloatArray:
        """Return the operators of some users of one length, (m, 4, T, T) in the order of :data:`COMPONENTS`."""
        values, vectors = self.bases.eigenvalues[rows, :length], self.bases.eigenvectors[rows, :length, :length]
        P = graph_operator(vectors, heat_kernel(values, self.tau))
        return split_operators(P, self.popularity[rows, :length, :length])

    def reference_sums(self, length: int, is_reference: npt.NDArray[np.bool_]) -> FloatArray:
        """Return the sums over those references of a length that are usable, (4, T, T).

        Parameters
        ----------
        is_reference : (m,) bool
            Which of ``references[length]`` are.
        """
        P, popularity = self.sums[length]
        lost = self.references[length][~is_reference]
        if lost.size:
            P = P - heat_operator(self.bases.adjacency[lost, :length, :length], self.tau).sum(axis=0)
            popularity = popularity - self.matched.heat(self.tau, length, lost).sum(axis=0)
        return split_operators(P, popularity)


def references_of(lengths: IntArray, length: int, n_references: int, seed: int) -> IntArray:
    """Return at most ``n_references`` users with at least ``length`` nodes, drawn once per length."""
    pool = np.flatnonzero(lengths >= length)
    if len(pool) > n_references:
        pool = np.sort(np.random.default_rng([seed, length]).choice(pool, n_references, replace=False))
    return pool


def _compute(
    bases: GraphBases, matched: PopularityMatch, taus: Sequence[float], references: Mapping[int, IntArray]
) -> list[tuple[FloatArray, dict[int, FloatArray], dict[int, float]]]:
    """Return popularity, sums and variance at each diffusion time."""
    n, T = bases.eigenvalues.shape
    popularity = np.zeros((len(taus), n, T, T))
    sums: list[dict[int, FloatArray]] = [{} for _ in taus]
    variance: list[dict[int, float]] = [{} for _ in taus]

    def of_length(length: int) -> None:
        users, pool = np.flatnonzero(bases.lengths == length), references[length]
        rows = np.union1d(users, pool)
        matched_operators = matched.heats(taus, length, rows)
        popularity[:, users, :length, :length] = matched_operators[:, np.searchsorted(rows, users)]
        operators = heat_operators(bases.adjacency[pool, :length, :length], taus)
        for at, (P, P_matched) in enumerate(
            zip(operators, matched_operators[:, np.searchsorted(rows, pool)], strict=True)
        ):
            sums[at][length] = np.stack([P.sum(axis=0), P_matched.sum(axis=0)])
            variance[at][length] = _noise_variance(split_operators(P, P_matched)[:, COMPONENTS.index("taste")])

    # Longest first: the last thread to finish has little left.
    for_each(of_length, sorted(references, reverse=True))
    return list(zip(popularity, sums, variance, strict=True))


def _read(
    path: Path, references: Mapping[int, IntArray], shape: tuple[int, ...]
) -> tuple[FloatArray, dict[int, FloatArray], dict[int, float]] | None:
    try:
        names = {f"sums.{length}": ("f", 3) for length in references}
        stored = read_npz(path, {"popularity": ("f", len(shape)), "variance": ("f", 1), **names})
    except (OSError, ValueError):
        return None
    popularity, variance = stored["popularity"], stored["variance"]
    sums = {length: stored[f"sums.{length}"] for length in references}
    is_whole = all(total.shape == (2, length, length) for length, total in sums.items())
    if popularity.shape != shape or len(variance) != len(references) or not is_whole:
        return None
    return popularity, sums, dict(zip(sorted(references), variance.tolist(), strict=True))


def component_excess(
    grams: LayerGrams, operators: ComponentOperators, *, treatment: Treatment
) -> tuple[dict[str, FloatArray], npt.NDArray[np.bool_]]:
    r"""Return the swap excess of every component.

    Parameters
    ----------
    grams : LayerGrams, (n, n_layers, T, T)
        Of the measured nodes; see :meth:`spectral_probe.spectrum.nodes.MeasuredNodes.select`.
    operators : ComponentOperators
    treatment : {"plain", "rows", "residual"}
        The states as they are, scaled to unit norm, or without what popularity explains.

    Returns
    -------
    excess : {component: (n, n_layers)}
        NaN for users without variation at some layer, and for all users of a length with fewer than 20 references.
    is_usable : (n,) bool
        Whether the states of each user vary over the positions at every layer.

    Raises
    ------
    ConfigError
        If the Grams have no treated states and ``treatment`` needs them.
    """
    values = grams.treated if treatment == "residual" else grams.grams
    if values is None:
        raise ConfigError(
            "These Grams have no treated states. Capture them with targets= and item_counts=, or use treatment='rows'."
        )
    n, n_layers, T = values.shape[:3]
    traces = np.empty((n_layers, n, T))

    def unit(layer: int) -> FloatArray:
        G = values[:, layer].astype(np.float64)
        if treatment != "rows":
            return G
        scale = inverse_sqrt(np.diagonal(G, axis1=1, axis2=2))
        return np.asarray(scale[:, :, None] * G * scale[:, None, :])

    for_each(lambda layer: np.copyto(traces[layer], centred_traces(unit(layer))), range(n_layers))
    is_usable = np.asarray(np.isfinite(traces).all(axis=0))
    excess = {name: np.full((n, n_layers), np.nan) for name in COMPONENTS}
    groups = list(_groups(operators, is_usable))

    def measure(layer: int) -> None:
        G = unit(layer)
        for group in groups:
            for name, column in zip(COMPONENTS, group.excess(G, traces[layer]).T, strict=True):
                excess[name][group.rows, layer] = column

    for_each(measure, range(n_layers))
    at = np.arange(n), np.maximum(grams.lengths, 1) - 1
    return excess, is_usable[at]


def centred_traces(G: FloatArray) -> FloatArray:
    r"""Return :math:`\operatorname{tr}(J G_m J)` of the leading m rows, (n, T) for m = 1 … T; NaN where it is rounding.

    From cumulative sums, without forming a block.
    """
    diagonal = np.diagonal(G, axis1=-2, axis2=-1)
    trace = np.cumsum(diagonal, axis=-1)
    block_sum = np.cumsum(2 * np.tril(G, -1).sum(axis=-1) + diagonal, axis=-1)
    centred = trace - block_sum / np.arange(1, G.shape[-1] + 1)
    return np.where(centred > MIN_CENTRED_ENERGY * trace, centred, np.nan)


@dataclass(frozen=True, eq=False)
class _Group:
    """Users of one length with their operators and those of their references, centred."""

    rows: IntArray
    length: int
    of_users: FloatArray  # (m, 4, T * T)
    total: FloatArray  # (4, T * T)
    references: IntArray
    is_reference: FloatArray  # (m,)

    def excess(self, G: FloatArray, traces: FloatArray) -> FloatArray:
        r"""Return :math:`\operatorname{tr}((X_u - \bar X)(g_u - \bar g))` of one layer, (m, 4).

        Means are over the references without the user. G is not centred: the operators are, on both sides.
        """
        T = self.length
        scale = 1.0 / traces[self.references, T - 1]
        states = np.einsum("v,vst->st", scale, G[self.references, :T, :T]).ravel()
        own_states = G[self.rows, :T, :T].reshape(len(self.rows), T * T) / traces[self.rows, T - 1][:, None]
        own_own = np.einsum("mct,mt->mc", self.of_users, own_states)
        own_all, all_own, all_all = self.of_users @ states, own_states @ self.total.T, self.total @ states
        # The user's own term leaves the sums over the references.
        inside = self.is_reference[:, None]
        count = len(self.references) - inside
        mean_states, mean_graph = own_all - inside * own_own, all_own - inside * own_own
        both = all_all - inside * (own_all + all_own - own_own)
        return np.asarray(own_own - (mean_states + mean_graph) / count + both / count**2)


def _groups(operators: ComponentOperators, is_usable: npt.NDArray[np.bool_]) -> Iterator[_Group]:
    """Yield the users who can be measured, by length, with their operators."""
    for length, pool in operators.references.items():
        is_reference = is_usable[pool, length - 1]
        references = pool[is_reference]
        rows = np.flatnonzero((operators.bases.lengths == length) & is_usable[:, length - 1])
        rows = rows[len(references) - np.isin(rows, references) >= MIN_REFERENCES]
        if not rows.size:
            continue
        total = centre(operators.reference_sums(length, is_reference)).reshape(len(COMPONENTS), -1)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            of_users = centre(operators.of_users(part, length)).reshape(len(part), len(COMPONENTS), -1)
            yield _Group(part, length, of_users, total, references, np.isin(part, references).astype(np.float64))


def split_operators(P: FloatArray, popularity: FloatArray) -> FloatArray:
    """Return the operators of all components, (…, 4, T, T) in the order of :data:`COMPONENTS`."""
    rest = P - popularity
    lag = lag_profile(rest)
    return np.stack([P, popularity, lag, rest - lag], axis=-3)


def lag_profile(operators: FloatArray) -> FloatArray:
    """Return (…, T, T) matrices with the mean of each diagonal :math:`|i - j|` in place of its entries."""
    T = operators.shape[-1]
    lag = np.abs(np.arange(T)[:, None] - np.arange(T)[None, :])
    profile = np.empty_like(operators)
    for distance in range(T):
        on_diagonal = lag == distance
        profile[..., on_diagonal] = operators[..., on_diagonal].mean(axis=-1, keepdims=True)
    return profile


def graph_weights(measured: IntArray, variance: Mapping[int, float]) -> FloatArray:
    """Return the weight of each user, the inverse of a smoothed noise variance at the measured length.

    The logarithm of the variance is smoothed by a quadratic in the logarithm of the length; with fewer than 5 lengths
    it is constant.

    Parameters
    ----------
    measured : (n,) int
        0 for users who are not measured; their weight is 0.
    variance : {length: variance}
        As it is measured at each length; not finite or not positive values are left out.
    """
    weights = np.zeros(len(measured))
    known = sorted(T for T, value in variance.items() if np.isfinite(value) and value > 0)
    if not known:
        weights[measured > 0] = 1.0
        return weights
    lengths, logs = np.log(known), np.log([variance[T] for T in known])
    degree = 2 if len(known) >= MIN_LENGTHS_OF_FIT else 0
    fit = np.polynomial.Polynomial.fit(lengths, logs, degree)
    weights[measured > 0] = np.exp(-fit(np.log(measured[measured > 0])))
    return weights


def _noise_variance(taste: FloatArray) -> float:
    r"""Return :math:`E \lVert J (D - \bar D) J \rVert_F^2 / (T - 1)^2` over graphs (m, T, T)."""
    T = taste.shape[-1]
    if len(taste) < 2 or T < 2:
        return float("nan")
    return float(np.square(centre(taste - taste.mean(axis=0))).sum(axis=(1, 2)).mean() / (T - 1) ** 2)
