"""``frellm4rec experiment`` of a tuned table: its plan, its search, and the opening of the test items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from frellm4rec.cli.measures import records
from spectral_probe.cli.json_output import print_json
from spectral_probe.cli.pages import print_page
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped

if TYPE_CHECKING:
    from frellm4rec.experiments.grid import ExperimentRequest
    from frellm4rec.experiments.system_tables import SystemTables
    from frellm4rec.experiments.systems import TunedExperiment
    from frellm4rec.experiments.tuned import TunedRun


def open_tuned(
    experiment: TunedExperiment,
    request: ExperimentRequest,
    folder: Path,
    n_trials: int,
    seconds: float,
    longer: int | None,
) -> TunedRun:
    """Return the table with its data loaded and its trials drawn."""
    from frellm4rec.experiments.tuned import TunedRun
    from frellm4rec.tuning.search import Budget

    return TunedRun.open(experiment, request, folder, n_trials=n_trials, budget=Budget(seconds), longer=longer)


def run_tuned(run: TunedRun, *, jobs: int, is_final: bool, as_json: bool, fields: str | None) -> None:
    """Search, and then, if asked for, train what was chosen and open the test items; print the page."""
    from frellm4rec.experiments.system_page import system_page

    def report(line: str) -> None:
        say_wrapped(line, err=True)

    try:
        with working("search"):
            if is_final:
                run.check_final()
            tables = run.tune(jobs=jobs, progress=True, report=report)
            if is_final:
                tables = run.finish(jobs=jobs, progress=True, report=report)
    except KeyboardInterrupt:
        say_wrapped(f"what has finished is in {run.folder}; the same command goes on from there.", err=True)
        raise
    if as_json or fields:
        print_json(_content(run, tables), fields)
    else:
        print_page(system_page(run.experiment, tables))
    if run.exit_code:
        raise typer.Exit(run.exit_code)


def print_trials(run: TunedRun, as_json: bool, fields: str | None) -> None:
    """Print the trials of every system, and which of them have ended."""
    rows: list[dict[str, Any]] = []
    for system in run.systems:
        for index, settings in enumerate(system.trials(run.n_trials, seed=run.search.budget.seed)):
            state = "finished" if run.search.is_finished(system, index) else "run"
            rows.append({"system": system.name, "trial": index, "state": state, "settings": settings})
    longer = run.longer.budget.seconds if run.longer is not None and run.runs_longer else None
    if as_json or fields:
        print_json({"folder": str(run.folder), "trials": rows, "longer_seconds": longer}, fields)
        return
    for row in rows:
        text = ", ".join(f"{name.partition('.')[2]}={value}" for name, value in row["settings"].items())
        line = f"{row['state']:9} {row['system']} trial {row['trial']}: {text or 'the settings of the recipe'}"
        say_wrapped(line, indent=" " * 12)
    todo = [row for row in rows if row["state"] == "run"]
    trained = {system.name for system in run.systems if system.is_trained}
    longest = sum(row["system"] in trained for row in todo) * run.search.budget.seconds / 3600
    say_wrapped(f"{len(rows)} trials, {len(todo)} to run, about {longest:.1f} hours of computing; folder {run.folder}")
    if longer:
        say_wrapped(f"then the winner again, with {longer:g} seconds")


def _content(run: TunedRun, tables: SystemTables) -> dict[str, Any]:
    parts = {"systems": tables.systems, "trials": tables.search.trials, "means": tables.final.means}
    parts |= {"differences": tables.final.differences, "longer": tables.longer.trials}
    return {
        "experiment": run.experiment.name,
        "folder": str(run.folder),
        "exit_code": run.exit_code,
        **{name: records(table) for name, table in parts.items()},
    }
