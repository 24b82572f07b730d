"""Numbers of committed tables, named in a text by file, rows and column, and written where they are named.

A reference stands in braces and has four parts: ``{FILE | ROWS | QUANTITY | FORM}``.

- ``FILE``: a CSV file, from the root of the repository.
- ``ROWS``: conditions joined by ``&``, each ``column=value`` or ``column!=value``, compared as text.
- ``QUANTITY``: a column, then at most one word before it that says what is done with the rows. Alone, or with
  ``minus`` (the value with the other sign), there must be one row. ``mean`` and ``count`` take any rows. ``first``,
  ``last``, ``change`` (last minus first), ``falls`` and ``rises`` (steps in which the value does), ``clear_falls`` and
  ``clear_rises`` (those in which the interval does not overlap the one before) and ``steps`` take one row per
  ``layer``, in its order.
  ``lead`` is by how much the row of the model ``FreLLM4Rec`` exceeds the best other, as a part of the latter.
- ``FORM``: a format as in Python, ``.2f``; in brackets, ``[.2f]``, with the interval of the column, where the quantity
  is the value of one row; after an arrow, ``→.2f``, from the first to the last layer. Left out in a condition.

A condition compares two of them, or one with a number: ``{…} > 1``, ``{…} = {…}``; several are joined by ``;``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from spectral_probe.errors import DataError, did_you_mean

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = re.compile(r"\{([^{}]*)\}")
BY_LAYER = ("first", "last", "change", "falls", "rises", "clear_falls", "clear_rises", "steps")
ACTIONS = ("minus", "mean", "count", "lead", *BY_LAYER)
#: Quantities that are the value of one row, and have the interval of that row.
ONE_ROW = ("", "minus", "first", "last")
COMPARISONS = {
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "=": lambda left, right: left == right,
}


@dataclass(frozen=True)
class Reference:
    """A number of a committed table.

    Attributes
    ----------
    path : str
        CSV file, from the root of the repository.
    rows : tuple of (column, whether equal, value)
        Conditions on the rows.
    action, column : str
        What is computed; see the module.
    form : str
        How it is written.
    """

    path: str
    rows: tuple[tuple[str, bool, str], ...]
    action: str
    column: str
    form: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that the text between two braces means.

        Raises
        ------
        DataError
            If a part is missing or malformed.
        """
        path, rows, quantity, form = ([part.strip() for part in text.split("|")] + [""] * 4)[:4]
        words = quantity.split()
        if not path or not 1 <= len(words) <= 2 or text.count("|") > 3:
            raise DataError(
                f"A reference reads FILE | ROWS | QUANTITY | FORM; got {text!r}. Repair it in the table of claims."
            )
        action, column = words if len(words) == 2 else ("", words[0])
        if action and action not in ACTIONS:
            raise DataError(
                f"A quantity starts with one of {list(ACTIONS)} or with its column; got {quantity!r}."
                f"{did_you_mean(action, ACTIONS)} Repair it in the table of claims."
            )
        return cls(
            path, tuple(_condition(part, text) for part in rows.split("&") if part.strip()), action, column, form
        )

    def table(self, root: Path = ROOT) -> pd.DataFrame:
        """Return the rows as text, by layer where the quantity needs an order.

        Raises
        ------
        DataError
            If the file, a column or the rows are missing, or there are more rows than the quantity allows.
        """
        df = _read(root / self.path)
        is_ordered = self.action in BY_LAYER or self.form.startswith("→")
        needed = ("layer",) if is_ordered else ("model",) if self.action == "lead" else ()
        for column in (*(name for name, _, _ in self.rows), self.column, *needed):
            if column not in df.columns:
                raise DataError(
                    f"{self.path} has no column {column!r}.{did_you_mean(column, [*df.columns])} Repair the reference "
                    "in the table of claims."
                )
        for column, is_equal, value in self.rows:
            df = df[(df[column] == value) == is_equal]
        is_single = self.action in ("", "minus") and not self.form.startswith("→")
        if df.empty or (is_single and len(df) != 1):
            wanted = " & ".join(f"{name}{'=' if is_equal else '!='}{value}" for name, is_equal, value in self.rows)
            raise DataError(
                f"{self.path} must have {'one row' if is_single else 'rows'} where {wanted}; it has {len(df)}. Repair "
                "the reference in the table of claims, or write the table again."
            )
        if is_ordered:
            df = df.assign(layer=df["layer"].astype(int)).sort_values("layer")
            if df["layer"].duplicated().any():
                raise DataError(f"{self.path} has more than one row of a layer for {self!r}. Add conditions on rows.")
        return df

    def value(self, root: Path = ROOT) -> float:
        """Return the number."""
        df = self.table(root)
        if self.action == "count":
            return float(len(df))
        values = df[self.column].astype(float)
        if self.action == "lead":
            is_model = df["model"] == "FreLLM4Rec"
            if is_model.sum() != 1 or len(df) < 2:
                raise DataError(f"{self.path} must have FreLLM4Rec once and another model for a lead; see {self!r}.")
            return float(values[is_model].iloc[0] / values[~is_model].max() - 1)
        if self.action.startswith("clear_"):
            low, high = self._ends(df)
            return float(((high < low.shift()) if self.action == "clear_falls" else (low > high.shift())).sum())
        return {
            "": values.iloc[0],
            "minus": -values.iloc[0],
            "mean": values.mean(),
            "first": values.iloc[0],
            "last": values.iloc[-1],
            "change": values.iloc[-1] - values.iloc[0],
            "falls": float((values.diff() < 0).sum()),
            "rises": float((values.diff() > 0).sum()),
            "steps": float(len(values) - 1),
        }[self.action]

    def interval(self, root: Path = ROOT) -> tuple[float, float]:
        """Return the ends of the column's interval: ``COLUMN_low`` and ``COLUMN_high``, else ``low`` and ``high``.

        Raises
        ------
        DataError
            If the quantity is computed from several rows: the table has no interval of it.
        """
        if self.action not in ONE_ROW:
            raise DataError(
                f"Only the value of one row has an interval, not {self.action!r} of {self.column!r} in {self.path}. "
                "Take the brackets from the form, in the table of claims."
            )
        row = -1 if self.action == "last" else 0
        low, high = (float(ends.iloc[row]) for ends in self._ends(self.table(root)))
        return (-high, -low) if self.action == "minus" else (low, high)

    def _ends(self, df: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        """Return the lower and the upper ends of the column's intervals, one per row."""
        prefix = f"{self.column}_" if f"{self.column}_low" in df.columns else ""
        return df[f"{prefix}low"].astype(float), df[f"{prefix}high"].astype(float)

    def text(self, root: Path = ROOT) -> str:
        """Return the number as it is written, with its interval or from first to last where the form says so."""
        if self.form.startswith("→"):
            values = self.table(root)[self.column].astype(float)
            return f"{_write(values.iloc[0], self.form[1:])} → {_write(values.iloc[-1], self.form[1:])}"
        if self.form.startswith("["):
            form = self.form.strip("[]")
            low, high = self.interval(root)
            return f"{_write(self.value(root), form)} [{_write(low, form)}, {_write(high, form)}]"
        return _write(self.value(root), self.form)


def references(text: str) -> list[Reference]:
    """Return the references in a text, in their order."""
    return [Reference.parse(match) for match in REFERENCE.findall(text)]


def fill(text: str, root: Path = ROOT) -> str:
    """Return the text with every reference replaced by its number."""
    return REFERENCE.sub(lambda match: Reference.parse(match[1]).text(root), text)


def broken_conditions(text: str, root: Path = ROOT) -> list[str]:
    """Return the conditions that the tables do not meet, with the values that they compare.

    Raises
    ------
    DataError
        If a condition is malformed.
    """
    broken = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        pieces = re.fullmatch(r"(\{[^{}]*\})\s*([<>=])\s*(\{[^{}]*\}|[-+]?\d+(?:\.\d+)?)", part)
        if pieces is None:
            raise DataError(f"A condition reads {{REFERENCE}} <, > or = NUMBER or {{REFERENCE}}; got {part!r}.")
        left = Reference.parse(pieces[1].strip("{}")).value(root)
        right = Reference.parse(pieces[3].strip("{}")).value(root) if pieces[3].startswith("{") else float(pieces[3])
        if not COMPARISONS[pieces[2]](left, right):
            broken.append(f"{part}: {left:g} against {right:g}")
    return broken


def _condition(text: str, reference: str) -> tuple[str, bool, str]:
    column, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not column.rstrip("! "):
        raise DataError(f"A condition on rows reads column=value or column!=value; got {text!r} in {reference!r}.")
    return column.rstrip("! "), not column.endswith("!"), value


@cache
def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} does not exist. Name a committed table, from the root of the repository.")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _write(value: float, form: str) -> str:
    """Return a number with a true minus sign, and no minus before a zero."""
    text = format(value, form or "g")
    return (text.lstrip("-") if not re.search(r"[1-9]", text) else text).replace("-", "−")
