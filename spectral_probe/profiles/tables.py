"""The tidy table behind every figure: means over users with their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from spectral_probe.graph.filters import heat_kernel
from spectral_probe.profiles.bootstrap import mean_over_users, percentile_interval, resampled_means
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.energy import SpectralEnergy
from spectral_probe.types import FloatArray

LABELS = ("model", "revision", "dataset", "inputs", "own_user")
COLUMNS = [
    *(*LABELS, "null", "layer", "layer_name", "state", "band", "band_low", "band_high", "n_users", "control"),
    *("energy", "share", "share_low", "share_high", "null_share", "excess", "excess_low", "excess_high"),
    *("retention", "retention_low", "retention_high", "rayleigh"),
]
#: Columns of text; their values may look like numbers or missing values.
TEXT_COLUMNS = (*LABELS, "null", "layer_name", "state", "band", "control")


def curve_table(
    energy: SpectralEnergy, rule: Bands, *, labels: Mapping[str, str], control: str, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Return one row per layer × band × null with the columns :data:`COLUMNS`; null ``none`` if none was computed.

    Band ``low`` is the heat kernel, the others are those of ``rule``. One seeded set of resamples of users gives all
    intervals; bands and nulls are held fixed.
    """
    on_curve = energy.is_valid
    eigenvalues = energy.eigenvalues[on_curve]
    weights = rule.weights(eigenvalues)
    total = energy.total[on_curve][..., None]

    def per_band(values: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("nlk,nkb->nlb", values[on_curve], weights))

    def resampled(values: FloatArray) -> FloatArray:
        return resampled_means(values, n_bootstrap=n_bootstrap, seed=seed)

    response = heat_kernel(eigenvalues, float(energy.settings["tau"]))
    low_energy = np.einsum("nlk,nk->nl", energy.energy[on_curve], response)[..., None]
    band_energy = per_band(energy.energy)
    share = np.concatenate([energy.low[on_curve][..., None], band_energy / total], axis=-1)
    energy_column = {"energy": mean_over_users(np.concatenate([low_energy, band_energy], axis=-1))}
    frames = []
    for null in energy.null_low or ("none",):
        excess, compared = np.full_like(share, np.nan), share
        if energy.null_low:
            null_low = energy.null_low[null][on_curve][..., None]
            excess = share - np.concatenate([null_low, per_band(energy.null_energy[null]) / total], axis=-1)
            # A user without this null is left out of all means of the row, so that share − null share = excess.
            compared = np.where(np.isnan(excess), np.nan, share)
        share_low, share_high = percentile_interval(resampled(compared))
        columns = {
            **energy_column,
            "share": mean_over_users(compared),
            "share_low": share_low,
            "share_high": share_high,
            "n_users": (~np.isnan(compared)).sum(axis=0),
            **_against_null(compared, excess, resampled(excess), energy.layer_states),
        }
        frames.append(_rows(energy, rule, columns).assign(null=null))
    table = pd.concat(frames, ignore_index=True)
    table = table.assign(**{name: labels.get(name, "") for name in LABELS}, control=control)
    return table[COLUMNS].astype(dict.fromkeys(TEXT_COLUMNS, "string"))


def _against_null(
    share: FloatArray, excess: FloatArray, resampled_excess: FloatArray, layer_states: tuple[str, ...]
) -> dict[str, FloatArray]:
    """Return null share, excess and retention, each (n_layers, n_bands); all NaN without a null."""
    mean = mean_over_users(excess)
    low, high = percentile_interval(resampled_excess)
    columns = {
        "null_share": mean_over_users(share - excess),
        "excess": mean,
        "excess_low": low,
        "excess_high": high,
        **dict.fromkeys(("retention", "retention_low", "retention_high"), np.full_like(mean, np.nan)),
    }
    if "embed" in layer_states:
        embed = layer_states.index("embed")
        with np.errstate(invalid="ignore", divide="ignore"):
            columns["retention"] = mean / mean[embed]
            ratios = resampled_excess / resampled_excess[:, embed : embed + 1]
        columns["retention_low"], columns["retention_high"] = percentile_interval(ratios)
    return columns


def _rows(energy: SpectralEnergy, rule: Bands, columns: Mapping[str, FloatArray]) -> pd.DataFrame:
    """Return one row per layer and band, with the (n_layers, n_bands) arrays as columns."""
    edges = np.concatenate([[[np.nan, np.nan]], rule.edges])
    n_layers, n_bands = len(energy.layer_names), len(edges)
    layer = np.repeat(np.arange(n_layers), n_bands)
    return pd.DataFrame(
        {
            "layer": np.array(energy.layer_index)[layer],
            "layer_name": np.array(energy.layer_names)[layer],
            "state": np.array(energy.layer_states)[layer],
            "band": np.tile(["low", *(str(b + 1) for b in range(rule.n_bands))], n_layers),
            "band_low": np.tile(edges[:, 0], n_layers),
            "band_high": np.tile(edges[:, 1], n_layers),
            "rayleigh": mean_over_users(energy.rayleigh[energy.is_valid])[layer],
            **{name: values.ravel() for name, values in columns.items()},
        }
    )


def frequency_table(energy: SpectralEnergy, null: str, n_bands: int = 16) -> pd.DataFrame:
    """Return the mean excess share over the null by layer (rows) and rank band (columns), for a heat map."""
    on_curve = energy.is_valid
    rule = Bands("rank", n_bands)
    weights = rule.weights(energy.eigenvalues[on_curve])
    excess = (energy.energy[on_curve] - energy.null_energy[null][on_curve]) / energy.total[on_curve][..., None]
    values = mean_over_users(np.einsum("nlk,nkb->nlb", excess, weights))
    columns = [f"{(low + high) / 2:.2f}" for low, high in rule.edges]
    return pd.DataFrame(values, index=list(energy.layer_names), columns=columns)


def user_table(energy: SpectralEnergy) -> pd.DataFrame:
    """Return one row per user on the curve and layer: low share, and its excess over each null.

    ``sequence`` is the row of the Grams.
    """
    rows = np.flatnonzero(energy.is_valid)
    n_layers = len(energy.layer_names)
    columns = {
        "sequence": np.repeat(rows, n_layers),
        "n_targets": np.repeat(energy.lengths[rows], n_layers),
        "layer_name": np.tile(energy.layer_names, len(rows)),
        "share": energy.low[rows].ravel(),
        **{f"excess_{name}": (energy.low[rows] - null[rows]).ravel() for name, null in energy.null_low.items()},
    }
    return pd.DataFrame(columns)
