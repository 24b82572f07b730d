"""Learning curves of the chosen trials: validation NDCG against the time of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.systems import TunedExperiment
from frellm4rec.tuning.tables import SearchTables
from spectral_probe.figure_style import (
    DEFAULT_WIDTH,
    NULL_GREY,
    WIDTHS,
    PaperFigure,
    finish,
    label_line_end,
    model_styles,
    new_figure,
    panel_height,
    paper_style,
    proxy,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {"own": "loss of its paper", "same": "softmax over all items"}
_RISING = "best in the last two validations"


def learning_curves(experiment: TunedExperiment, tables: SystemTables, *, width: int = DEFAULT_WIDTH) -> Figure:
    """Return the figure: a panel per column, a curve per system, a ring where the curve was still rising."""
    chosen = tables.systems[tables.systems["is_trained"].astype(bool) & tables.systems["trial"].notna()]
    columns = [column for column in _TITLES if column in set(chosen["column"])] or ["own"]
    styles = model_styles([row.title for row in experiment.rows])
    is_wide = width == max(WIDTHS)
    with paper_style():
        shape = (1, len(columns)) if is_wide else (len(columns), 1)
        titles = [experiment.row(model).title for model in chosen["model"].unique()]
        figure = new_figure(width, (panel_height(titles, 56.0) + 14) * shape[0] + 6)
        grid = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
        for ax, column in zip(grid, columns, strict=True):
            for row in chosen[chosen["column"] == column].to_dict("records"):
                title = experiment.row(row["model"]).title
                curve = curve_of(tables.search, row["model"], column, int(row["trial"]))
                color, mark = styles[title]
                ax.plot(curve["time"], curve["ndcg"], color=color, marker=mark, markersize=2, label=title)
                end = curve.iloc[-1]
                label_line_end(ax, end["time"], end["ndcg"], title, color)
                if bool(row["is_still_rising"]):
                    ax.plot(end["time"], end["ndcg"], "o", mfc="none", color=color, markersize=6)
            style_axes(ax)
            ax.axhline(0.0, color=NULL_GREY, linewidth=0.8)
            ax.set_title(f"Validation NDCG@10, full ranking\n{_TITLES[column]}")
        for ax in grid if is_wide else grid[-1:]:
            ax.set_xlabel("seconds of training and validating")
        if chosen["is_still_rising"].astype(bool).any():
            figure.legend([proxy(marker="o", mfc="none", markersize=6)], [_RISING], loc="outside lower center")
        return finish(figure)


def learning_figure(experiment: TunedExperiment, tables: SystemTables, *, width: int = DEFAULT_WIDTH) -> PaperFigure:
    """Return the learning curves with every validation of every trial, a caption and a table of what was chosen."""
    datasets = ", ".join(dict.fromkeys(tables.systems["dataset"]))
    caption = (
        "Validation NDCG@10 (full ranking) of the chosen trial of every system against the time of training and "
        f"validating. Data set: {datasets}. A ring: the best validation was among the last two, so the curve may "
        "still rise."
    )
    chosen = tables.systems[tables.systems["is_trained"].astype(bool) & tables.systems["trial"].notna()]
    rows = [
        {
            "system": experiment.row(row["model"]).title,
            "loss": _TITLES[row["column"]],
            "validation NDCG@10": f"{row['validation_ndcg']:.4f}",
            "best epoch": f"{row['best_epoch']:.0f} of {row['n_epochs']:.0f}",
        }
        for row in chosen.to_dict("records")
    ]
    figure = learning_curves(experiment, tables, width=width)
    return PaperFigure(figure, tables.search.curves, caption, pd.DataFrame(rows))


def longer_figure(experiment: TunedExperiment, tables: SystemTables, *, width: int = DEFAULT_WIDTH) -> PaperFigure:
    """Return the learning curve of the run with more time, beside that of the same settings in the table."""
    pair = tables.longer_row()
    assert pair is not None
    system, row = pair
    seconds, cap = row["budget_seconds"], system["budget_seconds"]
    key = (system["model"], system["column"], int(system["trial"]))
    longer, short = curve_of(tables.longer, *key), curve_of(tables.search, *key)
    color, mark = model_styles([entry.title for entry in experiment.rows])[experiment.row(system["model"]).title]
    with paper_style():
        figure = new_figure(width, panel_height([system["label"]], 56.0) + 20)
        ax = figure.subplots()
        ax.plot(short["time"], short["ndcg"], color=color, marker=mark, markersize=2, linestyle=":")
        ax.plot(longer["time"], longer["ndcg"], color=color, marker=mark, markersize=2)
        label_line_end(ax, longer["time"].iloc[-1], longer["ndcg"].iloc[-1], system["label"], color)
        ax.axvline(cap, color=NULL_GREY, linewidth=0.8)
        ax.axhline(0.0, color=NULL_GREY, linewidth=0.8)
        style_axes(ax)
        ax.set_title("Validation NDCG@10, full ranking")
        ax.set_xlabel("seconds of training and validating")
        shown = [proxy(linestyle=":"), proxy(linestyle="-")]
        figure.legend(shown, [f"{cap:g} s", f"{seconds:g} s"], loc="outside lower center", ncols=2)
        drawn = finish(figure)
    caption = (
        f"Validation NDCG@10 (full ranking) of the winner of the search: the chosen settings in the {cap:g} seconds of "
        f"a trial (dotted), and in {seconds:g} seconds. Vertical line: {cap:g} seconds. Data set: {system['dataset']}."
    )
    entry = {"system": system["label"], f"validation NDCG@10 in {cap:g} s": f"{system['validation_ndcg']:.4f}"}
    entry[f"in {seconds:g} s"] = f"{row['validation_ndcg']:.4f}"
    return PaperFigure(drawn, tables.longer.curves, caption, pd.DataFrame([entry]))


def curve_of(tables: SearchTables, model: str, column: str, trial: int) -> pd.DataFrame:
    """Return the validations of a trial; ``time`` is in seconds of computing, or of the clock where that is unknown."""
    rows = tables.curves
    rows = rows[(rows["model"] == model) & (rows["column"] == column) & (rows["trial"] == trial)]
    return rows.assign(time=rows["cpu_seconds"].fillna(rows["seconds"])).sort_values("epoch")
