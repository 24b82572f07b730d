"""Wanted columns of delimited text and Parquet files, checked, with the line number of every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from frellm4rec.data.parsing.text_files import ending, read_text
from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, did_you_mean, listed


@dataclass(frozen=True)
class TextFormat:
    """How fields are separated, and whether the header gives a type with every name (``user_id:token``)."""

    delimiter: str
    quoting: int = csv.QUOTE_MINIMAL
    is_typed: bool = False


#: By file ending, without .gz. RecBole's atomic files are tab-separated and typed, without quotes.
TEXT = {
    ".csv": TextFormat(","),
    ".tsv": TextFormat("\t"),
    ".inter": TextFormat("\t", csv.QUOTE_NONE, is_typed=True),
    ".item": TextFormat("\t", csv.QUOTE_NONE, is_typed=True),
}
PARQUET = (".parquet", ".pq")
FIELD_TYPES = ("token", "token_seq", "float", "float_seq")


def column_names(path: str | Path) -> list[str]:
    """Return the columns of a CSV, TSV, RecBole or Parquet file; types in the header are left out.

    Raises
    ------
    ConfigError
        If the ending is none of these.
    DataError
        If the file cannot be read.
    """
    path = Path(path)
    return [str(column) for column in _load_parquet(path).columns] if ending(path) in PARQUET else _Rows(path).header


def read_columns(path: Path, columns: list[str], *, filled: list[str]) -> pd.DataFrame:
    """Return the wanted columns, indexed by line (Parquet: by row from 1); text stays text.

    Parameters
    ----------
    path : Path
        Delimited text (plain or ``.gz``) or Parquet, told apart by the ending.
    columns : list of str
        Wanted columns.
    filled : list of str
        Those that may not have an empty value.

    Raises
    ------
    ConfigError
        If the ending is unknown.
    DataError
        If a column is missing or there twice, a row has too few or too many fields or an empty value where there must
        be one, or there are no rows; the line is named.
    MissingDependencyError
        If Parquet is asked for and pyarrow is not installed.
    """
    if ending(path) in PARQUET:
        return _read_parquet(path, columns, filled)
    rows = _Rows(path)
    indices = _column_indices(rows.header, columns, path)
    checked = [(rows.header.index(column), column) for column in filled]
    values: list[list[str]] = []
    line_numbers: list[int] = []
    for line_number, row in rows:
        if len(row) != len(rows.header):
            raise DataError(
                f"{path} must have {len(rows.header)} fields on every line; line {line_number} has {len(row)}: "
                f"{rows.format.delimiter.join(row)[:80]!r}. Repair or drop the line."
            )
        for index, column in checked:
            if not row[index].strip():
                raise DataError(
                    f"Column {column!r} of {path} must not be empty; it is in line {line_number}. "
                    "Repair or drop the line."
                )
        values.append([row[index] for index in indices])
        line_numbers.append(line_number)
    if not values:
        raise DataError(f"{path} has a header but no rows. Check that it is the right file.")
    return pd.DataFrame(values, columns=columns, index=line_numbers, dtype=object)


class _Rows:
    """The rows of a text table with their line numbers; the constructor reads the header."""

    def __init__(self, path: Path) -> None:
        if ending(path) not in TEXT:
            known = [*TEXT, *PARQUET]
            raise ConfigError(
                f"A table ends in {', '.join(known)} (.gz allowed for text); got {path.name!r}."
                f"{did_you_mean(ending(path), known)} S3-Rec text files are read with read_s3rec."
            )
        self.path, self.format = path, TEXT[ending(path)]
        self._reader = csv.reader(
            io.StringIO(read_text(path), newline=""),
            delimiter=self.format.delimiter,
            quoting=self.format.quoting,
            strict=True,
        )
        _, header = next(self._rows(), (1, []))
        self.header = [_untyped(field, path) for field in header] if self.format.is_typed else header

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self._rows()

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        try:
            for row in self._reader:
                if row:
                    yield self._reader.line_num, row
        except csv.Error as error:
            raise DataError(
                f"{self.path} must be a well-formed table; line {self._reader.line_num}: {error}. Repair the line."
            ) from None


def _untyped(field: str, path: Path) -> str:
    """Return the name in a RecBole header field."""
    name, colon, kind = field.strip().rpartition(":")
    if not colon or not name or kind not in FIELD_TYPES:
        raise DataError(
            f"{path} must have a header of name:type fields, the type one of {', '.join(FIELD_TYPES)}; line 1 has "
            f"{field[:80]!r}.{did_you_mean(kind, FIELD_TYPES)} Write for example user_id:token."
        )
    return name


def _column_indices(header: list[str], columns: list[str], path: Path) -> list[int]:
    """Return the index of each column in the header."""
    for column in columns:
        if header.count(column) != 1:
            problem = "no column" if column not in header else "more than one column"
            raise DataError(
                f"{path} has {problem} {column!r} in its header, line 1; its columns are {listed(header)}."
                f"{did_you_mean(column, header)} Name the columns with user=, item=, time=, title=, or rename them."
            )
    return [header.index(column) for column in columns]


def _load_parquet(path: Path) -> pd.DataFrame:
    """Return a Parquet file as it is."""
    if not path.is_file():
        raise DataError(f"{path} does not exist. Check the path.")
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise MissingDependencyError("Parquet files need pyarrow: pip install pyarrow") from error
    except Exception as error:  # a damaged file can raise any exception
        raise DataError(f"{path} must be a Parquet file; reading it failed with: {error}. Fetch it again.") from error


def _read_parquet(path: Path, columns: list[str], filled: list[str]) -> pd.DataFrame:
    """Return the wanted columns of a Parquet file, indexed by row from 1."""
    df = _load_parquet(path)
    df.columns = [str(column) for column in df.columns]
    _column_indices(list(df.columns), columns, path)
    if df.empty:
        raise DataError(f"{path} has no rows. Check that it is the right file.")
    df = df[columns].set_axis(np.arange(1, len(df) + 1))
    for column in filled:
        missing = np.flatnonzero(df[column].isna())
        if len(missing):
            raise DataError(
                f"Column {column!r} of {path} must not be empty; it is in row {missing[0] + 1}. Repair or drop the row."
            )
        odd = next((value for value in df[column] if not np.isscalar(value) and not hasattr(value, "isoformat")), None)
        if odd is not None:
            raise DataError(
                f"Column {column!r} of {path} must hold numbers, text or dates; it holds {str(odd)[:80]!r} "
                f"({type(odd).__name__}). Write one event per row."
            )
    return df


def parse_times(times: pd.Series, path: Path) -> npt.NDArray[np.generic]:
    """Return times that sort: whole numbers exactly, else decimal numbers, else dates (ISO 8601).

    Raises
    ------
    DataError
        If a time is none of these, or not finite; its line is named.
    """
    is_date = pd.api.types.is_datetime64_any_dtype(times)
    if is_date or (pd.api.types.is_numeric_dtype(times) and not pd.api.types.is_bool_dtype(times)):
        return _finite(times.to_numpy(), times, path)
    text = times.astype(str).str.strip().to_numpy(dtype=str)
    for kind in (np.int64, np.float64):
        try:
            return _finite(text.astype(kind), times, path)
        except (ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
    dates = pd.to_datetime(pd.Series(text), format="ISO8601", utc=True, errors="coerce")
    is_number = pd.to_numeric(pd.Series(text), errors="coerce").notna()
    # Years alone also parse as dates; a row is wrong if its kind differs from that of most rows.
    is_right = is_number if is_number.sum() >= dates.notna().sum() else dates.notna()
    bad = np.flatnonzero(~is_right)
    if len(bad):
        raise _bad_time(times, path, int(bad[0]))
    return dates.to_numpy()


def _finite(values: npt.NDArray[np.generic], times: pd.Series, path: Path) -> npt.NDArray[np.generic]:
    """Return the values if none is NaN or infinite."""
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise _bad_time(times, path, int(bad[0]))
    return values


def _bad_time(times: pd.Series, path: Path, row: int) -> DataError:
    return DataError(
        f"Times in column {times.name!r} of {path} must be all finite numbers or all ISO 8601 dates; line "
        f"{times.index[row]} has {str(times.iloc[row])!r}. Repair or drop it."
    )
