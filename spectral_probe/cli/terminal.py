"""Text for a terminal. Titles, ids, names and paths come from outside; here they lose what a terminal would obey."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import typer

from spectral_probe.storage.plain_text import plain

if TYPE_CHECKING:
    from rich.text import Text

#: Text and tables are no narrower, however narrow the terminal is.
LEAST_WIDTH = 20


def say(text: object, *, err: bool = False) -> None:
    """Print lines to the standard output or the standard error, as :func:`plain` text."""
    typer.echo(plain(text), err=err)


def say_wrapped(text: object, *, err: bool = False, indent: str = "") -> None:
    """Print a sentence or a paragraph, broken between words at the width of the terminal; elsewhere in one line.

    Parameters
    ----------
    text : object
    err : bool
        Print to the standard error.
    indent : str
        Begins every line but the first.
    """
    width = wrapping_width(err=err)
    lines = plain(text).split("\n")
    if width is not None:
        # A path or a command that is longer than the line stays whole, so that it can be copied.
        options = {"break_long_words": False, "break_on_hyphens": False}
        lines = [
            part
            for line in lines
            for part in textwrap.wrap(line, width, subsequent_indent=indent, **options) or [""]  # type: ignore[arg-type]
        ]
    typer.echo("\n".join(lines), err=err)


def wrapping_width(*, err: bool = False) -> int | None:
    """Return the width at which text is broken; None where it goes to a file or a pipe and ``COLUMNS`` is not set."""
    stream = sys.stderr if err else sys.stdout
    if os.environ.get("COLUMNS", "").isdigit() or stream.isatty():
        return max(LEAST_WIDTH, shutil.get_terminal_size((80, 24)).columns)
    return None


def cell(text: object) -> Text:
    """Return the content of a cell or title of a table: no markup, and no control character but newlines."""
    from rich.text import Text

    return Text(plain(text).replace("\t", " "))
