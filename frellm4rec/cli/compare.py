"""``frellm4rec compare``: which of several trained models is better, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frellm4rec.cli.measures import CandidateSeed, Cut, Part, records
from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import MEASURE, Columns, Device, FromDir, examples
from spectral_probe.cli.json_output import AsJson, Fields, check_fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import ConfigError, SmallCatalogueError, check_choice
from spectral_probe.progress import stage
from spectral_probe.runs.references import TRAINING, resolve_run

if TYPE_CHECKING:
    from frellm4rec.runs.comparison import RunComparison, RunResult
    from spectral_probe.runs.folder import RunFolder

#: The ranking of a comparison that asks for none.
RANKING = "99+1"


EXAMPLES = examples(
    "frellm4rec compare @-2 @last",
    "frellm4rec compare base full --ranking full",
    "frellm4rec compare base full --metric recall --fields table",
)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN…",
            help="Training runs; the first is the reference.",
            autocompletion=complete_runs("training"),
        ),
    ],
    from_dir: FromDir = None,
    columns: Columns = None,
    metric: Annotated[str, typer.Option(help="ndcg or recall.", rich_help_panel=MEASURE)] = "ndcg",
    ranking: Annotated[
        str | None,
        typer.Option(
            help="99+1, another N+1, or full. Left out: 99+1, or full where the items are too few.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    part: Part = "test",
    k: Cut = 10,
    seed: CandidateSeed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Compare runs, grouped where they differ by seed only, with the group of the first one.

    Differences are paired by user, with a 95 % interval and a p-value over other users and, from three seeds on, other
    trainings; Holm's correction is over all differences of the table. What is not evaluated yet is evaluated first.
    """
    if len(runs) < 2:
        raise ConfigError(f"A comparison needs two runs or more; got one: {runs[0]}. Name another one beside it.")
    check_fields(fields, ("table", "family", "protocols", "notes"))
    from functools import cache

    from frellm4rec.evaluation.candidates import check_part
    from frellm4rec.runs.comparison import METRICS, check_groups, compare_runs
    from frellm4rec.runs.evaluations import parse_ranking
    from spectral_probe.plugins.datasets import resolve_dataset

    check_part(part)
    parse_ranking(ranking or RANKING)
    check_choice("--metric", metric, METRICS)
    options: dict[str, Any] = {"ranking": ranking or RANKING, "part": part, "k": k, "seed": seed}
    load = cache(resolve_dataset)
    folders = [_open(resolve_run(run, (TRAINING,))) for run in runs]
    check_groups([run.config() for run in folders])
    reading: dict[str, Any] = {"from_dir": from_dir, "columns": columns, "device": device, "load": load}
    with working():
        try:
            results = [_result(run, options, **reading) for run in folders]
        except SmallCatalogueError as error:
            if ranking is not None:
                raise
            say_wrapped(f"note: all items are ranked, because {RANKING} is missing. {error}", err=True)
            results = [_result(run, {**options, "ranking": "full"}, **reading) for run in folders]
        comparison = compare_runs(results, metric=metric)  # type: ignore[arg-type]
    if as_json or fields:
        content = {"table": records(comparison.table), "family": comparison.family}
        print_json(content | {"protocols": comparison.protocols, "notes": comparison.notes}, fields)
    else:
        _print(comparison, k)


def _open(folder: Path) -> RunFolder:
    from spectral_probe.plugins.saved_models import open_training_run

    run = open_training_run(folder)
    if run is None:
        raise ConfigError(
            f"{folder} is no training run, and only a run says by what settings it differs from another. "
            "Name folders that `frellm4rec train` made."
        )
    return run


def _result(
    run: RunFolder, options: dict[str, Any], *, from_dir: Path | None, columns: str | None, device: str, load: Any
) -> RunResult:
    """Return a run with its stored evaluation, or with one made now."""
    from frellm4rec.runs.comparison import RunResult
    from frellm4rec.runs.evaluations import evaluate_trained, stored_evaluation
    from frellm4rec.runs.trained import open_trained

    state = run.state()
    if state["status"] != "finished":
        say_wrapped(f"note: {run.path} is not finished; its best model so far is compared.", err=True)
    evaluation = stored_evaluation(run.path, fingerprint=str(state.get("dataset_fingerprint")), **options)
    if evaluation is None:
        stage(f"evaluating {run.path.name}")
        evaluation = evaluate_trained(
            open_trained(run.path, from_dir=from_dir, columns=columns, device=device, load=load), **options
        )
    return RunResult(run.path.name, run.config(), evaluation, str(run.request().get("name") or ""))


def _print(comparison: RunComparison, k: int) -> None:
    from frellm4rec.runs.comparison import METRIC_NAMES
    from spectral_probe.cli.tables import print_rows

    title = f"{METRIC_NAMES[comparison.metric]}@{k}"
    print_rows(
        [_cells(row, title) for row in comparison.table.to_dict("records")],
        numbers=("seeds", title, "difference", "95 % CI", "p", "p Holm"),
        least=("p", "seeds", "data set"),
    )
    for protocol in comparison.protocols:
        say_wrapped(f"protocol: {protocol}")
    for note in comparison.notes:
        say_wrapped(f"note: {note}")


def _cells(row: dict[str, Any], title: str) -> dict[str, str]:
    spread = f" ± {row['std']:.4f}" if row["n_seeds"] > 1 else ""
    cells = {
        "data set": row["dataset"],
        "group": row["group"],
        "seeds": str(row["n_seeds"]),
        title: f"{row['mean']:.4f}{spread}",
    }
    if row["p_value"] != row["p_value"]:
        return cells | {"difference": "reference"}
    return cells | {
        "difference": f"{row['difference']:+.4f}",
        "95 % CI": f"[{row['low']:+.4f}, {row['high']:+.4f}]",
        "p": f"{row['p_value']:.2g}",
        "p Holm": f"{row['p_holm']:.2g}",
        "effect": row["effect"],
    }
