"""The frame of both command lines: ``--version``, documented exit codes, errors on one line without a traceback."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from spectral_probe import __version__
from spectral_probe.cli.streams import drop_output, flush_or_drop, lossy, open_closed_streams
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import ResourceError, SpectralProbeError, user_error
from spectral_probe.runs import interruptions
from spectral_probe.storage.cache import give_home
from spectral_probe.storage.plain_text import shortened

USAGE = 2
INTERRUPTED = 130


def new_app(name: str, text: str) -> typer.Typer:
    """Return a command line with ``--version`` and no command yet; ``text`` is what its help begins with."""
    app = typer.Typer(name=name, help=text, no_args_is_help=True, pretty_exceptions_enable=False)

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


def add_commands(app: typer.Typer, *commands: tuple[Callable[..., None], str]) -> None:
    """Add commands, each with what its help ends with."""
    for command, epilog in commands:
        paragraphs = (command.__doc__ or "").strip().split("\n\n")
        # The lines of a docstring are as long as the source allows; a terminal may have others.
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        app.command(help=text, epilog=epilog)(command)


def run_command(app: typer.Typer, *, interrupted: str) -> NoReturn:
    """Run a command line and leave the process.

    Parameters
    ----------
    app : typer.Typer
    interrupted : str
        What Ctrl-C leaves behind, and how to go on.
    """
    open_closed_streams()
    interruptions.end_like_ctrl_c()
    errors, sys.stderr = sys.stderr, lossy(sys.stderr)
    try:
        code = _code_of(app, interrupted)
        try:
            sys.stdout.flush()
        except OSError as error:
            drop_output()
            code = code or _code_of_output(error)
    finally:
        sys.stderr = errors
        flush_or_drop(errors)
    sys.exit(code)


def _code_of(app: typer.Typer, interrupted: str) -> int:
    """Run a command line, print what stopped it, and return the exit code."""
    try:
        give_home()
        _check_folder()
        code = app(prog_name=app.info.name, standalone_mode=False)
        if code == INTERRUPTED:  # typer swallows Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SpectralProbeError as error:
        _report(f"error: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say_wrapped(f"interrupted: {interrupted}", err=True)
        return 128 + interruptions.received if interruptions.received else INTERRUPTED
    except SystemExit as stop:
        if isinstance(cause := stop.__context__, OSError) and cause.errno == errno.EPIPE:  # typer makes it a 1
            return _code_of_output(cause)
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            _report(_usage_error(error))
            return USAGE
        return _code_of_resource(error)


def _usage_error(error: Any) -> str:
    """Return what is wrong with the words that were typed, and where to read which are right."""
    message = str(error.format_message()).strip()
    if context := getattr(error, "ctx", None):
        message = f"{message.rstrip('.')}. Read `{context.command_path} --help`."
    return f"error: {message}"


def _check_folder() -> None:
    """Refuse a working directory that was deleted: libraries that are loaded from there abort."""
    try:
        Path.cwd()
    except OSError as error:
        raise ResourceError("The working directory is gone. Change to one that exists, and call again.") from error


def _code_of_resource(error: Exception) -> int:
    """Return the exit code of an error of memory, disk or system; anything else is a bug and is raised again."""
    if isinstance(error, OSError) and (
        error.errno == errno.EPIPE or (error.filename is None and error.errno == errno.ENOSPC)
    ):
        return _code_of_output(error)
    if (ours := user_error(error)) is not None:
        _report(f"error: {ours}")
        return ours.exit_code
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        _report(f"error: A path begins with ~, and there is no such home folder ({error}). Write it out.")
        return USAGE
    raise error


def _code_of_output(error: OSError) -> int:
    """Return the exit code after the standard output could not be written; a reader that has left is no error."""
    drop_output()
    if error.errno == errno.EPIPE:
        return 0
    _report(f"error: The output could not be written: {error.strerror}. Results in files are there.")
    return ResourceError.exit_code


def _report(message: str) -> None:
    """Print an error; a long value in it is cut."""
    say_wrapped(shortened(message), err=True)
