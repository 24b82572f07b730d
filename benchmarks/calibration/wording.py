"""Numbers and tables of the report as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np


def number(value: float) -> str:
    """Return a number with two digits, a dash where it is missing."""
    return "–" if np.isnan(value) else f"{value:.2f}"


def rate(value: float) -> str:
    """Return a rate in per cent, a dash where it is missing."""
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(" --- " for _ in header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def filled(paragraphs: str) -> str:
    """Return the paragraphs with their lines wrapped again; headings stay."""
    blocks = (" ".join(block.split()) for block in paragraphs.split("\n\n"))
    return "\n\n".join(textwrap.fill(b, 118, break_long_words=False, break_on_hyphens=False) for b in blocks)
