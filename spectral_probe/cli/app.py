"""The frame of both command lines: ``--version``, documented exit codes, errors on one line without a traceback."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from spectral_probe import __version__
from spectral_probe.errors import SpectralProbeError

USAGE = 2
INTERRUPTED = 130


def new_app(name: str, text: str) -> typer.Typer:
    """Return a command line with ``--version`` and no command yet; ``text`` is what its help begins with."""
    app = typer.Typer(name=name, help=text, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{name} {__version__}")
            raise typer.Exit

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=show, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        pass

    return app


def run_command(app: typer.Typer, *, interrupted: str) -> NoReturn:
    """Run a command line and leave the process.

    Parameters
    ----------
    app : typer.Typer
    interrupted : str
        What Ctrl-C leaves behind, and how to go on.
    """
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer swallows Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except SpectralProbeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo(f"interrupted: {interrupted}", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has closed the pipe: nothing can be reported.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is not None and hasattr(error, "exit_code"):
            show()
            sys.exit(USAGE)
        raise
