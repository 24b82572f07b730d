"""The page and the figure of an experiment, written from its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from frellm4rec.experiments.curves import training_curves
from frellm4rec.experiments.definitions import Experiment
from frellm4rec.experiments.figures import experiment_caption, experiment_figure, figure_rows
from frellm4rec.experiments.labels import mode_label
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.page import experiment_page
from frellm4rec.experiments.tables import METRICS, NAMES, ExperimentTables
from spectral_probe.figure_style import DEFAULT_WIDTH, PaperFigure
from spectral_probe.report.page import write_page
from spectral_probe.storage.atomic import disk_errors, write_text


def paper_figure(
    experiment: Experiment, tables: ExperimentTables, *, ranking: str | None = None, width: int = DEFAULT_WIDTH
) -> PaperFigure:
    """Return the figure of an experiment with its rows, its caption and a table of the means."""
    rows = figure_rows(experiment, tables, ranking)
    keys = ["backbone", "settings", "mode", "label"]
    lines = []
    for (backbone, settings, mode, label), group in rows.groupby(keys, sort=False, dropna=False):
        line = {"backbone": ", ".join(filter(None, (backbone, settings))), "variant": label}
        line |= {"mode": mode_label(mode) if mode else ""}
        for metric in METRICS:
            for row in group[group["metric"] == metric].to_dict("records"):
                line[f"{NAMES[metric]}@{int(row['k'])}"] = f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        lines.append(line)
    figure = experiment_figure(experiment, tables, ranking=ranking, width=width)
    return PaperFigure(figure, rows, experiment_caption(experiment, tables, ranking), pd.DataFrame(lines))


def write_report(
    experiment: Experiment,
    tables: ExperimentTables,
    folder: Path,
    *,
    shown: pd.DataFrame | None = None,
    command: str = "",
    width: int = DEFAULT_WIDTH,
) -> pd.DataFrame:
    """Write ``table.md``, ``figure.{png,pdf,svg,csv,txt,tex}``, ``report.html``; return the rows that the figure shows.

    Without a finished cell there is no figure. ``shown``: the rows of the last figure; it is drawn again only if they
    changed. ``command``: what makes the experiment again, for the page. ``width``: of the figure, in mm.
    """
    text = markdown(experiment, tables)
    rows = figure_rows(experiment, tables)
    with disk_errors(folder):
        write_text(folder / "table.md", text.rstrip("\n"))
        if not rows.empty and (shown is None or not rows.equals(shown)):
            paper_figure(experiment, tables, width=width).save(folder / "figure")
        selected = tables.select(experiment=experiment.name)
        curves = training_curves(folder, selected.cells)
        write_page(folder / "report.html", experiment_page(text, selected, curves, folder, command=command))
    return rows
