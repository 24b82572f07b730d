"""``frellm4rec compare``: which of several trained models is better, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.flags import Columns
from spectral_probe.cli.terminal import say
from spectral_probe.errors import ConfigError, SmallCatalogueError

if TYPE_CHECKING:
    from frellm4rec.runs.comparison import RunComparison, RunResult
    from spectral_probe.runs.folder import RunFolder

#: The ranking of a comparison that asks for none.
RANKING = "99+1"


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Training runs; the first is the reference.")],
    metric: Annotated[str, typer.Option(help="ndcg or recall.")] = "ndcg",
    ranking: Annotated[
        str | None,
        typer.Option(help="99+1, 100+1, another N+1, or full. Left out: 99+1, or full where the items are too few."),
    ] = None,
    part: Annotated[str, typer.Option(help="Held-out item: test (the last) or valid (the one before).")] = "test",
    k: Annotated[int, typer.Option(help="Cut of the list.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the stored candidates.")] = 0,
    from_dir: Annotated[Path | None, typer.Option(help="Where the raw files are now, if not where they were.")] = None,
    columns: Columns = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Compare runs, grouped where they differ by seed only, with the group of the first one.

    Differences are paired by user, with a 95 % interval and a p-value over other users and, from three seeds on, other
    trainings; Holm's correction is over all differences of the table. What is not evaluated yet is evaluated first.
    """
    if len(runs) < 2:
        raise ConfigError(f"A comparison needs at least two runs; got {len(runs)}. Name another.")
    from functools import cache

    from frellm4rec.evaluation.candidates import check_part
    from frellm4rec.runs.comparison import METRICS, check_groups, compare_runs
    from frellm4rec.runs.evaluations import parse_ranking
    from spectral_probe.errors import did_you_mean
    from spectral_probe.plugins.datasets import resolve_dataset

    check_part(part)
    parse_ranking(ranking or RANKING)
    if metric not in METRICS:
        raise ConfigError(f"--metric must be one of {list(METRICS)}; got {metric!r}.{did_you_mean(metric, METRICS)}")
    options: dict[str, Any] = {"ranking": ranking or RANKING, "part": part, "k": k, "seed": seed}
    load = cache(resolve_dataset)
    folders = [_open(run.expanduser()) for run in runs]
    check_groups([run.config() for run in folders])
    reading: dict[str, Any] = {"from_dir": from_dir, "columns": columns, "device": device, "load": load}
    try:
        results = [_result(run, options, **reading) for run in folders]
    except SmallCatalogueError as error:
        if ranking is not None:
            raise
        say(f"note: all items are ranked, because {RANKING} is missing. {error}", err=True)
        results = [_result(run, {**options, "ranking": "full"}, **reading) for run in folders]
    comparison = compare_runs(results, metric=metric)  # type: ignore[arg-type]
    if as_json:
        rows = json.loads(comparison.table.to_json(orient="records"))
        content = {"table": rows, "family": comparison.family}
        typer.echo(json.dumps(content | {"protocols": comparison.protocols, "notes": comparison.notes}, indent=2))
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
        say(f"note: {run.path} is not finished; its best model so far is compared.", err=True)
    evaluation = stored_evaluation(run.path, fingerprint=str(state.get("dataset_fingerprint")), **options)
    if evaluation is None:
        say(f"evaluating {run.path.name}", err=True)
        evaluation = evaluate_trained(
            open_trained(run.path, from_dir=from_dir, columns=columns, device=device, load=load), **options
        )
    return RunResult(run.path.name, run.config(), evaluation, str(run.request().get("name") or ""))


def _print(comparison: RunComparison, k: int) -> None:
    from frellm4rec.runs.comparison import METRIC_NAMES
    from spectral_probe.cli.tables import print_rows

    title = f"{METRIC_NAMES[comparison.metric]}@{k}"
    print_rows([_cells(row, title) for row in comparison.table.to_dict("records")])
    for protocol in comparison.protocols:
        say(f"protocol: {protocol}")
    for note in comparison.notes:
        say(f"note: {note}")


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
