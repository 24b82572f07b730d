"""Figures from the tidy table of a run. Every function draws on the caller's axes and returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectral_probe.figure_style import NULL_GREY, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"embed": "D", "final_norm": "X"}
#: x of `final_norm` on the axis of relative depth, where the last block is at 1.
FINAL_NORM_DEPTH = 1.08


def relative_depth(curve: pd.DataFrame) -> pd.Series[Any]:
    """Return layer / number of blocks; ``final_norm`` is at :data:`FINAL_NORM_DEPTH`."""
    n_blocks = max([1, *curve.loc[curve["state"] == "block", "layer"]])
    depth = (curve["layer"] / n_blocks).astype(float)
    return depth.where(curve["state"] != "final_norm", FINAL_NORM_DEPTH)


def select_curve(table: pd.DataFrame, *, band: str = "low", null: str | None, control: str = "none") -> pd.DataFrame:
    """Return the rows of one curve in layer order; if ``null`` is None, those of the first null in the table."""
    rows = table[(table["band"] == band) & (table["control"] == control)]
    name = null if null is not None else (rows["null"].iloc[0] if len(rows) else "none")
    return rows[rows["null"] == name].sort_values("layer")


def curve_with_ribbon(
    curve: pd.DataFrame, *, value: str, color: str, label: str, ax: Axes, x: pd.Series[Any] | None = None
) -> Axes:
    """Draw one quantity over depth: a line with ribbon for blocks, markers for ``embed`` and ``final_norm``."""
    depth = relative_depth(curve) if x is None else x
    blocks = curve["state"] == "block"
    ax.plot(depth[blocks], curve.loc[blocks, value], color=color, label=label, marker="o", markersize=3.5, zorder=3)
    has_interval = f"{value}_low" in curve.columns
    if has_interval:
        ax.fill_between(
            depth[blocks],
            curve.loc[blocks, f"{value}_low"],
            curve.loc[blocks, f"{value}_high"],
            color=color,
            alpha=0.18,
            linewidth=0,
        )
    for state, marker in MARKERS.items():
        rows = curve["state"] == state
        if not rows.any():
            continue
        ax.plot(depth[rows], curve.loc[rows, value], marker=marker, linestyle="none", color=color, markersize=6)
        if has_interval:
            ends = curve.loc[rows, [f"{value}_low", f"{value}_high"]]
            ax.vlines(depth[rows], ends.iloc[:, 0], ends.iloc[:, 1], color=color, linewidth=1.2)
    return ax


def share_curve(table: pd.DataFrame, *, null: str | None, ax: Axes | None = None) -> Axes:
    """Draw the low-pass share of every model in the table, and in grey its share under the null."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    for color, (model, rows) in zip(cycle(PALETTE), table.groupby("model", sort=False), strict=False):
        curve = select_curve(rows, null=null)
        if null is not None:
            blocks = curve["state"] == "block"
            depth = relative_depth(curve)[blocks]
            ax.plot(depth, curve.loc[blocks, "null_share"], color=NULL_GREY, linestyle="--", zorder=2)
        curve_with_ribbon(curve, value="share", color=color, label=str(model), ax=ax)
    ax.set_xlabel("relative depth (block / number of blocks)")
    ax.set_ylabel("low-pass share of energy")
    return ax


def excess_curve(table: pd.DataFrame, *, null: str, ax: Axes | None = None) -> Axes:
    """Draw the excess of the low-pass share over the null with its 95 % interval; 0 means no collaborative signal."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.axhline(0.0, color=NULL_GREY, linewidth=1)
    for color, (model, rows) in zip(cycle(PALETTE), table.groupby("model", sort=False), strict=False):
        curve_with_ribbon(select_curve(rows, null=null), value="excess", color=color, label=str(model), ax=ax)
    ax.set_xlabel("relative depth (block / number of blocks)")
    ax.set_ylabel(f"excess over the {null} null")
    return ax


def published_curve(table: pd.DataFrame, *, band: str = "1", ax: Axes | None = None) -> Axes:
    """Draw the published quantity: the raw share of the lowest tenth of the frequencies, at equal steps of depth."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    for color, (model, rows) in zip(cycle(PALETTE), table.groupby("model", sort=False), strict=False):
        curve = select_curve(rows, band=band, null=None, control="paper")
        if curve.empty:
            continue
        depth = np.linspace(0, 1, len(curve))
        ax.plot(depth, curve["share"], color=color, marker="o", markersize=3.5, label=str(model))
        ax.fill_between(depth, curve["share_low"], curve["share_high"], color=color, alpha=0.18, linewidth=0)
    ax.set_xlabel("relative depth (entry / number of entries)")
    ax.set_ylabel("share of the lowest decile, raw states")
    return ax


def decay_figure(tables: Sequence[pd.DataFrame], *, null: str = "swap") -> Figure:
    """Return the figure of a run: shares on top, excess below, all models on one axis; the published curve if computed.

    Parameters
    ----------
    tables : sequence of DataFrame
        ``DecayProfile.to_frame()`` of each model.
    """
    from matplotlib.figure import Figure

    table = pd.concat(list(tables), ignore_index=True)
    has_published = (table["control"] == "paper").any()
    figure = Figure(figsize=(11.5 if has_published else 6.5, 7.2), layout="constrained")
    grid = figure.subplot_mosaic(
        [["share", "published"], ["excess", "published"]] if has_published else [["share"], ["excess"]]
    )
    share_curve(table, null=null, ax=grid["share"])
    excess_curve(table, null=null, ax=grid["excess"])
    handles, names = grid["share"].get_legend_handles_labels()
    marks = {"input of block 1 (embed)": "D", "after the final norm": "X"}
    proxies = [*handles, *(proxy(marker=marker) for marker in marks.values()), proxy(linestyle="--")]
    figure.legend(
        proxies, [*names, *marks, f"{null} null"], loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    grid["share"].set_title("Corrected: first position dropped, centred, 95 % CI", fontsize=10)
    if has_published:
        published_curve(table, ax=grid["published"])
        grid["published"].set_title("As published: raw states, no null", fontsize=10)
    datasets, inputs = (", ".join(dict.fromkeys(table[name])) for name in ("dataset", "inputs"))
    figure.suptitle(f"data set: {datasets}; item inputs: {inputs}", fontsize=11)
    return figure


def frequency_map(excess: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the excess over the null by layer (rows) and graph frequency (columns, by rank from smooth to rough).

    Parameters
    ----------
    excess : DataFrame
        Rows: layers from the input on; columns: rank fractions of the bands; values: mean excess share.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    ax = plt.gca() if ax is None else ax
    bound = float(np.nanmax(np.abs(excess.to_numpy()))) or 1.0
    sns.heatmap(
        excess, ax=ax, cmap="RdBu_r", center=0.0, vmin=-bound, vmax=bound, cbar_kws={"label": "excess share of energy"}
    )
    ax.set_xlabel("graph frequency by rank (0 smooth … 1 rough)")
    ax.set_ylabel("")
    ax.set_yticks(np.arange(len(excess)) + 0.5, list(excess.index), rotation=0)
    return ax


def heat_figure(maps: Mapping[str, pd.DataFrame], *, null: str) -> Figure:
    """Return one frequency map per model, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.5, 5.5 * len(maps)), 4.2), layout="constrained")
    for ax, (model, excess) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        frequency_map(excess, ax=ax)
        ax.set_title(f"{model}: excess over the {null} null", fontsize=10)
    return figure


def proxy(**style: Any) -> Any:
    """Return a grey legend handle."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=NULL_GREY, **{"linestyle": "none", **style})
