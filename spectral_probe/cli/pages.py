"""A Markdown page on a terminal: its tables in the width of the terminal, its text broken between words."""

from __future__ import annotations

from itertools import groupby

from spectral_probe.cli.tables import Column, print_table
from spectral_probe.cli.terminal import say, say_wrapped, wrapping_width


def print_page(page: str, *, more: str = "") -> None:
    """Print a page of ours; where it goes to a file or a pipe, as it is.

    Parameters
    ----------
    page : str
        Markdown with headings, paragraphs and tables.
    more : str
        Where the whole page is, as a sentence, for tables that are too wide.
    """
    if wrapping_width() is None:
        say(page.rstrip())
        return
    for is_table, lines in groupby(page.rstrip().splitlines(), key=lambda line: line.startswith("|")):
        if is_table:
            _print_table(list(lines), more)
            continue
        for line in lines:
            say_wrapped(line.lstrip("#").strip().replace("**", ""))


def _print_table(lines: list[str], more: str) -> None:
    """Print the lines of a Markdown table; of one that is too wide the last columns are left out first."""
    rows = [[cell.strip().replace("**", "") for cell in line.strip("|").split(" | ")] for line in lines]
    head, body = rows[0], rows[2:]
    columns = [
        Column(title, [row[number] if number < len(row) else "" for row in body], is_text=True, rank=max(0, number - 1))
        for number, title in enumerate(head)
    ]
    print_table(columns, more=more)
