"""The tidy tables of an experiment: cells, means over seeds with intervals, and differences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frellm4rec.evaluation import Evaluation
from frellm4rec.evaluation.contrasts import Memory, ModelValues, contrasts, mean_estimate
from frellm4rec.models.registry import model_names
from frellm4rec.runs.evaluations import EVALUATION_FOLDER, evaluation_path
from spectral_probe.errors import DataError
from spectral_probe.storage.atomic import write_csv

if TYPE_CHECKING:
    from frellm4rec.experiments.definitions import Experiment

METRICS = ("ndcg", "recall")
NAMES = {"ndcg": "NDCG", "recall": "Recall"}
FINISHED, FAILED, ABSENT = "finished", "failed", "absent"
#: Only variants with the same values in all of these columns are compared.
SETTING_COLUMNS = ["experiment", "dataset", "fingerprint", "ranking", "k", "backbone", "mode", "settings"]
_LOG_COLUMNS = SETTING_COLUMNS[:5]
#: Identity of a cell: a later run of the same cell replaces it.
KEY_COLUMNS = ["experiment", "variant", "mode", "backbone", "dataset", "settings", "seed"]
#: What a training cost; empty for baselines and for runs of before it was counted.
EFFORT_COLUMNS = ["n_steps", "n_samples", "n_tokens", "peak_memory"]
CELL_COLUMNS = [
    *("experiment", "variant", "label", "mode", "backbone", "dataset", "fingerprint", "settings", "seed", "ranking"),
    *("k", "n_users", "ndcg", "recall", "tie_rate", "best_epoch", "n_epochs", "validation_ndcg", "seconds"),
    *("supervision", "n_parameters", *EFFORT_COLUMNS),
    *("revision", "recipe_hash", "protocol", "note", "status", "error", "run"),
]
MEAN_COLUMNS = [
    *SETTING_COLUMNS,
    *("variant", "label", "metric", "n_seeds", "n_users", "value", "std", "low", "high", "covers"),
]
DIFFERENCE_COLUMNS = [
    *SETTING_COLUMNS,
    *("variant", "label", "against", "metric", "n_seeds", "reference_n_seeds", "n_users"),
    *("difference", "low", "high", "p_value", "p_holm", "effect", "covers", "n_bootstrap", "family"),
]
_TEXTS = {
    *("experiment", "variant", "label", "mode", "backbone", "dataset", "fingerprint", "settings", "ranking"),
    *("revision", "recipe_hash", "protocol", "note", "status", "error", "run", "metric", "against"),
    *("effect", "covers", "family", "supervision"),
}
_WHOLE = {"seed", "k", "n_users", "best_epoch", "n_epochs", "n_seeds", "reference_n_seeds", "n_bootstrap"}
_WHOLE |= {"n_parameters", *EFFORT_COLUMNS}

LoadEvaluation = Callable[[str, str], Evaluation]


@dataclass(frozen=True)
class ExperimentTables:
    """The tables of an experiment, with one row per cell and ranking, per variant and metric, per pair and metric."""

    cells: pd.DataFrame
    means: pd.DataFrame
    differences: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Write ``cells.csv``, ``means.csv`` and ``differences.csv``, each whole or not at all."""
        for name in ("cells", "means", "differences"):
            write_table(getattr(self, name), folder / f"{name}.csv")

    @classmethod
    def load(cls, folder: Path) -> ExperimentTables:
        """Read what :meth:`save` wrote; text columns that an earlier version did not write are empty."""
        columns = {"cells": CELL_COLUMNS, "means": MEAN_COLUMNS, "differences": DIFFERENCE_COLUMNS}
        tables = (read_table(folder / f"{name}.csv").reindex(columns=columns[name]) for name in columns)
        return cls(*map(typed, tables))

    @classmethod
    def empty(cls) -> ExperimentTables:
        """Return tables without rows."""
        return cls(*(typed(pd.DataFrame(columns=c)) for c in (CELL_COLUMNS, MEAN_COLUMNS, DIFFERENCE_COLUMNS)))

    def without(self, variants: Collection[str]) -> ExperimentTables:
        """Return the tables without some variants."""
        return ExperimentTables(*(t[~t["variant"].isin(variants)] for t in (self.cells, self.means, self.differences)))

    def select(self, **values: Any) -> ExperimentTables:
        """Return the rows with these values in all three tables."""
        tables = []
        for table in (self.cells, self.means, self.differences):
            for column, value in values.items():
                table = table[table[column] == value]
            tables.append(table)
        return ExperimentTables(*tables)


