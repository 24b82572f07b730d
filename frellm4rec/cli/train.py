"""``frellm4rec train``: a recommender from a recipe, in a run folder that can be resumed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.flags import Columns, Flag, given, with_flags
from spectral_probe.cli.terminal import say
from spectral_probe.errors import ConfigError

if TYPE_CHECKING:
    from frellm4rec.models.base import Recommender
    from frellm4rec.runs.train import TrainingRun


def _cutoff(text: str) -> float | None:
    """Return the cutoff that a flag stands for."""
    if text.lower() in ("off", "none", "null"):
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--cutoff is a number in (0, 1], or 'off'; got {text!r}.") from error


#: Each sets a setting of the recipe.
FLAGS = (
    Flag("model", str, "Registered model, see `frellm4rec models`.", names=("--model", "-m")),
    Flag("dataset", str, "Data set, NAME:ARGUMENT, or a file.", names=("--dataset", "-d")),
    Flag("from_dir", Path, "Folder or zip with the raw files of the data set.", convert=str),
    Flag("backbone", str, "Language model: alias, folder or hub repository.", "architecture.backbone"),
    Flag("inputs", str, "What is known of an item: id+text, id or text.", "architecture.inputs"),
    Flag("mode", str, "prefix, causal or two_sided_leaky.", "architecture.mode"),
    Flag("alpha", float, "Strength of the graph filter; 0 is off.", "architecture.alpha"),
    Flag("cutoff", str, "Cutoff of the filter along time in (0, 1], or 'off'.", "architecture.cutoff", convert=_cutoff),
    Flag("max_length", int, "Most recent items that are read.", "architecture.max_length"),
    Flag("epochs", int, "Most passes over the users.", "training.n_epochs"),
    Flag("batch_size", int, "Users per step.", "training.batch_size"),
    Flag(
        "learning_rate",
        float,
        "Step size of the optimizer.",
        "training.learning_rate",
        names=("--learning-rate", "--lr"),
    ),
    Flag("mixed_precision", str, "no, bf16 or fp16.", "training.mixed_precision"),
    Flag("device", str, "auto, cpu, cuda, cuda:1, mps."),
    Flag("dtype", str, "dtype of the backbone: auto, float32, bfloat16."),
    Flag("threads", int, "Threads on the CPU; default: 1 for a narrow model, else those of PyTorch."),
    Flag("name", str, "Label in tables and figures."),
    Flag("seed", int, "One seed for every random choice."),
)


@with_flags(FLAGS, before="settings")
def train(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE|RUN]", help="YAML recipe, or with --resume a run folder.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, e.g. training.patience=5; repeatable."),
    ] = None,
    columns: Columns = None,
    out: Annotated[Path, typer.Option(help="Folder in which run folders are made.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Finish the newest matching run (or RUN).")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write for TensorBoard.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    **options: Any,
) -> None:
    """Train a recommender; with no argument, FreLLM4Rec over MiniLM on the built-in data set.

    A killed run goes on with --resume and ends with the weights of an undisturbed one.
    """
    from frellm4rec.runs.recipe import Recipe, parse_assignments
    from frellm4rec.runs.train import read_recipe, recipe_text, train_recipe
    from spectral_probe.plugins.datasets import with_columns

    is_run = recipe is not None and recipe.is_dir()
    if is_run and not resume:
        raise ConfigError(f"{recipe} is a run folder; finish it with --resume, or give a recipe to start another.")
    start = Recipe() if recipe is None else read_recipe(recipe)
    resolved = start.merged(parse_assignments(settings or (), given(FLAGS, options)))
    if columns is not None:
        resolved = resolved.merged({"dataset": with_columns(resolved.dataset, columns)})
    if dry_run:
        say(recipe_text(resolved).rstrip())
        return
    options_of_run = {"progress": sys.stderr.isatty(), "tensorboard": tensorboard, "folder": recipe if is_run else None}
    run = train_recipe(resolved, out=out, resume=resume, **options_of_run)
    _print(run, resolved.training.k, as_json)  # type: ignore[union-attr]


def _print(run: TrainingRun, k: int, as_json: bool) -> None:
    record = run.record
    if as_json:
        typer.echo(json.dumps({"run": str(run.path), "revision": run.model.revision, **record.to_dict()}, indent=2))
        return
    model = run.model
    when = f"in epoch {record.best_epoch} of {record.epochs[-1]}" if model.traits.is_trained else "counted, not trained"
    say(f"run: {run.path}")
    say(
        f"validation NDCG@{k} {record.best_ndcg:.4f} ({_ranking(model)}) {when}; {model.name} {model.revision}, "
        f"seed {record.seed}"
    )
    if model.note:
        say(f"note: {model.note}")
    say(f"evaluate it: frellm4rec evaluate {run.path}")
    if not model.why_no_layers:
        say(f"probe it: spectral-probe analyze --model {run.path}")


def _ranking(model: Recommender) -> str:
    return "full ranking" if model.traits.can_rank_all else "99+1 candidates"
