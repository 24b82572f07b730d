"""Tables on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print records as a table; a field that a record lacks stays empty."""
    table = Table()
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row.get(name, "")) for name in names))
    console_for_output().print(table)


def console_for_output() -> Console:
    """Return a console on stdout; outside a terminal it is wide enough for the tables and has no colour."""
    return Console(width=None if sys.stdout.isatty() else 120)
