"""Numbers and tables of the report as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(" --- " for _ in header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]).replace("tau = ", "τ = ")


def filled(paragraphs: str) -> str:
    """Return the paragraphs with their lines wrapped again; headings stay."""
    blocks = (" ".join(block.split()).replace("tau = ", "τ = ") for block in paragraphs.split("\n\n"))
    return "\n\n".join(textwrap.fill(b, 118, break_long_words=False, break_on_hyphens=False) for b in blocks)


def percent(value: float) -> str:
    """Return a rate in per cent, a dash where it is missing."""
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def standard_error(p: float, reps: float) -> float:
    """Return the Monte-Carlo standard error of a rate."""
    return float(np.sqrt(max(p * (1 - p), 0.0) / reps))


def only_row(t: pd.DataFrame, **wanted: object) -> pd.Series:
    """Return the one row with these values."""
    rows = rows_with(t, **wanted)
    if len(rows) != 1:
        raise LookupError(f"{len(rows)} rows for {wanted}; the table must have one.")
    return rows.iloc[0]


def rows_with(t: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Return the rows with these values."""
    is_match = np.ones(len(t), dtype=bool)
    for name, value in wanted.items():
        is_match &= (t[name] == value).to_numpy()
    return t[is_match]


def sizes(t: pd.DataFrame) -> pd.Series:
    """Return the number of users of each row; 0 in the table means all."""
    return t["n_users"].where(t["n_users"] > 0, t["all_users"]).astype(int)
