"""The tidy tables of a search: one row per trial, and one per validation."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from frellm4rec.runs.recipe import Recipe, flatten
from frellm4rec.runs.records import TrainingSummary
from frellm4rec.training.config import TrainingRecord
from frellm4rec.tuning.trials import SCHEDULE, System
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.runs.folder import RunFolder
from spectral_probe.storage.atomic import write_csv

FINISHED, FAILED = "finished", "failed"
TRIAL_COLUMNS = [
    *("model", "column", "dataset", "fingerprint", "trial", "seed", "settings", "validation_ndcg"),
    *("best_epoch", "n_epochs", "epochs_given", "validate_every", "patience", "n_validations", "stopped"),
    *("is_still_rising", "budget_seconds", "seconds", "cpu_seconds", "n_steps", "n_samples", "n_parameters"),
    *("peak_memory", "supervision", "threads", "status", "error", "run", "recipe_hash", "revision"),
]
CURVE_COLUMNS = ["model", "column", "dataset", "trial", "epoch", "step", "seconds", "cpu_seconds", "loss", "ndcg"]
_WHOLE = [
    *("trial", "seed", "best_epoch", "n_epochs", "epochs_given", "validate_every", "patience", "n_validations"),
    *("n_steps", "n_samples", "n_parameters", "peak_memory", "threads", "epoch", "step"),
]
_NUMBERS = ["validation_ndcg", "budget_seconds", "seconds", "cpu_seconds", "loss", "ndcg"]
#: Why a trial ended.
PATIENCE, BUDGET, COUNTED = "no better validation", "out of time", "counted"


@dataclass(frozen=True)
class SearchTables:
    """``trials``: one row per trial; ``curves``: one row per validation of a trial."""

    trials: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def from_rows(cls, trials: list[dict[str, Any]], validations: list[dict[str, Any]]) -> Self:
        """Build the tables, sorted by system and trial."""
        keys = ["model", "column", "trial"]
        tables = (
            (pd.DataFrame(trials, columns=TRIAL_COLUMNS), keys),
            (pd.DataFrame(validations, columns=CURVE_COLUMNS), [*keys, "epoch"]),
        )
        return cls(*(_typed(table.sort_values(by, ignore_index=True)) for table, by in tables))

    @classmethod
    def empty(cls) -> Self:
        """Return tables without rows."""
        return cls.from_rows([], [])

    def save(self, folder: Path, *, prefix: str = "") -> None:
        """Write ``trials.csv`` and ``curves.csv``, with ``prefix`` before their names, each whole or not at all."""
        write_csv(folder / f"{prefix}trials.csv", self.trials, float_format="%.10g")
        write_csv(folder / f"{prefix}curves.csv", self.curves, float_format="%.10g")

    @classmethod
    def load(cls, folder: Path, *, prefix: str = "") -> Self:
        """Read what :meth:`save` wrote."""
        try:
            parts = {name: pd.read_csv(folder / f"{prefix}{name}.csv") for name in ("trials", "curves")}
            for text in parts["trials"]["settings"]:
                dict(json.loads(text))
            return cls(_typed(parts["trials"][TRIAL_COLUMNS]), _typed(parts["curves"][CURVE_COLUMNS]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder} holds no tables of a search: {error}. Run frellm4rec tune again.") from error

    def rows_of(self, system: System) -> pd.DataFrame:
        """Return the trials of a system."""
        rows = self.trials
        return rows[(rows["model"] == system.model) & (rows["column"] == system.column)]

    def row(self, system: System, trial: int) -> dict[str, Any]:
        """Return a trial."""
        rows = self.rows_of(system)
        return dict(rows[rows["trial"] == trial].to_dict("records")[0])

    def trial_of(
        self, system: System, trial: int, recipe_hash: str
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return the row and the validations of a trial of this recipe; None and no validations if it is not here."""
        rows = self.rows_of(system)
        rows = rows[(rows["trial"] == trial) & (rows["recipe_hash"] == recipe_hash)]
        if rows.empty:
            return None, []
        curves = self.curves
        is_of = (curves["model"] == system.model) & (curves["column"] == system.column) & (curves["trial"] == trial)
        return dict(rows.to_dict("records")[0]), curves[is_of].to_dict("records")

    def winner(self, system: System) -> dict[str, Any] | None:
        """Return the trial with the highest validation NDCG, of equal ones the first; None if none has finished."""
        rows = self.rows_of(system)
        rows = rows[rows["status"] == FINISHED].sort_values("trial")
        return None if rows.empty else dict(rows.loc[rows["validation_ndcg"].idxmax()])


