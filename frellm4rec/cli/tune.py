"""``frellm4rec tune``: a seeded random search, with equal trials and equal time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frellm4rec.cli.completion import complete_recommenders
from frellm4rec.cli.measures import records
from spectral_probe.cli.completion import complete_datasets
from spectral_probe.cli.flags import DATA, MODEL, RUN, TRAINING, Columns, Device, FromDir, examples, with_default
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped

if TYPE_CHECKING:
    from frellm4rec.tuning.search import Search
    from frellm4rec.tuning.tables import SearchTables
    from frellm4rec.tuning.trials import System


ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Recommender, see `frellm4rec models`.", autocompletion=complete_recommenders),
]
ColumnOption = Annotated[
    str,
    typer.Option(help="own: the loss of the model's paper; same: the softmax over all.", rich_help_panel=MODEL),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="For all trials, as architecture.max_length=20; repeatable.",
        rich_help_panel=MODEL,
    ),
]
DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        "-d",
        metavar="DATA",
        help="Data set, NAME:ARGUMENT, or a file.",
        rich_help_panel=DATA,
        autocompletion=complete_datasets,
    ),
]
TrialsOption = Annotated[
    int, typer.Option(help="Trials; the first has the settings of the recipe.", rich_help_panel=TRAINING)
]
SecondsOption = Annotated[
    float, typer.Option(help="Time of a trial: computed on the CPU, passed on a GPU.", rich_help_panel=TRAINING)
]
PatienceOption = Annotated[
    int, typer.Option(help="Validations without a better one that end a trial.", rich_help_panel=TRAINING)
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help=with_default("Folder.", "runs/tune-DATASET"), rich_help_panel=RUN),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the trials, and stop.", rich_help_panel=RUN)]
EXAMPLES = examples(
    "frellm4rec tune sasrec --trials 3 --seconds 60 --dry-run",
    "frellm4rec tune sasrec -d lastfm --trials 12",
    "frellm4rec tune gru4rec --set architecture.max_length=20 --jobs 2",
)


def tune(
    model: ModelArgument,
    column: ColumnOption = "own",
    setting: SettingOption = None,
    dataset: DatasetOption = "demo",
    from_dir: FromDir = None,
    columns: Columns = None,
    trials: TrialsOption = 12,
    seconds: SecondsOption = 600.0,
    validations: Annotated[int, typer.Option(help="Validations in this time.", rich_help_panel=TRAINING)] = 20,
    patience: PatienceOption = 10,
    seed: Annotated[int, typer.Option(help="Seed of the draws and of every trial.", rich_help_panel=TRAINING)] = 0,
    jobs: Annotated[int, typer.Option(help="Trials at a time.", rich_help_panel=RUN)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of a trial on the CPU.", rich_help_panel=RUN)] = 1,
    device: Device = "cpu",
    out: OutOption = None,
    dry_run: DryRunOption = False,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Try settings of a model, and choose those with the best full-ranking NDCG on the validation items.

    Trials are drawn from the grid of the model's recipe, see `frellm4rec models MODEL`. The test items are not read.
    The same call goes on after an interruption, and a higher --trials adds to the trials that are there.
    """
    from frellm4rec.runs.recipe import parse_assignments
    from frellm4rec.tuning.folders import default_folder
    from frellm4rec.tuning.trials import System
    from spectral_probe.plugins.datasets import with_columns

    base = parse_assignments(setting or ())
    system = System(model, column, base)  # type: ignore[arg-type]
    with working():
        from frellm4rec.tuning.processes import exit_code_of
        from frellm4rec.tuning.search import Budget, Search

        budget = Budget(seconds, n_validations=validations, patience=patience, seed=seed, threads=threads)
        planned = system.trials(trials, seed=seed)
        if not dry_run:
            folder = out.expanduser() if out is not None else default_folder("tune", dataset)
            from_dir_text = None if from_dir is None else str(from_dir)
            search = Search.open(
                folder, dataset=with_columns(dataset, columns), from_dir=from_dir_text, device=device, budget=budget
            )
            tables = _run(search, system, trials, jobs)
    if dry_run:
        _print_plan(system, planned, as_json, fields)
        return
    _print_result(search, system, tables, as_json, fields)
    failures = tables.rows_of(system)["error"]
    failures = failures[failures != ""].tolist()
    if failures:
        say_wrapped(f"{len(failures)} of {trials} trials failed", err=True)
    if tables.winner(system) is None:
        raise typer.Exit(exit_code_of(failures[0]))


def _run(search: Search, system: System, n_trials: int, jobs: int) -> SearchTables:
    try:
        return search.run(
            [system], n_trials=n_trials, jobs=jobs, progress=True, report=lambda line: say_wrapped(line, err=True)
        )
    except KeyboardInterrupt:
        say_wrapped(f"the finished trials are in {search.folder}; the same command goes on from there.", err=True)
        raise


def _print_plan(system: System, planned: list[dict[str, Any]], as_json: bool, fields: str | None) -> None:
    if as_json or fields:
        print_json({"model": system.model, "column": system.column, "trials": planned}, fields)
        return
    for number, settings in enumerate(planned):
        text = ", ".join(f"{name}={value}" for name, value in settings.items())
        say_wrapped(f"trial {number}: {text or 'the settings of the recipe'}", indent="  ")


def _print_result(search: Search, system: System, tables: SearchTables, as_json: bool, fields: str | None) -> None:
    rows, winner = tables.rows_of(system), tables.winner(system)
    if as_json or fields:
        best = None if winner is None else int(winner["trial"])
        print_json({"folder": str(search.folder), "best_trial": best, "trials": records(rows)}, fields)
        return
    from spectral_probe.cli.tables import print_rows

    cells = [_cells(row) for row in rows.sort_values("validation_ndcg", ascending=False).to_dict("records")]
    print_rows(cells, numbers=("trial", "NDCG@10", "seconds"), least=("seconds", "epochs"))
    if winner is not None:
        path = search.recipe_path(system, int(winner["trial"]))
        say_wrapped(f"best on validation: trial {winner['trial']}; train it with: frellm4rec train {path}")


def _cells(row: dict[str, Any]) -> dict[str, str]:
    settings = json.loads(row["settings"])
    import pandas as pd

    is_finished = row["status"] == "finished"
    seconds = row["cpu_seconds"] if pd.notna(row["cpu_seconds"]) else row["seconds"]
    return {
        "trial": str(row["trial"]),
        "NDCG@10": f"{row['validation_ndcg']:.4f}" if is_finished else "failed",
        "ended": (
            f"{row['stopped']}{', still rising' if row['is_still_rising'] else ''}" if is_finished else row["error"]
        ),
        "epochs": f"{row['best_epoch']} of {row['n_epochs']}" if is_finished else "",
        "seconds": f"{seconds:.0f}" if is_finished and pd.notna(seconds) else "",
        "settings": ", ".join(f"{name.partition('.')[2]}={value}" for name, value in settings.items()),
    }
