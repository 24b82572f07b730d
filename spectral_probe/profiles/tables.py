"""The tidy table behind every figure: weighted means over users with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from spectral_probe.errors import check_choice
from spectral_probe.graph.filters import heat_kernel
from spectral_probe.profiles.bootstrap import WeightedMeans, effective_number
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.components import COMPONENTS
from spectral_probe.spectrum.energy import SpectralEnergy
from spectral_probe.types import FloatArray

ValueT = TypeVar("ValueT")
LABELS = ("model", "revision", "dataset", "inputs", "own_user")
COLUMNS = [
    *(*LABELS, "nodes", "component", "tau", "treatment", "weights", "null", "layer", "layer_name", "state", "band"),
    *("band_low", "band_high", "n_users", "n_effective", "control"),
    *("energy", "share", "share_low", "share_high", "null_share", "excess", "excess_low", "excess_high"),
    *("retention", "retention_low", "retention_high", "rayleigh"),
]
#: Columns of text; their values may look like numbers or missing values.
TEXT_COLUMNS = (
    *(*LABELS, "nodes", "component", "treatment", "weights", "null", "layer_name", "state", "band", "control"),
)
#: Column of the published curve by user: share of the raw energy in the lowest band.
PUBLISHED_SHARE = "published_share"
#: What the columns that the first version did not have would have held.
FIRST_VERSION = {"nodes": "foreseen", "component": "whole", "treatment": "plain", "weights": "equal"}


def select_curve(
    table: pd.DataFrame,
    *,
    band: str = "low",
    null: str | None = "swap",
    control: str = "none",
    component: str = "whole",
    nodes: str | None = None,
    treatment: str | None = None,
) -> pd.DataFrame:
    """Return the rows of one curve in layer order.

    ``null=None``, ``nodes=None`` and ``treatment=None`` take the first one in the table that the component has: of the
    whole the plain states at ``whole_tau``, of taste the treated states if there are some.
    """
    rows = table[(table["band"] == band) & (table["control"] == control) & (table["component"] == component)]
    for column, wanted in (("nodes", nodes), ("treatment", treatment), ("null", null)):
        if not rows.empty:
            rows = rows[rows[column] == (rows[column].iloc[0] if wanted is None else wanted)]
    if not rows.empty:
        rows = rows[(rows["tau"] == rows["tau"].iloc[0]) | rows["tau"].isna()]
    return rows.sort_values("layer")


def tau_of(rows: pd.DataFrame) -> str:
    """Return the diffusion time of some rows of a run's table as ``τ = 5``; of several, all of them."""
    times = sorted({float(tau) for tau in rows["tau"].dropna()})
    return f"τ = {', '.join(f'{time:g}' for time in times)}"


def null_of(component: str, null: str) -> str:
    """Return the null of the rows of a component: ``null`` is that of the whole, the others have swap alone."""
    return null if component == "whole" else "swap"


def known_name(what: str, name: str, known: Mapping[str, ValueT]) -> ValueT:
    """Return the value of a name; ConfigError with the known names and the closest one if it is unknown."""
    check_choice(what, name, known, "Choose one of these, or measure it first.")
    return known[name]


