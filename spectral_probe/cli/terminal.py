"""Text for a terminal. Titles, ids, names and paths come from outside; here they lose what a terminal would obey."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.text import Text

#: Control characters but tab and newline, marks that reverse the direction of text, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: object) -> str:
    r"""Return a text with every character that a terminal would obey written out, such as ``\x1b``."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def say(text: object, *, err: bool = False) -> None:
    """Print lines to the standard output, or to the standard error; see :func:`plain`."""
    typer.echo(plain(text), err=err)


def cell(text: object) -> Text:
    """Return the content of a cell or title of a table: no markup, and no control character but newlines."""
    from rich.text import Text

    return Text(plain(text).replace("\t", " "))
