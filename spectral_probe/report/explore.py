"""The charts of an analysis or a comparison, with their data."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from spectral_probe.errors import DataError
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import frequency_table
from spectral_probe.report.columns import Data
from spectral_probe.report.heat_chart import heat_panel
from spectral_probe.report.heatmap_file import read_heatmap
from spectral_probe.report.layer_chart import layer_panel
from spectral_probe.report.page import Panel
from spectral_probe.report.user_charts import user_panel
from spectral_probe.runs.analysis_run import ITEMS_FILE, AnalysisRun


def explore_panels(
    profiles: Sequence[DecayProfile],
    names: Sequence[str],
    runs: Sequence[AnalysisRun],
    *,
    n_shown: int,
    has_controls: bool,
) -> tuple[list[Panel], Data]:
    """Return the panels of the layers, the users and the spectrum, and their data.

    Parameters
    ----------
    profiles : sequence of DecayProfile
    names : sequence of str
        Of their models, all different.
    runs : sequence of AnalysisRun
        Of the profiles, where they have some: histories and spectra are read there.
    n_shown : int
        Users who are shown one by one.
    has_controls : bool
        Whether the curves of the controls are among the data.
    """
    panel, data, points = layer_panel(profiles, names, has_controls=has_controls)
    panels = [panel]
    histories = _histories(profiles[0], runs[0]) if runs else {}
    seed = int(profiles[0].protocol.get("bootstrap_seed", 0))
    users = user_panel(profiles, names, points, histories=histories, n_shown=n_shown, seed=seed)
    if users is not None:
        panels.append(users[0])
        data |= users[1]
    maps = _maps(profiles, names, runs)
    if maps:
        panel, heat = heat_panel(maps, profiles[0].null or "swap")
        panels.append(panel)
        data |= heat
    return panels, data


def _maps(
    profiles: Sequence[DecayProfile], names: Sequence[str], runs: Sequence[AnalysisRun]
) -> dict[str, pd.DataFrame]:
    """Return the frequency table of each model: from its energies, or as its run has it beside the figure.

    A map over another null than that of the first profile is left out, because the panel names one null for all.
    """
    maps: dict[str, pd.DataFrame] = {}
    first = profiles[0].null or "swap"
    for number, (profile, name) in enumerate(zip(profiles, names, strict=True)):
        null, table = profile.null or "swap", None
        if profile.energy is not None and null in profile.energy.null_energy:
            table = frequency_table(profile.energy, null, weights=profile.protocol["weights"])
        elif runs:
            table = _saved_map(runs[number])
        if table is not None and null == first and table.notna().any(axis=None):
            maps[name] = table
    return maps


def _saved_map(run: AnalysisRun) -> pd.DataFrame | None:
    table = read_heatmap(run.path / "figures" / "heatmap.csv")
    return None if table is None else table.drop(columns="model").set_index("layer")


def _histories(profile: DecayProfile, run: AnalysisRun) -> dict[str, list[str]]:
    """Return the items that each user's sequence reads and predicts, by the name of the user, as far as is known."""
    users = profile.per_user.drop_duplicates("sequence")
    labels = (users["user_id"] if "user_id" in users else users["sequence"]).astype(str)
    names = run.load_item_names()
    try:
        sequences = run.load_sequences()
    except DataError:  # the Grams were deleted to save space
        return {}
    n_named = len(names) if names is not None else None
    if n_named is not None and any(max(items) >= n_named for items in sequences):
        raise DataError(
            f"{run.path / ITEMS_FILE} names {n_named} items, and the histories of the run have others. Restore it, or "
            "delete it: the page then shows numbers."
        )
    return {
        label: [names[item] if names is not None else f"item {item}" for item in sequences[row]]
        for label, row in zip(labels, users["sequence"], strict=True)
        if row < len(sequences)
    }
