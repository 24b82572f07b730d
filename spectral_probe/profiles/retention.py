"""Curves of two captures or two kinds of nodes set against each other, paired over the users of one probe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from spectral_probe.profiles.bootstrap import Interval, WeightedMeans
from spectral_probe.profiles.profile import JUDGED
from spectral_probe.profiles.tables import user_weights
from spectral_probe.spectrum.energy import SpectralEnergy


def foreseen_curves(
    carried: SpectralEnergy, foreseen: SpectralEnergy, *, n_bootstrap: int, seed: int, weights: str = "graph"
) -> pd.DataFrame:
    """Return what is foreseen in units of the excess carried at ``embed``, one row per layer of taste and popularity.

    Never a ratio to its own ``embed`` value: at the input nothing of the next item is known. Columns ``component``,
    ``layer``, ``layer_name``, ``state``, ``value``, ``low``, ``high``.
    """
    if "embed" not in carried.layer_states:
        return pd.DataFrame()
    embed = carried.layer_states.index("embed")
    frames = []
    for component in JUDGED:
        known, unit = (
            WeightedMeans.of(
                energy.component_excess[component], user_weights(energy, weights), n_bootstrap=n_bootstrap, seed=seed
            )
            for energy in (foreseen, carried)
        )
        ratio = known.ratio_to(WeightedMeans(unit.mean[embed], unit.resampled[:, embed : embed + 1]))
        low, high = ratio.interval
        columns = {"component": component, "layer": foreseen.layer_index, "layer_name": foreseen.layer_names}
        values = {"state": foreseen.layer_states, "value": ratio.mean, "low": low, "high": high}
        frames.append(pd.DataFrame({**columns, **values}))
    return pd.concat(frames, ignore_index=True)


def paired_retention(
    base: SpectralEnergy,
    other: SpectralEnergy,
    *,
    n_bootstrap: int,
    seed: int,
    weights: str = "graph",
    components: Sequence[str] = JUDGED,
) -> dict[str, dict[str, Interval]]:
    """Return the retention at the last block of two captures of one probe, and the paired difference other − base.

    Users count who are on both curves, with the mean of their weights.
    """
    result = {}
    both = base.is_valid & other.is_valid
    w = np.where(both, (user_weights(base, weights) + user_weights(other, weights)) / 2, 0.0)
    for component in components:
        ratios = []
        for energy in (base, other):
            last = len(energy.layer_states) - 1 - energy.layer_states[::-1].index("block")
            values = energy.component_excess[component][:, [energy.layer_states.index("embed"), last]]
            means = WeightedMeans.of(values, w, n_bootstrap=n_bootstrap, seed=seed)
            ratios.append(means[1].ratio_to(means[0]))
        difference = WeightedMeans(ratios[1].mean - ratios[0].mean, ratios[1].resampled - ratios[0].resampled)
        result[component] = {
            "base": ratios[0].to_interval(),
            "other": ratios[1].to_interval(),
            "difference": difference.to_interval(),
        }
    return result
