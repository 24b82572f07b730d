"""The figures of a run with what a paper prints beside them: a caption, and a table of the main numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from spectral_probe.comparison.comparison import ProfileComparison, name_of
from spectral_probe.comparison.figure import ROWS, comparison_figure, comparison_table
from spectral_probe.figure_style import DEFAULT_WIDTH, PaperFigure
from spectral_probe.profiles.drawing import has_input
from spectral_probe.profiles.figures import (
    NULLS_IN_WORDS,
    decay_figure,
    excess_figure,
    foreseen_figure,
    has_components,
    heat_figure,
    nulls_of,
    other_settings,
    published_figure,
    unmeasurable,
)
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import frequency_table, select_curve, tau_of
from spectral_probe.report.words import NOT_AVAILABLE

_INTERVALS = "Shaded bands and bars: 95 % bootstrap intervals over users."
_ENDS = "“input” is what the first block reads, “norm” the states after the final norm."


def run_figures(
    profiles: Sequence[DecayProfile],
    *,
    width: int = DEFAULT_WIDTH,
    maps: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, PaperFigure]:
    """Return the figures of one or several profiles by the name of their file.

    ``decay``: taste and popularity that are carried (of a profile without components the share). ``excess``: the whole
    excess over every null. ``foreseen``: taste that is foreseen. ``published``: the published curve. ``heatmap``: the
    excess by graph frequency, of profiles with energies, else of ``maps``. A figure without data is left out.
    """
    table = pd.concat([profile.to_frame() for profile in profiles], ignore_index=True)
    null = next((profile.null for profile in profiles if profile.null is not None), "swap")
    # Without a measurable taste at the input there is no unit in which it could be told.
    has_unit = [p for p in profiles if p.has_measurable_input("taste")]
    foreseen = {name_of(p): p.foreseen for p in has_unit if p.foreseen is not None and len(p.foreseen)}
    figures = curve_figures(table, foreseen, null=null, width=width)
    measured = {
        name_of(profile): frequency_table(profile.energy, null, weights=profile.protocol["weights"])
        for profile in profiles
        if profile.energy is not None and null in profile.energy.null_energy
    }
    if drawn := measured or maps:
        figures["heatmap"] = _heatmap(drawn, table, null, width)
    return figures


def curve_figures(
    table: pd.DataFrame, foreseen: Mapping[str, pd.DataFrame], *, null: str = "swap", width: int = DEFAULT_WIDTH
) -> dict[str, PaperFigure]:
    """Return the figures that need only the tidy table of the curves and what is foreseen, by the name of their file.

    Parameters
    ----------
    table : DataFrame
        ``DecayProfile.to_frame()`` of every model.
    foreseen : {model: DataFrame}
        ``DecayProfile.foreseen``.
    null : str
        The null that is drawn of a profile without components.
    width : int
        85 or 178, in mm.
    """
    figures = {"decay": _carried(table, width) if has_components(table) else _share(table, null, width)}
    if has_components(table) and nulls_of(table):
        figures["excess"] = _excess(table, width)
    if foreseen:
        figures["foreseen"] = _foreseen(table, foreseen, width)
    if (table["control"] == "paper").any():
        figures["published"] = _published(table, width)
    return figures


def compared_figure(
    profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison], *, width: int = DEFAULT_WIDTH
) -> PaperFigure:
    """Return the figure of a comparison, with the changes at the last block as its table."""
    names = [name_of(profile) for profile in profiles]
    caption = (
        f"{', '.join(names[1:])} against {names[0]}. Excess of taste and of popularity that the layers carry of the "
        "items they read; the low-pass share of the corrected states (solid) and of other users' states on the same "
        "graph (dashed: the effect of smoothing alone); and the paired changes at the last block. Smoothing in time "
        "raises the excess over permutation by construction, and "
        f"that over cyclic if it is uneven; over swap it cancels. {_INTERVALS} {_data(_joined(profiles))}"
    )
    rows = []
    for comparison in comparisons:
        for key, label in ROWS.items():
            if (change := comparison.changes.at.get(key)) is not None:
                cells = [interval(vars(getattr(change, at)), 1000) for at in ("base", "other", "difference")]
                rows.append([comparison.other, label, *cells])
    table = pd.DataFrame(rows, columns=["model", "quantity at the last block × 1000", names[0], "other", "difference"])
    return PaperFigure(
        comparison_figure(profiles, comparisons, width=width), comparison_table(profiles, comparisons), caption, table
    )


def interval(row: Mapping[str, Any], factor: float = 1.0, digits: int = 2, prefix: str = "") -> str:
    """Return a value with its interval, as ``0.54 [0.52, 0.56]``; "n/a" if there is none.

    Parameters
    ----------
    row : mapping
        Keys ``value``, ``low`` and ``high``; with a prefix its name, ``<prefix>_low`` and ``<prefix>_high``.
    """
    keys = (prefix, f"{prefix}_low", f"{prefix}_high") if prefix else ("value", "low", "high")
    value, low, high = (float(row[key]) * factor for key in keys)
    if not math.isfinite(value):
        return NOT_AVAILABLE
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def number(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign, and without one before a zero."""
    return f"{value:z.{digits}f}".replace("-", "−")


