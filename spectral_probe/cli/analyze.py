"""``spectral-probe analyze``: decay curves of one or more models, or of saved Grams again."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.flags import Columns, FigureWidth, Flag, given, split, with_flags
from spectral_probe.cli.tables import print_rows
from spectral_probe.cli.terminal import say
from spectral_probe.errors import ConfigError

if TYPE_CHECKING:
    from spectral_probe.analysis.options import AnalysisOptions
    from spectral_probe.analysis.pipeline import Analysis

#: The second is replaced by the third where its packages are not installed.
DEFAULT_MODELS, SUBSTITUTE = ("sasrec", "smollm2"), "minilm"
DEFAULT_DATASET = "demo"
DEFAULT_OUT = Path("runs")
#: Each sets the field of :class:`AnalysisOptions` that has its name.
OPTIONS = (
    Flag("inputs", str, "What a language model reads: id, text or id+text."),
    Flag("embeddings", str, "Item vectors of your own: .npy, .safetensors, .csv or .parquet."),
    Flag("preset", str, "'paper': draw the published curve beside the corrected one."),
    Flag("sequence", str, "Part of the history to probe: train, valid or full."),
    Flag("max_length", int, "Most recent targets kept per user."),
    Flag("users", int, "Draw this many users instead of all."),
    Flag("bands", str, "Bands shown: B, rank:B, pooled:B or deciles."),
    Flag("tau", float, "Diffusion time of the components' low-pass exp(-tau L); default 1."),
    Flag("nodes", str, "What is shown: carried (items read) or foreseen (items predicted)."),
    Flag("component", str, "What is shown: taste, popularity, lag or whole."),
    Flag("weights", str, "Weights of the users: graph (inverse noise) or equal."),
    Flag("n_pseudo", int, "Pseudo-histories of the popularity match."),
    Flag("own_user", str, "The user's own co-occurrences: drop or keep."),
    Flag("null", str, "Null that is shown of the whole: swap, permutation or cyclic."),
    Flag(
        "controls",
        str,
        "Comma-separated: random-weights, shuffled-history, split-graph, exchanged-items, long-histories, path-graph.",
        convert=split,
    ),
    Flag("min_targets", int, "Leave out users with fewer targets (at least 4)."),
    Flag("layers", str, "Comma-separated layer names, e.g. 'block 1,block 4'.", convert=split),
    Flag("batch_size", int, "Users run together."),
    Flag("device", str, "auto, cpu, cuda, cuda:1, mps."),
    Flag("dtype", str, "auto, float32, bfloat16, float16."),
    Flag("revision", str, "Commit, tag or branch of a hub repository."),
    Flag("adapter", str, "LoRA adapter of the model: folder or repository."),
    Flag("device_map", str, "'auto' spreads the model over all devices."),
    Flag("quantize", str, "'8bit' halves the memory of the weights."),
    Flag("trust_remote_code", bool, "Run code a repository brings."),
    Flag("allow_pickle", bool, "Read weights that are not safetensors."),
    Flag("seed", int, "One seed for every random choice."),
)


@with_flags(OPTIONS, before="out")
def analyze(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder: analyse its saved Grams again, or finish it with --resume.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Alias, plug-in, hub repository, folder or training run; repeatable."),
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Data set, NAME:ARGUMENT, or a file.")] = None,
    from_dir: Annotated[Path | None, typer.Option(help="Folder or zip with the raw files of the data set.")] = None,
    columns: Columns = None,
    out: Annotated[Path | None, typer.Option(help="Folder in which run folders are made.  [default: runs]")] = None,
    figure_width: FigureWidth = 178,
    resume: Annotated[bool, typer.Option("--resume", help="Finish the newest matching run (or RUN).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    **options: Any,
) -> None:
    """Measure what the layers carry of taste and of popularity: curves, intervals, verdicts, a run folder.

    With no argument at all: SASRec and SmolLM2 on the built-in data set, offline. MiniLM if SmolLM2 is missing.
    """
    settings = given(OPTIONS, options)
    if run is not None:
        others = {"--model": model, "--dataset": dataset, "--from-dir": from_dir, "--dry-run": dry_run}
        others |= {"--out": out} if resume else {"--columns": columns}
        _refuse_beside_a_run(run, others)
    if run is not None and not resume:
        from spectral_probe.analysis.pipeline import reanalyze

        out = out or DEFAULT_OUT
        _finish([reanalyze(run, settings, out=out, figure_width=figure_width)], out, as_json, figure_width)
        return
    request = (
        _resumed(run, settings, columns)
        if run is not None
        else _requested(model, dataset, from_dir, columns, out or DEFAULT_OUT, settings)
    )
    if dry_run:
        _print_plans(request, as_json)
        return
    from spectral_probe.analysis.pipeline import run_analysis
    from spectral_probe.runs.analysis_run import AnalysisRun
    from spectral_probe.storage.lock import only_process

    if run is not None:  # a finished run is opened again: only its missing or damaged shards are captured anew
        with only_process(run, "An analysis"):
            AnalysisRun.open(run).write_state("running")
    results = [
        run_analysis(
            name,
            request.dataset,
            options,
            out=request.out,
            resume=resume,
            from_dir=request.from_dir,
            progress=sys.stderr.isatty(),
            figure_width=figure_width,
        )
        for name, options in zip(request.models, request.options, strict=True)
    ]
    _finish(results, request.out, as_json, figure_width)


def _refuse_beside_a_run(run: Path, options: dict[str, Any]) -> None:
    """Raise ConfigError for an option that would be ignored because a run folder is given."""
    present = [name for name, value in options.items() if value]
    if present:
        raise ConfigError(
            f"A run folder brings its own model, data set and place, and {run} is given; {', '.join(present)} would be "
            "ignored. Leave it out, or name the model and the data set instead of the run."
        )


@dataclass(frozen=True)
class _Request:
    """What is analysed, with the options of each model, and where the runs are made."""

    models: list[str]
    dataset: str
    from_dir: Path | None
    out: Path
    options: list[AnalysisOptions]


def _requested(
    models: list[str] | None,
    dataset: str | None,
    from_dir: Path | None,
    columns: str | None,
    out: Path,
    settings: dict[str, Any],
) -> _Request:
    """Return what the flags ask for, with the defaults for what they leave out."""
    from spectral_probe.analysis.options import AnalysisOptions
    from spectral_probe.analysis.requests import options_by_model
    from spectral_probe.plugins.datasets import with_columns
    from spectral_probe.plugins.saved_models import trained_on

    if not models and dataset is None:
        # The embedded default: offline, on the built-in data, with the published curve beside the corrected one.
        settings.setdefault("preset", "paper")
    if models and dataset is None and (training_data := trained_on(models)) is not None:
        dataset, from_dir = training_data[0], from_dir or training_data[1]
    options = AnalysisOptions.from_mapping(settings)
    models = models or _default_models()
    data = with_columns(dataset or DEFAULT_DATASET, columns)
    return _Request(models, data, from_dir, out, options_by_model(models, options))


def _default_models() -> list[str]:
    """Return the models shown when none is named; a line on stderr says how to get one that is missing."""
    from spectral_probe.backbones.packaged import SMOLLM2

    missing = SMOLLM2.what_is_missing()
    if not missing:
        return list(DEFAULT_MODELS)
    say(f"{SMOLLM2.alias} is not installed; {SUBSTITUTE} takes its place. To get it: {missing}", err=True)
    return [SUBSTITUTE if name == SMOLLM2.alias else name for name in DEFAULT_MODELS]


def _resumed(run: Path, settings: dict[str, Any], columns: str | None) -> _Request:
    """Return what a run was asked for, with the options that the flags change."""
    from spectral_probe.analysis.options import AnalysisOptions
    from spectral_probe.analysis.saved_options import saved_config
    from spectral_probe.plugins.datasets import with_columns
    from spectral_probe.runs.analysis_run import AnalysisRun

    opened = AnalysisRun.open(run)
    request, saved = opened.request(), saved_config(opened)["options"]
    if "nodes" not in saved:
        raise ConfigError(
            f"{run} was begun by an earlier version, whose measure was another one, and cannot be finished. Analyse "
            f"its Grams again (spectral-probe analyze {run}), or start again with --model and --dataset."
        )
    before, options = AnalysisOptions.from_mapping(saved), AnalysisOptions.from_mapping({**saved, **settings})
    changed = [name for name, value in options.to_dict().items() if before.to_dict()[name] != value]
    if changed:
        raise ConfigError(
            f"{run} is finished with the options it began with; {', '.join(changed)} would change. Leave the change "
            f"out; or finish it first, and analyse its Grams again: spectral-probe analyze {run}"
        )
    from_dir = Path(request["from_dir"]) if request["from_dir"] else None
    data = with_columns(request["dataset"], columns)
    return _Request([request["model"]], data, from_dir, run.parent, [options])


def _print_plans(request: _Request, as_json: bool) -> None:
    from spectral_probe.analysis.cost import plan_analysis
    from spectral_probe.runs.folder import try_root

    try_root(request.out)
    plans = {
        name: plan_analysis(name, request.dataset, options, from_dir=request.from_dir)
        for name, options in zip(request.models, request.options, strict=True)
    }
    if as_json:
        values = {name: {row["quantity"]: row["value"] for row in rows} for name, rows in plans.items()}
        typer.echo(json.dumps(values, indent=2, default=str))
        return
    for rows in plans.values():
        print_rows([{"quantity": str(row["quantity"]), "value": str(row["text"])} for row in rows])


def _finish(results: list[Analysis], out: Path, as_json: bool, figure_width: int) -> None:
    """Draw several models on one axis, and print what was measured."""
    from spectral_probe.analysis.origin import origin_of
    from spectral_probe.cli.printing import print_analyses
    from spectral_probe.report.folder import write_overlay

    overlay = None
    if len(results) > 1:
        runs = [result.run for result in results if result.run is not None]
        origins, paths = [origin_of(run) for run in runs], [run.path for run in runs]
        profiles = [result.profile for result in results]
        overlay = write_overlay(out, profiles, runs=paths, origins=origins, figure_width=figure_width)
    if not as_json:
        print_analyses(results, overlay)
        return
    summaries = [{"run": None if r.run is None else str(r.run.path), **r.profile.summary()} for r in results]
    typer.echo(json.dumps(summaries if len(summaries) > 1 else summaries[0], indent=2))
