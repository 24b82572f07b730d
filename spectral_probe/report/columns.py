"""Tables as a page holds them: by column, with as many digits as a reader can see."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

#: The data of the charts of a page: {name: {column: values}}; see :func:`columns_of`.
Data = dict[str, dict[str, Any]]


def columns_of(rows: pd.DataFrame, decimals: int = 6) -> dict[str, Any]:
    """Return the columns of a table, short enough for a page.

    A column of text is ``{"names": distinct values, "at": number of each row's value among them}``, one of fractions
    ``{"at": whole numbers, "unit": 10 ** decimals}``, any other a list; None where there is no value.
    """
    columns: dict[str, Any] = {}
    for name in rows.columns:
        values = rows[name]
        if pd.api.types.is_bool_dtype(values):
            columns[name] = [None if pd.isna(value) else bool(value) for value in values]
        elif pd.api.types.is_float_dtype(values):
            unit = 10**decimals
            whole = [_whole(value, unit) if math.isfinite(value) else None for value in values.astype(float)]
            columns[name] = {"at": whole, "unit": unit}
        elif pd.api.types.is_integer_dtype(values):
            columns[name] = [None if pd.isna(value) else int(value) for value in values]
        else:
            numbers, names = pd.factorize(values.fillna("").astype(str))
            columns[name] = {"names": list(names), "at": numbers.tolist()}
    return columns


def _whole(value: float, unit: int) -> int:
    """Return a value in units of ``1 / unit``, so that it has the two or four decimals that the value has."""
    value = float(f"{value:.10g}")  # as the files beside the page hold it, so that it can be written anew from them
    whole = round(value * unit)
    if all(f"{whole / unit:.{decimals}f}" == f"{value:.{decimals}f}" for decimals in (2, 4)):
        return whole
    return whole + 1 if value * unit > whole else whole - 1


def grid_of(rows: pd.DataFrame, keys: tuple[str, str], decimals: int = 6) -> dict[str, Any]:
    """Return the columns of a table that has at most one row for each pair of keys, without repeating the keys.

    ``grid`` holds the values of both keys; the other columns have a value for each pair, the second key changing first.
    """
    first, second = (sorted(set(rows[key])) for key in keys)
    index = pd.MultiIndex.from_product([first, second], names=keys)
    filled = rows.set_index(list(keys)).reindex(index)
    grid = [[keys[0], [int(value) for value in first]], [keys[1], [int(value) for value in second]]]
    return {"grid": grid, **columns_of(filled, decimals)}
