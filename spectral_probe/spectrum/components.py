r"""The swap excess split into popularity, lag profile and taste, from saved Grams.

The two-sided swap excess of a user, :math:`\operatorname{tr}((P_u - \bar P)(g_u - \bar g))` with
:math:`P = e^{-\tau L}`, is linear in P. With :math:`\tilde P_u` of the popularity-matched graphs it splits exactly, on
the same states:

- **popularity**: P replaced by :math:`\tilde P_u`.
- **lag**: the mean of each diagonal :math:`|i - j|` of :math:`P_u - \tilde P_u`; it says only how alike near and far
  positions are.
- **taste**: :math:`P_u - \tilde P_u` minus its lag profile: which items go together beyond their popularity.
- **whole**: P itself, the sum of the three.

Nodes are the items that the rows read (``carried``) or the items that they predict (``foreseen``, as in the paper).

No verdict is drawn from these numbers: the states still contain what a popularity residual would remove, so a strong
popularity axis leaves a little in taste where the match is coarse (see ``match_error``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.graph.filters import heat_operator
from spectral_probe.graph.item_graph import ItemGraph, OwnUser
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.graph.threads import for_each
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import MIN_CENTRED_ENERGY, MIN_TARGETS
from spectral_probe.spectrum.gram_algebra import prepare_gram
from spectral_probe.spectrum.nulls import MIN_REFERENCES
from spectral_probe.types import FloatArray, IntArray

Nodes = Literal["carried", "foreseen"]
COMPONENTS = ("whole", "popularity", "lag", "taste")
#: Diffusion time of the components: from 2 on, the split is no longer calibrated.
COMPONENT_TAU = 1.0
#: From so many distinct lengths on, the weights follow a quadratic in the logarithm of the length.
MIN_LENGTHS_OF_FIT = 5


@dataclass(frozen=True, eq=False)
class ComponentExcess:
    """Excess of every component, user by user and layer by layer.

    Attributes
    ----------
    nodes : {"carried", "foreseen"}
    excess : {component: (n, n_layers)}
        NaN for users who are not measured.
    weights : (n,)
        Weight of each user in a mean, from the graphs alone: the inverse of the noise variance at the measured length;
        0 for users who are not measured.
    measured : (n,) int
        Nodes that each user is measured on; 0 for users who are not measured.
    n_nodes : (n,) int
        Nodes that each user has: distinct items after the drop.
    skipped : {reason: count}
    match_error : float
        Mean :math:`|\\log|` count ratio of the popularity match.
    layer_names, layer_states : tuple of str
    settings : dict
    """

    nodes: Nodes
    excess: dict[str, FloatArray]
    weights: FloatArray
    measured: IntArray
    n_nodes: IntArray
    skipped: dict[str, int]
    match_error: float
    layer_names: tuple[str, ...]
    layer_states: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def is_measured(self) -> npt.NDArray[np.bool_]:
        """Whether each user is measured, (n,)."""
        return np.asarray(self.measured > 0)

    @property
    def n_effective(self) -> float:
        r"""Effective number of users, :math:`(\sum w)^2 / \sum w^2`."""
        return float(self.weights.sum() ** 2 / np.square(self.weights).sum())

    def mean(self, component: str) -> FloatArray:
        """Return the weighted mean excess of a component at each layer, (n_layers,)."""
        if component not in self.excess:
            raise ConfigError(f"component must be one of {list(COMPONENTS)}; got {component!r}.")
        rows = self.is_measured
        return np.asarray(np.average(self.excess[component][rows], axis=0, weights=self.weights[rows]))


def component_excess(
    grams: LayerGrams,
    graph: ItemGraph,
    *,
    nodes: Nodes = "carried",
    own_user: OwnUser = "drop",
    tau: float = COMPONENT_TAU,
    drop_first: int = 1,
    normalize_rows: bool = True,
    n_pseudo: int = 32,
    n_references: int = 256,
    seed: int = 0,
) -> ComponentExcess:
    r"""Split the swap excess of saved Grams into its components.

    An item that comes again is measured at its first position only. A user is measured on their leading nodes, as many
    as at least 20 others have.

    Parameters
    ----------
    grams : LayerGrams
        With ``users`` and ``targets``; of a causal model, or captured prefix by prefix.
    graph : ItemGraph
        Of the training interactions.
    nodes : {"carried", "foreseen"}
        ``carried``: row t stands for the item it reads. ``foreseen``: for the item it predicts.
    own_user : {"drop", "keep"}
    tau : float
    drop_first : int
        Leading rows to remove, at least 1: the item that the first row reads is not among the targets.
    normalize_rows : bool
        Scale every state to unit norm before the centring.
    n_pseudo, n_references, seed : int
        See :meth:`PopularityMatch.draw` and :func:`spectral_energy`.

    Raises
    ------
    ConfigError
        If an option is out of range, or the Grams have no users or targets, or their rows contain later items.
    DataError
        If no user can be measured.

    Notes
    -----
    Source: ours. Cost beside that of the match: O(n_layers · T²) per user and reference.
    """
    targets, users = _checked(grams, nodes, drop_first, n_references)
    items, index, n_nodes = distinct_nodes(targets, grams.lengths, nodes=nodes, drop_first=drop_first)
    adjacency = graph.local_adjacency(items, n_nodes, users=users, own_user=own_user)
    match = PopularityMatch.draw(graph, items, n_nodes, users, own_user=own_user, n_pseudo=n_pseudo, seed=seed)
    measured = measured_lengths(n_nodes)
    too_short = measured < MIN_TARGETS - drop_first
    edgeless = ~too_short & ~_has_edges(adjacency, measured)
    measured = np.where(too_short | edgeless, 0, measured)
    excess = {name: np.full((len(grams), len(grams.layer_names)), np.nan) for name in COMPONENTS}
    variance: dict[int, float] = {}

    def measure(T: int) -> None:
        group, pool = np.flatnonzero(measured == T), _pool(n_nodes, T, n_references, seed)
        rows = np.union1d(group, pool)
        states = _unit_traces(grams.grams, index, rows, T, normalize_rows=normalize_rows)
        operators = _operators(adjacency[rows, :T, :T], match.heat(tau, T, rows), tau)
        is_reference = np.isin(rows, pool) & np.isfinite(states).all(axis=(1, 2, 3))
        variance[T] = _noise_variance(operators["taste"][is_reference])
        for name, operator in operators.items():
            excess[name][group] = _two_sided(operator, states, is_reference)[np.searchsorted(rows, group)]

    for_each(measure, np.unique(measured[measured > 0]).tolist())
    flat = (measured > 0) & ~np.isfinite(excess["whole"]).all(axis=1)
    measured = np.where(flat, 0, measured)
    for values in excess.values():
        values[flat] = np.nan
    skipped = {
        "too few nodes that enough others have": int(too_short.sum()),
        "local graph without an edge": int(edgeless.sum()),
        "no variation over positions at some layer, or too few references": int(flat.sum()),
    }
    if not measured.any():
        raise DataError(f"None of the {len(grams)} users can be measured: {skipped}. Probe more or longer histories.")
    settings = {"tau": tau, "own_user": own_user, "drop_first": drop_first, "normalize_rows": normalize_rows}
    return ComponentExcess(
        nodes=nodes,
        excess=excess,
        weights=graph_weights(measured, variance),
        measured=measured,
        n_nodes=n_nodes,
        skipped=skipped,
        match_error=match.match_error,
        layer_names=tuple(grams.layer_names),
        layer_states=tuple(grams.layer_states),
        settings={**settings, "n_pseudo": n_pseudo, "n_references": n_references, "seed": seed},
    )


def _checked(grams: LayerGrams, nodes: str, drop_first: int, n_references: int) -> tuple[IntArray, IntArray]:
    """Return the targets and users of the Grams, or raise a ConfigError."""
    if nodes not in ("carried", "foreseen"):
        raise ConfigError(f"nodes must be 'carried' or 'foreseen'; got {nodes!r}.")
    if not 1 <= drop_first < MIN_TARGETS:
        raise ConfigError(f"drop_first must lie in 1…{MIN_TARGETS - 1}; got {drop_first}.")
    if n_references < MIN_REFERENCES:
        raise ConfigError(f"n_references must be at least {MIN_REFERENCES}; got {n_references}.")
    if grams.targets is None or grams.users is None:
        raise ConfigError("Components need the targets and users of the Grams; capture them with targets= and users=.")
    if not grams.is_causal:
        raise ConfigError("The rows of these Grams contain later items, so their leading blocks cannot be compared.")
    return grams.targets, grams.users


def _pool(n_nodes: IntArray, T: int, n_references: int, seed: int) -> IntArray:
    """Return at most ``n_references`` users with at least T nodes, drawn once per length."""
    pool = np.flatnonzero(n_nodes >= T)
    if len(pool) > n_references:
        pool = np.sort(np.random.default_rng([seed, T]).choice(pool, n_references, replace=False))
    return pool


def distinct_nodes(
    targets: IntArray, lengths: IntArray, *, nodes: Nodes, drop_first: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return the nodes of each user after the drop, each item at its first position only.

    Row t reads :math:`v_t` and predicts :math:`v_{t+1}`, which is target t; so row t reads target t − 1.

    Returns
    -------
    items : (n, T − drop_first) int
        Right-padded with 0.
    index : (n, T − drop_first) int
        Row of the Gram that belongs to each node.
    n_nodes : (n,) int
    """
    width = targets.shape[1] - drop_first
    shift = drop_first - 1 if nodes == "carried" else drop_first
    items, index = np.zeros((len(targets), width), dtype=np.int64), np.zeros((len(targets), width), dtype=np.int64)
    n_nodes = np.zeros(len(targets), dtype=np.int64)
    for u, length in enumerate(np.maximum(lengths - drop_first, 0).tolist()):
        history = targets[u, shift : shift + length]
        first = np.sort(np.unique(history, return_index=True)[1])
        n_nodes[u] = len(first)
        items[u, : len(first)] = history[first]
        index[u, : len(first)] = first + drop_first
    return items, index, n_nodes