def _carried(table: pd.DataFrame, width: int) -> PaperFigure:
    caption = (
        "Taste and popularity that the layers carry of the items they read, as a part of that at the input, over "
        f"relative depth. {_ENDS} "
    )
    if (table["control"] == "random-weights").any():
        caption += "Dashed: the same architecture with random weights. "
    for component in ("taste", "popularity"):
        if missing := unmeasurable(table, component):
            caption += f"Without a curve of {component}, because the input carries none that is measurable: "
            caption += f"{', '.join(missing)}. "
    rows = [
        {"model": str(model), "component": component, **_retention_cells(part, component)}
        for model, part in table.groupby("model", sort=False)
        for component in ("taste", "popularity")
    ]
    caption += f"{_INTERVALS} {_data(table)}"
    return PaperFigure(decay_figure([table], width=width), table, caption, pd.DataFrame(rows))


def _retention_cells(part: pd.DataFrame, component: str) -> dict[str, str]:
    """Return the excess of a component at the input, and its retention at the last block, trained and random."""
    cells = {}
    for control, name in (("none", "retention, last block"), ("random-weights", "with random weights")):
        curve = select_curve(part, component=component, nodes="carried", control=control)
        if control == "none":
            embed = curve[curve["state"] == "embed"].to_dict("records")
            cells["excess × 1000, input"] = interval(embed[0], 1000, prefix="excess") if embed else NOT_AVAILABLE
        blocks = curve[curve["state"] == "block"].to_dict("records")
        is_known = bool(blocks) and has_input(curve)
        cells[name] = interval(blocks[-1], prefix="retention") if is_known else NOT_AVAILABLE
    return cells


def _share(table: pd.DataFrame, null: str, width: int) -> PaperFigure:
    caption = (
        f"Low-pass share of the energy of the states and its excess over the {null} null, over relative depth. "
        f"Dashed: the share under the null. {_ENDS} {_INTERVALS} {_data(table)}"
    )
    rows = []
    for model, part in table.groupby("model", sort=False):
        curve = select_curve(part, null=null)
        rows.append({"model": str(model), **_first_and_last(curve, "share"), **_first_and_last(curve, "excess")})
    return PaperFigure(decay_figure([table], null=null, width=width), table, caption, pd.DataFrame(rows))


def _excess(table: pd.DataFrame, width: int) -> PaperFigure:
    nulls = nulls_of(table)
    data = table[(table["control"] == "none") & (table["component"] == "whole") & (table["band"] == "low")]
    parts = "; ".join(f"over {null}: {NULLS_IN_WORDS[null]}" for null in nulls)
    caption = (
        f"Whole excess of the low-pass share over each null ({tau_of(data)}; popularity, lag profile and taste "
        f"together), over relative depth, on one scale; {parts}. {_ENDS} {_INTERVALS} {_data(table)}"
    )
    rows = [
        {"model": str(model), "null": null, **_first_and_last(select_curve(part, null=null), "excess")}
        for model, part in table.groupby("model", sort=False)
        for null in nulls
    ]
    return PaperFigure(excess_figure(table, width=width), data, caption, pd.DataFrame(rows))


