"""The tidy tables of an experiment: cells, means over seeds with intervals over users, and differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frellm4rec.evaluation import Evaluation
from frellm4rec.evaluation.significance import PairedDifference, holm, paired_bootstrap
from frellm4rec.experiments.definitions import SASREC
from frellm4rec.runs.evaluations import EVALUATION_FOLDER, evaluation_path
from spectral_probe.errors import DataError
from spectral_probe.storage.atomic import write_csv
from spectral_probe.storage.hashing import digest
from spectral_probe.types import FloatArray

METRICS = ("ndcg", "recall")
FINISHED, FAILED, ABSENT = "finished", "failed", "absent"
#: Only variants with the same values in all of these columns are compared.
SETTING_COLUMNS = ["experiment", "dataset", "fingerprint", "ranking", "k", "backbone", "mode", "settings"]
_LOG_COLUMNS = SETTING_COLUMNS[:5]
#: Identity of a cell: a later run of the same cell replaces it.
KEY_COLUMNS = ["experiment", "variant", "mode", "backbone", "dataset", "settings", "seed"]
CELL_COLUMNS = [
    *("experiment", "variant", "label", "mode", "backbone", "dataset", "fingerprint", "settings", "seed", "ranking"),
    *("k", "n_users", "ndcg", "recall", "tie_rate", "best_epoch", "n_epochs", "validation_ndcg", "seconds"),
    *("revision", "recipe_hash", "protocol", "status", "error", "run"),
]
MEAN_COLUMNS = [
    *SETTING_COLUMNS,
    *("variant", "label", "metric", "n_seeds", "n_users", "value", "std", "low", "high"),
]
DIFFERENCE_COLUMNS = [
    *SETTING_COLUMNS,
    *("variant", "label", "against", "metric", "n_seeds", "reference_n_seeds", "n_users"),
    *("difference", "low", "high", "p_value", "p_holm", "n_bootstrap"),
]
_TEXTS = {
    *("experiment", "variant", "label", "mode", "backbone", "dataset", "fingerprint", "settings", "ranking"),
    *("revision", "recipe_hash", "protocol", "status", "error", "run", "metric", "against"),
}
_WHOLE = {"seed", "k", "n_users", "best_epoch", "n_epochs", "n_seeds", "reference_n_seeds", "n_bootstrap"}

LoadEvaluation = Callable[[str, str], Evaluation]
Bootstrap = Callable[[FloatArray, FloatArray], PairedDifference]


class RememberedBootstrap:
    """:func:`paired_bootstrap` with a cache, because the tables are written again after every cell."""

    def __init__(self) -> None:
        self._cache: dict[tuple[str, str], PairedDifference] = {}

    def __call__(self, values: FloatArray, reference: FloatArray) -> PairedDifference:
        """Return the difference, from the cache if it is there."""
        key = (_digest(values), _digest(reference))
        if key not in self._cache:
            self._cache[key] = paired_bootstrap(values, reference)
        return self._cache[key]


def _digest(values: FloatArray) -> str:
    return digest([repr(values.shape), values])


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
        """Read what :meth:`save` wrote."""
        return cls(*(read_table(folder / f"{name}.csv") for name in ("cells", "means", "differences")))

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


def summarise(
    cells: pd.DataFrame, reference: str, load: LoadEvaluation, bootstrap: Bootstrap = paired_bootstrap
) -> ExperimentTables:
    """Return means and differences of finished cells, from the per-user values of each.

    Parameters
    ----------
    cells : DataFrame
        Columns of :data:`CELL_COLUMNS`.
    reference : str
        Variant that the others are compared with, besides the ID network.
    load : callable
        ``load(run, ranking)`` gives the per-user values of a finished cell.
    bootstrap : callable
        :func:`paired_bootstrap`, or one with a cache.

    Notes
    -----
    Intervals and p-values are those of :func:`paired_bootstrap`; Holm's correction runs over the variants of one
    table: the same data, ranking, backbone, mode, settings and metric, against the same model.
    """
    finished = cells[cells["status"] == FINISHED]
    means: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    groups = finished.groupby([*SETTING_COLUMNS, "variant"], sort=False)
    values_of = {key: _Values.of(rows, load) for key, rows in groups}
    settings = dict.fromkeys(key[:-1] for key in values_of)
    for setting in settings:
        labels = dict(zip(SETTING_COLUMNS, setting, strict=True))
        variants = {key[-1]: values for key, values in values_of.items() if key[:-1] == setting}
        for name, values in variants.items():
            for metric in METRICS:
                means.append(
                    {
                        **labels,
                        "variant": name,
                        "label": values.label,
                        "metric": metric,
                        **values.mean(metric, bootstrap),
                    }
                )
        if SASREC in variants:
            continue
        others = dict(_references(labels, variants, values_of, reference))
        for against, other in others.items():
            for metric in METRICS:
                rows = [
                    {
                        **labels,
                        "variant": name,
                        "label": values.label,
                        "against": against,
                        "metric": metric,
                        **values.difference(other, metric, bootstrap),
                    }
                    for name, values in variants.items()
                    if name != against
                ]
                for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
                    differences.append({**row, "p_holm": float(p)})
    return ExperimentTables(
        typed(cells.reindex(columns=CELL_COLUMNS)),
        typed(pd.DataFrame(means, columns=MEAN_COLUMNS)),
        typed(pd.DataFrame(differences, columns=DIFFERENCE_COLUMNS)),
    )


def join_folders(folders: Sequence[Path], references: Callable[[str], str]) -> ExperimentTables:
    """Return the joint tables of several experiment folders.

    Means and differences are computed again from the per-user values, so that cells of different folders are compared.

    Parameters
    ----------
    folders : sequence of Path
        Of experiments. A cell in several folders, such as SASRec, is taken from the first.
    references : callable
        Experiment name → the variant that the others are compared with.

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

    parts = [summarise(part, references(str(name)), load) for name, part in joined.groupby("experiment", sort=False)]
    return ExperimentTables(
        *(typed(pd.concat([getattr(part, name) for part in parts])) for name in ("cells", "means", "differences"))
    )


