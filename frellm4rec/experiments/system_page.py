"""The Markdown of tuned systems: what validation chose, and, once opened, test beside the paper and other reports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from frellm4rec.evaluation.contrasts import HOW
from frellm4rec.experiments import paper
from frellm4rec.experiments.labels import difference_text, of_these_trainings, ranking_label
from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.systems import TunedExperiment, longer_name
from frellm4rec.experiments.tables import FINISHED, METRICS, NAMES
from spectral_probe.storage.plain_text import markdown_cell, markdown_text

MISSING = "–"
_COLUMNS = {"own": "own", "same": "softmax"}


@cache
def outside_numbers() -> pd.DataFrame:
    """Return what others report: model (as in ``paper.csv``), dataset, ranking, recall, ndcg, their range, source."""
    with (resources.files("frellm4rec.experiments") / "outside.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def system_page(experiment: TunedExperiment, tables: SystemTables, *, level: int = 1) -> str:
    """Return the page of a tuned table, from its tables alone.

    Parameters
    ----------
    experiment : TunedExperiment
        Order of the rows, and the paper's numbers for them.
    tables : SystemTables
    level : int
        Of the heading.
    """
    lines = [f"{'#' * level} {experiment.title} ({experiment.source} of the paper)", ""]
    if tables.systems.empty:
        return "\n".join([*lines, "No trial has ended.", ""])
    dataset = str(tables.systems["dataset"].iloc[0])
    lines += [*_protocol(experiment, tables, dataset), ""]
    finished = tables.final.cells[tables.final.cells["status"] == FINISHED]
    for ranking in dict.fromkeys(finished["ranking"]):
        lines += [f"{'#' * (level + 1)} Test, {ranking_label(ranking)}", ""]
        lines += [*_test_table(experiment, tables, dataset, ranking), ""]
    lines += [f"{'#' * (level + 1)} Validation, and what it cost", "", *_validation_table(tables), ""]
    if tables.has_longer():
        lines += [f"{'#' * (level + 1)} With more time", "", *_longer_table(tables), ""]
    failures = tables.systems[tables.systems["n_failed"] > 0]
    lines += [
        f"- {row['label']}: {row['n_failed']} of {row['n_trials']} trials failed: {row['error']}"
        for row in failures.to_dict("records")
    ]
    if (pair := tables.longer_row()) is not None and not tables.has_longer():
        lines.append(f"- {pair[0]['label']}, with more time: {pair[1]['error']}")
    lines += _unfinished(tables)
    return markdown_text("\n".join([*lines, *([experiment.note.strip(), ""] if experiment.note else [])]))


def _protocol(experiment: TunedExperiment, tables: SystemTables, dataset: str) -> list[str]:
    """Return how the rows were made."""
    rows = tables.systems
    trained = rows[rows["is_trained"].astype(bool)]
    lines = [_search_words(tables, trained, dataset)]
    if tables.final.cells.empty:
        return [*lines, "", "The test items have not been opened."]
    n_openings = sorted({int(n) for n in rows["n_openings"] if int(n)})
    seeds = sorted({int(n) for n in tables.final_of_systems.means["n_seeds"]})
    labels = dict(zip(rows["variant"], rows["label"], strict=True))
    reference, differences = f"{experiment.reference}-own", tables.final_of_systems.differences
    against = list(dict.fromkeys(differences["against"]))
    best = " and ".join(labels.get(name, name) for name in against if name != reference) or MISSING
    kinds = " or ".join(HOW[kind] for kind in dict.fromkeys(differences["covers"]) if kind in HOW)
    lines += [
        "",
        f"The chosen settings were trained again with {' or '.join(map(str, seeds))} seeds, none of which the search "
        f"used (a counted system has one result). The test items were opened for "
        f"{' or '.join(map(str, n_openings))} chosen setting per system. Means over seeds; differences are paired by "
        f"user and seed, with 95 % intervals {kinds}; p after Holm's correction over the systems of a column of "
        f"differences. Of the baselines with their own loss, {best} was the best on validation; the reference is "
        f"{labels.get(reference, reference)}.",
    ]
    has_finished = rows["n_trials"] > rows["n_failed"]
    changed = rows[~rows["is_tested"].astype(bool) & has_finished]["label"].tolist()
    if changed:
        lines += [
            "",
            f"**Test is of settings chosen before the latest trials**: validation now chooses others for "
            f"{', '.join(changed)}. `--final` again trains and tests these, and counts as another opening.",
        ]
    return lines


def _search_words(tables: SystemTables, trained: pd.DataFrame, dataset: str) -> str:
    """Return how the settings of the rows were chosen."""
    chosen = (
        "Full-ranking NDCG@10 on the validation items chooses. `own`: the loss of the system's paper; `softmax`: the "
        "softmax over all items, the same for all."
    )
    if trained.empty:
        return f"Data set {dataset}. {chosen}"
    n_trials = sorted({int(n) for n in trained["n_trials"]})
    patience = tables.search.trials["patience"].dropna()
    ends = f" A trial ends early after {patience.iloc[0]} validations without a better one." if len(patience) else ""
    return (
        f"Data set {dataset}. Every system had {' or '.join(map(str, n_trials))} trials of about "
        f"{trained['budget_seconds'].iloc[0]:g} seconds of computing on the CPU, or of the clock on a GPU: the "
        "settings of its recipe, then seeded draws from the recipe's grid. A trial is at least one epoch, also where "
        f"that takes longer.{ends} {chosen}"
    )


def _test_table(experiment: TunedExperiment, tables: SystemTables, dataset: str, ranking: str) -> list[str]:
    means = tables.final.means[tables.final.means["ranking"] == ranking]
    differences = tables.final_of_systems.differences
    differences = differences[(differences["ranking"] == ranking) & (differences["metric"] == "ndcg")]
    against = list(dict.fromkeys(differences["against"]))
    labels = dict(zip(tables.systems["variant"], tables.systems["label"], strict=True))
    k = int(means["k"].iloc[0])
    is_paper = paper.is_paper_ranking(ranking) and paper.paper_dataset(dataset) is not None
    outside = outside_numbers()
    outside = outside[(outside["dataset"] == dataset) & (outside["ranking"] == ranking)]
    head = ["system", "loss", *(f"{NAMES[m]}@{k}" for m in METRICS)]
    head += [f"paper: {NAMES[m]}@10" for m in METRICS] * is_paper
    head += ["reported elsewhere: Recall@10"] * (not outside.empty)
    head += [f"NDCG@{k} − {labels.get(name, name)}" for name in against]
    lines = [_row(head), _row(["---"] * len(head))]
    for system in _in_order(experiment, tables.systems):
        values = means[means["variant"] == system["variant"]].set_index("metric").to_dict("index")
        if not values:
            continue
        is_own = system["column"] == "own"
        entry = [_name(system), _COLUMNS[system["column"]] if system["is_trained"] else MISSING]
        entry += [_mean(values[m]) for m in METRICS]
        printed = experiment.row(system["model"]).printed
        if is_paper:
            entry += [
                _number(paper.paper_value(printed, dataset=dataset, metric=m, backbone="") if is_own else None)
                for m in METRICS
            ]
        if not outside.empty:
            entry.append(_reports(outside[outside["model"] == printed["model"]]) if is_own else MISSING)
        for name in against:
            rows = differences[(differences["variant"] == system["variant"]) & (differences["against"] == name)]
            entry.append(_difference(rows.to_dict("records")))
        lines.append(_row(entry))
    families = dict.fromkeys(differences.loc[differences["family"] != "", "family"])
    return [*lines, "", f"Families of Holm's correction: {'; '.join(families)}."]


def _validation_table(tables: SystemTables) -> list[str]:
    head = ["system", "loss", "validation NDCG@10", "trials", "seconds a trial", "chosen trial ended", "best epoch"]
    head += ["steps", "parameters", "chosen settings"]
    lines = [_row(head), _row(["---"] * len(head))]
    for row in tables.systems.sort_values("validation_ndcg", ascending=False).to_dict("records"):
        settings = json.loads(row["settings"]) if isinstance(row["settings"], str) and row["settings"] else {}
        ended = str(row["stopped"]) + (", **still rising**" if row["is_still_rising"] is True else "")
        lines.append(
            _row(
                [
                    _name(row),
                    _COLUMNS[row["column"]] if row["is_trained"] else MISSING,
                    _number(row["validation_ndcg"]),
                    str(int(row["n_trials"])),
                    f"{row['seconds_per_trial']:.0f}" if row["is_trained"] else MISSING,
                    ended,
                    f"{int(row['best_epoch'])} of {int(row['n_epochs'])}" if row["is_trained"] else MISSING,
                    f"{int(row['n_steps']):,}" if row["is_trained"] else MISSING,
                    f"{int(row['n_parameters']):,}" if row["is_trained"] else MISSING,
                    ", ".join(f"{name.partition('.')[2]} {value}" for name, value in settings.items()) or MISSING,
                ]
            )
            if pd.notna(row["validation_ndcg"])
            else _row([_name(row), _COLUMNS[row["column"]], "failed", *[MISSING] * 7])
        )
    return lines


def _longer_table(tables: SystemTables) -> list[str]:
    """Return the run with more time beside the row of the table with the same settings."""
    pair = tables.longer_row()
    assert pair is not None
    system, row = pair
    times = row["budget_seconds"] / system["budget_seconds"]
    head = ["system", "loss", "validation NDCG@10", "best epoch"]
    head += [f"validation NDCG@10, {times:g}× the time", "best epoch", "ended"]
    entry = [str(system["label"]).removesuffix(", softmax"), _COLUMNS[system["column"]]]
    for trial in (system, row):
        entry += [_number(trial["validation_ndcg"]), f"{int(trial['best_epoch'])} of {int(trial['n_epochs'])}"]
    entry.append(f"{row['stopped']}{', **still rising**' if row['is_still_rising'] is True else ''}")
    is_tested = False
    for ranking in dict.fromkeys(tables.final.means["ranking"]):
        if cells := _tested_longer(tables, system["variant"], ranking):
            head += [f"test NDCG@10, {ranking_label(ranking)}, {times:g}× the time", "difference"]
            entry += cells
            is_tested = True
    test = (
        "On test it is compared with its own row alone, paired by user and seed."
        if is_tested
        else "It has no result on the test items."
    )
    return [
        f"The winner of validation, trained again with {row['budget_seconds']:g} seconds in place of "
        f"{system['budget_seconds']:g}, with the settings that the trials chose. This is no row of the tables above: "
        "it had more time than the others. Seconds become epochs by the speed that is measured as a training begins; "
        f"the epochs say how much more training it was. {test}",
        "",
        _row(head),
        _row(["---"] * len(head)),
        _row(entry),
    ]


def _tested_longer(tables: SystemTables, system: str, ranking: str) -> list[str]:
    """Return mean, and difference from its own row, of the run with more time on test; empty if there is none."""
    parts = []
    for table in (tables.final.means, tables.final.differences):
        is_of = (table["variant"] == longer_name(system)) & (table["ranking"] == ranking)
        parts.append(table[is_of & (table["metric"] == "ndcg")].to_dict("records"))
    means, differences = parts
    return [_mean(means[0]), _difference(differences)] if means and differences else []


def _in_order(experiment: TunedExperiment, systems: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the systems in the order of the table, the two losses of a model under each other."""
    models = [row.model for row in experiment.rows]
    rows = systems.to_dict("records")
    return sorted(rows, key=lambda row: (models.index(row["model"]), row["column"] != "own"))


def _name(row: dict[str, Any]) -> str:
    label = str(row["label"]).removesuffix(", softmax")
    return f"{label} ↑" if row["is_still_rising"] is True else label


def _unfinished(tables: SystemTables) -> list[str]:
    rows = tables.final.cells[tables.final.cells["status"] != FINISHED]
    return [f"- {row['label']}, seed {row['seed']}: {row['status']}: {row['error']}" for row in rows.to_dict("records")]


def _reports(rows: pd.DataFrame) -> str:
    texts = []
    for row in rows.to_dict("records"):
        spread = "" if pd.isna(row["recall_low"]) else f" ({row['recall_low']:.4f} to {row['recall_high']:.4f})"
        texts.append(f"{row['recall']:.4f}{spread}, {row['source']}")
    return "; ".join(texts) or MISSING


def _difference(rows: list[dict[str, Any]]) -> str:
    return difference_text(rows[0]) + of_these_trainings(rows[0]) if rows else MISSING


def _mean(row: dict[str, Any]) -> str:
    return f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def _number(value: float | None) -> str:
    return MISSING if value is None or pd.isna(value) else f"{value:.4f}"


def _row(entries: Iterable[str]) -> str:
    return f"| {' | '.join(map(markdown_cell, entries))} |"
