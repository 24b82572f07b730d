"""Figures from the tidy table of a run. Every function draws on the caller's axes and returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectral_probe.figure_style import NULL_GREY, PALETTE
from spectral_probe.profiles.tables import select_curve
from spectral_probe.spectrum.components import COMPONENT_TAU

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"embed": "D", "final_norm": "X"}
#: x of `final_norm` on the axis of relative depth, where the last block is at 1.
FINAL_NORM_DEPTH = 1.08
#: Line style of the whole excess over each null.
NULL_STYLES = {"swap": "-", "cyclic": "--", "permutation": ":"}
COMPONENT_TITLES = {"taste": "Taste", "popularity": "Popularity", "lag": "Lag profile", "whole": "Whole excess"}


def relative_depth(curve: pd.DataFrame) -> pd.Series[Any]:
    """Return layer / number of blocks; ``final_norm`` is at :data:`FINAL_NORM_DEPTH`."""
    n_blocks = max([1, *curve.loc[curve["state"] == "block", "layer"]])
    depth = (curve["layer"] / n_blocks).astype(float)
    return depth.where(curve["state"] != "final_norm", FINAL_NORM_DEPTH)


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


def share_curve(table: pd.DataFrame, *, null: str | None, component: str = "whole", ax: Axes | None = None) -> Axes:
    """Draw the low-pass share of every model in the table, and in grey its share under the null.

    Of a component other than the whole there is no share: its carried excess is drawn, as a part of the input's.
    """
    if component != "whole":
        return retention_curve(table, component=component, ax=ax)
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


def excess_curve(
    table: pd.DataFrame,
    *,
    null: str | None = "swap",
    component: str = "whole",
    nodes: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the excess of a component, or of the whole over a null, with its 95 % interval."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.axhline(0.0, color=NULL_GREY, linewidth=1)
    for color, (model, rows) in zip(cycle(PALETTE), table.groupby("model", sort=False), strict=False):
        curve = select_curve(rows, null=null, component=component, nodes=nodes)
        if not curve.empty:
            curve_with_ribbon(curve, value="excess", color=color, label=str(model), ax=ax)
    ax.set_xlabel("relative depth (block / number of blocks)")
    ax.set_ylabel(f"excess over the {null} null")
    return ax


def retention_curve(table: pd.DataFrame, *, component: str = "taste", ax: Axes | None = None) -> Axes:
    """Draw the excess of a carried component as a part of that at the input; dashed: random weights, if computed."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.axhline(0.0, color=NULL_GREY, linewidth=1)
    ax.axhline(1.0, color=NULL_GREY, linewidth=1, linestyle=":")
    for color, (model, rows) in zip(cycle(PALETTE), table.groupby("model", sort=False), strict=False):
        curve = select_curve(rows, component=component, nodes="carried")
        if curve.empty or curve["retention"].isna().all():
            continue
        curve_with_ribbon(curve, value="retention", color=color, label=str(model), ax=ax)
        random = select_curve(rows, component=component, nodes="carried", control="random-weights")
        blocks = random["state"] == "block"
        depth = relative_depth(random)[blocks]
        ax.plot(depth, random.loc[blocks, "retention"], color=color, linestyle="--", linewidth=1.2, alpha=0.8)
    ax.set_xlabel("relative depth (block / number of blocks)")
    ax.set_ylabel(f"{component} carried / carried at the input")
    return ax


def pair_of_curves(table: pd.DataFrame, components: Sequence[str], *, figure: Figure | None = None) -> Axes:
    """Draw a panel for each component, side by side, on a figure (default: a new one); return the Axes of the first."""
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=(4.2 * len(components), 3.4), layout="constrained")
    panels = figure.subplots(1, len(components), sharey=True, squeeze=False)
    for component, ax in zip(components, panels[0], strict=True):
        retention_curve(table, component=component, ax=ax)
        ax.set_title(f"{COMPONENT_TITLES[component]} carried", fontsize=10)
        ax.set_ylabel("carried / carried at the input" if ax is panels[0][0] else "")
    if (handles := panels[0][0].get_legend_handles_labels())[0]:
        figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    first: Axes = panels[0][0]
    return first


def foreseen_curve(curves: Mapping[str, pd.DataFrame], *, component: str = "taste", ax: Axes | None = None) -> Axes:
    """Draw what is foreseen of the next item, in units of the excess carried at the input.

    Parameters
    ----------
    curves : {model: DataFrame}
        ``DecayProfile.foreseen`` of each model.
    """
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.axhline(0.0, color=NULL_GREY, linewidth=1)
    for color, (model, rows) in zip(cycle(PALETTE), curves.items(), strict=False):
        curve = rows[rows["component"] == component].rename(columns={"low": "value_low", "high": "value_high"})
        curve_with_ribbon(curve, value="value", color=color, label=model, ax=ax)
    ax.set_xlabel("relative depth (block / number of blocks)")
    ax.set_ylabel(f"{component} foreseen / carried at the input")
    return ax


