"""``frellm4rec experiment``: a published table or figure, run again on a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.flags import Columns, Flag, given, with_flags
from spectral_probe.cli.terminal import say
from spectral_probe.errors import ConfigError

if TYPE_CHECKING:
    from frellm4rec.experiments.grid import ExperimentRequest
    from frellm4rec.experiments.runner import ExperimentRun
    from frellm4rec.experiments.tables import ExperimentTables


def _names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list; an empty one is refused where it is looked up."""
    return tuple(part.strip() for part in text.split(","))


#: Each sets a part of the request, or of a tuned table.
FLAGS = (
    Flag("dataset", str, "demo, lastfm, amazon:Gift_Cards, … or a file."),
    Flag("from_dir", Path, "Folder or zip with the raw files."),
    Flag("variants", str, "Only these variants, or systems of a tuned table: A,B.", convert=_names),
    Flag("seeds", int, "How many seeds, counted from 0; in a tuned table from 1. Default: 3.", "n_seeds"),
    Flag("device", str, "auto, cpu, cuda, cuda:N or mps."),
    Flag("trials", int, "Of a tuned table: trials of each system; default: 12."),
    Flag("seconds", float, "Of a tuned table: time of a trial; default: 600."),
    Flag("final", bool, "Of a tuned table: train what validation chose, and open the test items."),
    Flag("jobs", int, "Trainings at a time; default: 1."),
    Flag("out", Path, "Folder; runs/experiment-NAME-DATASET when left out."),
)


@with_flags(FLAGS, before="backbone")
def experiment(
    name: Annotated[
        str | None,
        typer.Argument(help="Such as table2 or ablation, or a name for FILE; left out, all are listed."),
    ] = None,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.yaml]", help="An experiment of your own.")] = None,
    columns: Columns = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Language model; may be repeated. Left out: those of the experiment.")
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="prefix, causal or two_sided_leaky; may be repeated, and every variant is run in each."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For all variants, as training.n_epochs=8; may be repeated."),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Model to evaluate alone beside them, such as sasrec; may be repeated."),
    ] = None,
    ranking: Annotated[
        list[str] | None, typer.Option(help="99+1, another N+1, or full; may be repeated. Left out: 99+1 and full.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and what is done of each.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    **options: Any,
) -> None:
    """Train every cell of a table or figure, skip those that are finished, and write CSV, Markdown and figure.

    Without a name, the experiments are listed. The same command after an interruption goes on where it stopped. A tuned
    table, such as table2, is searched first: equal trials and equal time for all, chosen on the validation items; only
    --final opens the test items.
    """
    if name is None:
        _list_experiments()
        return
    asked = given(FLAGS, options)
    if "dataset" not in asked:
        raise ConfigError("The experiment needs a data set. Add for example --dataset demo.")
    from frellm4rec.experiments.grid import ExperimentRequest
    from frellm4rec.runs.recipe import parse_assignments
    from spectral_probe.plugins.datasets import with_columns

    asked["dataset"] = with_columns(asked["dataset"], columns)
    of_the_run = {key: asked.pop(key) for key in ("trials", "seconds", "final", "jobs", "out") if key in asked}
    request = ExperimentRequest(
        backbones=tuple(backbone or ()),
        modes=tuple(mode or ()),
        settings=parse_assignments(setting or ()),
        baselines=tuple(beside or ()),
        rankings=tuple(dict.fromkeys(ranking or ("99+1", "full"))),
        **asked,
    )
    _start(name, file, request, of_the_run, dry_run, as_json)


def _start(
    name: str, file: Path | None, request: ExperimentRequest, asked: dict[str, Any], dry_run: bool, as_json: bool
) -> None:
    """Plan or run the experiment of a request; ``asked`` holds the options that are not part of it."""
    from frellm4rec.cli.tuned_table import open_tuned, print_trials, run_tuned
    from frellm4rec.experiments.runner import ExperimentRun
    from frellm4rec.experiments.systems import TunedExperiment, load_definition
    from frellm4rec.tuning.folders import default_folder
    from frellm4rec.tuning.processes import check_jobs

    jobs, out, is_final = asked.get("jobs", 1), asked.get("out"), asked.get("final", False)
    check_jobs(jobs)
    definition = load_definition(name, None if file is None else file.expanduser())
    folder = out.expanduser() if out is not None else default_folder(f"experiment-{name}", request.dataset)
    if isinstance(definition, TunedExperiment):
        tuned = open_tuned(definition, request, folder, asked.get("trials", 12), asked.get("seconds", 600.0))
        print_trials(tuned, as_json) if dry_run else run_tuned(tuned, jobs=jobs, is_final=is_final, as_json=as_json)
        return
    if is_final:
        raise ConfigError(
            f"--final is of tuned tables such as table2; {name} opens the test items anyway. Leave it out."
        )
    run = ExperimentRun.open(definition, request, folder)
    if dry_run:
        _print_plan(run, as_json)
    else:
        _run(run, jobs, as_json)


def _list_experiments() -> None:
    from frellm4rec.experiments.definitions import experiment_names
    from frellm4rec.experiments.systems import TunedExperiment, load_definition

    for name in experiment_names():
        experiment = load_definition(name)
        is_tuned = isinstance(experiment, TunedExperiment)
        size = f"{len(experiment.rows)} systems, tuned" if is_tuned else f"{len(experiment.variants)} variants"
        say(f"{name:12} {experiment.source:8} {experiment.title} ({size})")


def _run(run: ExperimentRun, jobs: int, as_json: bool) -> None:
    from frellm4rec.experiments.markdown import markdown

    say(f"{len(run.cells)} cells in {run.folder}", err=True)
    try:
        tables = run.run(jobs=jobs, progress=True, report=lambda line: say(line, err=True))
    except KeyboardInterrupt:
        say(f"the finished cells are in {run.folder}; the same command goes on from there.", err=True)
        raise
    typer.echo(json.dumps(_content(run, tables), indent=2) if as_json else markdown(run.experiment, tables).rstrip())
    if run.exit_code:
        raise typer.Exit(run.exit_code)


def _print_plan(run: ExperimentRun, as_json: bool) -> None:
    plan = [
        {
            "variant": cell.variant.name,
            "mode": cell.mode,
            "backbone": cell.backbone_label,
            "seed": cell.seed,
            "state": run.state(cell),
            "overrides": dict(cell.overrides),
        }
        for cell in run.cells
    ]
    if as_json:
        typer.echo(json.dumps({"folder": str(run.folder), "cells": plan}, indent=2))
        return
    for entry, cell in zip(plan, run.cells, strict=True):
        say(f"{entry['state']:9} {cell}")
    n_open = sum(entry["state"] in ("run", "resume") for entry in plan)
    say(f"{len(plan)} cells, {n_open} to train; folder {run.folder}")


def _content(run: ExperimentRun, tables: ExperimentTables) -> dict[str, Any]:
    from frellm4rec.experiments.effects import part_effects

    parts = {name: getattr(tables, name) for name in ("cells", "means", "differences")}
    return {
        "experiment": run.experiment.name,
        "folder": str(run.folder),
        "exit_code": run.exit_code,
        **{name: json.loads(table.to_json(orient="records")) for name, table in parts.items()},
        "parts": json.loads(part_effects(run.experiment, tables).to_json(orient="records")),
    }
