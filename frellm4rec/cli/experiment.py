"""``frellm4rec experiment``: a published table or figure, run again on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frellm4rec.cli.completion import complete_experiments
from frellm4rec.cli.measures import records
from spectral_probe.cli.completion import complete_datasets
from spectral_probe.cli.flags import (
    DATA,
    MEASURE,
    MODEL,
    RUN,
    TRAINING,
    Columns,
    FigureWidth,
    Flag,
    examples,
    given,
    with_flags,
)
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.pages import print_page
from spectral_probe.cli.status import working
from spectral_probe.cli.tables import print_rows
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import ConfigError

if TYPE_CHECKING:
    from frellm4rec.experiments.grid import ExperimentRequest
    from frellm4rec.experiments.runner import ExperimentRun
    from frellm4rec.experiments.tables import ExperimentTables


def _names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list; an empty one is refused where it is looked up."""
    return tuple(part.strip() for part in text.split(","))


def _assignments(texts: list[str]) -> dict[str, Any]:
    """Return the settings that are written as KEY=VALUE."""
    from frellm4rec.runs.recipe import parse_assignments

    return parse_assignments(texts)


def _once(names: list[str]) -> tuple[str, ...]:
    """Return names in their order, each once."""
    return tuple(dict.fromkeys(names))


#: Each sets a part of the request, or of a tuned table.
FLAGS = (
    Flag(
        "backbone",
        str,
        "Language model, instead of those of the experiment; repeatable.",
        "backbones",
        convert=tuple,
        panel=MODEL,
        metavar="MODEL",
        is_repeatable=True,
    ),
    Flag(
        "mode",
        str,
        "prefix, causal or two_sided_leaky, for every variant; repeatable.",
        "modes",
        convert=tuple,
        panel=MODEL,
        metavar="MODE",
        is_repeatable=True,
    ),
    Flag(
        "beside",
        str,
        "Model to evaluate beside them, such as sasrec; repeatable.",
        "baselines",
        convert=tuple,
        panel=MODEL,
        metavar="MODEL",
        is_repeatable=True,
    ),
    Flag("variants", str, "Only these variants, or systems of a tuned table: A,B.", convert=_names, panel=MODEL),
    Flag("dataset", str, "demo, lastfm, amazon:Gift_Cards, … or a file.", panel=DATA, complete=complete_datasets),
    Flag("from_dir", Path, "Folder or zip with the raw files of the data set.", panel=DATA),
    Flag(
        "set",
        str,
        "For all variants, as training.n_epochs=8; repeatable.",
        "settings",
        convert=_assignments,
        panel=TRAINING,
        metavar="KEY=VALUE",
        is_repeatable=True,
    ),
    Flag(
        "ranking",
        str,
        "99+1, another N+1, or full; repeatable.",
        "rankings",
        convert=_once,
        panel=MEASURE,
        default="99+1 and full",
        metavar="N+1|full",
        is_repeatable=True,
    ),
    Flag("seeds", int, "Seeds, counted from 0; in a tuned table from 1.", "n_seeds", panel=TRAINING, default="3"),
    Flag("trials", int, "Of a tuned table: trials of each system.", panel=TRAINING, default="12"),
    Flag("seconds", float, "Of a tuned table: time of a trial.", panel=TRAINING, default="600"),
    Flag("longer", int, "Of a tuned table: the winner again with so many times the seconds.", panel=TRAINING),
    Flag("final", bool, "Of a tuned table: open the test items.", panel=TRAINING),
    Flag("device", str, "auto, cpu, cuda, cuda:N or mps.", panel=RUN, default="auto; of a tuned table: cpu"),
    Flag("jobs", int, "Trainings at a time.", panel=RUN, default="1"),
    Flag("out", Path, "Folder.", panel=RUN, default="runs/experiment-NAME-DATASET"),
)
NameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="Such as table2 or ablation, or a name for FILE; left out, all are listed.",
        autocompletion=complete_experiments,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the cells and what is done of each.", rich_help_panel=RUN)
]
EXAMPLES = examples(
    "frellm4rec experiment",
    "frellm4rec experiment ablation --dataset demo --dry-run",
    "frellm4rec experiment table2 --dataset lastfm --trials 3 --seconds 60",
)


