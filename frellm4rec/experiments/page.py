"""The page of an experiment as HTML: its Markdown with charts, files and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from frellm4rec.experiments.curves import CURVE_COLUMNS
from frellm4rec.experiments.definitions import experiment_names
from frellm4rec.experiments.grid import ExperimentRequest
from frellm4rec.experiments.page_charts import curve_panel, result_panel
from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.tables import ExperimentTables
from spectral_probe.figure_style import DEFAULT_WIDTH
from spectral_probe.report.columns import Data
from spectral_probe.report.glossary import explanations
from spectral_probe.report.markdown import sections_of
from spectral_probe.report.page import Command, Files, Page, Panel, Picture, Section
from spectral_probe.report.vega import has_charts

#: What lies beside the page.
FILES = {
    "table.md": "this text as Markdown",
    "cells.csv": "every training and its values",
    "means.csv": "means over seeds with their intervals",
    "differences.csv": "differences with their intervals and p-values",
    "systems.csv": "what validation chose for each system",
    "trials.csv": "every trial of the search",
    "curves.csv": "the validations of every trial",
    "longer_trials.csv": "the run with more time",
    "figure.pdf": "the figure",
    "figure.csv": "the numbers of the figure",
    "curves.pdf": "the figure of the learning curves",
}
PICTURES = {
    "figure.png": "Means with their 95 % intervals.",
    "curves.png": "Validation NDCG@10 of the chosen trials against the time of training.",
    "longer_curves.png": "Validation NDCG@10 of the run with more time, beside that of the same settings.",
}


def experiment_page(
    text: str,
    tables: ExperimentTables,
    curves: pd.DataFrame,
    folder: Path,
    *,
    command: str = "",
    terms: Mapping[str, str] | None = None,
) -> Page:
    """Return the page of an experiment.

    Parameters
    ----------
    text : str
        Its page in Markdown.
    tables : ExperimentTables
        Of this experiment.
    curves : DataFrame
        Columns as of :func:`frellm4rec.experiments.curves.training_curves`.
    folder : Path
        Where the page will lie: pictures and files are looked up there.
    command : str
        What makes it again.
    terms : mapping, optional
        Explanations of terms; those of the glossary when left out.
    """
    heading, sections = sections_of(text)
    panels: list[Panel] = []
    data: Data = {}
    if has_charts():
        for part in (result_panel(tables), curve_panel(curves)):
            if part is not None:
                panels.append(part[0])
                data |= part[1]
    pictures = [
        Picture(f"Figure {name}", caption, (folder / name).read_bytes())
        for name, caption in PICTURES.items()
        if (folder / name).is_file()
    ]
    files = [(name, words) for name, words in FILES.items() if (folder / name).is_file()]
    after = [Section("Files beside this page", [Files(files)])] if files else []
    after += [Section("Make it again", [Command([command])])] if command else []
    explore = Section("", [*panels, *pictures])
    first = sections[:1] if sections and not sections[0].title else []
    return Page(
        heading,
        heading,
        [*first, explore, *sections[len(first) :], *after],
        data,
        explanations() if terms is None else terms,
    )


def tuned_curves(tables: SystemTables) -> pd.DataFrame:
    """Return the learning curves of all trials; the chosen one of each system is marked."""
    curves = tables.search.curves
    if curves.empty:
        return pd.DataFrame(columns=CURVE_COLUMNS)
    rows = tables.systems.set_index(["model", "column"])
    keys = list(zip(curves["model"], curves["column"], strict=True))
    chosen = {key: row["trial"] for key, row in rows.to_dict("index").items()}
    labels = {key: row["label"] for key, row in rows.to_dict("index").items()}
    table = curves.assign(
        line=[labels.get(key, f"{key[0]}, {key[1]}") for key in keys],
        run=[f"trial {trial}" for trial in curves["trial"]],
        is_chosen=[bool(chosen.get(key) == trial) for key, trial in zip(keys, curves["trial"], strict=True)],
        seconds=curves["cpu_seconds"].fillna(curves["seconds"]),
    )
    order = {row["label"]: n for n, row in enumerate(tables.systems.to_dict("records"))}
    table = table.sort_values("line", key=lambda lines: lines.map(order), kind="stable")
    return table[CURVE_COLUMNS].reset_index(drop=True)


def command_of(name: str, request: ExperimentRequest, more: Sequence[str] = ()) -> str:
    """Return the command line of a request; ``more`` are further options."""
    file = [] if name in experiment_names() else [f"{name}.yaml"]
    parts = ["frellm4rec", "experiment", name, *file, "--dataset", request.dataset]
    parts += [] if request.from_dir is None else ["--from-dir", str(request.from_dir)]
    for flag, values in (
        ("--backbone", request.backbones),
        ("--mode", request.modes),
        ("--beside", request.baselines),
        ("--ranking", request.rankings),
    ):
        parts += [text for value in values for text in (flag, value)]
    parts += ["--variants", ",".join(request.variants)] if request.variants else []
    for key, value in request.settings.items():
        parts += ["--set", f"{key}={'null' if value is None else value}"]
    parts += ["--seeds", str(request.n_seeds)]
    parts += [] if request.device is None else ["--device", request.device]
    parts += [] if request.figure_width == DEFAULT_WIDTH else ["--figure-width", str(request.figure_width)]
    return shlex.join([*parts, *more])
