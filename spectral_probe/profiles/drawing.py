"""Curves over the layers from the tidy table of a run. Every function draws on the caller's axes and returns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spectral_probe.figure_style import FONT_SIZE, NULL_GREY, label_line_end, model_styles
from spectral_probe.profiles.bootstrap import ROUNDING
from spectral_probe.profiles.tables import select_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"embed": "D", "final_norm": "X"}
#: x of ``embed`` and of ``final_norm`` on the axis of relative depth, where the blocks are in (0, 1].
EMBED_DEPTH, FINAL_NORM_DEPTH = -0.13, 1.17
#: Marks of several models at one depth: distance of neighbours, and of the outermost two.
_STEP, _SPREAD = 0.036, 0.15
COMPONENT_TITLES = {"taste": "Taste", "popularity": "Popularity", "lag": "Lag profile", "whole": "Whole excess"}
DEPTH_LABEL = "relative depth (block / number of blocks)"


class Look(NamedTuple):
    """How the curve of a model is drawn.

    Attributes
    ----------
    label, color, shape : str
        Name, colour, and mark of the blocks.
    offset : float
        Added to the depth of the marks at the input and the norm, so that those of several models stand side by side.
    """

    label: str
    color: str
    shape: str = "o"
    offset: float = 0.0


def curves_by_model(table: pd.DataFrame) -> Iterator[tuple[Look, pd.DataFrame]]:
    """Yield the models of a table in its order: a look of its own, which names it, and its rows."""
    groups = list(table.groupby("model", sort=False))
    styles = model_styles([str(model) for model, _ in groups])
    step = min(_STEP, _SPREAD / max(len(groups) - 1, 1))
    for number, (model, rows) in enumerate(groups):
        color, shape = styles[str(model)]
        yield Look(str(model), color, shape, step * (number - (len(groups) - 1) / 2)), rows


def relative_depth(curve: pd.DataFrame) -> pd.Series[Any]:
    """Return layer / number of blocks; ``embed`` is at :data:`EMBED_DEPTH`, ``final_norm`` at its own depth."""
    n_blocks = max([1, *curve.loc[curve["state"] == "block", "layer"]])
    depth = (curve["layer"] / n_blocks).astype(float)
    depth = depth.where(curve["state"] != "embed", EMBED_DEPTH)
    return depth.where(curve["state"] != "final_norm", FINAL_NORM_DEPTH)


def depth_axis(ax: Axes) -> None:
    """Label the axis of relative depth: the input at its left end, the final norm at its right one."""
    ticks = {EMBED_DEPTH: "input", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1", FINAL_NORM_DEPTH: "norm"}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set_xlim(EMBED_DEPTH - 0.11, FINAL_NORM_DEPTH + 0.11)
    ax.set_xlabel(DEPTH_LABEL)


def curve_with_ribbon(curve: pd.DataFrame, look: Look, *, value: str, ax: Axes, is_labelled: bool = False) -> Axes:
    """Draw one quantity over depth: a line with ribbon for blocks, marks for ``embed`` and ``final_norm``.

    Parameters
    ----------
    curve : DataFrame
        Columns ``layer``, ``state``, the value, and its interval ``<value>_low``, ``<value>_high`` if there is one.
    look : Look
    value : str
    is_labelled : bool
        Whether the label is written at the end of the line too.
    """
    depth = relative_depth(curve)
    blocks = curve["state"] == "block"
    # So small that 30 blocks show a line, not a row of marks.
    size = 3.0 if blocks.sum() <= 12 else 2.0
    line: dict[str, Any] = {"color": look.color, "label": look.label, "marker": look.shape, "markersize": size}
    ax.plot(depth[blocks], curve.loc[blocks, value], **line, zorder=3)
    has_interval = f"{value}_low" in curve.columns
    if has_interval:
        low, high = (curve.loc[blocks, f"{value}_{end}"].astype(float) for end in ("low", "high"))
        ax.fill_between(depth[blocks], low, high, color=look.color, alpha=0.18, linewidth=0)
    for state, marker in MARKERS.items():
        rows = curve["state"] == state
        if not rows.any():
            continue
        x = depth[rows] + look.offset
        ax.plot(x, curve.loc[rows, value], marker=marker, linestyle="none", color=look.color, markersize=3.4, zorder=3)
        if has_interval:
            ends = curve.loc[rows, [f"{value}_low", f"{value}_high"]]
            ax.vlines(x, ends.iloc[:, 0], ends.iloc[:, 1], color=look.color, linewidth=1.0)
    if is_labelled and len(curve):
        last = curve.iloc[-1]
        x_last = depth.iloc[-1] + (look.offset if last["state"] in MARKERS else 0.0)
        label_line_end(ax, float(x_last), float(last[value]), look.label, look.color)
    return ax


def share_curve(
    table: pd.DataFrame,
    *,
    null: str | None,
    component: str = "whole",
    ax: Axes | None = None,
    is_labelled: bool = False,
) -> Axes:
    """Draw the low-pass share of every model in the table, and dashed in its colour its share under the null.

    Of a component other than the whole there is no share: its carried excess is drawn, as a part of the input's.
    """
    if component != "whole":
        return retention_curve(table, component=component, ax=ax, is_labelled=is_labelled)
    ax = _axes(ax)
    for look, rows in curves_by_model(table):
        curve = select_curve(rows, null=null)
        if curve.empty and null is not None:
            curve = select_curve(rows, null=None)
        if null is not None:
            _dashed(curve, "null_share", look.color, ax)
        curve_with_ribbon(curve, look, value="share", ax=ax, is_labelled=is_labelled)
    depth_axis(ax)
    ax.set_ylabel("low-pass share of energy")
    return ax


def excess_curve(
    table: pd.DataFrame,
    *,
    null: str | None = "swap",
    component: str = "whole",
    nodes: str | None = None,
    ax: Axes | None = None,
    is_labelled: bool = False,
) -> Axes:
    """Draw the excess of a component, or of the whole over a null, with its 95 % interval."""
    ax = _axes(ax)
    ax.axhline(0.0, color=NULL_GREY, linewidth=0.8)
    for look, rows in curves_by_model(table):
        curve = select_curve(rows, null=null, component=component, nodes=nodes)
        if not curve.empty:
            curve_with_ribbon(curve, look, value="excess", ax=ax, is_labelled=is_labelled)
    depth_axis(ax)
    ax.set_ylabel(f"excess over the {null} null")
    return ax


def retention_curve(
    table: pd.DataFrame, *, component: str = "taste", ax: Axes | None = None, is_labelled: bool = False
) -> Axes:
    """Draw the excess of a carried component as a part of that at the input; dashed: random weights, if computed.

    A model whose input carries none that is measurable has no denominator and is left out.
    """
    ax = _axes(ax)
    ax.axhline(0.0, color=NULL_GREY, linewidth=0.8)
    ax.axhline(1.0, color=NULL_GREY, linewidth=0.8, linestyle=":")
    n_drawn = 0
    for look, rows in curves_by_model(table):
        curve = select_curve(rows, component=component, nodes="carried")
        if not has_input(curve):
            continue
        n_drawn += 1
        _dashed(
            select_curve(rows, component=component, nodes="carried", control="random-weights"),
            "retention",
            look.color,
            ax,
        )
        curve_with_ribbon(curve, look, value="retention", ax=ax, is_labelled=is_labelled)
    if not n_drawn:
        words = f"no model's input carries\nmeasurable {component}"
        ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=FONT_SIZE)
    depth_axis(ax)
    ax.set_ylabel(f"{component} carried / carried at the input")
    return ax


def has_input(curve: pd.DataFrame) -> bool:
    """Return whether the excess at the input is measurably above 0, so that a retention has a denominator."""
    embed = curve.loc[curve["state"] == "embed", "excess_low"] if len(curve) else curve
    return bool(len(embed) and embed.iloc[0] > ROUNDING and curve["retention"].notna().any())


def foreseen_curve(
    curves: Mapping[str, pd.DataFrame], *, component: str = "taste", ax: Axes | None = None, is_labelled: bool = False
) -> Axes:
    """Draw what is foreseen of the next item, in units of the excess carried at the input.

    Parameters
    ----------
    curves : {model: DataFrame}
        ``DecayProfile.foreseen`` of each model.
    """
    ax = _axes(ax)
    ax.axhline(0.0, color=NULL_GREY, linewidth=0.8)
    rows = [curve[curve["component"] == component].assign(model=model) for model, curve in curves.items()]
    joined = pd.concat(rows).rename(columns={"low": "value_low", "high": "value_high"}) if rows else pd.DataFrame()
    for look, curve in curves_by_model(joined) if len(joined) else ():
        curve_with_ribbon(curve, look, value="value", ax=ax, is_labelled=is_labelled)
    depth_axis(ax)
    ax.set_ylabel(f"{component} foreseen / carried at the input")
    return ax


def published_curve(table: pd.DataFrame, *, band: str = "1", ax: Axes | None = None, is_labelled: bool = False) -> Axes:
    """Draw the published quantity: the raw share of the lowest tenth of the frequencies, at equal steps of depth."""
    ax = _axes(ax)
    for look, rows in curves_by_model(table):
        curve = select_curve(rows, band=band, null=None, control="paper")
        if curve.empty:
            continue
        depth = np.linspace(0, 1, len(curve))
        size = 3.0 if len(curve) <= 12 else 2.0
        ax.plot(depth, curve["share"], color=look.color, marker=look.shape, markersize=size, label=look.label)
        low, high = (curve[f"share_{end}"].astype(float) for end in ("low", "high"))
        ax.fill_between(depth, low, high, color=look.color, alpha=0.18, linewidth=0)
        if is_labelled:
            label_line_end(ax, float(depth[-1]), float(curve["share"].iloc[-1]), look.label, look.color)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["input", "0.25", "0.5", "0.75", "1"])
    ax.set_xlabel("relative depth (entry / number of entries)")
    ax.set_ylabel("share of the lowest decile, raw states")
    return ax


def frequency_map(
    excess: pd.DataFrame, *, ax: Axes | None = None, bound: float | None = None, n_labels: int = 9
) -> Axes:
    """Draw the excess over the null by layer (rows) and graph frequency (columns, by rank from smooth to rough).

    Parameters
    ----------
    excess : DataFrame
        Rows: layers from the input on; columns: rank fractions of the bands; values: mean excess share.
    bound : float, optional
        The colours go from −bound to bound, so that several maps can share them; left out: the largest value.
    n_labels : int
        Layers that are labelled at most: first, last and evenly spaced ones.
    """
    ax = _axes(ax)
    values = excess.to_numpy(dtype=float)
    limit = bound if bound else largest(excess)
    ax.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    rows = np.unique(np.linspace(0, len(excess) - 1, min(n_labels, len(excess))).round().astype(int))
    ax.set_yticks(rows, [str(excess.index[row]) for row in rows])
    columns = np.linspace(0, excess.shape[1] - 1, min(4, excess.shape[1])).round().astype(int)
    ax.set_xticks(columns, [str(excess.columns[column]) for column in columns])
    ax.set_xlabel("graph frequency by rank (0 smooth, 1 rough)")
    return ax


def largest(excess: pd.DataFrame) -> float:
    """Return the largest absolute value of a map; 1 where all are 0."""
    return float(np.nanmax(np.abs(excess.to_numpy(dtype=float)))) or 1.0


def _axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    return plt.gca() if ax is None else ax


def _dashed(curve: pd.DataFrame, value: str, color: str, ax: Axes) -> None:
    """Draw the blocks of a reference curve as a dashed line in the colour of its model."""
    blocks = curve["state"] == "block"
    depth = relative_depth(curve)[blocks]
    ax.plot(depth, curve.loc[blocks, value], color=color, linestyle="--", linewidth=0.9, alpha=0.8, zorder=2)
