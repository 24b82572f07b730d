"""``frellm4rec train``: a recommender from a recipe, in a run folder that can be resumed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spectral_probe.errors import ConfigError

#: Flag → setting of the recipe.
FLAGS = {
    "model": "model",
    "dataset": "dataset",
    "from_dir": "from_dir",
    "name": "name",
    "seed": "seed",
    "device": "device",
    "dtype": "dtype",
    "backbone": "architecture.backbone",
    "inputs": "architecture.inputs",
    "mode": "architecture.mode",
    "alpha": "architecture.alpha",
    "cutoff": "architecture.cutoff",
    "max_length": "architecture.max_length",
    "epochs": "training.n_epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "mixed_precision": "training.mixed_precision",
}


def train(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE|RUN]", help="YAML recipe, or with --resume a run folder.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="frellm4rec or sasrec.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Data set, NAME:ARGUMENT, or a file.")] = None,
    from_dir: Annotated[Path | None, typer.Option(help="Folder or zip with the raw files of the data set.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Language model: alias, folder or hub repository.")] = None,
    inputs: Annotated[str | None, typer.Option(help="What is known of an item: id+text, id or text.")] = None,
    mode: Annotated[str | None, typer.Option(help="prefix, causal or two_sided_leaky.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Strength of the graph filter; 0 is off.")] = None,
    cutoff: Annotated[str | None, typer.Option(help="Cutoff of the filter along time in (0, 1], or 'off'.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most recent items that are read.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the users.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Users per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Number type of the backbone: auto, float32, bfloat16.")] = None,
    name: Annotated[str | None, typer.Option(help="Label in tables and figures.")] = None,
    seed: Annotated[int | None, typer.Option(help="One seed for every random choice.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, e.g. training.patience=5; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder in which run folders are made.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Finish the newest matching run (or RUN).")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write for TensorBoard.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a recommender; with no argument, FreLLM4Rec over MiniLM on the built-in data set.

    A killed run goes on with --resume and ends with the weights of an undisturbed one.
    """
    given = {name: value for name, value in locals().items() if name in FLAGS and value is not None}
    from frellm4rec.runs.recipe import Recipe, parse_assignment
    from frellm4rec.runs.train import read_recipe, recipe_text, train_recipe

    if recipe is not None and recipe.is_dir() and not resume:
        raise ConfigError(f"{recipe} is a run folder; finish it with --resume, or give a recipe to start another.")
    start = Recipe() if recipe is None else read_recipe(recipe)
    if recipe is not None and recipe.is_dir():
        out = recipe.parent
    overrides: dict[str, Any] = {FLAGS[name]: value for name, value in given.items()}
    if "from_dir" in overrides:
        overrides["from_dir"] = str(from_dir)
    if cutoff is not None:
        overrides["architecture.cutoff"] = _cutoff(cutoff)
    overrides |= dict(parse_assignment(text) for text in settings or [])
    resolved = start.merged(overrides)
    if dry_run:
        typer.echo(recipe_text(resolved).rstrip())
        return
    run = train_recipe(resolved, out=out, resume=resume, progress=sys.stderr.isatty(), tensorboard=tensorboard)
    record = run.record
    if as_json:
        typer.echo(json.dumps({"run": str(run.path), "revision": run.model.revision, **record.to_dict()}, indent=2))
        return
    typer.echo(f"run: {run.path}")
    typer.echo(
        f"validation NDCG@{resolved.training.k} {record.best_ndcg:.4f} (full ranking) in epoch {record.best_epoch} "  # type: ignore[union-attr]
        f"of {record.epochs[-1]}; {run.model.name} {run.model.revision}, seed {record.seed}"
    )
    typer.echo(f"evaluate it: frellm4rec evaluate {run.path}")
    typer.echo(f"probe it: spectral-probe analyze --model {run.path}")


def _cutoff(text: str) -> float | None:
    """Return the cutoff that a flag stands for."""
    if text.lower() in ("off", "none", "null"):
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--cutoff is a number in (0, 1], or 'off'; got {text!r}.") from error
