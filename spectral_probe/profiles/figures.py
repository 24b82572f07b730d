"""Figures of a run for print: one message for each panel, 85 or 178 mm wide, with a caption and a table beside each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from spectral_probe.figure_style import (
    DEFAULT_WIDTH,
    WIDTHS,
    band_proxy,
    finish,
    new_figure,
    panel_height,
    paper_style,
    proxy,
    say_where_it_starts,
    style_axes,
)
from spectral_probe.profiles.drawing import (
    COMPONENT_TITLES,
    excess_curve,
    foreseen_curve,
    frequency_map,
    has_input,
    largest,
    published_curve,
    retention_curve,
    share_curve,
)
from spectral_probe.profiles.tables import select_curve
from spectral_probe.spectrum.components import COMPONENT_TAU

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVAL, RANDOM = "95 % interval over users", "random weights"
#: What raises the excess over each null.
NULLS_IN_WORDS = {
    "swap": "popularity, lag profile and taste",
    "cyclic": "uneven smoothing raises it",
    "permutation": "any smoothing in time raises it",
}
_TITLES = {
    "taste": "Taste carried\nas a part of that at the input",
    "popularity": "Popularity carried\nas a part of that at the input",
    "foreseen": "Taste foreseen of the next item\nin units of the taste carried at the input",
    "published": "As published: raw states, no null\nshare of energy in the lowest decile",
    "share": "Low-pass share of energy\nfirst position dropped, centred",
}
Draw = Callable[["Axes"], Any]


def decay_figure(
    tables: Sequence[pd.DataFrame],
    *,
    null: str = "swap",
    foreseen: Mapping[str, pd.DataFrame] | None = None,
    width: int = DEFAULT_WIDTH,
) -> Figure:
    """Return the main figure of a run, all models on one axis.

    With components: taste and popularity that are carried, as parts of the input's. Without: shares, and the excess.

    Parameters
    ----------
    tables : sequence of DataFrame
        ``DecayProfile.to_frame()`` of each model.
    null : str
        The null that is drawn of a profile without components.
    foreseen : {model: DataFrame}, optional
        ``DecayProfile.foreseen`` of each model: one more panel, for a profile with components.
    width : int
        85 or 178, in mm.
    """
    table = pd.concat(list(tables), ignore_index=True)
    drawn: dict[str, Draw]
    shared: tuple[str, ...] = ()
    if has_components(table):
        drawn = {name: _retention(table, name) for name in ("taste", "popularity")}
        drawn |= {"foreseen": lambda ax: foreseen_curve(foreseen, ax=ax, is_labelled=True)} if foreseen else {}
        titles = {name: _TITLES[name] for name in drawn}
        shared = ("taste", "popularity")
    else:
        drawn = {
            "share": lambda ax: share_curve(table, null=null, ax=ax, is_labelled=True),
            "excess": lambda ax: excess_curve(table, null=null, ax=ax, is_labelled=True),
        }
        titles = {"share": _TITLES["share"], "excess": f"Excess over the {null} null\n× 1000"}
    is_random = has_components(table) and bool((table["control"] == "random-weights").any())
    dashed = RANDOM if is_random else "" if has_components(table) else f"{null} null"
    return panels_figure(drawn, titles, models_of(table), width, dashed=dashed, shared=shared, thousandfold={"excess"})


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


def excess_figure(table: pd.DataFrame, *, width: int = DEFAULT_WIDTH) -> Figure:
    """Return the whole excess over every null, a panel for each null and a colour for each model, on one scale."""
    nulls = nulls_of(table)
    drawn: dict[str, Draw] = {null: _excess(table, null) for null in nulls}
    titles = {null: f"Excess over {null}, × 1000\n{NULLS_IN_WORDS[null]}" for null in nulls}
    return panels_figure(drawn, titles, models_of(table), width, shared=tuple(nulls), thousandfold=nulls)


def foreseen_figure(foreseen: Mapping[str, pd.DataFrame], *, width: int = DEFAULT_WIDTH) -> Figure:
    """Return the figure of the taste that is foreseen of the next item."""
    drawn: dict[str, Draw] = {"foreseen": lambda ax: foreseen_curve(foreseen, ax=ax, is_labelled=True)}
    return panels_figure(drawn, _TITLES, list(foreseen), width)


def published_figure(table: pd.DataFrame, *, width: int = DEFAULT_WIDTH) -> Figure:
    """Return the published curve alone, smaller than what corrects it."""
    rows = table[table["control"] == "paper"]
    drawn: dict[str, Draw] = {"published": lambda ax: published_curve(rows, ax=ax, is_labelled=True)}
    return panels_figure(drawn, _TITLES, models_of(rows), width, least=34.0)


def heat_figure(maps: Mapping[str, pd.DataFrame], *, null: str, width: int = DEFAULT_WIDTH) -> Figure:
    """Return one frequency map for each model; one scale of colours for all of them."""
    n_columns = min(len(maps), 3 if width == max(WIDTHS) else 1)
    n_rows = -(-len(maps) // n_columns)
    bound = max(largest(excess) for excess in maps.values())
    with paper_style():
        figure = new_figure(width, 14 + 62 * n_rows)
        grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for ax, (model, excess) in zip(grid, maps.items(), strict=False):
            frequency_map(excess, ax=ax, bound=bound)
            ax.set_title(model, parse_math=False)
            ax.set_xlabel("graph frequency by rank\n(0 smooth, 1 rough)")
        for ax in grid[len(maps) :]:
            ax.remove()
        used = list(grid[: len(maps)])
        bar = figure.colorbar(used[0].images[0], ax=used, location="bottom", shrink=0.6, aspect=30)
        bar.ax.xaxis.set_major_formatter(thousandths())
        bar.set_label(f"excess share over the {null} null, × 1000")
        return finish(figure)


def models_of(table: pd.DataFrame) -> list[str]:
    """Return the models of a table in its order."""
    return [str(model) for model in table["model"].unique()]


def has_components(table: pd.DataFrame) -> bool:
    """Return whether a table has taste and popularity, not the whole alone."""
    return bool((table["component"] == "taste").any())


def nulls_of(table: pd.DataFrame) -> list[str]:
    """Return the nulls that a table has the whole excess of, in the order of their strength."""
    main = table[(table["control"] == "none") & (table["component"] == "whole")]
    return [null for null in NULLS_IN_WORDS if null in set(main["null"])]


def other_settings(table: pd.DataFrame) -> str:
    """Return, for a caption, the diffusion time of the components and the own-user rule where they are unusual."""
    main = table[table["control"] == "none"]
    taus = sorted({float(tau) for tau in main.loc[main["component"] == "taste", "tau"]})
    words = f"; τ = {', '.join(f'{tau:g}' for tau in taus)}" if taus and taus != [COMPONENT_TAU] else ""
    is_kept = "own_user" in main and (main["own_user"] == "keep").any()
    return words + ("; the user's own co-occurrences kept" if is_kept else "")


def unmeasurable(table: pd.DataFrame, component: str) -> list[str]:
    """Return the models whose input carries no measurable part of a component."""
    curves = {model: select_curve(rows, component=component, nodes="carried") for model, rows in table.groupby("model")}
    return [str(model) for model, curve in curves.items() if len(curve) and not has_input(curve)]


def _retention(table: pd.DataFrame, component: str) -> Draw:
    return lambda ax: retention_curve(table, component=component, ax=ax, is_labelled=True)


def _excess(table: pd.DataFrame, null: str) -> Draw:
    return lambda ax: excess_curve(table, null=null, ax=ax, is_labelled=True)


def panels_figure(
    drawn: Mapping[str, Draw],
    titles: Mapping[str, str],
    models: Sequence[str],
    width: int,
    *,
    dashed: str = "",
    shared: Sequence[str] = (),
    thousandfold: Collection[str] = (),
    least: float = 44.0,
    n_columns: int = 2,
    legend: Mapping[str, Any] | None = None,
) -> Figure:
    """Return a figure of panels: side by side on both columns of a page, one below the other on one.

    Parameters
    ----------
    drawn : {name: function}
        Draws a panel on the axes it is given.
    titles : {name: str}
    models : sequence of str
        The labels beside the lines.
    width : int
        85 or 178, in mm.
    dashed : str
        What the dashed lines are; empty if there are none.
    shared : sequence of str
        Panels on one scale.
    thousandfold : collection of str
        Panels whose values are shown times 1000.
    least : float
        Height of the axes in mm at least.
    n_columns : int
        Panels side by side at most, at 178 mm.
    legend : {text: handle}, optional
        Further entries of the legend.
    """
    names = list(drawn)
    n_columns = min(len(names), n_columns) if width == max(WIDTHS) else 1
    rows = [names[start : start + n_columns] for start in range(0, len(names), n_columns)]
    with paper_style():
        figure = new_figure(width, (panel_height(models, least) + 18) * len(rows) + 4 + 4 * len(legend or ()))
        mosaic: Any = [[*row, *["."] * (n_columns - len(row))] for row in rows]
        grid = figure.subplot_mosaic(mosaic)
        for name, draw in drawn.items():
            ax = grid[name]
            draw(ax)
            style_axes(ax)
            ax.set_title(titles[name], parse_math=False)
            ax.set_ylabel("")
            if name in thousandfold:
                ax.yaxis.set_major_formatter(thousandths())
        for name in shared[1:]:
            grid[name].sharey(grid[shared[0]])
        _label_depth(mosaic, grid)
        for name, ax in grid.items():
            ax.autoscale(axis="y")
            say_where_it_starts(ax, factor=1000 if name in thousandfold else 1)
        entries = {INTERVAL: band_proxy(), **({dashed: proxy(linestyle="--")} if dashed else {}), **(legend or {})}
        n_entries = 3 if width == max(WIDTHS) else 2 if not legend else 1
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=n_entries)
        return finish(figure)


def _label_depth(mosaic: Sequence[Sequence[str]], grid: Mapping[str, Axes]) -> None:
    """Leave the label of the x axis to panels above none with the same label, in two lines."""
    labels = {name: ax.get_xlabel() for name, ax in grid.items()}
    for column in zip(*mosaic, strict=True):
        names = [name for name in column if name != "."]
        for name, below in zip(names, [*names[1:], ""], strict=True):
            grid[name].set_xlabel("" if labels[name] == labels.get(below) else labels[name].replace(" (", "\n("))


def thousandths() -> Any:
    """Return the formatter of an axis whose values are shown times 1000."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{1000 * value:.3g}".replace("-", "−"))
