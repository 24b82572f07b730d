r"""How often, and by how much, a filter along time lowers the Rayleigh quotient of saved states on local graphs.

.. math:: q_u = \frac{\operatorname{tr}(L_u G_u)}{\operatorname{tr} G_u}, \qquad
          q'_u = \frac{\operatorname{tr}(L_u M G_u M^\top)}{\operatorname{tr}(M G_u M^\top)}

The Gram of the filtered states :math:`M H` is :math:`M G M^\top`, so saved Grams are enough and no model is run. The
change on a user's own graph is compared with the change of the same states on other users' graphs; only the difference
is specific to the user's own graph.

Source: FreLLM4Rec, Theorem 1 and Assumption 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frellm4rec.modules.butterworth import causal_operator, check_filter, two_sided_operator
from spectral_probe.errors import ConfigError, DataError, check_choice
from spectral_probe.graph.bases import groups_by_length, normalized_laplacian
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.bootstrap import Interval, mean_over_users, percentile_interval, resampled_means
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.energy import MIN_CENTRED_ENERGY, MIN_TARGETS
from spectral_probe.spectrum.gram_algebra import prepare_gram
from spectral_probe.spectrum.nulls import MIN_REFERENCES
from spectral_probe.types import FloatArray, IntArray

MODES = ("two_sided", "causal", "prefix")
#: How states are prepared: as for the headline value of the instrument, or not at all.
TREATMENTS: dict[str, dict[str, Any]] = {
    "headline": {"drop_first": 1, "center": True, "normalize_rows": False},
    "raw": {"drop_first": 0, "center": False, "normalize_rows": False},
}
#: Quotients below this are rounding error; a relative change from them has no meaning.
_SMALLEST_QUOTIENT = 1e-6
#: A relative change below this is rounding error of float32 Grams and does not count as a fall.
_SMALLEST_CHANGE = 1e-6
_N_REFERENCES = 256
#: The values of a user at a layer; ``before`` and ``after`` the filter.
_VALUES = ("before", "after", "other_falls", "other_change", "shuffled_before", "shuffled_after")
#: A correlation up to this size is rounding of one that is 0.
ROUNDING = 1e-9


@dataclass(frozen=True)
class RayleighReport:
    """What filtering does to the Rayleigh quotient, layer by layer, and how local in time the graphs are.

    Attributes
    ----------
    table : DataFrame
        One row per layer × mode × treatment. ``share_falls``: part of users whose quotient falls; ``change``: relative
        change :math:`(q' - q)/q`; ``other_*``: the same with the same states on other users' graphs; ``excess_*``: own
        minus other, paired; ``shuffled_change``: change of the quotient averaged over all orders of the nodes, i.e. on
        a graph that is independent of time. ``_low`` and ``_high`` are 95 % bootstrap intervals over users.
    locality : Interval
        Assumption 1: mean over users of the correlation of :math:`A_{ij}` with :math:`-|i - j|`.
    share_local : float
        Part of users whose correlation is positive.
    n_local : int
        Users whose graph has weights that differ.
    """

    table: pd.DataFrame
    locality: Interval
    share_local: float
    n_local: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, NaN as None."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        locality = {"value": self.locality.value, "low": self.locality.low, "high": self.locality.high}
        return {
            "locality": {**locality, "share_positive": self.share_local, "n_users": self.n_local},
            "rows": rows,
        }


def rayleigh_of_run(path: Path, **options: Any) -> RayleighReport:
    """Return the report of a finished run of ``spectral-probe analyze``; ``options`` as of :func:`rayleigh_report`.

    Raises
    ------
    DataError
        If the run or its Grams cannot be read.
    """
    run = AnalysisRun.open(path).grams_run()
    config, graph, grams = run.config(), run.load_graph(), run.load_captures().get("main")
    if grams is None or grams.targets is None or grams.users is None:
        raise DataError(f"{path} holds no main capture with its targets. Run `spectral-probe analyze` again.")
    stored = config["options"]
    options = {"seed": stored["seed"], "own_user": stored["own_user"], **options}
    labels = {"model": Path(str(grams.settings.get("model", config["model"]))).name, "dataset": config["dataset"]}
    return rayleigh_report(grams, graph, labels=labels, **options)


def rayleigh_report(
    grams: LayerGrams,
    graph: ItemGraph,
    *,
    cutoff: float = 0.3,
    order: int = 2,
    n_layers: int = 1,
    modes: Sequence[str] = MODES,
    own_user: str = "drop",
    labels: dict[str, str] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> RayleighReport:
    """Filter saved states and compare their Rayleigh quotients before and after.

    Parameters
    ----------
    grams : LayerGrams
        With users and targets.
    graph : ItemGraph
        Of the training interactions.
    cutoff, order
        Of the filter, see :func:`frellm4rec.modules.butterworth.butterworth_gain`.
    n_layers : int
        How many times the filter is applied.
    modes : sequence of {"two_sided", "causal", "prefix"}
        In ``prefix`` row t is the last row of the two-sided filter on the first t states.
    own_user : {"drop", "keep"}
        Whether the user's own co-occurrences count in their graph.
    labels : dict, optional
        Further columns of the table.
    n_bootstrap, seed
        Of the intervals; the seed also draws at most 256 other users per length.

    Raises
    ------
    ConfigError
        If an option is out of range.
    DataError
        If no user can be measured.
    """
    check_filter(cutoff, order)
    for mode in modes:
        check_choice("mode", mode, MODES)
    if n_layers < 1:
        raise ConfigError(f"n_layers must be at least 1; got {n_layers}.")
    adjacency = graph.local_adjacency(grams.targets, grams.lengths, users=grams.users, own_user=own_user)  # type: ignore[arg-type]
    rows = []
    for mode in modes:
        operators = {
            length: history_operator(length, mode, cutoff, order, n_layers)
            for length in np.unique(grams.lengths).tolist()
        }
        for treatment in TREATMENTS:
            measured = _measure(grams, adjacency, operators, treatment, seed)
            setting = {"mode": mode, "n_layers": n_layers, "cutoff": cutoff, "order": order, "treatment": treatment}
            for layer, values in enumerate(_summaries(measured, n_bootstrap, seed)):
                site = {"layer": layer, "layer_name": grams.layer_names[layer], "state": grams.layer_states[layer]}
                rows.append({**(labels or {}), **site, **setting, **values})
    correlations = temporal_locality(adjacency, grams.lengths)
    known = correlations[~np.isnan(correlations)]
    low, high = percentile_interval(resampled_means(known, n_bootstrap=n_bootstrap, seed=seed))
    interval = Interval(float(known.mean()), float(low), float(high))
    return RayleighReport(pd.DataFrame(rows), interval, float((known > ROUNDING).mean()), len(known))


def history_operator(T: int, mode: str, cutoff: float, order: int = 2, n_layers: int = 1) -> FloatArray:
    r"""Return the (T, T) matrix that ``n_layers`` filters in a row apply to a history of length T.

    ``prefix``: row t is the last row of :math:`M_t^n` with :math:`M_t` the two-sided operator of length t.
    """
    if mode == "prefix":
        rows = np.zeros((T, T))
        for t in range(1, T + 1):
            rows[t - 1, :t] = history_operator(t, "two_sided", cutoff, order, n_layers)[-1]
        return rows
    build = causal_operator if mode == "causal" else two_sided_operator
    return np.linalg.matrix_power(build(T, cutoff, order).numpy(), n_layers)


def temporal_locality(adjacency: FloatArray, lengths: IntArray) -> FloatArray:
    r"""Return each user's correlation of :math:`A_{ij}` with :math:`-|i - j|` over pairs of positions, (n,).

    NaN with fewer than 4 nodes or without weights that differ. ``adjacency`` is (n, T, T), ``lengths`` (n,).
    """
    correlations = np.full(len(lengths), np.nan)
    for length, rows in groups_by_length(lengths):
        if length < MIN_TARGETS:
            continue
        first, second = np.triu_indices(length, 1)
        weights = adjacency[rows][:, first, second]
        nearness = (first - second) - (first - second).mean()
        weights = weights - weights.mean(axis=1, keepdims=True)
        spread = np.sqrt((weights**2).sum(axis=1) * (nearness**2).sum())
        unknown = np.full(len(rows), np.nan)
        correlations[rows] = np.divide(weights @ nearness, spread, out=unknown, where=spread > 1e-12)
    return correlations


def _measure(
    grams: LayerGrams, adjacency: FloatArray, operators: dict[int, FloatArray], treatment: str, seed: int
) -> FloatArray:
    """Return, of users who are valid at every layer, the values that :data:`_VALUES` names, (6, n_layers, n_valid)."""
    options = TREATMENTS[treatment]
    drop = int(options["drop_first"])
    n, n_layers = grams.grams.shape[:2]
    values = np.full((len(_VALUES), n_layers, n), np.nan)
    for length, rows in groups_by_length(grams.lengths):
        if length < MIN_TARGETS:
            continue
        M, m = operators[length], length - drop
        laplacians, partners = _laplacians(adjacency, grams.lengths, length, drop, rows, seed)
        references = laplacians[len(rows) :].reshape(-1, m * m)
        has_edges = np.abs(laplacians[: len(rows)] - np.eye(m)).sum(axis=(1, 2)) > 0
        is_other = partners[None, :] != rows[:, None]
        for layer in range(n_layers):
            G = grams.grams[rows, layer, :length, :length].astype(np.float64)
            filtered = M @ G @ M.T
            pair = [_unit(prepare_gram(gram, **options), gram) for gram in (G, filtered)]
            before, after = ((laplacians[: len(rows)] * g).sum(axis=(1, 2)) for g in pair)
            is_valid = has_edges & np.isfinite(before + after) & (before > _SMALLEST_QUOTIENT)
            other = [g.reshape(-1, m * m) @ references.T for g in pair]
            falls = _mean_of_others(other[1] < other[0] * (1.0 - _SMALLEST_CHANGE), is_other)
            change = _mean_of_others(other[1] / np.maximum(other[0], _SMALLEST_QUOTIENT) - 1.0, is_other)
            shuffled = [_over_all_orders(laplacians[: len(rows)], g) for g in pair]
            for index, value in enumerate((before, after, falls, change, *shuffled)):
                values[index, layer, rows] = np.where(is_valid, value, np.nan)
    is_valid_everywhere = ~np.isnan(values[:2]).any(axis=(0, 1))
    if not is_valid_everywhere.any():
        raise DataError(
            f"No user of {n} can be measured ({treatment}): each needs {MIN_TARGETS} targets, an edge, and states that "
            "still vary after the filter. Use a higher cutoff, fewer layers, or longer histories."
        )
    return values[:, :, is_valid_everywhere]


def _laplacians(
    adjacency: FloatArray, lengths: IntArray, length: int, drop: int, rows: IntArray, seed: int
) -> tuple[FloatArray, IntArray]:
    """Return the Laplacians of ``rows`` and of other users' leading ``length`` targets, and the rows of these users."""
    pool = np.flatnonzero(lengths >= length)
    leading = adjacency[pool, drop:length, drop:length]
    pool = pool[leading.sum(axis=(1, 2)) > 0]
    if len(pool) > _N_REFERENCES:
        pool = np.sort(np.random.default_rng([seed, length]).choice(pool, _N_REFERENCES, replace=False))
    all_rows = np.concatenate([rows, pool])
    return normalized_laplacian(adjacency[all_rows, drop:length, drop:length]), pool


