"""One rule for the labels of users and items, wherever they come from.

Logs, titles, embeddings, tables in memory and names on a command line all pass through :func:`label_of`, so the same
user or item has the same label everywhere.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from spectral_probe.errors import DataError

#: Words that programs write for a missing value, in lower case.
MISSING_WORDS = frozenset(
    {"", "nan", "-nan", "null", "none", r"\n", "n/a", "na", "<na>", "#n/a", "nat", "(null)", "<null>", "#null!"}
)
#: Invisible characters at the ends of a label that :meth:`str.strip` leaves.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\x00"
_WHOLE_DECIMAL = re.compile(r"[+-]?\d+\.0")
#: From here on not every whole number is a float of its own.
_LARGEST_EXACT = 2.0**53


def label_of(value: object) -> str:
    r"""Return the label that a value stands for; an empty string for a missing value.

    White space and invisible characters around it are removed, letters are composed (NFC), and a whole number written
    as a decimal (``12.0``, as pandas writes a column of numbers with gaps) is the whole number. A word for a missing
    value (``NaN``, ``NULL``, ``None``, ``NA``, ``\N``, …, in any case) is one. ``007`` and ``7`` are two labels.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            return ""
        value = int(value) if value.is_integer() else value
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    text = str(value)
    if not (text.isascii() and text.isalnum()):
        text = unicodedata.normalize("NFC", _stripped(text))
        if _WHOLE_DECIMAL.fullmatch(text):
            text = text[:-2]
    return "" if text.lower() in MISSING_WORDS else text


def _stripped(text: str) -> str:
    """Return a text without white space and invisible characters at its ends."""
    while (shorter := text.strip().strip(_INVISIBLE)) != text:
        text = shorter
    return text


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a column.

    Attributes
    ----------
    values : (n,) int or object
        Whole numbers stay numbers; everything else is text, empty where it is missing.
    is_missing : (n,) bool
    note : str
        How many labels were written in another way and how many became equal; empty if none.
    """

    values: npt.NDArray[Any]
    is_missing: npt.NDArray[np.bool_]
    note: str = ""


def clean_labels(column: pd.Series[Any] | npt.ArrayLike, name: str) -> Labels:
    """Return the labels of a column of users or items, by :func:`label_of`.

    Parameters
    ----------
    column : (n,) array or Series
    name : str
        Name of the column, for the note and for errors.

    Raises
    ------
    DataError
        If the labels are floats too large to be told apart.
    """
    series = column if isinstance(column, pd.Series) else pd.Series(np.asarray(column))
    if pd.api.types.is_integer_dtype(series.dtype) and not series.hasnans:
        return Labels(series.to_numpy(), np.zeros(len(series), dtype=bool))
    codes, distinct = pd.factorize(series.astype(object))
    if len(distinct) and all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in distinct):
        is_missing = codes < 0
        if not is_missing.any():
            return Labels(series.to_numpy(), is_missing)
    for value in distinct:
        if isinstance(value, float | np.floating) and _LARGEST_EXACT <= abs(float(value)) < math.inf:
            raise DataError(
                f"Column {name!r} holds the number {value!r} as a float, and floats from 2**53 on cannot tell every "
                "label from the next. Read the column as text or as whole numbers."
            )
    # Code -1, of a missing value, takes the last element.
    cleaned = np.array([*(label_of(value) for value in distinct), ""], dtype=object)
    values = cleaned[codes]
    is_missing = values == ""
    if not is_missing.any() and pd.api.types.is_float_dtype(series.dtype):
        whole = [value.removeprefix("-").isdigit() for value in cleaned[:-1]]
        if all(whole):
            return Labels(values.astype(np.int64), is_missing)
    return Labels(values, is_missing, _note(distinct, cleaned[:-1], codes, name))


def required_labels(column: pd.Series[Any], name: str, *, where: str, unit: str = "row", base: str = "") -> Labels:
    """Return the labels of a column in which none may be missing.

    Parameters
    ----------
    column : Series
        Its index has the number of the line or row, as it is named in errors.
    name, where : str
        The column and its table, for errors.
    unit, base : str
        What the index counts: ``line`` or ``row``, and from which number, if that is not clear.

    Raises
    ------
    DataError
        If a label is missing: empty, not finite, or a word such as ``NaN`` or ``NULL``.
    """
    labels = clean_labels(column, name)
    rows = np.flatnonzero(labels.is_missing)
    if len(rows):
        first, value = column.index[rows[0]], column.iloc[rows[0]]
        shown = f" ({str(value)[:40]!r})" if isinstance(value, str) and value.strip() else ""
        raise DataError(
            f"Column {name!r} of {where} must not be empty; it is empty or not finite in {len(rows)} of {len(column)} "
            f"rows, first in {unit} {first}{base}{shown}. Drop or repair these rows; a word written for a "
            "missing value cannot be a label."
        )
    return labels


def _note(distinct: npt.NDArray[Any], cleaned: npt.NDArray[Any], codes: npt.NDArray[np.int64], name: str) -> str:
    """Return what was rewritten and what became equal, with the number of rows of either; empty if nothing."""
    texts = np.array([str(value) for value in distinct], dtype=object)
    changed = np.flatnonzero((texts != cleaned) & (cleaned != ""))
    # Numbers and their texts are one label, and no change that anybody would see.
    present = pd.DataFrame({"text": texts, "label": cleaned})[cleaned != ""].drop_duplicates()
    n_merged = int(present["label"].duplicated().sum())
    if not len(changed):
        return ""
    n_rows = np.bincount(codes[codes >= 0], minlength=len(distinct))
    sample = f"for example {texts[changed[0]]!r} as {cleaned[changed[0]]!r}"
    merged = f"; {n_merged} labels became equal to another" if n_merged else ""
    return (
        f"column {name!r}: {len(changed)} of {len(distinct)} labels ({int(n_rows[changed].sum())} rows) are read "
        f"without white space around them or decimal zeros, {sample}{merged}."
    )
