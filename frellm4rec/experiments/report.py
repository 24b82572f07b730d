"""The page and the figure of an experiment, written from its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from frellm4rec.experiments.curves import training_curves
from frellm4rec.experiments.definitions import Experiment
from frellm4rec.experiments.figures import experiment_figure, figure_rows
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.page import experiment_page
from frellm4rec.experiments.tables import ExperimentTables
from spectral_probe.figure_style import save_figure
from spectral_probe.report.page import write_page
from spectral_probe.storage.atomic import disk_errors, write_text


def write_report(
    experiment: Experiment,
    tables: ExperimentTables,
    folder: Path,
    *,
    shown: pd.DataFrame | None = None,
    command: str = "",
) -> pd.DataFrame:
    """Write ``table.md``, ``figure.{png,pdf,csv}`` and ``report.html``, and return the rows that the figure shows.

    Without a finished cell there is no figure. ``shown``: the rows of the last figure; it is drawn again only if they
    changed. ``command``: what makes the experiment again, for the page.
    """
    text = markdown(experiment, tables)
    rows = figure_rows(experiment, tables)
    with disk_errors(folder):
        write_text(folder / "table.md", text.rstrip("\n"))
        if not rows.empty and (shown is None or not rows.equals(shown)):
            save_figure(experiment_figure(experiment, tables), folder / "figure", rows)
        selected = tables.select(experiment=experiment.name)
        curves = training_curves(folder, selected.cells)
        write_page(folder / "report.html", experiment_page(text, selected, curves, folder, command=command))
    return rows