def read_table(path: Path) -> pd.DataFrame:
    """Return one of the tables; names that look like numbers stay text."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a table of an experiment: {error}. Run the experiment again.") from error
    return typed(table)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write one of the tables as CSV, whole or not at all."""
    write_csv(path, table, float_format="%.10g")


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with fixed dtypes: text, integers or floats, whatever its rows contain."""
    table = table.copy()
    for column in table.columns:
        if column in _TEXTS:
            table[column] = table[column].astype(object).where(table[column].notna(), "").astype(str)
        elif column in _WHOLE:
            table[column] = table[column].astype("Float64").astype("Int64")
        else:
            table[column] = table[column].astype(float)
    return table


def is_baseline(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of a model evaluated alone: its variant has the name of a registered model."""
    return table["variant"].isin(model_names())


def summarise(
    cells: pd.DataFrame,
    reference: str,
    load: LoadEvaluation,
    memory: Memory | None = None,
    also_against: Sequence[str] = (),
    only_against: Mapping[str, str] | None = None,
) -> ExperimentTables:
    """Return means and differences of finished cells, from the per-user values of each.

    Parameters
    ----------
    cells : DataFrame
        Columns of :data:`CELL_COLUMNS`.
    reference : str
        Variant that the others are compared with, besides the baselines.
    load : callable
        ``load(run, ranking)`` gives the per-user values of a finished cell.
    memory : mapping, optional
        Contrasts computed before, because the tables are written again after every cell.
    also_against : sequence of str
        Further variants that the others are compared with.
    only_against : mapping, optional
        Variants that are compared with one other alone, and that one; together they are a family.

    Notes
    -----
    Intervals and p-values are those of :func:`contrasts`. A family of Holm's correction is the variants of one table:
    the same data, ranking, backbone, mode, settings and metric, against the same model.
    """
    only_against = only_against or {}
    finished = cells[cells["status"] == FINISHED]
    groups = finished.groupby([*SETTING_COLUMNS, "variant"], sort=False)
    values_of = {key: _Values.of(rows, load) for key, rows in groups}
    means: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    baselines = set(finished.loc[is_baseline(finished), "variant"])
    for setting in dict.fromkeys(key[:-1] for key in values_of):
        labels = dict(zip(SETTING_COLUMNS, setting, strict=True))
        variants = {key[-1]: values for key, values in values_of.items() if key[:-1] == setting}
        for name, values in variants.items():
            row_labels = {**labels, "variant": name, "label": values.label}
            for metric in METRICS:
                estimate = mean_estimate(values.metrics[metric], memory=memory)
                means.append({**row_labels, "metric": metric, **asdict(estimate)})
        variants = {name: values for name, values in variants.items() if name not in baselines}
        pairs = [(name, only_against[name]) for name in variants if only_against.get(name) in variants]
        apart = [(name, variants[name], against, variants[against]) for name, against in pairs]
        apart_from = " and ".join(dict.fromkeys(other.label for _, _, _, other in apart))
        variants = {name: values for name, values in variants.items() if name not in only_against}
        for against, other in _references(labels, variants, values_of, (reference, *also_against), baselines):
            compared = [(name, values, against, other) for name, values in variants.items() if name != against]
            for metric in METRICS:
                differences += _differences(labels, compared, other.label, metric, memory)
        for metric in METRICS:
            differences += _differences(labels, apart, apart_from, metric, memory)
    notes = {note_key: note for values in values_of.values() for note_key, note in values.notes.items()}
    note = [notes.get(key, "") for key in zip(cells["run"], cells["ranking"], strict=True)]
    return ExperimentTables(
        typed(cells.assign(note=note).reindex(columns=CELL_COLUMNS)),
        typed(pd.DataFrame(means, columns=MEAN_COLUMNS)),
        typed(pd.DataFrame(differences, columns=DIFFERENCE_COLUMNS)),
    )


