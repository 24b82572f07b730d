"""``spectral-probe analyze``: decay curves of one or more models, or of saved Grams again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.completion import complete_datasets, complete_models, complete_runs
from spectral_probe.cli.flags import (
    DATA,
    MEASURE,
    MODEL,
    RUN,
    Columns,
    DryRun,
    FigureWidth,
    Flag,
    FromDir,
    RunName,
    examples,
    given,
    split,
    with_default,
    with_flags,
)
from spectral_probe.cli.json_output import AsJson, Fields, check_fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.cli.tables import print_rows
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import ConfigError
from spectral_probe.progress import stage
from spectral_probe.runs.references import ANALYSIS, TRAINING, check_name, is_reference, names_of, resolve_run, runs_in

if TYPE_CHECKING:
    from spectral_probe.analysis.options import AnalysisOptions
    from spectral_probe.analysis.pipeline import Analysis
    from spectral_probe.runs.analysis_run import AnalysisRun

#: The second is replaced by the third where its packages are not installed.
DEFAULT_MODELS, SUBSTITUTE = ("sasrec", "smollm2"), "minilm"
DEFAULT_DATASET = "demo"
DEFAULT_OUT = Path("runs")
#: Each sets the field of :class:`AnalysisOptions` that has its name.
OPTIONS = (
    Flag("inputs", str, "What a language model reads: id, text or id+text.", panel=MODEL, default="id"),
    Flag("embeddings", Path, "Item vectors of your own: .npy, .safetensors, .csv, .parquet.", convert=str, panel=MODEL),
    Flag("adapter", str, "LoRA adapter of the model: folder or repository.", panel=MODEL),
    Flag("revision", str, "Commit, tag or branch of a hub repository.", panel=MODEL),
    Flag("quantize", str, "8bit halves the memory of the weights.", panel=MODEL),
    Flag("trust_remote_code", bool, "Run code that a repository brings.", panel=MODEL),
    Flag("allow_pickle", bool, "Read weights that are not safetensors.", panel=MODEL),
    Flag("sequence", str, "Part of a history: train, valid or full.", panel=DATA, default="valid"),
    Flag("max_length", int, "Most recent targets of a user.", panel=DATA, default="50"),
    Flag("users", int, "Draw this many users.", panel=DATA, default="all"),
    Flag("min_targets", int, "Leave out users with fewer targets.", panel=DATA, default="4"),
    Flag("component", str, "Shown: taste, popularity, lag or whole.", panel=MEASURE, default="taste"),
    Flag("nodes", str, "Shown: items read (carried) or predicted (foreseen).", panel=MEASURE, default="carried"),
    Flag("null", str, "Shown of the whole: swap, permutation or cyclic.", panel=MEASURE, default="swap"),
    Flag("bands", str, "Bands of the whole: B, rank:B, pooled:B or deciles.", panel=MEASURE, default="4"),
    Flag("tau", float, "Diffusion time of the low-pass exp(-tau L).", panel=MEASURE, default="1"),
    Flag("weights", str, "Of the users: graph (inverse noise) or equal.", panel=MEASURE, default="graph"),
    Flag("own_user", str, "A user's own co-occurrences: drop or keep.", panel=MEASURE, default="drop"),
    Flag("n_pseudo", int, "Pseudo-histories of the popularity match.", panel=MEASURE, default="32"),
    Flag(
        "controls",
        str,
        "Comma-separated: random-weights, shuffled-history, split-graph, exchanged-items, long-histories, path-graph.",
        convert=split,
        panel=MEASURE,
        default="none",
    ),
    Flag("preset", str, "paper: the published curve beside the corrected one.", panel=MEASURE, default="none"),
    Flag("layers", str, "Names, as 'block 1,block 4'.", convert=split, panel=MEASURE, default="all"),
    Flag("batch_size", int, "Users that are run together.", panel=RUN, default="32"),
    Flag("device", str, "auto, cpu, cuda, cuda:1, mps.", panel=RUN, default="auto"),
    Flag("device_map", str, "auto spreads the model over all devices.", panel=RUN),
    Flag("dtype", str, "auto, float32, bfloat16, float16.", panel=RUN, default="auto"),
    Flag("seed", int, "Seed of every random choice.", panel=RUN, default="0"),
)
RunArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        help="A run: its saved Grams are analysed again, or it is finished with --resume.",
        autocompletion=complete_runs("analysis"),
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=with_default(
            "Short name, plug-in, hub repository, folder or training run; repeatable.", "sasrec, smollm2"
        ),
        rich_help_panel=MODEL,
        autocompletion=complete_models,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        metavar="DATA",
        help=with_default("Data set, NAME:ARGUMENT, or a file.", DEFAULT_DATASET),
        rich_help_panel=DATA,
        autocompletion=complete_datasets,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help=with_default("Folder in which runs are made.", DEFAULT_OUT),
        rich_help_panel=RUN,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Finish RUN, or the newest run that matches.", rich_help_panel=RUN),
]
AllLayersOption = Annotated[
    bool, typer.Option("--all-layers", help="Print every layer of a deep model.", rich_help_panel=RUN)
]
EXAMPLES = examples(
    "spectral-probe analyze",
    "spectral-probe analyze -m qwen2.5-7b -d lastfm --dry-run",
    "spectral-probe analyze @last --nodes foreseen",
)


@with_flags(OPTIONS, before="out")
def analyze(
    run: RunArgument = None,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    from_dir: FromDir = None,
    columns: Columns = None,
    out: OutOption = None,
    label: RunName = None,
    figure_width: FigureWidth = 178,
    resume: ResumeOption = False,
    dry_run: DryRun = False,
    all_layers: AllLayersOption = False,
    as_json: AsJson = False,
    fields: Fields = None,
    **options: Any,
) -> None:
    """Measure what the layers carry of taste and of popularity: curves, intervals, verdicts, a run folder.

    With no argument at all: SASRec and SmolLM2 on the built-in data set, offline. MiniLM if SmolLM2 is missing.
    """
    settings = given(OPTIONS, options)
    if run is not None:
        others = {"--model": model, "--dataset": dataset, "--from-dir": from_dir, "--dry-run": dry_run}
        others |= {"--out": out} if resume else {"--columns": columns}
        _refuse_model(run)
        _refuse_beside_a_run(run, others)
        run = resolve_run(run, (ANALYSIS,))
    if resume:  # the name of the run that is finished
        check_name(label, None if run is None else run.parent, resumed=run)
    else:
        is_one = run is not None or len(model or ()) == 1  # else each run has a name of its own, checked below
        check_name(label, out or DEFAULT_OUT if is_one else None)
    if fields and not dry_run:
        from spectral_probe.profiles.profile import SUMMARY_FIELDS

        check_fields(fields, ("run", *SUMMARY_FIELDS))
    shown, written = Shown(all_layers, as_json or bool(fields), fields), Written(label or "", figure_width)
    if run is not None and not resume:
        _analyze_again(run, settings, out or DEFAULT_OUT, written, shown)
        return
    with working():
        request = (
            _resumed(run, settings, columns)
            if run is not None
            else _requested(model, dataset, from_dir, columns, out or DEFAULT_OUT, settings)
        )
        names = names_of(label, request.models, None if resume else request.out)
        plans = _plans(request) if dry_run else None
        results = [] if dry_run else _run(request, run, names, figure_width, resume)
        overlay = _overlay(results, request.out, figure_width)
    if plans is not None:
        _print_plans(plans, shown)
    else:
        _print(results, overlay, shown)


@dataclass(frozen=True)
class Shown:
    """How a result is printed."""

    all_layers: bool
    as_json: bool
    fields: str | None


@dataclass(frozen=True)
class Written:
    """How a result is written: the name of its run, and the width of its figures in mm."""

    name: str
    figure_width: int


def _analyze_again(run: Path, settings: dict[str, Any], out: Path, written: Written, shown: Shown) -> None:
    with working():
        from spectral_probe.analysis.reanalysis import reanalyze

        results = [reanalyze(run, settings, out=out, figure_width=written.figure_width, run_name=written.name)]
    _print(results, None, shown)


def _run(request: _Request, run: Path | None, names: list[str], figure_width: int, resume: bool) -> list[Analysis]:
    """Return the analyses of a request, one for each model."""
    from spectral_probe.analysis.pipeline import run_analysis
    from spectral_probe.runs.analysis_run import AnalysisRun
    from spectral_probe.storage.lock import only_process

    if run is not None:
        with only_process(run, "An analysis"):  # refused before a model is loaded
            pass
    return [
        run_analysis(
            model,
            request.dataset,
            options,
            out=request.out,
            resume=resume if run is None else AnalysisRun.open(run),
            from_dir=request.from_dir,
            figure_width=figure_width,
            run_name=name,
        )
        for model, options, name in zip(request.models, request.options, names, strict=True)
    ]


def _refuse_beside_a_run(run: Path, options: dict[str, Any]) -> None:
    """Raise ConfigError for an option that would be ignored because a run folder is given."""
    present = [name for name, value in options.items() if value]
    if present:
        raise ConfigError(
            f"A run folder brings its own model, data set and place, and {run} is given; {', '.join(present)} would be "
            "ignored. Leave it out, or name the model and the data set instead of the run."
        )


def _refuse_model(run: Path) -> None:
    """Raise ConfigError for the name of a model where a run is expected, unless a run has that name."""
    name = str(run)
    if _is_model(name) and not run.exists() and all(entry.name != name for entry in runs_in()):
        raise ConfigError(f"{name!r} is no run; write --model {name}.")


def _is_model(name: str) -> bool:
    from spectral_probe.backbones.aliases import known_aliases
    from spectral_probe.plugins.registry import plugin_names

    return name in known_aliases() or name in plugin_names("models")


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

    models = [_model_or_run(name) for name in models or ()]
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
    say_wrapped(f"{SMOLLM2.alias} is not installed; {SUBSTITUTE} takes its place. To get it: {missing}", err=True)
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


def _model_or_run(name: str) -> str:
    """Return a model as it was named, or the folder of the training run that the text means."""
    if not is_reference(name):
        is_model = _is_model(name) or "/" in name or Path(name).exists()
        if is_model or not any(entry.name == name for entry in runs_in(kinds=(TRAINING,))):
            return name
    return str(resolve_run(name, (TRAINING,)))


def _plans(request: _Request) -> dict[str, list[dict[str, Any]]]:
    """Return what each model of a request would take."""
    from spectral_probe.analysis.cost import plan_analysis
    from spectral_probe.runs.folder import try_root

    try_root(request.out)
    return {
        name: plan_analysis(name, request.dataset, options, from_dir=request.from_dir)
        for name, options in zip(request.models, request.options, strict=True)
    }


def _print_plans(plans: dict[str, list[dict[str, Any]]], shown: Shown) -> None:
    from spectral_probe.analysis.cost import IN_WORDS

    if shown.as_json:
        print_json(
            {name: {row["quantity"]: row["value"] for row in rows} for name, rows in plans.items()}, shown.fields
        )
        return
    for rows in plans.values():
        print_rows([{"quantity": IN_WORDS.get(row["quantity"], row["quantity"]), "value": row["text"]} for row in rows])


def _overlay(results: list[Analysis], out: Path, figure_width: int) -> AnalysisRun | None:
    """Draw several models on one axis."""
    if len(results) < 2:
        return None
    from spectral_probe.analysis.origin import origin_of
    from spectral_probe.report.folder import write_overlay

    stage("figures and report")
    runs = [result.run for result in results if result.run is not None]
    origins, paths = [origin_of(run) for run in runs], [run.path for run in runs]
    profiles = [result.profile for result in results]
    return write_overlay(out, profiles, runs=paths, origins=origins, figure_width=figure_width)


def _print(results: list[Analysis], overlay: AnalysisRun | None, shown: Shown) -> None:
    """Print what was measured."""
    from spectral_probe.cli.printing import print_analyses

    if not shown.as_json:
        print_analyses(results, overlay, all_layers=shown.all_layers)
        return
    summaries = [{"run": None if r.run is None else str(r.run.path), **r.profile.summary()} for r in results]
    finished = [result.run.path for result in results if result.run is not None]
    print_json(summaries if len(summaries) > 1 else summaries[0], shown.fields, finished=finished)