@dataclass(frozen=True)
class _Values:
    """Per-user values of one variant, (n_seeds, n_users) per metric."""

    label: str
    users: npt.NDArray[np.int64]
    metrics: dict[str, FloatArray]

    @classmethod
    def of(cls, rows: pd.DataFrame, load: LoadEvaluation) -> _Values:
        evaluations = [load(row["run"], row["ranking"]) for row in rows.sort_values("seed").to_dict("records")]
        users = evaluations[0].users
        if any(not np.array_equal(evaluation.users, users) for evaluation in evaluations):
            raise DataError(
                f"The seeds of {rows['label'].iloc[0]!r} were evaluated on different users. Run them again."
            )
        metrics = {metric: np.stack([getattr(evaluation, metric) for evaluation in evaluations]) for metric in METRICS}
        return cls(str(rows["label"].iloc[0]), users, metrics)

    def mean(self, metric: str, bootstrap: Bootstrap) -> dict[str, Any]:
        values = self.metrics[metric]
        estimate = bootstrap(values, np.zeros(values.shape[1]))
        return {
            "n_seeds": estimate.n_seeds,
            "n_users": estimate.n_users,
            "value": estimate.mean,
            "std": estimate.std,
            "low": estimate.low,
            "high": estimate.high,
        }

    def difference(self, other: _Values, metric: str, bootstrap: Bootstrap) -> dict[str, Any]:
        if not np.array_equal(self.users, other.users):
            raise DataError(f"{self.label!r} and {other.label!r} were evaluated on different users. Run them again.")
        values = bootstrap(self.metrics[metric], other.metrics[metric]).to_dict()
        return {name: values[name] for name in DIFFERENCE_COLUMNS if name in values}


def _references(
    labels: dict[str, Any], variants: dict[str, _Values], values_of: dict[Any, _Values], reference: str
) -> Iterator[tuple[str, _Values]]:
    """Yield the models that the variants of a setting are compared with: the reference and the ID network."""
    if reference in variants and len(variants) > 1:
        yield reference, variants[reference]
    log = tuple(labels[name] for name in _LOG_COLUMNS)
    for key, values in values_of.items():
        if key[-1] == SASREC and key[: len(_LOG_COLUMNS)] == log:
            yield SASREC, values