def _differences(
    labels: dict[str, Any],
    compared: Sequence[tuple[str, _Values, str, _Values]],
    reference: str,
    metric: str,
    memory: Memory | None,
) -> list[dict[str, Any]]:
    """Return the rows of one family: variants, each with the one it is compared with; ``reference`` in words."""
    for _, values, _, other in compared:
        if not np.array_equal(values.users, other.users):
            raise DataError(f"{values.label!r} and {other.label!r} were evaluated on different users. Run them again.")
    pairs = [(values.metrics[metric], other.metrics[metric]) for _, values, _, other in compared]
    setting = (labels["ranking"], f"{labels['backbone']} {labels['mode']}".strip(), labels["settings"])
    of = f"{NAMES[metric]}@{labels['k']} from {reference} on {labels['dataset']}"
    of = ", ".join(part for part in (of, *setting) if part)
    tested = contrasts(pairs, of, memory=memory)
    return [
        {**labels, "variant": name, "label": values.label, "against": against, "metric": metric, **contrast.to_dict()}
        for (name, values, against, _), contrast in zip(compared, tested, strict=True)
    ]


def join_folders(folders: Sequence[Path], experiments: Callable[[str], Experiment]) -> ExperimentTables:
    """Return the joint tables of several experiment folders.

    Means and differences are computed again from the per-user values, so that cells of different folders are compared.

    Parameters
    ----------
    folders : sequence of Path
        Of experiments. A cell in several folders, such as a baseline, is taken from the first.
    experiments : callable
        Name → experiment, which says what is compared with what.

    Raises
    ------
    DataError
        If tables or per-user values cannot be read.
    """
    cells, folder_of = [], {}
    for folder in folders:
        table = read_table(folder / "cells.csv")
        cells.append(table)
        for run in table["run"]:
            folder_of.setdefault(run, folder)
    joined = pd.concat(cells, ignore_index=True).drop_duplicates([*KEY_COLUMNS, "ranking"], ignore_index=True)

    def load(run: str, ranking: str) -> Evaluation:
        return Evaluation.load(evaluation_path(folder_of[run] / run / EVALUATION_FOLDER, part="test", ranking=ranking))

    parts = []
    for name, part in joined.groupby("experiment", sort=False):
        of = experiments(str(name))
        parts.append(summarise(part, of.reference, load, also_against=of.also_against, only_against=of.only_against))
    return ExperimentTables(
        *(typed(pd.concat([getattr(part, name) for part in parts])) for name in ("cells", "means", "differences"))
    )


@dataclass(frozen=True)
class _Values:
    """Per-user values of one variant for each metric, and the note of each of its evaluations."""

    label: str
    users: npt.NDArray[np.int64]
    metrics: dict[str, ModelValues]
    notes: dict[tuple[str, str], str]

    @classmethod
    def of(cls, rows: pd.DataFrame, load: LoadEvaluation) -> _Values:
        label = str(rows["label"].iloc[0])
        cells = rows.to_dict("records")
        evaluations = [load(row["run"], row["ranking"]) for row in cells]
        if not evaluations[0].is_trained:  # one result, whatever the seed
            cells, evaluations = cells[:1], evaluations[:1]
        users = evaluations[0].users
        if any(not np.array_equal(evaluation.users, users) for evaluation in evaluations):
            raise DataError(f"The seeds of {label!r} were evaluated on different users. Run them again.")
        seeds = tuple(int(row["seed"]) for row in cells)
        metrics = {
            metric: ModelValues(
                label, np.stack([getattr(e, metric) for e in evaluations]), seeds, is_trained=evaluations[0].is_trained
            )
            for metric in METRICS
        }
        notes = {(row["run"], row["ranking"]): e.note for row, e in zip(cells, evaluations, strict=True)}
        return cls(label, users, metrics, notes)


def _references(
    labels: dict[str, Any],
    variants: dict[str, _Values],
    values_of: dict[Any, _Values],
    references: Sequence[str],
    baselines: set[str],
) -> Iterator[tuple[str, _Values]]:
    """Yield the models that the variants of a setting are compared with: the references and the baselines."""
    for reference in dict.fromkeys(references):
        if reference in variants and len(variants) > 1:
            yield reference, variants[reference]
    log = tuple(labels[name] for name in _LOG_COLUMNS)
    for key, values in values_of.items():
        if variants and key[-1] in baselines and key[: len(_LOG_COLUMNS)] == log:
            yield key[-1], values
