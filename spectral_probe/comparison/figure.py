"""Figure of a comparison: the paper's Fig. 4, the corrected share, the changes, and the excess over each null."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectral_probe.comparison.comparison import ProfileComparison, is_by_prefix, name_of
from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, SHARE, Site
from spectral_probe.figure_style import NULL_GREY, PALETTE
from spectral_probe.profiles.figures import curve_with_ribbon, proxy, relative_depth
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Title of each null's panel: what raises the excess over it.
NULL_TITLES = {
    "cyclic": "Whole excess over cyclic\nuneven smoothing raises it",
    "permutation": "Whole excess over permutation\nany smoothing in time raises it",
    "swap": "Whole excess over swap\nsmoothing cancels; popularity and taste do not",
}
#: Rows of the panel of changes, from top to bottom.
ROWS: dict[tuple[str, Site], str] = {
    (SHARE, "last block"): "low-pass share",
    (NULL_SHARE, "last block"): "… of other users' states",
    (EXCESS["cyclic"], "last block"): "whole excess over cyclic",
    (EXCESS["permutation"], "last block"): "whole excess over permutation",
    (EXCESS["swap"], "last block"): "whole excess over swap",
    ("popularity", "last block"): "popularity carried",
    ("taste", "last block"): "taste carried",
    ("taste", "last block − embed"): "… less that at embed",
}


def comparison_figure(profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison]) -> Figure:
    """Return the figure of a comparison; the panels of excess share their y axis.

    Top row: the low-pass share of raw states, as in the paper's Fig. 4 (the published quantity if every run has it,
    else that of the heat kernel); the corrected share and that of the swap null; the changes at the last block with
    their intervals. Bottom row: the excess over each null.

    Parameters
    ----------
    profiles : sequence of DecayProfile
        The first is the base; names are distinct.
    comparisons : sequence of ProfileComparison
        One for each other profile, against the base.
    """
    from matplotlib.figure import Figure

    labels = {name_of(p): f"{name_of(p)} (prefix by prefix)" if is_by_prefix(p) else name_of(p) for p in profiles}
    is_published = all("paper" in profile.controls for profile in profiles)
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    grid = figure.subplot_mosaic([["raw", "share", "changes"], list(NULL_TITLES)])
    for ax in grid.values():
        ax.grid(axis="y", color=NULL_GREY, alpha=0.2, linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    for color, profile in zip(cycle(PALETTE), profiles, strict=False):
        label = labels[name_of(profile)]
        _draw_raw(profile, grid["raw"], is_published=is_published, color=color, label=label)
        _draw_share(profile, grid["share"], color=color, label=label)
        for null in NULL_TITLES:
            curve = select_curve(profile.table, null=null)
            if not curve.empty:
                curve_with_ribbon(curve, value="excess", color=color, label=label, ax=grid[null])
    _share_axis([grid[null] for null in NULL_TITLES], "excess of the low-pass share")
    kind = "as published, lowest decile" if is_published else "the quantity of the paper's Fig. 4"
    grid["raw"].set_title(f"Low-pass share of raw states\n{kind}", fontsize=10)
    grid["raw"].set_ylabel("low-pass share of energy")
    grid["share"].set_title("Corrected low-pass share\nfirst position dropped, centred; dashed: swap null", fontsize=10)
    for null, title in NULL_TITLES.items():
        grid[null].axhline(0.0, color=NULL_GREY, linewidth=1, zorder=1)
        grid[null].set_title(title, fontsize=10)
        grid[null].set_xlabel("relative depth (block / number of blocks)")
    _draw_changes(comparisons, grid["changes"])
    _legend(figure, grid["share"], labels.values())
    datasets, inputs = (
        ", ".join(dict.fromkeys(str(p.table[c].iloc[0]) for p in profiles)) for c in ("dataset", "inputs")
    )
    figure.suptitle(f"data set: {datasets}; item inputs: {inputs}", fontsize=11)
    return figure


def comparison_table(profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison]) -> pd.DataFrame:
    """Return the numbers behind the figure: rows of the curves (``part`` "curve") and of the changes ("change")."""
    curves = pd.concat([p.to_frame() for p in profiles], ignore_index=True).query("band in ('low', '1')")
    changes = [comparison.to_frame() for comparison in comparisons]
    tables = [curves.assign(part="curve"), *(table.assign(part="change") for table in changes)]
    joined = pd.concat(tables, ignore_index=True)
    return joined[["part", *(column for column in joined.columns if column != "part")]]


def _draw_raw(profile: DecayProfile, ax: Axes, *, is_published: bool, color: str, label: str) -> None:
    """Draw the published curve at equal steps of depth, or the raw share of the heat kernel."""
    control, band = ("paper", "1") if is_published else ("raw", "low")
    if control not in profile.controls:
        return
    curve = select_curve(profile.controls[control].table, band=band, null=None, control=control)
    if not is_published:
        curve_with_ribbon(curve, value="share", color=color, label=label, ax=ax)
        return
    depth = np.linspace(0, 1, len(curve))
    ax.plot(depth, curve["share"], color=color, marker="o", markersize=3.5, label=label)
    ax.fill_between(depth, curve["share_low"], curve["share_high"], color=color, alpha=0.18, linewidth=0)


def _draw_share(profile: DecayProfile, ax: Axes, *, color: str, label: str) -> None:
    """Draw the corrected share, and dashed in the same colour the share of other users' states on the same graph."""
    curve = select_curve(profile.table, null="swap")
    curve = select_curve(profile.table, null=None) if curve.empty else curve
    blocks = curve["state"] == "block"
    depth = relative_depth(curve)[blocks]
    ax.plot(depth, curve.loc[blocks, "null_share"], color=color, linestyle="--", linewidth=1.2, alpha=0.8, zorder=2)
    curve_with_ribbon(curve, value="share", color=color, label=label, ax=ax)


