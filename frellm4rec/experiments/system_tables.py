"""The tables of tuned systems: what the search chose, what it cost, and the final values with their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pandas as pd

from frellm4rec.experiments.systems import TunedExperiment
from frellm4rec.experiments.tables import ExperimentTables
from frellm4rec.tuning.tables import FAILED, FINISHED, SearchTables
from frellm4rec.tuning.trials import System
from spectral_probe.storage.atomic import write_csv

#: Of the files of the run with more time: ``longer_trials.csv`` and ``longer_curves.csv``.
LONGER_PREFIX = "longer_"
SYSTEM_COLUMNS = [
    *("model", "column", "label", "variant", "is_trained", "dataset", "n_trials", "n_failed", "budget_seconds"),
    *("seconds_per_trial", "trial", "settings", "validation_ndcg", "best_epoch", "n_epochs", "n_steps", "stopped"),
    *("is_still_rising", "n_parameters", "n_openings", "is_tested", "error"),
]


def system_rows(
    experiment: TunedExperiment,
    systems: Sequence[System],
    trials: SearchTables,
    openings: Mapping[str, Sequence[str]],
    chosen: Mapping[str, str],
) -> pd.DataFrame:
    """Return one row per system that has a trial: its trials, the chosen one, and how often its test was opened.

    Parameters
    ----------
    experiment : TunedExperiment
    systems : sequence of System
    trials : SearchTables
    openings : {system: digests of settings}
        For which settings the test items were opened, the latest last.
    chosen : {system: digest of settings}
        Of the trial that validation chooses now.
    """
    rows = []
    for system in systems:
        own_trials = trials.rows_of(system)
        if own_trials.empty:
            continue
        winner = trials.winner(system) or {}
        seconds = own_trials["cpu_seconds"].fillna(own_trials["seconds"])
        errors = own_trials.loc[own_trials["status"] == FAILED, "error"]
        rows.append(
            {
                **{name: winner.get(name) for name in SYSTEM_COLUMNS},
                "model": system.model,
                "column": system.column,
                "label": experiment.variant(system, {}).label,
                "variant": system.name,
                "is_trained": system.is_trained,
                "dataset": own_trials["dataset"].iloc[0],
                "n_trials": len(own_trials),
                "n_failed": len(errors),
                "budget_seconds": own_trials["budget_seconds"].iloc[0],
                "seconds_per_trial": float(seconds.mean()),
                "n_openings": len(openings.get(system.name, ())),
                "is_tested": [chosen.get(system.name)] == list(openings.get(system.name, ()))[-1:],
                "error": errors.iloc[0] if len(errors) else "",
            }
        )
    return pd.DataFrame(rows, columns=SYSTEM_COLUMNS)


def best_baseline(rows: pd.DataFrame, reference: str) -> str:
    """Return the system with its own loss, other than the reference, that validation rates best; empty if none."""
    others = rows[(rows["column"] == "own") & (rows["model"] != reference)]
    others = others[others["validation_ndcg"].notna()]
    return "" if others.empty else str(others.loc[others["validation_ndcg"].astype(float).idxmax(), "variant"])


def winner(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Return the trained system with the highest validation NDCG; None if none has finished."""
    trained = rows[rows["is_trained"].astype(bool) & rows["validation_ndcg"].notna()]
    return None if trained.empty else dict(trained.loc[trained["validation_ndcg"].astype(float).idxmax()])


@dataclass(frozen=True)
class SystemTables:
    """The tables of a tuned table.

    Attributes
    ----------
    systems : DataFrame
        A row per system.
    search : SearchTables
        Trials and their validations.
    final : ExperimentTables
        Cells, means and differences of the chosen settings on the test items.
    longer : SearchTables
        The winner's trial with several times the seconds, and its validations.
    """

    systems: pd.DataFrame
    search: SearchTables
    final: ExperimentTables
    longer: SearchTables = field(default_factory=SearchTables.empty)

    def longer_row(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the winner and the row of ``longer`` with its settings; None if they have not been run."""
        system, table = winner(self.systems), self.longer.trials
        if system is None:
            return None
        is_of = (table["model"] == system["model"]) & (table["column"] == system["column"])
        rows = table[is_of & (table["trial"] == system["trial"])].to_dict("records")
        return (system, dict(rows[0])) if rows else None

    def has_longer(self) -> bool:
        """Whether the winner was run with more time to its end."""
        row = self.longer_row()
        return row is not None and row[1]["status"] == FINISHED

    @property
    def final_of_systems(self) -> ExperimentTables:
        """The final tables of the systems, without those of the run with more time."""
        return self.final.without(set(self.final.cells["variant"]) - set(self.systems["variant"]))

    def save(self, folder: Path) -> None:
        """Write all tables as CSV, each whole or not at all."""
        write_csv(folder / "systems.csv", self.systems, float_format="%.10g")
        self.search.save(folder)
        if not self.longer.trials.empty:
            self.longer.save(folder, prefix=LONGER_PREFIX)
        for path in folder.glob(f"{LONGER_PREFIX}*"):
            # A picture that is there may be of another winner.
            if self.longer.trials.empty or (path.suffix != ".csv" and not self.has_longer()):
                path.unlink()
        if not self.final.cells.empty:
            self.final.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        systems = pd.read_csv(folder / "systems.csv", keep_default_na=False, na_values=[""])
        has_final = (folder / "cells.csv").exists()
        final = ExperimentTables.load(folder) if has_final else ExperimentTables.empty()
        has_longer = (folder / f"{LONGER_PREFIX}trials.csv").exists()
        longer = SearchTables.load(folder, prefix=LONGER_PREFIX) if has_longer else SearchTables.empty()
        return cls(systems, SearchTables.load(folder), final, longer)
