"""``frellm4rec tune``: a seeded random search, with equal trials and equal time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.flags import Columns
from spectral_probe.cli.terminal import say

if TYPE_CHECKING:
    from frellm4rec.tuning.search import Search
    from frellm4rec.tuning.tables import SearchTables
    from frellm4rec.tuning.trials import System


def tune(
    model: Annotated[str, typer.Argument(help="Registered model, see `frellm4rec models`.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Data set, NAME:ARGUMENT, or a file.")] = "demo",
    from_dir: Annotated[Path | None, typer.Option(help="Folder or zip with the raw files.")] = None,
    columns: Columns = None,
    column: Annotated[
        str, typer.Option(help="own: the loss of the model's paper; same: the softmax over all items.")
    ] = "own",
    trials: Annotated[int, typer.Option(help="How many; the first has the settings of the recipe.")] = 12,
    seconds: Annotated[
        float, typer.Option(help="Time of a trial, to be computed on the CPU or passed on a GPU.")
    ] = 600.0,
    validations: Annotated[int, typer.Option(help="Validations in this time.")] = 20,
    patience: Annotated[int, typer.Option(help="Validations without a better one that end a trial.")] = 10,
    jobs: Annotated[int, typer.Option(help="Trials at a time.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of a trial on the CPU.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the draws, and of every trial.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="For all trials, as architecture.max_length=20; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder; runs/tune-DATASET when left out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON.")] = False,
) -> None:
    """Try settings of a model, and choose those with the best full-ranking NDCG on the validation items.

    Trials are drawn from the grid of the model's recipe, see `frellm4rec models MODEL`. The test items are not read.
    The same call goes on after an interruption, and a higher --trials adds to the trials that are there.
    """
    from frellm4rec.runs.recipe import parse_assignments
    from frellm4rec.tuning.folders import default_folder
    from frellm4rec.tuning.processes import exit_code_of
    from frellm4rec.tuning.search import Budget, Search
    from frellm4rec.tuning.trials import System
    from spectral_probe.plugins.datasets import with_columns

    budget = Budget(seconds, n_validations=validations, patience=patience, seed=seed, threads=threads)
    base = parse_assignments(setting or ())
    system = System(model, column, base)  # type: ignore[arg-type]
    planned = system.trials(trials, seed=seed)
    if dry_run:
        _print_plan(system, planned, as_json)
        return
    folder = out.expanduser() if out is not None else default_folder("tune", dataset)
    from_dir_text = None if from_dir is None else str(from_dir)
    search = Search.open(
        folder, dataset=with_columns(dataset, columns), from_dir=from_dir_text, device=device, budget=budget
    )
    try:
        tables = search.run(
            [system], n_trials=trials, jobs=jobs, progress=True, report=lambda line: say(line, err=True)
        )
    except KeyboardInterrupt:
        say(f"the finished trials are in {folder}; the same command goes on from there.", err=True)
        raise
    _print_result(search, system, tables, as_json)
    failures = tables.rows_of(system)["error"]
    failures = failures[failures != ""].tolist()
    if failures:
        say(f"{len(failures)} of {trials} trials failed", err=True)
    if tables.winner(system) is None:
        raise typer.Exit(exit_code_of(failures[0]))


def _print_plan(system: System, planned: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"model": system.model, "column": system.column, "trials": planned}, indent=2))
        return
    for number, settings in enumerate(planned):
        text = ", ".join(f"{name}={value}" for name, value in settings.items())
        say(f"trial {number}: {text or 'the settings of the recipe'}")


def _print_result(search: Search, system: System, tables: SearchTables, as_json: bool) -> None:
    rows, winner = tables.rows_of(system), tables.winner(system)
    if as_json:
        best = None if winner is None else int(winner["trial"])
        content = {
            "folder": str(search.folder),
            "best_trial": best,
            "trials": json.loads(rows.to_json(orient="records")),
        }
        typer.echo(json.dumps(content, indent=2))
        return
    from spectral_probe.cli.tables import print_rows

    print_rows([_cells(row) for row in rows.sort_values("validation_ndcg", ascending=False).to_dict("records")])
    if winner is not None:
        path = search.recipe_path(system, int(winner["trial"]))
        say(f"best on validation: trial {winner['trial']}; train it with: frellm4rec train {path}")


def _cells(row: dict[str, Any]) -> dict[str, str]:
    settings = json.loads(row["settings"])
    is_finished = row["status"] == "finished"
    return {
        "trial": str(row["trial"]),
        "NDCG@10": f"{row['validation_ndcg']:.4f}" if is_finished else "failed",
        "ended": (
            f"{row['stopped']}{', still rising' if row['is_still_rising'] else ''}" if is_finished else row["error"]
        ),
        "epochs": f"{row['best_epoch']} of {row['n_epochs']}" if is_finished else "",
        "seconds": f"{row['cpu_seconds'] or row['seconds']:.0f}" if is_finished else "",
        "settings": ", ".join(f"{name.partition('.')[2]}={value}" for name, value in settings.items()),
    }
