"""The spectrum of every model as a heat map, all on one colour scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from spectral_probe.report.columns import Data, columns_of
from spectral_probe.report.page import Chart, Panel

#: Name of the data of the charts.
HEAT = "heat"
_ROW_HEIGHT, _LEAST_HEIGHT = 15, 120


def heat_panel(maps: Mapping[str, pd.DataFrame], null: str) -> tuple[Panel, Data]:
    """Return a panel with a map of each model, and its data.

    Parameters
    ----------
    maps : {model: DataFrame}
        See :func:`spectral_probe.profiles.tables.frequency_table`.
    null : str
        The null that the excess is over.
    """
    largest = max(float(np.nanmax(np.abs(table.to_numpy()))) for table in maps.values())
    bound = float(f"{largest:.6g}") or 1.0  # so that a page written anew from rounded files has the same scale
    frames = []
    charts = []
    for number, (model, table) in enumerate(maps.items()):
        numbered = table.set_axis(range(table.shape[1]), axis=1).rename_axis("layer_name").reset_index()
        tidy = numbered.melt("layer_name", var_name="band", value_name="excess")
        frames.append(tidy.assign(band=tidy["band"].astype(int), map=number))
        description = f"Heat map of {model}: excess share over the {null} null by layer and graph frequency."
        charts.append(
            Chart(f"heat-{number}", _spec(number, model, list(table.index), bound, table.shape[1]), description)
        )
    note = (
        f"Mean excess of energy over the {null} null, as a share, by layer and by graph frequency (rank: 0 is the "
        "smoothest, 1 the roughest). Equal colours are equal numbers in all maps of this page."
    )
    data = {HEAT: columns_of(pd.concat(frames, ignore_index=True))}
    return Panel("Spectrum by layer", charts, note=note, is_side_by_side=len(charts) > 1), data


def _spec(number: int, model: str, layers: list[str], bound: float, n_bands: int) -> dict[str, Any]:
    import altair as alt

    height = max(_LEAST_HEIGHT, _ROW_HEIGHT * len(layers))
    chart = (
        alt.Chart(alt.NamedData(name=HEAT))
        .transform_filter(f"datum.map == {number}")
        .transform_calculate(
            low=f"datum.band / {n_bands}",
            high=f"(datum.band + 1) / {n_bands}",
            band_text="format(datum.low, '.2f') + ' to ' + format(datum.high, '.2f')",
            words="datum.layer_name + ', rank ' + datum.band_text + ': excess share ' + format(datum.excess, '+.4f')",
        )
        .mark_rect()
        .encode(
            x=alt.X(
                "low:Q",
                title="graph frequency by rank (0 smooth … 1 rough)",
                axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f", grid=False),
                scale=alt.Scale(domain=[0, 1], nice=False),
            ),
            x2="high:Q",
            y=alt.Y("layer_name:N", sort=layers, title=None),
            color=alt.Color(
                "excess:Q",
                scale=alt.Scale(domain=[bound * part for part in (-1, -0.5, 0, 0.5, 1)], range="diverging"),
                legend=alt.Legend(title="excess share", orient="bottom", gradientLength=200, format=".2f"),
            ),
            description=alt.Description("words:N"),
            tooltip=[
                alt.Tooltip("layer_name:N", title="layer"),
                alt.Tooltip("band_text:N", title="rank"),
                alt.Tooltip("excess:Q", title="excess share", format="+.4f"),
            ],
        )
        .properties(width="container", height=height, title=model)
    )
    spec: dict[str, Any] = chart.to_dict()
    return spec
