"""Tables on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import typer
from rich.console import Console
from rich.table import Table

from spectral_probe.cli.terminal import cell


def print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print records as a table; a field that a record lacks stays empty."""
    table = Table()
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(cell(name), overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(name, "")) for name in names))
    console_for_output().print(table)


def print_records(rows: Sequence[Mapping[str, str]], as_json: bool) -> None:
    """Print records as JSON or as a table."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_rows(rows)


def console_for_output() -> Console:
    """Return a console on stdout; outside a terminal it is wide enough for the tables and has no colour."""
    return Console(width=None if sys.stdout.isatty() else 120)
