"""Tables 1 to 5 and the sweeps of Figs 3, 5 and 6 from the committed CSVs, ours beside the printed numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.figures.items import DataSet
from benchmarks.pages.claims import COUNTS
from benchmarks.pages.table2 import experiment as tuned_experiment
from frellm4rec.data.counts import PAPER_TABLE_1, report_of
from frellm4rec.experiments.definitions import Experiment, load_experiment
from frellm4rec.experiments.labels import mode_label, ranking_label
from frellm4rec.experiments.paper import METRICS as PRINTED_METRICS
from frellm4rec.experiments.paper import paper_dataset, paper_numbers, paper_value
from frellm4rec.experiments.report import paper_figure
from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.tables import METRICS, NAMES, ExperimentTables, is_baseline
from spectral_probe.figure_style import DEFAULT_WIDTH, PaperFigure, save_table
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.storage.atomic import write_csv

ABSENT = "–"
#: Marks a system whose training was not finished.
RISING = "↑"
#: The protocol of the paper: the held-out item among 99 others.
RANKING = "99+1"


@dataclass(frozen=True)
class PaperTable:
    """A table with its caption."""

    table: pd.DataFrame
    caption: str

    def save(self, stem: Path) -> None:
        """Write ``stem.csv``, the caption ``.txt``, and the table as ``.tex`` (booktabs)."""
        save_table(stem, self.caption, self.table)


def count(folder: Path, data: DataSet, raw: Path) -> None:
    """Count a data set after every filter from its raw files, and write ``counts.csv``."""
    report = report_of(resolve_dataset(data.name, raw))
    write_csv(folder / "counts.csv", report.to_frame().assign(dataset=data.name), float_format="%.6g")


def table1(folder: Path, data: DataSet, counts: Path = COUNTS) -> PaperTable | None:
    """Return the counts of a data set after the filters; None if it was not counted."""
    path = folder / "counts.csv"
    rows = pd.read_csv(path if path.exists() else counts)
    rows = rows[(rows["dataset"] == data.name) & ~rows["stage"].str.startswith("paper")]
    if rows.empty:
        return None
    ours, printed = rows.iloc[-1], PAPER_TABLE_1.get(data.name)
    lines = []
    for name in ("users", "items", "interactions"):
        theirs = f"{getattr(printed, name):,}" if printed else ABSENT
        lines.append({"quantity": name, "ours": f"{int(ours[name]):,}", "the paper": theirs})
    lines.append({"quantity": "mean length", "ours": f"{ours['mean_length']:.2f}"})
    lines[-1]["the paper"] = f"{printed.mean_length:.2f}" if printed else ABSENT
    return PaperTable(pd.DataFrame(lines), f"Filter: {ours['stage']}.")


def table2(folder: Path, data: DataSet) -> PaperTable | None:
    """Return the tuned systems with the losses of their papers, then those that only the paper has."""
    if not (folder / "table2" / "means.csv").exists():
        return None
    tables = SystemTables.load(folder / "table2")
    definition, means = tuned_experiment(tables), tables.final.means
    means = means[means["ranking"] == RANKING]
    lines, printed_models = [], set()
    for row in tables.systems[tables.systems["column"] == "own"].to_dict("records"):
        selection = definition.row(row["model"]).printed
        printed_models.add(selection["model"])
        rows = means[means["variant"] == row["variant"]]
        mark = f" {RISING}" if row["is_still_rising"] is True else ""
        lines.append({"system": f"{row['label']}{mark}", **_beside(rows, selection, data.name)})
    printed = paper_numbers()
    others = printed[(printed["table"].astype(int) == 2) & (printed["dataset"] == paper_dataset(data.name))]
    for model in others.loc[~others["model"].isin(printed_models), "model"].unique():
        lines.append({"system": model, **_beside(means.iloc[:0], {"table": 2, "model": model}, data.name)})
    return PaperTable(pd.DataFrame(lines), f"{_conditions(means)} {_budget(tables)}{_other_users(means, data)}")


def _budget(tables: SystemTables) -> str:
    """Return what every trained system had, and what the arrow means."""
    rows = tables.systems[tables.systems["is_trained"].astype(bool)]
    return (
        f"Every trained system had {int(rows['n_trials'].max())} trials of about {rows['budget_seconds'].iloc[0]:g} "
        f"seconds. {RISING}: the training was not finished; the best validation was among the last two."
    )


def _other_users(means: pd.DataFrame, data: DataSet) -> str:
    """Return the number of the paper's users where it is another one than ours."""
    printed, ours = PAPER_TABLE_1.get(data.name), int(means["n_users"].max())
    return f" The paper has {printed.users:,} users." if printed and printed.users != ours else ""


def table3(folder: Path, data: DataSet) -> PaperTable | None:
    """Return the ablation, a block for each backbone and mode."""
    return _variants(folder, data, "ablation")


