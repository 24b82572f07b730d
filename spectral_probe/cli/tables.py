"""Tables on standard output that fit the width of the terminal: columns are left out before a number is cut."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectral_probe.cli.json_output import print_json
from spectral_probe.cli.terminal import LEAST_WIDTH, cell, say_wrapped

if TYPE_CHECKING:
    from rich.console import Console

#: Width where the output is no terminal and ``COLUMNS`` is not set.
WIDTH = 120
#: A column of text may be folded down to this width.
LEAST_TEXT = 14
#: Blanks between two columns.
GAP = 2
#: What is not folded: an interval, a word.
_WORDS = re.compile(r"\[[^][]*\]|\S+")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    title : str
    cells : sequence of str
    is_text : bool
        Text stands on the left and is folded between words where it is long; anything else stands on the right and is
        never folded.
    rank : int
        Where the table is too wide, the column with the highest rank is left out first; one of rank 0 never is.
    name : str
        How the line on what is left out calls it; its title if empty.
    """

    title: str
    cells: Sequence[str]
    is_text: bool = False
    rank: int = 0
    name: str = ""

    @property
    def width(self) -> int:
        """Width that shows every cell in one line."""
        return max(len(line) for text in (self.title, *self.cells) for line in text.split("\n"))

    @property
    def least_width(self) -> int:
        """Width below which the column is not shown: that of its longest word, or all of it if it is no text."""
        if not self.is_text:
            return self.width
        words = (word for text in (self.title, *self.cells) for word in _WORDS.findall(text))
        return min(self.width, max(max(map(len, words), default=0), LEAST_TEXT))


def fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Return the columns that fit a width, and the titles of those that are left out, least important first."""
    shown, left_out = list(columns), []
    while _least_width(shown) > width:
        last = max(shown, key=lambda column: column.rank)
        if not last.rank:
            break
        shown.remove(last)
        left_out.append(last.name or last.title)
    return shown, left_out


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return the widths of columns that share a width: the widest text is folded first, words only if they must."""
    widths = [column.width for column in columns]
    for least in ([column.least_width for column in columns], [LEAST_TEXT if c.is_text else c.width for c in columns]):
        while sum(widths) + GAP * (len(columns) - 1) > width:
            foldable = [(now, number) for number, now in enumerate(widths) if now > least[number]]
            if not foldable:
                break
            widths[max(foldable)[1]] -= 1
    return widths


def _least_width(columns: Sequence[Column]) -> int:
    return sum(column.least_width for column in columns) + GAP * (len(columns) - 1)


def print_table(columns: Sequence[Column], *, title: str = "", more: str = "") -> None:
    """Print a table in the width of the output.

    Parameters
    ----------
    columns : sequence of Column
    title : str
        A line above.
    more : str
        Where all columns are, for the line that says which are left out.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = console_for_output(0 if _has_width() else _least_width(columns))
    shown, left_out = fitting(columns, console.width)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in zip(shown, _widths(shown, console.width), strict=True):
        table.add_column(
            cell(column.title),
            justify="left" if column.is_text else "right",
            no_wrap=not column.is_text,
            width=width,
            overflow="fold",
        )
    for row in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*(cell(text) for text in row))
    if title:
        say_wrapped(title)
    console.print(table)
    if left_out:
        where = f" {more}" if more else ""
        say_wrapped(f"Left out at {console.width} columns: {', '.join(reversed(left_out))}.{where}")


def print_rows(
    rows: Sequence[Mapping[str, str]], *, numbers: Sequence[str] = (), least: Sequence[str] = (), title: str = ""
) -> None:
    """Print records as a table; a field that a record lacks stays empty.

    Parameters
    ----------
    rows : sequence of {title: text}
    numbers : sequence of str
        Titles of the columns that stand on the right and are never folded.
    least : sequence of str
        Titles of the columns that are left out where the table is too wide, the first one first.
    title : str
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    ranks = {name: len(least) - position for position, name in enumerate(least)}
    columns = [
        Column(name, [str(row.get(name, "")) for row in rows], is_text=name not in numbers, rank=ranks.get(name, 0))
        for name in names
    ]
    print_table(columns, title=title)


def print_records(
    rows: Sequence[Mapping[str, Any]], as_json: bool, fields: str | None = None, **options: Sequence[str]
) -> None:
    """Print records as JSON or as a table; ``options`` are those of :func:`print_rows`."""
    if as_json or fields:
        print_json(list(rows), fields)
    else:
        print_rows([{name: str(value) for name, value in row.items()} for row in rows], **options)  # type: ignore[arg-type]


def output_width() -> int:
    """Return the width of the output: ``COLUMNS`` where it is set, else that of the terminal, else 120."""
    return max(LEAST_WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if _has_width() else WIDTH


def _has_width() -> bool:
    """Return whether the output has a width; a pipe and a file have none."""
    return os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty()


def console_for_output(least: int = 0) -> Console:
    """Return a console on stdout in the width of the output, or ``least``; outside a terminal it has no colour."""
    from rich.console import Console

    return Console(width=max(least, output_width()))
