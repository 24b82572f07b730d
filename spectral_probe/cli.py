"""The command ``spectral-probe``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe import __version__
from spectral_probe.errors import ConfigError, SpectralProbeError

if TYPE_CHECKING:
    from spectral_probe.profile import DecayProfile

app = typer.Typer(
    name="spectral-probe",
    help="Does the collaborative signal survive the layers of a model? Measured with exact nulls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spectral-probe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def analyze(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder: analyse its saved Grams again, or finish it with --resume.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Alias, plug-in, local folder or hub repository; repeatable."),
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
        typer.Option(help="Comma-separated: random-weights, shuffled-history, normalized-rows, path-graph."),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Comma-separated layer names, e.g. 'block 1,block 4'.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Users run together.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub repository.")] = None,
    seed: Annotated[int | None, typer.Option(help="One seed for every random choice.")] = None,
    out: Annotated[Path, typer.Option(help="Folder in which run folders are made.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Finish the newest matching run (or RUN).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Draw decay curves with nulls, intervals and a verdict, and write a run folder."""
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
            "batch_size": batch_size,
            "device": device,
            "dtype": dtype,
            "revision": revision,
            "seed": seed,
        }.items()
        if value is not None
    }
    from spectral_probe.analyze import reanalyze, run_analysis, write_overlay
    from spectral_probe.options import AnalysisOptions
    from spectral_probe.runs import RunFolder

    if run is not None and not resume:
        if model or dataset:
            raise ConfigError("A run folder brings its own model and data set; leave out --model and --dataset.")
        results = [reanalyze(run, given, out=out)]
    else:
        names, data = model or [], dataset
        if run is not None:
            opened = RunFolder.open(run)
            config = opened.config()
            names, data, out = [config["model"]], config["dataset"], run.parent
            given = {**config["options"], **given}
        if not names or data is None:
            raise ConfigError(
                "An analysis needs --model and --dataset, for example: "
                "spectral-probe analyze --model minilm --dataset lastfm --from-dir DIR"
            )
        options = AnalysisOptions.from_mapping(given)
        is_terminal = sys.stderr.isatty()
        results = [
            run_analysis(name, data, options, out=out, resume=resume, from_dir=from_dir, progress=is_terminal)
            for name in names
        ]
    overlay = write_overlay(out, [result.profile for result in results]) if len(results) > 1 else None
    if as_json:
        summaries = [{"run": None if r.run is None else str(r.run.path), **r.profile.summary()} for r in results]
        typer.echo(json.dumps(summaries if len(summaries) > 1 else summaries[0], indent=2))
        return
    for result in results:
        _print(result.profile)
        if result.run is not None:
            typer.echo(f"run: {result.run.path}")
    if overlay is not None:
        typer.echo(f"all models on one axis: {overlay / 'figures' / 'decay.png'}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _print(profile: DecayProfile) -> None:
    """Print the headline curve as a table, the verdict, and what a reader must know."""
    from rich.console import Console
    from rich.table import Table

    from spectral_probe.caveats import CAVEATS
    from spectral_probe.plots import select_curve

    curve = select_curve(profile.table, null=profile.null)
    first = curve.iloc[0]
    table = Table(title=f"{first['model']} on {first['dataset']}, inputs {first['inputs']}: low-pass share of energy")
    for column in ("layer", "share", "95 % CI", f"{first['null']} null", "excess", "95 % CI", "retention", "95 % CI"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for row in curve.to_dict("records"):
        table.add_row(
            str(row["layer_name"]),
            f"{row['share']:.4f}",
            _interval(row, "share", 4),
            f"{row['null_share']:.4f}",
            f"{row['excess']:+.4f}",
            _interval(row, "excess", 4),
            f"{row['retention']:.2f}",
            _interval(row, "retention", 2),
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(f"verdict: [bold]{profile.verdict}[/bold]", highlight=False)
    raw = profile.controls["raw"]
    console.print(
        f"users on the curve: {profile.n_users}; skipped: {profile.skipped}; verdict on raw states: {raw.verdict}",
        highlight=False,
        markup=False,
    )
    for name, control in profile.controls.items():
        if name not in ("raw", "paper") and control.retention is not None:
            console.print(
                f"control {name}: {control.verdict}, retention {control.retention}", highlight=False, markup=False
            )
    for code in profile.caveats:
        console.print(f"note [{code}]: {CAVEATS[code]}", highlight=False, markup=False)


def _interval(row: dict[Any, Any], name: str, digits: int) -> str:
    return f"[{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]".replace("[", r"\[")


def main() -> None:
    """Run the command line; every expected failure ends with its documented exit code and no traceback."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer swallows Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except SpectralProbeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted: finished shards are kept; the same command with --resume goes on.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is not None and hasattr(error, "exit_code"):
            show()
            sys.exit(2)
        raise


if __name__ == "__main__":
    main()
