"""The command ``spectral-probe``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from spectral_probe.cli.app import new_app, run_command
from spectral_probe.errors import ConfigError

app = new_app(
    "spectral-probe", "Does the collaborative signal survive the layers of a model? Measured with exact nulls."
)
DEFAULT_MODELS = ("sasrec", "minilm")
DEFAULT_DATASET = "demo"


@app.command()
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
    inputs: Annotated[str | None, typer.Option(help="What a language model reads: id, text or id+text.")] = None,
    embeddings: Annotated[
        str | None, typer.Option(help="Item vectors of your own: .npy, .safetensors or .csv.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="'paper': draw the published curve beside the corrected one.")
    ] = None,
    sequence: Annotated[str | None, typer.Option(help="Part of the history to probe: train, valid or full.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most recent targets kept per user.")] = None,
    users: Annotated[int | None, typer.Option(help="Draw this many users instead of all.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands shown: B, rank:B, pooled:B or deciles.")] = None,
    tau: Annotated[float | None, typer.Option(help="Diffusion time of the low-pass exp(-tau L).")] = None,
    own_user: Annotated[str | None, typer.Option(help="The user's own co-occurrences: drop or keep.")] = None,
    null: Annotated[str | None, typer.Option(help="Null of the verdict: swap, permutation or cyclic.")] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: random-weights, shuffled-history, normalized-rows, long-histories, path-graph."
        ),
    ] = None,
    min_targets: Annotated[int | None, typer.Option(help="Leave out users with fewer targets (at least 4).")] = None,
    layers: Annotated[str | None, typer.Option(help="Comma-separated layer names, e.g. 'block 1,block 4'.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Users run together.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub repository.")] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter of the model: folder or repository.")] = None,
    device_map: Annotated[str | None, typer.Option(help="'auto' spreads the model over all devices.")] = None,
    quantize: Annotated[str | None, typer.Option(help="'8bit' halves the memory of the weights.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code a repository brings.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read weights that are not safetensors.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="One seed for every random choice.")] = None,
    out: Annotated[Path, typer.Option(help="Folder in which run folders are made.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Finish the newest matching run (or RUN).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Draw decay curves with nulls, intervals and a verdict, and write a run folder.

    With no argument at all: SASRec and MiniLM on the built-in data set, offline.
    """
    given = {
        name: value
        for name, value in {
            "inputs": inputs,
            "embeddings": embeddings,
            "preset": preset,
            "sequence": sequence,
            "max_length": max_length,
            "users": users,
            "bands": bands,
            "tau": tau,
            "own_user": own_user,
            "null": null,
            "controls": None if controls is None else _split(controls),
            "layers": None if layers is None else _split(layers),
            "min_targets": min_targets,
            "batch_size": batch_size,
            "device": device,
            "dtype": dtype,
            "revision": revision,
            "adapter": adapter,
            "device_map": device_map,
            "quantize": quantize,
            "trust_remote_code": trust_remote_code or None,
            "allow_pickle": allow_pickle or None,
            "seed": seed,
        }.items()
        if value is not None
    }
    from spectral_probe.analysis.cost import plan_analysis
    from spectral_probe.analysis.options import AnalysisOptions
    from spectral_probe.analysis.pipeline import reanalyze, run_analysis
    from spectral_probe.cli.printing import print_analyses
    from spectral_probe.plugins.saved_models import trained_on
    from spectral_probe.report.folder import write_overlay
    from spectral_probe.runs.analysis_run import AnalysisRun

    if run is not None and not resume:
        if model or dataset:
            raise ConfigError("A run folder brings its own model and data set; leave out --model and --dataset.")
        results = [reanalyze(run, given, out=out)]
    else:
        if run is not None:
            opened = AnalysisRun.open(run)
            request = opened.request()
            model, dataset, out = [request["model"]], request["dataset"], run.parent
            from_dir = Path(request["from_dir"]) if request["from_dir"] else None
            given = {**opened.config()["options"], **given}
            # A finished run is opened again: only its missing or damaged shards are captured anew.
            opened.write_state("running")
        if not model and dataset is None:
            # The embedded default: offline, on the built-in data, with the published curve beside the corrected one.
            given.setdefault("preset", "paper")
        if model and dataset is None and (trained := trained_on(model)) is not None:
            dataset, from_dir = trained[0], from_dir or trained[1]
        names, data = model or list(DEFAULT_MODELS), dataset or DEFAULT_DATASET
        options = AnalysisOptions.from_mapping(given)
        if dry_run:
            plans = {name: plan_analysis(name, data, options, from_dir=from_dir) for name in names}
            for rows in [] if as_json else plans.values():
                _print_rows([{"quantity": str(row["quantity"]), "value": str(row["text"])} for row in rows], False)
            if as_json:
                plain = {name: {row["quantity"]: row["value"] for row in rows} for name, rows in plans.items()}
                typer.echo(json.dumps(plain, indent=2, default=str))
            return
        is_terminal = sys.stderr.isatty()
        results = [
            run_analysis(name, data, options, out=out, resume=resume, from_dir=from_dir, progress=is_terminal)
            for name in names
        ]
    overlay = write_overlay(out, [result.profile for result in results]) if len(results) > 1 else None
    if as_json:
        summaries = [{"run": None if r.run is None else str(r.run.path), **r.profile.summary()} for r in results]
        typer.echo(json.dumps(summaries if len(summaries) > 1 else summaries[0], indent=2))
    else:
        print_analyses(results, overlay)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Finished runs on one data set; the first is the base of the comparison.")
    ],
    out: Annotated[Path, typer.Option(help="Folder in which the comparison is made.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON.")] = False,
) -> None:
    """Draw finished runs on one axis, and say what changes from the first to each other.

    A higher low-pass share may be preserved collaboration, or smoothing by construction: the report says which.
    """
    from spectral_probe.cli.printing import print_comparison
    from spectral_probe.comparison.comparison import compare as compare_profiles
    from spectral_probe.comparison.comparison import with_distinct_names
    from spectral_probe.profiles.profile import DecayProfile
    from spectral_probe.report.folder import write_overlay
    from spectral_probe.runs.analysis_run import AnalysisRun

    profiles = with_distinct_names([DecayProfile.load(AnalysisRun.open(path).path) for path in runs])
    comparisons = compare_profiles(profiles)
    overlay = write_overlay(out, profiles, comparisons, runs=runs)
    if as_json:
        found = {
            "run": str(overlay.path),
            "summaries": [profile.summary() for profile in profiles],
            "comparisons": [comparison.to_dict() for comparison in comparisons],
        }
        typer.echo(json.dumps(found, indent=2))
    else:
        print_comparison(profiles, comparisons, overlay)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A finished run.")]) -> None:
    """Write the figures and report.html of a finished run anew, and print where it lies."""
    from spectral_probe.profiles.profile import DecayProfile
    from spectral_probe.report.folder import write_figures
    from spectral_probe.report.html import write_report
    from spectral_probe.runs.analysis_run import AnalysisRun
    from spectral_probe.storage.atomic import disk_errors

    opened = AnalysisRun.open(run)
    profile = DecayProfile.load(opened.path)
    with disk_errors(opened.path):
        write_figures(opened.path, [profile])
        typer.echo(write_report(opened.path, [profile], opened.state().get("versions")))


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the models that have a short name."""
    from spectral_probe.backbones.aliases import known_aliases
    from spectral_probe.plugins.registry import plugin_names

    rows = [
        {"name": name, "kind": "plug-in", "stands for": "trained on the data set"} for name in plugin_names("models")
    ]
    rows += [{"name": n, "kind": a.kind, "stands for": a.target, "note": a.text} for n, a in known_aliases().items()]
    _print_rows(rows, as_json)


@app.command()
def datasets(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the data sets that installed packages offer; a file with interactions is fine too."""
    from spectral_probe.plugins.registry import load_plugin, plugin_names

    rows = []
    for name in plugin_names("datasets"):
        text = (load_plugin("datasets", name).__doc__ or "").strip().partition("\n")[0]
        rows.append({"name": name, "what it is": text})
    _print_rows(rows, as_json)


@app.command()
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the self-test, which takes some seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what this installation can do: versions, device, caches, hub, plug-ins, and a self-test."""
    from spectral_probe.doctor.machine import diagnose, self_test

    checks = [*diagnose(), *([] if quick else self_test())]
    _print_rows([check.to_dict() for check in checks], as_json)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _print_rows(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from spectral_probe.cli.tables import print_rows

    print_rows(rows)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main() -> None:
    """Run the command line; every expected failure ends with its documented exit code and no traceback."""
    run_command(app, interrupted="finished shards are kept; the same command with --resume goes on.")


if __name__ == "__main__":
    main()
