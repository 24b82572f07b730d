"""``frellm4rec train``: a recommender from a recipe, in a run folder that can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frellm4rec.cli.completion import complete_recommenders
from spectral_probe.cli.completion import complete_datasets, complete_runs
from spectral_probe.cli.flags import DATA, MODEL, RUN, Columns, Flag, examples, given, with_flags
from spectral_probe.cli.flags import TRAINING as TRAINING_PANEL
from spectral_probe.cli.json_output import AsJson, Fields, check_fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say, say_wrapped
from spectral_probe.errors import ConfigError
from spectral_probe.runs.references import ROOT, TRAINING, check_name, is_reference, resolve_run

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
    Flag(
        "model",
        str,
        "Recommender, see `frellm4rec models`.",
        names=("--model", "-m"),
        panel=MODEL,
        default="frellm4rec",
        complete=complete_recommenders,
    ),
    Flag("backbone", str, "Language model: short name, folder, repository.", "architecture.backbone", panel=MODEL),
    Flag("inputs", str, "What is known of an item: id+text, id or text.", "architecture.inputs", panel=MODEL),
    Flag("mode", str, "prefix, causal or two_sided_leaky.", "architecture.mode", panel=MODEL),
    Flag("alpha", float, "Strength of the graph filter; 0 is off.", "architecture.alpha", panel=MODEL),
    Flag(
        "cutoff",
        str,
        "Cutoff of the filter along time in (0, 1], or off.",
        "architecture.cutoff",
        convert=_cutoff,
        panel=MODEL,
    ),
    Flag("max_length", int, "Most recent items that are read.", "architecture.max_length", panel=MODEL),
    Flag(
        "dataset",
        str,
        "Data set, NAME:ARGUMENT, or a file.",
        names=("--dataset", "-d"),
        panel=DATA,
        default="demo",
        complete=complete_datasets,
    ),
    Flag("from_dir", Path, "Folder or zip with the raw files of the data set.", convert=str, panel=DATA),
    Flag("epochs", int, "Most passes over the users.", "training.n_epochs", panel=TRAINING_PANEL),
    Flag("batch_size", int, "Users per step.", "training.batch_size", panel=TRAINING_PANEL),
    Flag(
        "learning_rate",
        float,
        "Step size of the optimizer.",
        "training.learning_rate",
        names=("--learning-rate", "--lr"),
        panel=TRAINING_PANEL,
    ),
    Flag("mixed_precision", str, "no, bf16 or fp16.", "training.mixed_precision", panel=TRAINING_PANEL, default="no"),
    Flag("seed", int, "Seed of every random choice.", panel=TRAINING_PANEL, default="0"),
    Flag("device", str, "auto, cpu, cuda, cuda:1, mps.", panel=RUN, default="auto"),
    Flag("dtype", str, "dtype of the backbone: auto, float32, bfloat16.", panel=RUN, default="auto"),
    Flag("threads", int, "Threads on the CPU.", panel=RUN, default="1 for a narrow model"),
    Flag("name", str, "Name of the run and its label in tables; it stands for the run.", panel=RUN),
)
RecipeArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RECIPE|RUN]",
        help="YAML recipe, or with --resume a run.",
        autocompletion=complete_runs("training"),
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other setting, as training.patience=5; repeatable.",
        rich_help_panel=TRAINING_PANEL,
    ),
]
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="Folder in which runs are made.", rich_help_panel=RUN)]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Finish RUN, or the newest run that matches.", rich_help_panel=RUN)
]
TensorboardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Also write for TensorBoard.", rich_help_panel=RUN)
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved recipe, and stop.", rich_help_panel=RUN)
]
EXAMPLES = examples(
    "frellm4rec train -m sasrec -d demo",
    "frellm4rec train --name full --epochs 1",
    "frellm4rec train @last --resume",
)


@with_flags(FLAGS, before="settings")
def train(
    recipe: RecipeArgument = None,
    settings: SettingsOption = None,
    columns: Columns = None,
    out: OutOption = ROOT,
    resume: ResumeOption = False,
    tensorboard: TensorboardOption = False,
    dry_run: DryRunOption = False,
    as_json: AsJson = False,
    fields: Fields = None,
    **options: Any,
) -> None:
    """Train a recommender; with no argument, FreLLM4Rec over MiniLM on the built-in data set.

    A setting that is left out is that of the model's recipe, see `frellm4rec models MODEL`. A killed run goes on with
    --resume and ends with the weights of an undisturbed one.
    """
    from frellm4rec.runs.recipe import Recipe, parse_assignments
    from spectral_probe.plugins.datasets import with_columns

    if fields and not dry_run:
        from dataclasses import fields as fields_of

        from frellm4rec.training.config import TrainingRecord

        check_fields(fields, ("run", "revision", *(field.name for field in fields_of(TrainingRecord))))
    if recipe is not None and (resume or is_reference(recipe)) and not recipe.is_file():
        recipe = resolve_run(recipe, (TRAINING,))
    is_run = recipe is not None and recipe.is_dir()
    if is_run and not resume:
        raise ConfigError(f"{recipe} is a run folder; finish it with --resume, or give a recipe to start another.")
    check_name(options["name"])  # several seeds of a recipe share a name
    with working():
        from frellm4rec.runs.train import read_recipe, recipe_text, train_recipe

        start = Recipe() if recipe is None else read_recipe(recipe)
        resolved = start.merged(parse_assignments(settings or (), given(FLAGS, options)))
        if columns is not None:
            resolved = resolved.merged({"dataset": with_columns(resolved.dataset, columns)})
        if not dry_run:
            more = {"tensorboard": tensorboard, "folder": recipe if is_run else None}
            run = train_recipe(resolved, out=out, resume=resume, **more)  # type: ignore[arg-type]
    if dry_run:
        say(recipe_text(resolved).rstrip())
    else:
        _print(run, resolved.training.k, as_json, fields)  # type: ignore[union-attr]


def _print(run: TrainingRun, k: int, as_json: bool, fields: str | None) -> None:
    record = run.record
    if as_json or fields:
        content = {"run": str(run.path), "revision": run.model.revision, **record.to_dict()}
        print_json(content, fields, finished=[run.path])
        return
    model = run.model
    when = f"in epoch {record.best_epoch} of {record.epochs[-1]}" if model.traits.is_trained else "counted, not trained"
    say(f"run: {run.path}")
    say_wrapped(
        f"validation NDCG@{k} {record.best_ndcg:.4f} ({_ranking(model)}) {when}; {model.name} {model.revision}, "
        f"seed {record.seed}"
    )
    if model.note:
        say_wrapped(f"note: {model.note}")
    say(f"evaluate it: frellm4rec evaluate {run.path}")
    if not model.why_no_layers:
        say(f"probe it: spectral-probe analyze --model {run.path}")


def _ranking(model: Recommender) -> str:
    return "full ranking" if model.traits.can_rank_all else "99+1 candidates"