def trial_row(
    system: System,
    trial: int,
    recipe: Recipe,
    dataset: Dataset,
    run: RunFolder | None,
    error: str,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a trial, and one row per validation; ``run`` is None for a trial that failed."""
    training = recipe.training
    assert training is not None
    keys = {"model": system.model, "column": system.column, "dataset": dataset.name, "trial": trial}
    row = {
        **keys,
        "fingerprint": dataset.fingerprint(titles=False),
        "seed": recipe.seed,
        "settings": json.dumps(_without_folders(varied_settings(system, recipe))),
        "threads": recipe.threads,
        "status": FAILED if run is None else FINISHED,
        "error": error,
    }
    if system.is_trained:
        row |= {"epochs_given": training.n_epochs, "validate_every": training.validate_every}
        row |= {"patience": training.patience}
    if run is None:
        return row, []
    summary = TrainingSummary.read(run.path)
    record = summary.record
    last = record.epochs[-1]
    stopped = COUNTED if not system.is_trained else BUDGET if last >= training.n_epochs else PATIENCE
    row |= {
        name: summary.effort.get(name) for name in ("seconds", "cpu_seconds", "n_steps", "n_samples", "peak_memory")
    }
    row |= {
        "validation_ndcg": record.best_ndcg,
        "best_epoch": record.best_epoch,
        "n_epochs": last,
        "n_validations": len(record.epochs),
        "stopped": stopped,
        "is_still_rising": is_still_rising(record, stopped),
        "n_parameters": summary.n_trained_parameters,
        "supervision": record.supervision,
        "run": run.path.name,
        "recipe_hash": run.state()["config_hash"],
        "revision": summary.revision,
    }
    curve = [
        {**keys, **{name: entry.get(name) for name in CURVE_COLUMNS if name not in keys}}
        for entry in summary.log
        if "ndcg" in entry
    ]
    return row, curve


def is_still_rising(record: TrainingRecord, stopped: str) -> bool:
    """Return whether more time might have helped: the best of the last two validations is the best of all."""
    return stopped == BUDGET and record.best_epoch in record.epochs[-2:]


def varied_settings(system: System, recipe: Recipe) -> dict[str, Any]:
    """Return the settings that make a trial, without the schedule, which follows from its time.

    They are those that the search varies, the published ones, and all others that are not at their default.
    """
    values = flatten(recipe.to_dict())
    names = dict.fromkeys([*system.settings, *system.grid, *changed_settings(recipe)])
    return {name: values[name] for name in names if name not in SCHEDULE}


def _without_folders(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which a local folder, such as that of a backbone, is named without the folders above it."""
    return {
        name: Path(value).name if isinstance(value, str) and Path(value).expanduser().is_absolute() else value
        for name, value in settings.items()
    }


def changed_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the dotted settings of model and training from which :meth:`Recipe.merged` makes the recipe again.

    They are those that are not at the default of the model, or not at the default that other settings bring along.
    """
    plain = flatten(Recipe(model=recipe.model).to_dict())
    dependent = flatten(replace(recipe, training=None).to_dict())
    return {
        name: value
        for name, value in flatten(recipe.to_dict()).items()
        if "." in name and (value != plain.get(name) or value != dependent.get(name))
    }


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with fixed dtypes, whatever its rows contain."""
    table = table.copy()
    for name in table.columns:
        if name in _WHOLE:
            table[name] = table[name].astype("Float64").astype("Int64")
        elif name in _NUMBERS:
            table[name] = table[name].astype(float)
        elif name == "is_still_rising":
            table[name] = table[name].astype("boolean")
        else:
            table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    return table