def table4(folder: Path, data: DataSet) -> PaperTable | None:
    """Return base and full model on every backbone, then the backbones that only the paper has.

    Without runs of the experiment ``backbones``, those of the ablation are shown, which trains the same two variants.
    """
    name = "backbones" if experiment_tables(folder, "backbones") is not None else "ablation"
    tables = experiment_tables(folder, name)
    if tables is None:
        return None
    experiment, means = load_experiment("backbones"), _ours(tables)
    means = means[means["variant"].isin(["base", "full"])]
    lines = []
    for (backbone, settings, mode), rows in means.groupby(["backbone", "settings", "mode"], sort=False):
        line = {"backbone": _named(backbone, settings), "mode": mode_label(mode)}
        for variant in experiment.variants:
            part = rows[rows["variant"] == variant.name]
            cells = _beside(part, variant.paper, data.name, backbone=backbone)
            line |= {f"{variant.label}: {key}": cell for key, cell in cells.items() if key.startswith("NDCG")}
            line[f"{variant.label}: the paper"] = cells["the paper: NDCG@10"]
        lines.append(line)
    printed = paper_numbers()
    printed = printed[(printed["table"].astype(int) == 4) & (printed["dataset"] == paper_dataset(data.name))]
    for backbone, rows in printed.groupby("backbone", sort=False):
        line = dict.fromkeys(lines[0], ABSENT) | {"backbone": str(backbone)}
        for variant in experiment.variants:
            value = rows.loc[rows["variant"] == variant.name, "value"]
            line[f"{variant.label}: the paper"] = f"{value.iloc[0]:.4f}" if len(value) else ABSENT
        lines.append(line)
    return PaperTable(pd.DataFrame(lines), f"Trained in the experiment `{name}`. {_conditions(means)}")


def table5(folder: Path, data: DataSet) -> PaperTable | None:
    """Return the recommender on the ID embeddings of several networks, and these networks alone."""
    return _variants(folder, data, "table5")


def sweep(name: str, folder: Path, data: DataSet, width: int = DEFAULT_WIDTH) -> PaperFigure | None:
    """Return the figure of a sweep, with the paper's numbers in the table where it prints some; None without runs."""
    tables = experiment_tables(folder, name)
    if tables is None:
        return None
    experiment = load_experiment(name)
    drawn = paper_figure(experiment, tables, ranking=RANKING, width=width)
    beside = _variants(folder, data, name)
    assert beside is not None
    return PaperFigure(drawn.figure, drawn.data, drawn.caption, beside.table)


def experiment_tables(folder: Path, name: str) -> ExperimentTables | None:
    """Return the committed tables of an experiment on the data set of a folder; None if there are none."""
    for path in (folder / name, folder / "recommender"):
        if (path / "cells.csv").exists():
            tables = ExperimentTables.load(path).select(experiment=name)
            if not tables.means.empty:
                return tables
    return None


def _variants(folder: Path, data: DataSet, name: str) -> PaperTable | None:
    """Return every variant of an experiment beside the paper's number for it."""
    tables = experiment_tables(folder, name)
    if tables is None:
        return None
    experiment, means = load_experiment(name), _ours(tables)
    lines = []
    for (backbone, settings, mode), rows in means[~is_baseline(means)].groupby(
        ["backbone", "settings", "mode"], sort=False
    ):
        for variant in experiment.variants:
            part = rows[rows["variant"] == variant.name]
            if len(part):
                line = {"backbone": _named(backbone, settings), "mode": mode_label(mode), "variant": variant.label}
                lines.append({**line, **_beside(part, variant.paper, data.name, backbone=backbone)})
    lines += _baseline_lines(experiment, means[is_baseline(means)], data)
    return PaperTable(pd.DataFrame(lines), _conditions(means[~is_baseline(means)]))


def _baseline_lines(experiment: Experiment, means: pd.DataFrame, data: DataSet) -> list[dict[str, str]]:
    lines = []
    for label, rows in means.groupby("label", sort=False):
        selection = {"table": 2, "model": label}
        lines.append({"backbone": ABSENT, "mode": ABSENT, "variant": str(label), **_beside(rows, selection, data.name)})
    return lines


def _beside(rows: pd.DataFrame, selection: Mapping[str, Any], dataset: str, *, backbone: str = "") -> dict[str, str]:
    """Return our mean with its interval and the paper's number for every metric."""
    cells = {}
    for metric in METRICS:
        part = rows[rows["metric"] == metric].to_dict("records")
        name = f"{NAMES[metric]}@10"
        ours = part[0] if part else None
        cells[name] = f"{ours['value']:.4f} [{ours['low']:.4f}, {ours['high']:.4f}]" if ours else ABSENT
        printed = paper_value(selection, dataset=dataset, metric=metric, backbone=backbone)
        cells[f"the paper: {PRINTED_METRICS[metric]}"] = ABSENT if printed is None else f"{printed:.4f}"
    return cells


def _ours(tables: ExperimentTables) -> pd.DataFrame:
    """Return the means under the paper's ranking, or under the first one if that was not computed."""
    means = tables.means
    has_paper = (means["ranking"] == RANKING).any()
    return means[means["ranking"] == (RANKING if has_paper else means["ranking"].iloc[0])]


def _named(backbone: str, settings: str) -> str:
    short = settings.replace("training.", "").replace("architecture.", "")
    return f"{backbone} ({short})" if short else backbone


def _conditions(means: pd.DataFrame) -> str:
    if means.empty:
        return ""
    fewest, most = int(means["n_seeds"].min()), int(means["n_seeds"].max())
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    return (
        f"{ranking_label(str(means['ranking'].iloc[0]))}, mean over {seeds} with its 95 % interval, "
        f"{int(means['n_users'].max()):,} users."
    )
