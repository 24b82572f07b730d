"""The command ``frellm4rec``: one module of :mod:`frellm4rec.commands` for each of its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from frellm4rec.commands.compare import compare
from frellm4rec.commands.data import data
from frellm4rec.commands.evaluate import evaluate
from frellm4rec.commands.experiment import experiment
from frellm4rec.commands.export import export
from frellm4rec.commands.rayleigh import rayleigh
from frellm4rec.commands.recommend import recommend
from frellm4rec.commands.train import train
from spectral_probe import __version__
from spectral_probe.exit_codes import run_command

app = typer.Typer(
    name="frellm4rec",
    help="Sequential recommendation with and without a language model: data, models, evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"frellm4rec {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for command in (data, rayleigh, evaluate, recommend, export, compare, train, experiment):
    app.command()(command)


def main() -> None:
    """Run the command line; every expected failure ends with its documented exit code and no traceback."""
    run_command(app, interrupted="what was finished is kept; the same command with --resume goes on.")


if __name__ == "__main__":
    main()
