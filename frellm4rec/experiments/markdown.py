"""The Markdown of an experiment: our means and differences beside the paper's numbers, from the tidy tables alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from frellm4rec.evaluation.contrasts import HOW, MIN_SEEDS, THESE_TRAININGS, USERS_AND_TRAININGS
from frellm4rec.experiments import paper
from frellm4rec.experiments.definitions import Experiment, Variant
from frellm4rec.experiments.effects import effect_lines
from frellm4rec.experiments.labels import (
    difference_text,
    in_order,
    mode_label,
    modes_in_order,
    of_these_trainings,
    ranking_label,
    rows_of,
)
from frellm4rec.experiments.tables import FINISHED, METRICS, NAMES, ExperimentTables, is_baseline
from spectral_probe.storage.plain_text import markdown_cell, markdown_text

MISSING = "–"


def markdown(experiment: Experiment, tables: ExperimentTables, *, level: int = 1) -> str:
    """Return the page of an experiment.

    Parameters
    ----------
    experiment : Experiment
        Order and labels of the variants, and the paper's numbers for them.
    tables : ExperimentTables
    level : int
        Of the heading.
    """
    tables = tables.select(experiment=experiment.name)
    is_of_paper = experiment.source.startswith(("Table", "Fig"))
    source = f"{experiment.source} of the paper" if is_of_paper else experiment.source
    lines = [f"{'#' * level} {experiment.title} ({source})", ""]
    finished = tables.cells[tables.cells["status"] == FINISHED]
    if finished.empty:
        lines += ["No cell has finished.", ""]
    lines += effect_lines(experiment, tables)
    shown = tables.means[~is_baseline(tables.means)]
    for (dataset, ranking), part in shown.groupby(["dataset", "ranking"], sort=False):
        for (backbone, settings), _ in part.groupby(["backbone", "settings"], sort=False):
            chosen = tables.select(dataset=dataset, ranking=ranking)
            lines += [f"{'#' * (level + 1)} {_heading(dataset, ranking, backbone, settings)}", ""]
            lines += [*_table(experiment, chosen, dataset, ranking, backbone, settings), ""]
    if not finished.empty:
        lines += [*_notes(experiment, tables, finished), ""]
    return markdown_text("\n".join([*lines, *_unfinished(tables.cells)]))


def _heading(dataset: str, ranking: str, backbone: str, settings: str) -> str:
    parts = (dataset, ranking_label(ranking), f"backbone {backbone}" if backbone else "", settings)
    return ", ".join(part for part in parts if part)


def _table(
    experiment: Experiment, tables: ExperimentTables, dataset: str, ranking: str, backbone: str, settings: str
) -> list[str]:
    means = rows_of(tables.means, backbone, settings)
    differences = tables.select(backbone=backbone, settings=settings).differences
    k = int(means["k"].iloc[0])
    against = sorted(dict.fromkeys(differences["against"]), key=lambda name: name != experiment.reference)
    labels = {variant.name: variant.label for variant in in_order(experiment, [*means["variant"], *against])}
    variants = in_order(experiment, [*means["variant"], *_printed(experiment, dataset, ranking, backbone)])
    printed = {v.name: _paper(v, dataset, ranking, backbone) for v in variants}
    has_paper = [m for m in METRICS if k == 10 and any(row.get(m) is not None for row in printed.values())]
    head = ["variant", "mode", *(f"{NAMES[m]}@{k}" for m in METRICS)]
    head += [f"NDCG@{k} − {labels[name]}" for name in against]
    head += [f"paper: {NAMES[m]}@10" for m in has_paper]
    lines = [_row(head), _row(["---"] * len(head))]
    for variant in variants:
        rows = means[means["variant"] == variant.name]
        for mode in modes_in_order(rows) or [""]:
            row_of = rows[rows["mode"] == mode].set_index("metric").to_dict("index")
            entry = [variant.label, mode_label(mode) or MISSING]
            entry += [_mean(row_of.get(m)) for m in METRICS]
            pairs = differences[(differences["variant"] == variant.name) & (differences["mode"] == mode)]
            for name in against:
                matches = pairs[(pairs["against"] == name) & (pairs["metric"] == "ndcg")].to_dict("records")
                entry.append(difference_text(matches[0]) + of_these_trainings(matches[0]) if matches else MISSING)
            entry += [_number(printed[variant.name].get(m)) for m in has_paper]
            lines.append(_row(entry))
    families = dict.fromkeys(
        differences.loc[(differences["metric"] == "ndcg") & (differences["family"] != ""), "family"]
    )
    return [*lines, *(["", f"Families of Holm's correction: {'; '.join(families)}."] if families else [])]


def _notes(experiment: Experiment, tables: ExperimentTables, finished: pd.DataFrame) -> list[str]:
    lines = [
        f"{_intervals(tables)} Differences are paired by user; p is two-sided, after Holm's correction over the "
        "variants of a table, backbone and mode.",
        "",
    ]
    for protocol, rows in finished.groupby(finished["protocol"].map(_protocol), sort=False):
        lines.append(f"- Protocol: {protocol}; highest tie rate {rows['tie_rate'].max():.4f}.")
    lines += _cautions(finished)
    trained = finished[~is_baseline(finished)]
    differing = [name for name in dict.fromkeys(trained["backbone"]) if name and name not in paper.BACKBONES]
    if any(paper.paper_dataset(name) for name in trained["dataset"]):
        lines += [
            "",
            f"The paper's numbers are of {paper.DEFAULT_BACKBONE} (where no other backbone is named), 100 candidates "
            "and one run without intervals."
            + (
                f" **The setting here differs** (backbone {', '.join(differing)}): compare directions, not levels."
                if differing
                else ""
            ),
        ]
    if experiment.note:
        lines += ["", experiment.note.strip()]
    return lines


def _intervals(tables: ExperimentTables) -> str:
    """Return what means and intervals are over."""
    seeds = sorted({int(n) for n in tables.means["n_seeds"]})
    what = f"Means over {' or '.join(map(str, seeds))} seeds ± standard deviation over seeds."
    what = "One seed." if seeds == [1] else what
    kinds = [kind for kind in dict.fromkeys([*tables.means["covers"], *tables.differences["covers"]]) if kind]
    if not kinds:  # tables of an earlier version
        return f"{what} 95 % bootstrap intervals are over users, whose values are first averaged over seeds."
    if len(kinds) == 1:
        return f"{what} 95 % intervals are {HOW[kinds[0]]}."
    return (
        f"{what} 95 % intervals are {HOW[USERS_AND_TRAININGS]}. Where a model has fewer than {MIN_SEEDS} seeds, they "
        f"are {HOW[THESE_TRAININGS]}."
    )


def _cautions(finished: pd.DataFrame) -> list[str]:
    """Return what the models say about themselves, one list item per backbone, mode and note."""
    rows = finished[finished["note"] != ""]
    names = [
        " ".join(text for text in (row["backbone"], mode_label(row["mode"])) if text) or row["label"]
        for row in rows.to_dict("records")
    ]
    return [f"- {name}: {note}." for name, note in dict.fromkeys(zip(names, rows["note"], strict=True))]


def _unfinished(cells: pd.DataFrame) -> list[str]:
    """Return one list item per variant and reason, with its cells."""
    rows = cells[cells["status"] != FINISHED]
    if rows.empty:
        return []
    lines = ["Not finished:", ""]
    for (label, status, error), part in rows.groupby(["label", "status", "error"], sort=False):
        cell_names = [
            ", ".join(text for text in (row["backbone"], mode_label(row["mode"]), f"seed {row['seed']}") if text)
            for row in part.to_dict("records")
        ]
        lines.append(
            f"- {label}: {status}: {error} ({cell_names[0] if len(cell_names) == 1 else f'{len(cell_names)} cells'})"
        )
    return [*lines, ""]


def _printed(experiment: Experiment, dataset: str, ranking: str, backbone: str) -> list[str]:
    """Return the variants with a number in the paper that need a plug-in."""
    return [
        v.name for v in experiment.variants if v.needs_input and any(_paper(v, dataset, ranking, backbone).values())
    ]


def _paper(variant: Variant, dataset: str, ranking: str, backbone: str) -> dict[str, float | None]:
    if not paper.is_paper_ranking(ranking):
        return {}
    return {m: paper.paper_value(variant.paper, dataset=dataset, metric=m, backbone=backbone) for m in METRICS}


def _protocol(line: str) -> str:
    """Return a protocol line without tie rate and caution, which differ between models."""
    return re.sub(r" \(rate [^)]*\).*$", "", line)


def _mean(row: dict[str, Any] | None) -> str:
    if row is None:
        return MISSING
    spread = "" if math.isnan(row["std"]) else f" ± {row['std']:.4f}"
    return f"{row['value']:.4f}{spread} [{row['low']:.4f}, {row['high']:.4f}]".replace("-", "−")


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _row(entries: Iterable[str]) -> str:
    return f"| {' | '.join(map(markdown_cell, entries))} |"
