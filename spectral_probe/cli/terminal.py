"""Text for a terminal. Titles, ids, names and paths come from outside; here they lose what a terminal would obey."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from spectral_probe.storage.plain_text import plain

if TYPE_CHECKING:
    from rich.text import Text


def say(text: object, *, err: bool = False) -> None:
    """Print lines to the standard output or the standard error, as :func:`plain` text."""
    typer.echo(plain(text), err=err)


def cell(text: object) -> Text:
    """Return the content of a cell or title of a table: no markup, and no control character but newlines."""
    from rich.text import Text

    return Text(plain(text).replace("\t", " "))
