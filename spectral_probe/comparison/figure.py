"""Figure of a comparison: what is carried, the corrected share, the paper's Fig. 4, and the changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from spectral_probe.comparison.comparison import ProfileComparison, is_by_prefix, name_of
from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, SHARE, Site
from spectral_probe.figure_style import (
    DEFAULT_WIDTH,
    NULL_GREY,
    WIDTHS,
    band_proxy,
    finish,
    model_styles,
    new_figure,
    panel_height,
    paper_style,
    proxy,
    say_where_it_starts,
    style_axes,
)
from spectral_probe.profiles.drawing import excess_curve, share_curve
from spectral_probe.profiles.figures import INTERVAL, has_components, thousandths
from spectral_probe.profiles.profile import DecayProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Rows of the panel of changes, from top to bottom.
ROWS: dict[tuple[str, Site], str] = {
    ("taste", "last block"): "taste carried",
    ("taste", "last block − embed"): "taste carried, less that at the input",
    ("popularity", "last block"): "popularity carried",
    (EXCESS["swap"], "last block"): "whole excess over swap",
    (EXCESS["cyclic"], "last block"): "whole excess over cyclic",
    (EXCESS["permutation"], "last block"): "whole excess over permutation",
    (SHARE, "last block"): "low-pass share",
    (NULL_SHARE, "last block"): "low-pass share of other users' states",
}
#: Height in mm of the panel of changes.
_CHANGES_HEIGHT = 66.0


def comparison_figure(
    profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison], *, width: int = DEFAULT_WIDTH
) -> Figure:
    """Return the figure of a comparison.

    Panels: taste and popularity that are carried, if the profiles have them; the corrected low-pass share, with that of
    the swap null dashed; and the changes at the last block with their intervals. The published curve and the excess
    over every null have figures of their own.

    Parameters
    ----------
    profiles : sequence of DecayProfile
        The first is the base; names are distinct.
    comparisons : sequence of ProfileComparison
        One for each other profile, against the base.
    width : int
        85 or 178, in mm.
    """
    labels = {name_of(p): f"{name_of(p)} (prefix by prefix)" if is_by_prefix(p) else name_of(p) for p in profiles}
    table = pd.concat([p.table.assign(model=labels[name_of(p)]) for p in profiles], ignore_index=True)
    components = [name for name in ("taste", "popularity") if has_components(table)]
    with paper_style():
        figure, grid = _grid(width, list(labels.values()), components)
        for component in components:
            ax = grid[component]
            excess_curve(table, null="swap", component=component, nodes="carried", ax=ax, is_labelled=True)
            ax.set_title(f"{component.capitalize()} carried\nexcess × 1000")
        share_curve(table, null="swap", ax=grid["share"], is_labelled=True)
        grid["share"].set_title("Low-pass share of energy × 1000, corrected\ndashed: of other users' states")
        for name in (*components, "share"):
            style_axes(grid[name])
            grid[name].set_ylabel("")
            grid[name].yaxis.set_major_formatter(thousandths())
            grid[name].set_xlabel(grid[name].get_xlabel().replace(" (", "\n("))
            say_where_it_starts(grid[name], factor=1000)
        _draw_changes(comparisons, labels, grid["changes"])
        entries = {INTERVAL: band_proxy(), "swap null": proxy(linestyle="--")}
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=2)
        return finish(figure)


def _grid(width: int, labels: Sequence[str], components: Sequence[str]) -> tuple[Figure, dict[str, Axes]]:
    """Return the empty figure and its panels: in two columns across a page, one below the other in one column."""
    height = panel_height(labels, 40.0) + 18
    rows: Any = [list(components)] if components else []
    rows.append(["share", "changes"])
    heights = [height] * (len(rows) - 1) + [max(height, _CHANGES_HEIGHT)]
    if width != max(WIDTHS):
        rows = [[name] for row in rows for name in row]
        heights = [height] * (len(rows) - 1) + [_CHANGES_HEIGHT]
    figure = new_figure(width, sum(heights) + 6)
    return figure, figure.subplot_mosaic(rows, height_ratios=heights)


def comparison_table(profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison]) -> pd.DataFrame:
    """Return the numbers behind the figure: rows of the curves (``part`` "curve") and of the changes ("change")."""
    curves = pd.concat([p.to_frame() for p in profiles], ignore_index=True).query("band in ('low', '1')")
    changes = [comparison.to_frame() for comparison in comparisons]
    tables = [curves.assign(part="curve"), *(table.assign(part="change") for table in changes)]
    joined = pd.concat(tables, ignore_index=True)
    return joined[["part", *(column for column in joined.columns if column != "part")]]


def _draw_changes(comparisons: Sequence[ProfileComparison], labels: Mapping[str, str], ax: Axes) -> None:
    """Draw every change against the base as a point with its interval."""
    ax.axvline(0.0, color=NULL_GREY, linewidth=0.8, zorder=1)
    styles = model_styles(list(labels))
    step = 0.45 / max(len(comparisons), 1)
    for number, comparison in enumerate(comparisons):
        color, shape = styles[comparison.other]
        offset = (number - (len(comparisons) - 1) / 2) * step
        for row, key in enumerate(ROWS):
            change = comparison.changes.at.get(key)
            if change is None:
                continue
            difference = change.difference
            ax.hlines(row + 0.12 + offset, difference.low, difference.high, color=color, linewidth=1.4)
            ax.plot(difference.value, row + 0.12 + offset, marker=shape, markersize=3.6, color=color, linestyle="none")
    style_axes(ax, grid="x")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # keeps the line at 0 from crossing the text
    for row, label in enumerate(ROWS.values()):
        ax.text(0.0, row - 0.36, label, transform=ax.get_yaxis_transform(), va="center", bbox=box)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(thousandths())
    ax.set_xlabel("difference × 1000")
    ax.set_ylim(len(ROWS) - 0.5, -0.75)
    others = ", ".join(labels[comparison.other] for comparison in comparisons)
    against = f"{others} − {comparisons[0].base}" if comparisons else "nothing to compare with"
    ax.set_title(f"Change at the last block\n{against}", parse_math=False)