def measured_lengths(n_nodes: IntArray, *, n_others: int = MIN_REFERENCES) -> IntArray:
    """Return, for each user, the most leading nodes that at least ``n_others`` other users have too; 0 for none."""
    falling = -np.sort(-n_nodes)
    longest = int(falling[n_others]) if len(falling) > n_others else 0
    return np.asarray(np.minimum(n_nodes, longest))


def graph_weights(measured: IntArray, variance: Mapping[int, float]) -> FloatArray:
    """Return the weight of each user, the inverse of a smoothed noise variance at the measured length.

    The logarithm of the variance is smoothed by a quadratic in the logarithm of the length; with fewer than 5 lengths
    it is constant.

    Parameters
    ----------
    measured : (n,) int
        0 for users who are not measured; their weight is 0.
    variance : {length: variance}
        As it is found at each length; not finite or not positive values are left out.
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


def lag_profile(operators: FloatArray) -> FloatArray:
    """Return (…, T, T) matrices with the mean of each diagonal :math:`|i - j|` in place of its entries."""
    T = operators.shape[-1]
    lag = np.abs(np.arange(T)[:, None] - np.arange(T)[None, :])
    profile = np.empty_like(operators)
    for distance in range(T):
        on_diagonal = lag == distance
        profile[..., on_diagonal] = operators[..., on_diagonal].mean(axis=-1, keepdims=True)
    return profile


def _operators(adjacency: FloatArray, matched: FloatArray, tau: float) -> dict[str, FloatArray]:
    """Return the operator of each component, (m, T, T)."""
    whole = heat_operator(adjacency, tau)
    rest = whole - matched
    lag = lag_profile(rest)
    return {"whole": whole, "popularity": matched, "lag": lag, "taste": rest - lag}


def _unit_traces(
    grams: npt.NDArray[np.float32], index: IntArray, rows: IntArray, T: int, *, normalize_rows: bool
) -> FloatArray:
    """Return the treated Grams of leading blocks with trace 1, (m, n_layers, T, T); NaN without variation."""
    at = index[rows, :T]
    blocks = grams[rows[:, None, None], :, at[:, :, None], at[:, None, :]].transpose(0, 3, 1, 2)
    plain = prepare_gram(blocks, drop_first=0, center=False, normalize_rows=normalize_rows)
    centred = prepare_gram(plain, drop_first=0, center=True, normalize_rows=False)
    before, after = (np.trace(G, axis1=-2, axis2=-1) for G in (plain, centred))
    after = np.where(after > MIN_CENTRED_ENERGY * before, after, np.nan)
    return np.asarray(centred / after[..., None, None])


def _two_sided(operator: FloatArray, states: FloatArray, is_reference: npt.NDArray[np.bool_]) -> FloatArray:
    r"""Return :math:`\operatorname{tr}((X_u - \bar X)(g_u - \bar g))` of each user and layer, (m, n_layers).

    Means are over the references without the user; NaN with fewer than 20 of them.
    """
    is_in = is_reference.astype(np.float64)
    count = is_in.sum() - is_in
    count = np.where(count >= MIN_REFERENCES, count, np.nan)
    sums = operator[is_reference].sum(axis=0), states[is_reference].sum(axis=0)
    operator_of_user, states_of_user = (np.where(np.isfinite(x), x, 0.0) for x in (operator, states))
    mean_operator = (sums[0] - is_in[:, None, None] * operator_of_user) / count[:, None, None]
    mean_states = (sums[1] - is_in[:, None, None, None] * states_of_user) / count[:, None, None, None]
    return np.asarray(np.einsum("mst,mlst->ml", operator - mean_operator, states - mean_states))


def _noise_variance(taste: FloatArray) -> float:
    r"""Return :math:`E \lVert J (D - \bar D) J \rVert_F^2 / (T - 1)^2` over graphs (m, T, T)."""
    T = taste.shape[-1]
    if len(taste) < 2 or T < 2:
        return float("nan")
    deviation = prepare_gram(taste - taste.mean(axis=0), drop_first=0, center=True, normalize_rows=False)
    return float(np.square(deviation).sum(axis=(1, 2)).mean() / (T - 1) ** 2)


def _has_edges(adjacency: FloatArray, lengths: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether the graph of the leading nodes of each user has an edge, (n,)."""
    inside = np.arange(adjacency.shape[-1]) < lengths[:, None]
    return np.asarray((adjacency * (inside[:, :, None] & inside[:, None, :])).any(axis=(1, 2)))