def excess_table(
    energy: SpectralEnergy, values: FloatArray, w: FloatArray, *, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Return the curve of any excess of the users: one row per layer, with retention and intervals.

    Parameters
    ----------
    energy : SpectralEnergy
        Whose layers they are.
    values : (n, n_layers)
        NaN for users who have none.
    w : (n,)
        Weight of each user.
    n_bootstrap, seed : int
        The draws depend on ``n`` and the seed only, as in :func:`curve_table`.
    """
    means = WeightedMeans.of(values, w, n_bootstrap=n_bootstrap, seed=seed)
    return pd.DataFrame(
        {
            "layer": energy.layer_index,
            "layer_name": energy.layer_names,
            "state": energy.layer_states,
            **_excess_columns(means, energy.layer_states),
            **_users(values, w),
        }
    )


def user_weights(energy: SpectralEnergy, weights: str) -> FloatArray:
    """Return the weight of each user, (n,): from the graphs, or equal; 0 for users who are not on the curve."""
    return energy.weights if weights == "graph" and energy.split else energy.is_valid.astype(np.float64)


def curve_table(
    energy: SpectralEnergy,
    rule: Bands,
    *,
    labels: Mapping[str, str],
    control: str,
    n_bootstrap: int,
    seed: int,
    nodes: str = "carried",
    weights: str = "graph",
) -> pd.DataFrame:
    """Return one row per layer × band × null of the whole, and per layer × component × treatment.

    Band ``low`` is the heat kernel, the others are those of ``rule``. One seeded set of resamples of users gives all
    intervals; bands, nulls and weights are held fixed.
    """
    w = user_weights(energy, weights)
    settings = {"n_bootstrap": n_bootstrap, "seed": seed}
    frames = [*_whole_rows(energy, rule, w, **settings), *_component_rows(energy, w, **settings)]
    table = pd.concat(frames, ignore_index=True)
    table = table.assign(
        **{name: labels.get(name, "") for name in LABELS},
        nodes=nodes,
        weights=weights if energy.split else "equal",
        control=control,
    )
    return table[COLUMNS].astype(dict.fromkeys(TEXT_COLUMNS, "string"))


def _component_rows(energy: SpectralEnergy, w: FloatArray, **settings: int) -> list[pd.DataFrame]:
    """Return the rows of every component under every treatment, each component's own treatment first."""
    frames = []
    for component in reversed(COMPONENTS):  # taste first
        headline = energy.treatment_of(component) if energy.split else ""
        for treatment in sorted(energy.split, key=lambda name: name != headline):
            # Of the treated states only taste is meant: popularity is what was taken out of them.
            if treatment == "residual" and component != "taste":
                continue
            excess = WeightedMeans.of(energy.split[treatment][component], w, **settings)
            columns: dict[str, Any] = {
                **dict.fromkeys(("energy", "share", "share_low", "share_high", "null_share"), np.nan),
                **_excess_columns(excess, energy.layer_states),
                **_users(energy.split[treatment][component], w),
            }
            rows = _layer_rows(energy, w, ["low"], np.full((1, 2), np.nan), columns)
            tau = float(energy.settings["tau"])
            frames.append(rows.assign(null="swap", component=component, treatment=treatment, tau=tau))
    return frames


def _whole_rows(energy: SpectralEnergy, rule: Bands, w: FloatArray, **settings: int) -> list[pd.DataFrame]:
    """Return the rows of the shares and their excess over each null; null ``none`` if none was computed."""
    eigenvalues = np.where(energy.is_valid[:, None], energy.eigenvalues, np.nan)
    band_weights = rule.weights(eigenvalues[energy.is_valid])
    total = energy.total[..., None]

    def per_band(values: FloatArray) -> FloatArray:
        bands = np.full((*values.shape[:2], rule.n_bands), np.nan)
        bands[energy.is_valid] = np.einsum("nlk,nkb->nlb", values[energy.is_valid], band_weights)
        return bands

    tau = float(energy.settings["whole_tau"])
    low_energy = np.einsum("nlk,nk->nl", energy.energy, heat_kernel(eigenvalues, tau))[..., None]
    band_energy = per_band(energy.energy)
    share = np.concatenate([energy.low[..., None], band_energy / total], axis=-1)
    mean_energy = _mean_by_band(np.concatenate([low_energy, band_energy], axis=-1), w)
    edges = np.concatenate([[[np.nan, np.nan]], rule.edges])
    names = ["low", *(str(b + 1) for b in range(rule.n_bands))]
    frames = []
    for null in energy.null_low or ("none",):
        excess, compared = np.full_like(share, np.nan), share
        if energy.null_low:
            null_share = per_band(energy.null_energy[null]) / total
            excess = share - np.concatenate([energy.null_low[null][..., None], null_share], axis=-1)
            # A user without this null is left out of all means of the row, so that share − null share = excess.
            compared = np.where(np.isnan(excess), np.nan, share)
        shares = _by_band(compared, w, **settings)
        low, high = shares.interval
        columns: dict[str, Any] = {
            **{"energy": mean_energy, "share": shares.mean, "share_low": low, "share_high": high},
            "null_share": _mean_by_band(compared - excess, w),
            **_excess_columns(_by_band(excess, w, **settings), energy.layer_states),
            **_users_by_band(compared, w),
        }
        rows = _layer_rows(energy, w, names, edges, columns)
        treatment = "rows" if energy.settings["normalize_rows"] else "plain"
        frames.append(rows.assign(null=null, component="whole", treatment=treatment, tau=tau))
    return frames


def _by_band(values: FloatArray, w: FloatArray, **settings: int) -> WeightedMeans:
    """Return the means of values (n, n_layers, n_bands); a user without a band is left out of that band alone."""
    parts = [WeightedMeans.of(values[..., band], w, **settings) for band in range(values.shape[-1])]
    return WeightedMeans(
        np.stack([part.mean for part in parts], axis=-1), np.stack([part.resampled for part in parts], axis=-1)
    )


def _mean_by_band(values: FloatArray, w: FloatArray) -> FloatArray:
    """Return the weighted mean over the users who have a band, (n_layers, n_bands)."""
    return np.stack([_mean(values[..., band], w) for band in range(values.shape[-1])], axis=-1)


def _users_by_band(values: FloatArray, w: FloatArray) -> dict[str, FloatArray]:
    """Return the users in the mean of each band, and their effective number, both (n_layers, n_bands)."""
    counts = [_users(values[..., band], w) for band in range(values.shape[-1])]
    shape = values.shape[1:]
    return {name: np.broadcast_to([count[name] for count in counts], shape) for name in counts[0]}


def _users(values: FloatArray, w: FloatArray) -> dict[str, float]:
    """Return the number of users in a mean, and their effective number."""
    present = np.where(np.isfinite(values.reshape(len(values), -1)).all(axis=1), w, 0.0)
    return {"n_users": int((present > 0).sum()), "n_effective": effective_number(present)}


def _mean(values: FloatArray, w: FloatArray) -> FloatArray:
    """Return the weighted mean over users; users with a NaN have weight 0."""
    present = np.where(np.isfinite(values.reshape(len(values), -1)).all(axis=1), w, 0.0)
    if not present.any():
        return np.full(values.shape[1:], np.nan)
    known = np.where(present.reshape(-1, *[1] * (values.ndim - 1)) > 0, values, 0.0)
    return np.asarray(np.tensordot(present, known, 1) / present.sum())


def _excess_columns(excess: WeightedMeans, layer_states: tuple[str, ...]) -> dict[str, FloatArray]:
    """Return excess and retention with their intervals, each (n_layers, …); retention is NaN without ``embed``."""
    low, high = excess.interval
    columns = {"excess": excess.mean, "excess_low": low, "excess_high": high}
    columns |= dict.fromkeys(("retention", "retention_low", "retention_high"), np.full_like(excess.mean, np.nan))
    if "embed" in layer_states:
        embed = layer_states.index("embed")
        retention = excess.ratio_to(WeightedMeans(excess.mean[embed], excess.resampled[:, embed : embed + 1]))
        columns["retention"] = retention.mean
        columns["retention_low"], columns["retention_high"] = retention.interval
    return columns


def _layer_rows(
    energy: SpectralEnergy,
    w: FloatArray,
    bands: list[str],
    edges: FloatArray,
    columns: Mapping[str, FloatArray | float],
) -> pd.DataFrame:
    """Return one row per layer and band, with the (n_layers, n_bands) or (n_layers,) arrays as columns."""
    n_layers, n_bands = len(energy.layer_names), len(bands)
    layer = np.repeat(np.arange(n_layers), n_bands)
    return pd.DataFrame(
        {
            "layer": np.array(energy.layer_index)[layer],
            "layer_name": np.array(energy.layer_names)[layer],
            "state": np.array(energy.layer_states)[layer],
            "band": np.tile(bands, n_layers),
            "band_low": np.tile(edges[:, 0], n_layers),
            "band_high": np.tile(edges[:, 1], n_layers),
            "rayleigh": _mean(energy.rayleigh, w)[layer],
            **{name: np.ravel(values) if np.ndim(values) else values for name, values in columns.items()},
        }
    )


def frequency_table(energy: SpectralEnergy, null: str, n_bands: int = 16, *, weights: str = "graph") -> pd.DataFrame:
    """Return the mean excess share over the null by layer (rows) and rank band (columns), for a heat map."""
    on_curve = energy.is_valid
    rule = Bands("rank", n_bands)
    in_band = rule.weights(energy.eigenvalues[on_curve])
    excess = (energy.energy[on_curve] - energy.null_energy[null][on_curve]) / energy.total[on_curve][..., None]
    values = _mean(np.einsum("nlk,nkb->nlb", excess, in_band), user_weights(energy, weights)[on_curve])
    columns = [f"{(low + high) / 2:.2f}" for low, high in rule.edges]
    return pd.DataFrame(values, index=list(energy.layer_names), columns=columns)


def user_counts(energy: SpectralEnergy, weights: str) -> dict[str, Any]:
    """Return how many users were probed and measured, why others were not, and the mean length of their histories."""
    shortened = energy.is_valid & (energy.n_nodes > energy.lengths) if energy.split else np.zeros(1, dtype=bool)
    return {
        "probed": len(energy.lengths),
        "measured": int(energy.is_valid.sum()),
        "shortened": int(shortened.sum()),
        "skipped": dict(energy.skipped),
        # Weighted: where retention varies with length, it describes histories of about this length.
        "mean_length": round(float(np.average(energy.measured, weights=user_weights(energy, weights))), 2),
    }


def user_table(energy: SpectralEnergy, nodes: str = "carried", *, weights: str = "graph") -> pd.DataFrame:
    """Return one row per user on the curve and layer: low share, its excess over each null, and the components.

    ``sequence`` is the row of the Grams. ``taste_rows`` is taste on states of unit norm, without residuals.
    """
    rows = np.flatnonzero(energy.is_valid)
    n_layers = len(energy.layer_names)
    columns = {
        "sequence": np.repeat(rows, n_layers),
        "nodes": nodes,
        "measured": np.repeat(energy.measured[rows], n_layers),
        "weight": np.repeat(user_weights(energy, weights)[rows], n_layers),
        "layer_name": np.tile(energy.layer_names, len(rows)),
        "share": energy.low[rows].ravel(),
        **{f"excess_{name}": (energy.low[rows] - null[rows]).ravel() for name, null in energy.null_low.items()},
        **{name: energy.component_excess[name][rows].ravel() for name in COMPONENTS if energy.split},
    }
    if {"rows", "residual"} <= energy.split.keys():
        columns["taste_rows"] = energy.split["rows"]["taste"][rows].ravel()
    return pd.DataFrame(columns)


def wide_users(per_user: pd.DataFrame, component: str, nodes: str) -> pd.DataFrame:
    """Return one row per user and one column per layer, from the table of :func:`user_table`.

    Raises
    ------
    ConfigError
        If the table has no such component or nodes.
    """
    columns = {name: name for name in reversed(COMPONENTS) if name in per_user} | {"whole": "excess_swap"}
    column = known_name("component", component, {name: key for name, key in columns.items() if key in per_user})
    by_nodes = dict(list(per_user.groupby("nodes", sort=False)))
    rows = known_name("nodes", nodes, by_nodes)
    label = "user_id" if "user_id" in rows else "sequence"
    layers = list(dict.fromkeys(rows["layer_name"]))
    wide = rows.pivot(index="sequence", columns="layer_name", values=column)[layers]
    first = rows.drop_duplicates("sequence").set_index("sequence")
    for at, name in enumerate(("measured", "weight")):
        wide.insert(at, name, first[name] if name in first else float("nan"))
    return wide.rename_axis(columns=None).set_axis(first.loc[wide.index, label] if label != "sequence" else wide.index)


def published_user_table(energy: SpectralEnergy, bands: str = "deciles") -> pd.DataFrame:
    """Return one row per user on the published curve and layer: the share of the energy in the lowest band.

    ``sequence`` is the row of ``energy``. The means over users are those of band 1 in :func:`curve_table`.
    """
    rows = np.flatnonzero(energy.is_valid)
    n_layers = len(energy.layer_names)
    lowest = Bands.parse(bands).weights(energy.eigenvalues[rows])[..., 0]
    share = np.einsum("nlk,nk->nl", energy.energy[rows], lowest) / energy.total[rows]
    columns = {
        "sequence": np.repeat(rows, n_layers),
        "layer_name": np.tile(energy.layer_names, len(rows)),
        PUBLISHED_SHARE: share.ravel(),
    }
    return pd.DataFrame(columns)
