"""``frellm4rec evaluate``: how well trained models rank what their users took next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_probe.cli.flags import Columns
from spectral_probe.cli.terminal import say
from spectral_probe.errors import ConfigError, SmallCatalogueError

if TYPE_CHECKING:
    from frellm4rec.evaluation import Evaluation

RANKINGS = ("99+1", "full")


def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Training runs, or folders of saved models.")],
    ranking: Annotated[
        list[str] | None,
        typer.Option(help="99+1, 100+1, another N+1, or full; may be repeated. Left out: 99+1 and full."),
    ] = None,
    part: Annotated[str, typer.Option(help="Held-out item: test (the last) or valid (the one before).")] = "test",
    k: Annotated[int, typer.Option(help="Cut of the list.")] = 10,
    candidates: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Candidate lists of your own (.npz) instead of the stored ones.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the stored candidates.")] = 0,
    dataset: Annotated[
        str | None, typer.Option(help="Data set of a saved model; of a run, where its data are now.")
    ] = None,
    from_dir: Annotated[Path | None, typer.Option(help="Folder or zip with the raw files.")] = None,
    columns: Columns = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the evaluation of a saved model; runs keep theirs in evaluation/.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Print NDCG@k, Recall@k and tie rate with the protocol of every number, and keep the values of every user."""
    if out is not None and len(runs) > 1:
        raise ConfigError(f"--out holds the evaluation of one model; got {len(runs)}. Evaluate them one by one.")
    from functools import cache

    from frellm4rec.evaluation.candidates import Candidates, check_part
    from frellm4rec.runs.evaluations import evaluate_trained
    from frellm4rec.runs.trained import open_trained
    from spectral_probe.plugins.datasets import resolve_dataset

    check_part(part)
    lists = None if candidates is None else Candidates.load(candidates.expanduser())
    rankings = _rankings(ranking, None if lists is None else f"{lists.n_negatives}+1")
    load = cache(resolve_dataset)
    results = []
    impossible: dict[str, SmallCatalogueError] = {}
    for run in runs:
        trained = open_trained(run, dataset=dataset, from_dir=from_dir, columns=columns, device=device, load=load)
        if trained.run is not None and trained.run.state()["status"] != "finished":
            say(f"note: {run} is not finished; its best model so far is evaluated.", err=True)
        for rule in _possible(rankings, trained.folder, is_asked=bool(ranking)):
            options = {"part": part, "k": k, "seed": seed, "candidates": lists, "out": out}
            try:
                results.append((run, evaluate_trained(trained, ranking=rule, **options)))  # type: ignore[arg-type]
            except SmallCatalogueError as error:
                impossible.setdefault(f"{run.name}: {rule}", error)
    if impossible and not results:
        raise next(iter(impossible.values()))
    if as_json:
        typer.echo(json.dumps([{"run": str(run), **result.summary()} for run, result in results], indent=2))
    else:
        _print(results)
    for which, error in impossible.items():
        say(f"note: {which} is missing. {error}", err=True)
    if impossible and ranking:
        raise typer.Exit(SmallCatalogueError.exit_code)


def _rankings(asked: list[str] | None, stored: str | None) -> list[str]:
    """Return the rankings to evaluate, each once; ``stored`` is the ranking of candidate lists of the user's own."""
    from frellm4rec.runs.evaluations import parse_ranking

    rankings = list(dict.fromkeys(asked or (RANKINGS if stored is None else [stored])))
    for ranking in rankings:
        parse_ranking(ranking)
    if stored is not None and rankings != [stored]:
        raise ConfigError(
            f"--candidates holds {stored} candidates; got --ranking {', '.join(rankings)}. Leave out one of the two."
        )
    return rankings


def _possible(rankings: list[str], folder: Path, *, is_asked: bool) -> list[str]:
    """Return the rankings that a saved model has; without the full one, and with a note, if it cannot rank all."""
    from frellm4rec.models.registry import model_class
    from spectral_probe.plugins.saved_models import SavedModel

    name = SavedModel.open(folder).name
    if is_asked or "full" not in rankings or model_class(name).traits.can_rank_all:
        return rankings
    say(f"note: {name} rates given candidates only; the full ranking is left out.", err=True)
    return [ranking for ranking in rankings if ranking != "full"]


def _print(results: list[tuple[Path, Evaluation]]) -> None:
    from spectral_probe.cli.tables import print_rows

    k = results[0][1].k
    numbers = {protocol: n for n, protocol in enumerate(dict.fromkeys(r.rule for _, r in results), start=1)}
    print_rows(
        [
            {
                "run": run.name,
                "model": result.model,
                "ranking": result.ranking,
                f"NDCG@{k}": f"{result.ndcg.mean():.4f}",
                f"Recall@{k}": f"{result.recall.mean():.4f}",
                "tie rate": f"{result.is_tied.mean():.4f}",
                "protocol": str(numbers[result.rule]),
            }
            for run, result in results
        ]
    )
    for protocol, number in numbers.items():
        say(f"protocol {number}: {protocol}")
    for run, note in dict.fromkeys((run.name, result.note) for run, result in results if result.note):
        say(f"note: {run}: {note}")
