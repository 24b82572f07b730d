"""The tables of tuned systems: what the search chose, what it cost, and the final values with their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd

from frellm4rec.experiments.systems import TunedExperiment
from frellm4rec.experiments.tables import ExperimentTables
from frellm4rec.tuning.tables import FAILED, SearchTables
from frellm4rec.tuning.trials import System
from spectral_probe.storage.atomic import write_csv

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


@dataclass(frozen=True)
class SystemTables:
    """``systems``: a row per system; ``search``: its trials and curves; ``final``: cells, means and differences."""

    systems: pd.DataFrame
    search: SearchTables
    final: ExperimentTables

    def save(self, folder: Path) -> None:
        """Write all tables as CSV, each whole or not at all."""
        write_csv(folder / "systems.csv", self.systems, float_format="%.10g")
        self.search.save(folder)
        if not self.final.cells.empty:
            self.final.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        systems = pd.read_csv(folder / "systems.csv", keep_default_na=False, na_values=[""])
        has_final = (folder / "cells.csv").exists()
        final = ExperimentTables.load(folder) if has_final else ExperimentTables.empty()
        return cls(systems, SearchTables.load(folder), final)
