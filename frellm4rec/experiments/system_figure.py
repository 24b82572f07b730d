"""Learning curves of the chosen trials: validation NDCG against the time of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.systems import TunedExperiment
from spectral_probe.figure_style import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {"own": "loss of its paper", "same": "softmax over all items"}
_STYLES = ("-", "--", ":")


def learning_curves(experiment: TunedExperiment, tables: SystemTables) -> Figure:
    """Return the figure: a panel per column, a curve per system, a ring where the curve was still rising."""
    from matplotlib.figure import Figure

    chosen = tables.systems[tables.systems["is_trained"].astype(bool) & tables.systems["trial"].notna()]
    columns = [column for column in _TITLES if column in set(chosen["column"])] or ["own"]
    models = [row.model for row in experiment.rows]
    figure = Figure(figsize=(4.6 * len(columns) + 1.6, 3.8), layout="constrained")
    grid = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for ax, column in zip(grid, columns, strict=True):
        for row in chosen[chosen["column"] == column].to_dict("records"):
            number = models.index(row["model"])
            curve = curve_of(tables, row["model"], column, int(row["trial"]))
            style = _STYLES[number // len(PALETTE) % len(_STYLES)]
            color = PALETTE[number % len(PALETTE)]
            ax.plot(curve["time"], curve["ndcg"], style, color=color, label=experiment.row(row["model"]).title)
            if bool(row["is_still_rising"]):
                ax.plot(curve["time"].iloc[-1:], curve["ndcg"].iloc[-1:], "o", mfc="none", color=color)
        ax.set(title=_TITLES[column], xlabel="seconds of training and validating")
        ax.grid(True, color="#E4E4E4")
        ax.set_axisbelow(True)
    grid[0].set_ylabel("validation NDCG@10, full ranking")
    handles = {label: handle for ax in grid for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    shown = [row.title for row in experiment.rows if row.title in handles]
    figure.legend([handles[title] for title in shown], shown, loc="outside right center", frameon=False)
    return figure


def curve_of(tables: SystemTables, model: str, column: str, trial: int) -> pd.DataFrame:
    """Return the validations of a trial; ``time`` is in seconds of computing, or of the clock where that is unknown."""
    rows = tables.search.curves
    rows = rows[(rows["model"] == model) & (rows["column"] == column) & (rows["trial"] == trial)]
    return rows.assign(time=rows["cpu_seconds"].fillna(rows["seconds"])).sort_values("epoch")