@with_flags(FLAGS, before="columns")
def experiment(
    name: NameArgument = None,
    file: Annotated[Path | None, typer.Argument(metavar="FILE.yaml", help="An experiment of your own.")] = None,
    columns: Columns = None,
    figure_width: FigureWidth = 178,
    dry_run: DryRunOption = False,
    as_json: AsJson = False,
    fields: Fields = None,
    **options: Any,
) -> None:
    """Train every cell of a table or figure, skip those that are finished, and write CSV, Markdown and figure.

    Without a name, the experiments are listed. The same command after an interruption goes on where it stopped. A tuned
    table, such as table2, is searched first: equal trials and equal time for all, chosen on the validation items; only
    --final opens the test items.
    """
    if name is None:
        _list_experiments(as_json, fields)
        return
    asked = given(FLAGS, options)
    if "dataset" not in asked:
        raise ConfigError("The experiment needs a data set. Add for example --dataset demo.")
    from frellm4rec.experiments.grid import ExperimentRequest
    from spectral_probe.plugins.datasets import with_columns

    asked["dataset"] = with_columns(asked["dataset"], columns)
    of_the_run = {
        key: asked.pop(key) for key in ("trials", "seconds", "longer", "final", "jobs", "out") if key in asked
    }
    of_the_run["dry_run"] = dry_run
    _start(name, file, ExperimentRequest(**asked, figure_width=figure_width), of_the_run, as_json, fields)


def _start(
    name: str,
    file: Path | None,
    request: ExperimentRequest,
    asked: dict[str, Any],
    as_json: bool,
    fields: str | None,
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
        with working():
            n_trials, seconds, longer = asked.get("trials", 12), asked.get("seconds", 600.0), asked.get("longer")
            tuned = open_tuned(definition, request, folder, n_trials, seconds, longer)
        if asked["dry_run"]:
            print_trials(tuned, as_json, fields)
        else:
            run_tuned(tuned, jobs=jobs, is_final=is_final, as_json=as_json, fields=fields)
        return
    if is_final:
        raise ConfigError(
            f"--final is of tuned tables such as table2; {name} opens the test items anyway. Leave it out."
        )
    for option in ("trials", "seconds", "longer"):
        if option in asked:
            raise ConfigError(f"--{option} is of tuned tables such as table2; {name} has no trials. Leave it out.")
    with working():
        run = ExperimentRun.open(definition, request, folder)
    if asked["dry_run"]:
        _print_plan(run, as_json, fields)
    else:
        _run(run, jobs, as_json, fields)


def _list_experiments(as_json: bool, fields: str | None) -> None:
    from frellm4rec.experiments.definitions import experiment_names
    from frellm4rec.experiments.systems import TunedExperiment, load_definition

    rows = []
    for name in experiment_names():
        experiment = load_definition(name)
        is_tuned = isinstance(experiment, TunedExperiment)
        size = f"{len(experiment.rows)} systems, tuned" if is_tuned else f"{len(experiment.variants)} variants"
        rows.append({"name": name, "of the paper": experiment.source, "title": experiment.title, "size": size})
    if as_json or fields:
        print_json(rows, fields)
    else:
        print_rows(rows)


def _run(run: ExperimentRun, jobs: int, as_json: bool, fields: str | None) -> None:
    from frellm4rec.experiments.markdown import markdown

    say_wrapped(f"{len(run.cells)} cells in {run.folder}", err=True)
    try:
        with working("cells"):
            tables = run.run(jobs=jobs, progress=True, report=lambda line: say_wrapped(line, err=True))
    except KeyboardInterrupt:
        say_wrapped(f"the finished cells are in {run.folder}; the same command goes on from there.", err=True)
        raise
    if as_json or fields:
        print_json(_content(run, tables), fields)
    else:
        print_page(markdown(run.experiment, tables))
    if run.exit_code:
        raise typer.Exit(run.exit_code)


def _print_plan(run: ExperimentRun, as_json: bool, fields: str | None) -> None:
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
    if as_json or fields:
        print_json({"folder": str(run.folder), "cells": plan}, fields)
        return
    for entry, cell in zip(plan, run.cells, strict=True):
        say_wrapped(f"{entry['state']:9} {cell}", indent=" " * 10)
    n_open = sum(entry["state"] in ("run", "resume") for entry in plan)
    say_wrapped(f"{len(plan)} cells, {n_open} to train; folder {run.folder}")


def _content(run: ExperimentRun, tables: ExperimentTables) -> dict[str, Any]:
    from frellm4rec.experiments.effects import part_effects

    parts = {name: getattr(tables, name) for name in ("cells", "means", "differences")}
    return {
        "experiment": run.experiment.name,
        "folder": str(run.folder),
        "exit_code": run.exit_code,
        **{name: records(table) for name, table in parts.items()},
        "parts": records(part_effects(run.experiment, tables)),
    }