def nulls_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the whole excess over each null, one line style per null: a weaker null keeps more of it."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.axhline(0.0, color=NULL_GREY, linewidth=1)
    for color, (_, rows) in zip(cycle(PALETTE), table.groupby("model", sort=False), strict=False):
        for null, style in NULL_STYLES.items():
            curve = select_curve(rows, null=null)
            curve = curve[curve["state"] != "final_norm"]
            ax.plot(relative_depth(curve), curve["excess"], color=color, linestyle=style, linewidth=1.4)
    ax.set_xlabel("relative depth (block / number of blocks)")
    ax.set_ylabel("whole excess, τ = 5")
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


def decay_figure(
    tables: Sequence[pd.DataFrame], *, null: str = "swap", foreseen: Mapping[str, pd.DataFrame] | None = None
) -> Figure:
    """Return the figure of a run, all models on one axis.

    With components: taste and popularity that are carried, taste that is foreseen, the whole excess over each null, and
    the published curve if it was computed. Without: shares on top, excess below.

    Parameters
    ----------
    tables : sequence of DataFrame
        ``DecayProfile.to_frame()`` of each model.
    null : str
        The null that is drawn of a profile without components.
    foreseen : {model: DataFrame}, optional
        ``DecayProfile.foreseen`` of each model.
    """
    table = pd.concat(list(tables), ignore_index=True)
    has_published = bool((table["control"] == "paper").any())
    has_components = bool((table["component"] == "taste").any())
    figure = _components(table, foreseen or {}) if has_components else _whole(table, null, has_published)
    datasets, inputs = (", ".join(dict.fromkeys(table[name])) for name in ("dataset", "inputs"))
    figure.suptitle(f"data set: {datasets}; item inputs: {inputs}{_other_settings(table)}", fontsize=11)
    return figure


def _other_settings(table: pd.DataFrame) -> str:
    """Return, for a title, the diffusion time of the components and the own-user rule where they are not the usual."""
    main = table[table["control"] == "none"]
    taus = sorted({float(tau) for tau in main.loc[main["component"] == "taste", "tau"]})
    words = f"; τ = {', '.join(f'{tau:g}' for tau in taus)}" if taus and taus != [COMPONENT_TAU] else ""
    return words + ("; the user's own co-occurrences kept" if (main["own_user"] == "keep").any() else "")


def _components(table: pd.DataFrame, foreseen: Mapping[str, pd.DataFrame]) -> Figure:
    from matplotlib.figure import Figure

    has_published = bool((table["control"] == "paper").any())
    figure = Figure(figsize=(12.5, 7.4), layout="constrained")
    mosaic: list[Any] = [
        ["taste", "foreseen", "nulls"],
        ["popularity", "published" if has_published else "foreseen", "nulls"],
    ]
    grid = figure.subplot_mosaic(mosaic)
    for component in ("taste", "popularity"):
        retention_curve(table, component=component, ax=grid[component])
        grid[component].set_title(f"{COMPONENT_TITLES[component]} carried: items the rows read", fontsize=10)
    foreseen_curve(foreseen, ax=grid["foreseen"])
    grid["foreseen"].set_title("Taste foreseen: items the rows predict", fontsize=10)
    nulls_curve(table, ax=grid["nulls"])
    grid["nulls"].set_title("Whole excess over each null\n(popularity, lag and taste together)", fontsize=10)
    if has_published:
        published_curve(table, ax=grid["published"])
        grid["published"].set_title("As published: raw states, no null", fontsize=10)
    handles, names = grid["taste"].get_legend_handles_labels()
    marks = {"input of block 1 (embed)": "D", "after the final norm": "X"}
    proxies = [*handles, *(proxy(marker=marker) for marker in marks.values())]
    names = [*names, *marks]
    if (table["control"] == "random-weights").any():
        proxies.append(proxy(linestyle="--"))
        names.append("carried: random weights")
    proxies += [proxy(linestyle=style) for style in NULL_STYLES.values()]
    names += [f"whole: over {null}" for null in NULL_STYLES]
    figure.legend(proxies, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _whole(table: pd.DataFrame, null: str, has_published: bool) -> Figure:
    from matplotlib.figure import Figure

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

    # A row of the tallest map needs so much height for its label to be read.
    height = max(4.2, 1.2 + 0.18 * max(len(excess) for excess in maps.values()))
    figure = Figure(figsize=(max(6.5, 5.5 * len(maps)), height), layout="constrained")
    for ax, (model, excess) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        frequency_map(excess, ax=ax)
        ax.set_title(f"{model}: excess over the {null} null", fontsize=10)
    return figure


def proxy(**style: Any) -> Any:
    """Return a grey legend handle."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=NULL_GREY, **{"linestyle": "none", **style})