def _unit(G: FloatArray, untreated: FloatArray) -> FloatArray:
    """Return Grams of trace 1; NaN where the treatment left only rounding error."""
    trace = np.trace(G, axis1=1, axis2=2)
    untreated_trace = np.trace(untreated, axis1=1, axis2=2)
    has_energy = trace > MIN_CENTRED_ENERGY * untreated_trace
    return G / np.where(has_energy, trace, np.nan)[:, None, None]


def _mean_of_others(values: npt.NDArray[Any], is_other: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the mean over other users, (n,); NaN with fewer than 20 of them."""
    count = is_other.sum(axis=1)
    total = np.where(is_other, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count >= MIN_REFERENCES)


def _over_all_orders(L: FloatArray, g: FloatArray) -> FloatArray:
    r"""Return the mean of :math:`\operatorname{tr}(L P g P^\top)` over all permutations P, for Grams of trace 1."""
    m = L.shape[-1]
    on_diagonal = np.trace(L, axis1=1, axis2=2)
    b = (g.sum(axis=(1, 2)) - 1.0) / (m * (m - 1))
    return np.asarray(on_diagonal / m + b * (L.sum(axis=(1, 2)) - on_diagonal))


def _summaries(values: FloatArray, n_bootstrap: int, seed: int) -> list[dict[str, Any]]:
    """Return the means over users with their intervals, layer by layer; all layers use the same resamples."""
    before, after, other_falls, other_change, shuffled_before, shuffled_after = values
    change = after / before - 1.0
    falls = (change < -_SMALLEST_CHANGE).astype(np.float64)
    per_user = {
        "share_falls": falls,
        "change": change,
        "other_share_falls": other_falls,
        "other_change": other_change,
        "excess_share_falls": falls - other_falls,
        "excess_change": change - other_change,
    }
    stacked = np.moveaxis(np.stack(list(per_user.values())), -1, 0)
    means = mean_over_users(stacked)
    low, high = percentile_interval(resampled_means(stacked, n_bootstrap=n_bootstrap, seed=seed))
    summaries = []
    for layer in range(before.shape[0]):
        summary: dict[str, Any] = {
            "n_users": before.shape[1],
            "n_users_other": int((~np.isnan(other_change[layer])).sum()),
            "rayleigh_before": float(before[layer].mean()),
            "rayleigh_after": float(after[layer].mean()),
            "change_median": float(np.median(change[layer])),
            "shuffled_change": float(shuffled_after[layer].mean() / shuffled_before[layer].mean() - 1.0),
        }
        for index, name in enumerate(per_user):
            ends = {f"{name}_low": low[index, layer], f"{name}_high": high[index, layer]}
            summary |= {name: means[index, layer], **ends}
        summaries.append(summary)
    return summaries
