"""``frellm4rec evaluate``: how well trained models rank what their users took next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frellm4rec.cli.measures import CandidateSeed, Cut, Part, Rankings, SavedDataset
from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import MEASURE, RUN, Columns, Device, FromDir, examples
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import ConfigError, SmallCatalogueError
from spectral_probe.progress import stage
from spectral_probe.runs.references import TRAINING, resolve_run

if TYPE_CHECKING:
    from frellm4rec.evaluation import Evaluation

RANKINGS = ("99+1", "full")
RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN…",
        help="Training runs, or folders of saved models.",
        autocompletion=complete_runs("training"),
    ),
]
CandidatesOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Candidate lists of your own (.npz).", rich_help_panel=MEASURE),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for the evaluation of a saved model; runs keep theirs in evaluation/.",
        rich_help_panel=RUN,
    ),
]
EXAMPLES = examples(
    "frellm4rec evaluate @last",
    "frellm4rec evaluate base full --ranking 99+1 --k 5",
    "frellm4rec evaluate @last --part valid --fields run,ndcg",
)


def evaluate(
    runs: RunsArgument,
    dataset: SavedDataset = None,
    from_dir: FromDir = None,
    columns: Columns = None,
    ranking: Rankings = None,
    part: Part = "test",
    k: Cut = 10,
    candidates: CandidatesOption = None,
    seed: CandidateSeed = 0,
    device: Device = "auto",
    out: OutOption = None,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Print NDCG@k, Recall@k and tie rate with the protocol of every number, and keep the values of every user."""
    if out is not None and len(runs) > 1:
        raise ConfigError(f"--out holds the evaluation of one model; got {len(runs)}. Evaluate them one by one.")
    runs = [resolve_run(run, (TRAINING,)) for run in runs]
    where = {"dataset": dataset, "from_dir": from_dir, "columns": columns, "device": device}
    with working(lines=False):
        results, impossible = _evaluate(
            runs, ranking, where, candidates, {"part": part, "k": k, "seed": seed, "out": out}
        )
    if impossible and not results:
        raise next(iter(impossible.values()))
    if as_json or fields:
        print_json([{"run": str(run), **result.summary()} for run, result in results], fields)
    else:
        _print(results)
    for which, error in impossible.items():
        say_wrapped(f"note: {which} is missing. {error}", err=True)
    if impossible and ranking:
        raise typer.Exit(SmallCatalogueError.exit_code)


def _evaluate(
    runs: list[Path], asked: list[str] | None, where: dict[str, Any], candidates: Path | None, options: dict[str, Any]
) -> tuple[list[tuple[Path, Evaluation]], dict[str, SmallCatalogueError]]:
    """Return the evaluations of every run, and why those that are impossible are."""
    from functools import cache

    from frellm4rec.evaluation.candidates import Candidates, check_part
    from frellm4rec.runs.evaluations import evaluate_trained
    from frellm4rec.runs.trained import open_trained
    from spectral_probe.plugins.datasets import resolve_dataset

    check_part(options["part"])
    lists = None if candidates is None else Candidates.load(candidates.expanduser())
    rankings = _rankings(asked, None if lists is None else f"{lists.n_negatives}+1")
    load = cache(resolve_dataset)
    results = []
    impossible: dict[str, SmallCatalogueError] = {}
    for run in runs:
        stage(f"model {run.name}")
        trained = open_trained(run, load=load, **where)
        if trained.run is not None and trained.run.state()["status"] != "finished":
            say_wrapped(f"note: {run} is not finished; its best model so far is evaluated.", err=True)
        for rule in _possible(rankings, trained.folder, is_asked=bool(asked)):
            stage(f"evaluating {run.name}, {rule}")
            try:
                results.append((run, evaluate_trained(trained, ranking=rule, candidates=lists, **options)))
            except SmallCatalogueError as error:
                impossible.setdefault(f"{run.name}: {rule}", error)
    return results, impossible


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
    say_wrapped(f"note: {name} rates given candidates only; the full ranking is left out.", err=True)
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
        ],
        numbers=(f"NDCG@{k}", f"Recall@{k}", "tie rate", "protocol"),
        least=("model", "tie rate"),
    )
    for protocol, number in numbers.items():
        say_wrapped(f"protocol {number}: {protocol}")
    for run, note in dict.fromkeys((run.name, result.note) for run, result in results if result.note):
        say_wrapped(f"note: {run}: {note}")
