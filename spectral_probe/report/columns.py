"""Tables as a page holds them: by column, with as many digits as a reader can see."""

from __future__ import annotations

from typing import Any

import pandas as pd

#: The data of the charts of a page: {name: {column: values}}.
Data = dict[str, dict[str, list[Any]]]


def columns_of(rows: pd.DataFrame, digits: int = 4) -> dict[str, list[Any]]:
    """Return the columns of a table as lists: numbers with so many significant digits, None where there is none."""
    columns: dict[str, list[Any]] = {}
    for name in rows.columns:
        if pd.api.types.is_bool_dtype(rows[name]):
            columns[name] = [None if pd.isna(value) else bool(value) for value in rows[name]]
        elif pd.api.types.is_float_dtype(rows[name]):
            columns[name] = [None if pd.isna(value) else float(f"{value:.{digits}g}") for value in rows[name]]
        elif pd.api.types.is_integer_dtype(rows[name]):
            columns[name] = [None if pd.isna(value) else int(value) for value in rows[name]]
        else:
            columns[name] = ["" if pd.isna(value) else str(value) for value in rows[name]]
    return columns