def _share_axis(panels: Sequence[Axes], label: str) -> None:
    for ax in panels[1:]:
        ax.sharey(panels[0])
        ax.tick_params(labelleft=False)
    panels[0].autoscale(axis="y")
    panels[0].set_ylabel(label)


def _draw_changes(comparisons: Sequence[ProfileComparison], ax: Axes) -> None:
    """Draw every change against the base as a point with its interval."""
    ax.axvline(0.0, color=NULL_GREY, linewidth=1, zorder=1)
    step = 0.45 / max(len(comparisons), 1)
    # The base has the palette's first colour.
    for number, (color, comparison) in enumerate(zip(cycle([*PALETTE[1:], PALETTE[0]]), comparisons, strict=False)):
        offset = (number - (len(comparisons) - 1) / 2) * step
        for row, key in enumerate(ROWS):
            change = comparison.changes.at.get(key)
            if change is None:
                continue
            difference = change.difference
            ax.hlines(row + 0.1 + offset, difference.low, difference.high, color=color, linewidth=2)
            ax.plot(difference.value, row + 0.1 + offset, marker="o", markersize=5.5, color=color, linestyle="none")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # keeps the line at 0 from crossing the text
    for row, label in enumerate(ROWS.values()):
        ax.text(0.02, row - 0.36, label, transform=ax.get_yaxis_transform(), fontsize=8.5, va="center", bbox=box)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=NULL_GREY, alpha=0.2, linewidth=0.8)
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylim(len(ROWS) - 0.5, -0.65)
    base = f"other − {comparisons[0].base}" if comparisons else "nothing to compare with"
    ax.set_title(f"Change at the last block\n{base}", fontsize=10)


def _legend(figure: Figure, ax: Axes, labels: Any) -> None:
    handles, names = ax.get_legend_handles_labels()
    marks = {"input of block 1 (embed)": "D", "after the final norm": "X"}
    proxies = [*handles, *(proxy(marker=marker) for marker in marks.values()), proxy(linestyle="--")]
    texts = [*names, *marks, "swap null (in each model's colour)"]
    figure.legend(proxies, texts, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