def _first_and_last(curve: pd.DataFrame, value: str) -> dict[str, str]:
    """Return a quantity × 1000 at the input and at the last block as two cells."""
    cells = {}
    for label, rows in (("input", curve[curve["state"] == "embed"]), ("last block", curve[curve["state"] == "block"])):
        records = rows.to_dict("records")
        column = f"{value} × 1000, {label}"
        cells[column] = interval(records[-1], 1000, prefix=value) if records else NOT_AVAILABLE
    return cells


def _foreseen(table: pd.DataFrame, foreseen: Mapping[str, pd.DataFrame], width: int) -> PaperFigure:
    caption = (
        "Taste that the layers foresee of the items they predict, in units of the taste carried at the input, over "
        f"relative depth. {_ENDS} {_INTERVALS} {_data(table)}"
    )
    rows = []
    for model, curve in foreseen.items():
        taste = curve[curve["component"] == "taste"]
        records = {"input": taste[taste["state"] == "embed"], "last block": taste[taste["state"] == "block"]}
        cells = {name: interval(part.iloc[-1].to_dict(), digits=3) for name, part in records.items() if len(part)}
        rows.append({"model": model, **cells})
    data = pd.concat(foreseen, names=["model", None]).reset_index(0)
    return PaperFigure(foreseen_figure(foreseen, width=width), data, caption, pd.DataFrame(rows))


def _published(table: pd.DataFrame, width: int) -> PaperFigure:
    rows, data = [], table[(table["control"] == "paper") & (table["band"] == "1")]
    for model, part in data.groupby("model", sort=False):
        curve = select_curve(part, band="1", null=None, control="paper").to_dict("records")
        first, last = curve[0], curve[-1]
        row = {"model": str(model), "first entry": interval(first, digits=3, prefix="share")}
        row["last entry"] = interval(last, digits=3, prefix="share")
        rows.append(row | {"change": f"{100 * (last['share'] / first['share'] - 1):+.0f} %".replace("-", "−")})
    caption = (
        "The published quantity: share of the energy of raw states in the lowest tenth of the graph frequencies, at "
        "equal steps of depth; own user kept, nothing dropped or centred, every user with equal weight. It has no "
        f"null: its level says how alike a user's states are, whatever the graph. {_INTERVALS} {_data(table)}"
    )
    return PaperFigure(published_figure(table, width=width), data, caption, pd.DataFrame(rows))


def _heatmap(maps: Mapping[str, pd.DataFrame], table: pd.DataFrame, null: str, width: int) -> PaperFigure:
    data = pd.concat(maps, names=["model", "layer"]).reset_index()
    caption = (
        f"Mean whole excess share over the {null} null, by layer (rows) and graph frequency (columns, from smooth to "
        f"rough); one scale of colours for all models. {_data(table)}"
    )
    rows = []
    for model, excess in maps.items():
        lowest = 1000 * excess.iloc[:, 0]
        row = {"model": model, "lowest band × 1000, first layer": number(lowest.iloc[0])}
        rows.append(row | {"last layer": number(lowest.iloc[-1])})
    return PaperFigure(heat_figure(maps, null=null, width=width), data, caption, pd.DataFrame(rows))


def _joined(profiles: Sequence[DecayProfile]) -> pd.DataFrame:
    return pd.concat([profile.table for profile in profiles], ignore_index=True)


def _data(table: pd.DataFrame) -> str:
    """Return the sentence on data set, inputs, users and unusual settings."""
    main = table[table["control"] == "none"]
    datasets, inputs = (", ".join(dict.fromkeys(main[name].astype(str))) for name in ("dataset", "inputs"))
    users = sorted({int(n) for n in main.loc[main["band"] == "low", "n_users"]})
    counts = f"{users[0]:,}" if len(users) == 1 else f"{users[0]:,} to {users[-1]:,}" if users else "no"
    return f"Data set: {datasets}; item inputs: {inputs}; {counts} users{other_settings(table)}."
