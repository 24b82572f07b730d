"""The figure of an experiment, from the tidy means alone: a curve over a swept setting, or one dot per variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from frellm4rec.evaluation.contrasts import MIN_SEEDS, USERS_AND_TRAININGS
from frellm4rec.experiments.definitions import Experiment
from frellm4rec.experiments.labels import LEAKY, in_order, mode_label, modes_in_order, ranking_label, rows_of
from frellm4rec.experiments.tables import METRICS, NAMES, ExperimentTables, is_baseline
from spectral_probe.figure_style import (
    DEFAULT_WIDTH,
    GRID,
    NULL_GREY,
    PALETTE,
    WIDTHS,
    finish,
    new_figure,
    paper_style,
    say_where_it_starts,
    style_axes,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"prefix": PALETTE[0], "causal": PALETTE[1], LEAKY: PALETTE[3]}
#: Distance of "off" from the last value of a sweep; distance between the modes of a row.
_OFF_STEP, _DODGE = 0.14, 0.22
#: Line styles of the baselines.
_LINES = ("--", ":", "-.")


def figure_rows(experiment: Experiment, tables: ExperimentTables, ranking: str | None = None) -> pd.DataFrame:
    """Return the means that the figure shows: those of one ranking, by default the first in the table."""
    means = tables.select(experiment=experiment.name).means
    if means.empty:
        return means
    return means[means["ranking"] == (ranking or means["ranking"].iloc[0])]


def experiment_figure(
    experiment: Experiment, tables: ExperimentTables, *, ranking: str | None = None, width: int = DEFAULT_WIDTH
) -> Figure:
    """Return the figure: NDCG and recall side by side, one row of axes per backbone, one colour per mode.

    On one column of a page (85 mm) recall is below NDCG.
    """
    means = figure_rows(experiment, tables, ranking)
    trained = means[~is_baseline(means)]
    panels = list(trained[["dataset", "backbone", "settings"]].drop_duplicates().itertuples(index=False, name=None))
    panels = panels or [("", "", "")]
    is_sweep, is_wide = experiment.sweep is not None, width == max(WIDTHS)
    modes = modes_in_order(trained)
    with paper_style():
        n_rows, n_columns = (len(panels), len(METRICS)) if is_wide else (len(panels) * len(METRICS), 1)
        rows_of_panel = [_part(means, panel) for panel in panels]
        heights = [
            52.0 if is_sweep else _dots_height(part) for part in rows_of_panel for _ in range(n_rows // len(panels))
        ]
        figure = new_figure(width, sum(heights) + 12)
        grid = figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel()
        pairs = [(panel, part, metric) for panel, part in zip(panels, rows_of_panel, strict=True) for metric in METRICS]
        for ax, (panel, part, metric) in zip(grid, pairs, strict=True):
            rows = part[part["metric"] == metric]
            draw = sweep_curve if is_sweep else variant_dots
            draw(experiment, rows, modes=modes, ax=ax)
            name = f"{NAMES[metric]}@{int(rows['k'].iloc[0])}" if len(rows) else NAMES[metric]
            _name_axes(ax, name, panel if len(panels) > 1 else ("", "", ""), is_sweep=is_sweep, is_wide=is_wide)
        handles = {label: handle for ax in grid for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4 if is_wide else 2)
        return finish(figure)


def experiment_caption(experiment: Experiment, tables: ExperimentTables, ranking: str | None = None) -> str:
    """Return the caption of the figure: what is varied, on which data, over which seeds, and what is drawn."""
    means = figure_rows(experiment, tables, ranking)
    rows = means[~is_baseline(means)]
    drawn = "points with 95 % intervals" if experiment.sweep is None else "means with 95 % intervals"
    text = f"{experiment.title} ({experiment.source} of the paper): {drawn}. {_conditions(rows)}"
    if len(rows) < len(means):
        text += " Grey: models evaluated alone, with their intervals."
    return text


def _part(means: pd.DataFrame, panel: tuple[str, str, str]) -> pd.DataFrame:
    dataset, backbone, settings = panel
    return rows_of(means[means["dataset"] == dataset], backbone, settings)


def _dots_height(part: pd.DataFrame) -> float:
    """Return the height in mm of a panel of dots."""
    return 18.0 + 6.0 * max(2, part.loc[~is_baseline(part), "variant"].nunique())


def _name_axes(ax: Axes, name: str, panel: tuple[str, str, str], *, is_sweep: bool, is_wide: bool) -> None:
    """Write what is measured, of which backbone, and where an axis without 0 starts."""
    _, backbone, settings = panel
    heading = f"{name}, {backbone}" + (f", {settings}" if settings else "") if backbone else name
    ax.set_title(wrapped(heading.replace("training.", "").replace("architecture.", ""), 30), parse_math=False)
    if is_wide and not is_sweep and ax.get_subplotspec().colspan.start > 0:  # type: ignore[union-attr]
        ax.tick_params(labelleft=False)  # the rows are named on the left
    say_where_it_starts(ax, "y" if is_sweep else "x")


def sweep_curve(experiment: Experiment, rows: pd.DataFrame, *, modes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw one metric over the swept setting with its 95 % interval; "off" is drawn at the right end."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    assert experiment.sweep is not None
    values = {variant.name: experiment.swept_value(variant.name) for variant in experiment.variants}
    numbers = [value for value in values.values() if value is not None]
    off = max(numbers) + _OFF_STEP * ((max(numbers) - min(numbers)) or 1.0)
    _baseline_bands(rows, ax, vertical=False)
    for mode, color in _coloured(modes):
        points = rows[(rows["mode"] == mode) & ~is_baseline(rows)]
        points = points.assign(x=[values[name] for name in points["variant"]])
        curve = points[points["x"].notna()].sort_values("x")
        ax.fill_between(curve["x"], curve["low"], curve["high"], color=color, alpha=0.16, linewidth=0)
        ax.plot(curve["x"], curve["value"], color=color, marker="o", markersize=3.5, label=mode_label(mode), zorder=3)
        x_off = off + 0.25 * (off - max(numbers)) * (list(modes).index(mode) - (len(modes) - 1) / 2)
        for row in points[points["x"].isna()].itertuples():
            ax.vlines(x_off, row.low, row.high, color=color, linewidth=1.6, alpha=0.55)
            ax.plot(x_off, row.value, marker="D", markersize=4, color=color, zorder=4)
    ticks = {value: f"{value:g}" for value in numbers}
    if any(value is None for value in values.values()):
        ax.axvline(max(numbers) + (off - max(numbers)) / 2, color=GRID, linewidth=1)
        ticks[off] = "off"
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set_xlabel(experiment.sweep.label)
    style_axes(ax, grid="y")
    return ax


def variant_dots(experiment: Experiment, rows: pd.DataFrame, *, modes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw one dot with its 95 % interval per variant and mode, the variants from top to bottom."""
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    names = [v.name for v in in_order(experiment, rows.loc[~is_baseline(rows), "variant"])]
    _baseline_bands(rows, ax, vertical=True)
    for number, (mode, color) in enumerate(_coloured(modes)):
        dots = rows[(rows["mode"] == mode) & ~is_baseline(rows)]
        y = np.array([names.index(name) for name in dots["variant"]]) + _DODGE * (number - (len(modes) - 1) / 2)
        ax.hlines(y, dots["low"], dots["high"], color=color, linewidth=1.6, alpha=0.55)
        ax.plot(dots["value"], y, marker="o", markersize=4, linestyle="none", color=color, label=mode_label(mode))
    labels = {variant.name: variant.label for variant in experiment.variants}
    ax.set_yticks(range(len(names)), [labels[name] for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    style_axes(ax, grid="x")
    return ax


def _baseline_bands(rows: pd.DataFrame, ax: Axes, *, vertical: bool) -> None:
    """Draw every baseline as a dashed line with its interval, across all variants."""
    for number, row in enumerate(rows[is_baseline(rows)].itertuples()):
        span, line = (ax.axvspan, ax.axvline) if vertical else (ax.axhspan, ax.axhline)
        span(row.low, row.high, color=NULL_GREY, alpha=0.13, linewidth=0)
        line(
            row.value, color=NULL_GREY, linestyle=_LINES[number % len(_LINES)], linewidth=1.2, label=row.label, zorder=1
        )


def _coloured(modes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the modes with their colours; a mode has the same colour in every figure."""
    return [(mode, COLORS.get(mode, PALETTE[-1])) for mode in modes]


def _conditions(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    parts = [f"Data set: {', '.join(dict.fromkeys(rows['dataset']))}"]
    if rows["backbone"].nunique() == 1 and (backbone := rows["backbone"].iloc[0]):
        parts.append(f"backbone {backbone}")
    ranking: Any = rows["ranking"].iloc[0]
    parts.append(ranking_label(ranking))
    fewest, most = int(rows["n_seeds"].min()), int(rows["n_seeds"].max())
    seeds = f"{most} seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} seeds"
    kinds = set(rows["covers"])
    covers = "users and trainings" if kinds == {USERS_AND_TRAININGS} else "users"
    covers += f" (and trainings, from {MIN_SEEDS} seeds on)" if len(kinds) > 1 else ""
    parts.append(f"mean over {seeds}, 95 % intervals over {covers}")
    return "; ".join(parts) + "."
