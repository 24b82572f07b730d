"""How a command of ours ends: every expected failure with its documented exit code, one line, and no traceback."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from spectral_probe.errors import SpectralProbeError

USAGE = 2
INTERRUPTED = 130


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
        # Whoever read our output has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is not None and hasattr(error, "exit_code"):
            show()
            sys.exit(USAGE)
        raise
