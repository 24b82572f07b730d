"""Interaction tables: S3-Rec text, CSV and Parquet, with titles where they are at hand."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, did_you_mean
from spectral_probe.interactions import Dataset, Interactions

#: File ending, without .gz, and what separates its fields.
DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")


def read_s3rec(path: str | Path, *, titles: str | Path | None = None, name: str | None = None) -> Dataset:
    """Return the data set of a text file with one user per line: ``user item item …``, oldest first.

    Parameters
    ----------
    path : path
        Plain or ``.gz``. Labels are kept as they are written; items are numbered by first appearance.
    titles : path, optional
        CSV, TSV or Parquet file with columns ``item_id`` and ``title``.
    name : str, optional
        What outputs call the data set; the name of the file when left out.

    Raises
    ------
    DataError
        If the file is missing, empty or malformed; line and value are named.
    """
    path = Path(path)
    user_ids: dict[str, int] = {}
    items: list[list[str]] = []
    for number, line in enumerate(_open_text(path), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) == 1:
            raise DataError(
                f"{path} must have a user and at least one item on every line; line {number} reads {line.strip()!r}. "
                "Drop the line."
            )
        if fields[0] in user_ids:
            raise DataError(
                f"{path} must have one line per user; user {fields[0]!r} of line {number} is already in line "
                f"{user_ids[fields[0]]}. Join the two lines in time order."
            )
        user_ids[fields[0]] = number
        items.append(fields[1:])
    if not items:
        raise DataError(f"{path} has no interactions. Check that it is the right file.")
    codes, labels = pd.factorize(np.array([item for line_items in items for item in line_items], dtype=object))
    log = Interactions.from_sequences(
        np.split(codes, np.cumsum([len(line_items) for line_items in items])[:-1]),
        user_ids=np.array(list(user_ids), dtype=object),
        item_ids=np.asarray(labels),
    )
    return Dataset.from_interactions(log, item_titles=_titles_of(log, titles), name=name or _stem(path))


def read_table(
    path: str | Path,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = "timestamp",
    title: str | None = None,
    titles: str | Path | None = None,
    name: str | None = None,
) -> Dataset:
    """Return the data set of a CSV, TSV (plain or ``.gz``) or Parquet file with one row per event.

    Parameters
    ----------
    path : path
        Text files are UTF-8 with a header; their labels stay text, so ``007`` is not ``7``.
    user, item, time : str
        Columns. Times are whole numbers, decimal numbers or ISO 8601 dates; equal times keep the order of the file.
        ``time=None``: the rows are in order already.
    title : str, optional
        Column with item titles; the first non-empty one of an item counts.
    titles : path, optional
        Instead: a file with columns named as ``item`` and ``title`` (default name ``title``), one row per item.
    name : str, optional
        What outputs call the data set; the name of the file when left out.

    Raises
    ------
    DataError
        If the file or a column is missing, or a row is malformed; line and value are named.
    MissingDependencyError
        If Parquet is asked for and pyarrow is not installed.
    """
    path = Path(path)
    title_column = title if titles is None else None
    wanted = [column for column in (user, item, time) if column is not None]
    df = _read_columns(path, [*wanted, *([title_column] if title_column else [])], filled=wanted)
    if time is not None:
        df[time] = _parse_times(df[time], path)
    log = Interactions.from_frame(df, user=user, item=item, time=time)
    if title_column is not None:
        known = _first_titles(df, item, title_column)
        item_titles: list[str] | None = [known.get(label, "") for label in log.item_ids]
    else:
        item_titles = _titles_of(log, titles, item=item, title=title or "title")
    return Dataset.from_interactions(log, item_titles=item_titles, name=name or _stem(path))


def column_names(path: str | Path) -> list[str]:
    """Return the columns of a CSV, TSV or Parquet file."""
    path = Path(path)
    if _kind(path) in PARQUET:
        return [str(column) for column in _load_parquet(path).columns]
    try:
        return next(_text_rows(path), [])
    except csv.Error as error:
        raise DataError(f"{path} must start with a header of column names; line 1: {error}. Repair it.") from None


def _titles_of(
    log: Interactions, path: str | Path | None, *, item: str = "item_id", title: str = "title"
) -> list[str] | None:
    """Return the title of every item from a file of titles, empty where it has none."""
    if path is None:
        return None
    known = _first_titles(_read_columns(Path(path), [item, title], filled=[item]), item, title)
    by_text = {str(label): text for label, text in known.items()}
    found = [by_text.get(str(label), "") for label in log.item_ids]
    if not any(found):
        raise DataError(
            f"{path} has no title for any of the {log.n_items} items; its first item is {next(iter(by_text), '')!r}, "
            f"the log's is {str(log.item_ids[0])!r}. Check that both use the same labels."
        )
    return found


def _first_titles(df: pd.DataFrame, item: str, title: str) -> dict[object, str]:
    """Return the first non-empty title of each item."""
    known: dict[object, str] = {}
    for label, text in zip(df[item], df[title], strict=True):
        if isinstance(text, str) and text.strip():
            known.setdefault(label, text.strip())
    return known


def _stem(path: Path) -> str:
    """Return the file's name without its endings."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _kind(path: Path) -> str:
    """Return the file's ending, ``.gz`` set aside."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _open_text(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, plain or gzipped."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Check the path.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} must be a readable file; reading it failed with: {error}. Fetch it again.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} must be UTF-8 text; line {line} has the byte {content[error.start]:#04x}. Convert it to UTF-8."
        ) from None
    return io.StringIO(text, newline="")


def _read_columns(path: Path, columns: list[str], *, filled: list[str]) -> pd.DataFrame:
    """Return the wanted columns, indexed by line; text stays text, and ``filled`` columns have no empty value."""
    if _kind(path) in PARQUET:
        return _read_parquet(path, columns, filled)
    rows = _text_rows(path)
    values: list[list[str]] = []
    line_numbers: list[int] = []
    try:
        header = next(rows, [])
        places = _places(header, columns, path)
        checked = [(header.index(column), column) for column in filled]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path} must have {len(header)} fields on every line; line {rows.line_num} has {len(row)}: "
                    f"{','.join(row)[:80]!r}. Repair or drop the line."
                )
            for place, column in checked:
                if not row[place].strip():
                    raise DataError(
                        f"Column {column!r} of {path} must not be empty; it is in line {rows.line_num}. "
                        "Repair or drop the line."
                    )
            values.append([row[place] for place in places])
            line_numbers.append(rows.line_num)
    except csv.Error as error:
        raise DataError(
            f"{path} must be a well-formed table; line {rows.line_num}: {error}. Repair the line."
        ) from None
    if not values:
        raise DataError(f"{path} has a header but no rows. Check that it is the right file.")
    return pd.DataFrame(values, columns=columns, index=line_numbers, dtype=object)


def _text_rows(path: Path) -> Iterator[list[str]]:
    """Return a reader over the rows of a text table, the header first."""
    if _kind(path) not in DELIMITERS:
        known = [*DELIMITERS, *PARQUET]
        raise ConfigError(
            f"A table ends in {', '.join(known)} (.gz allowed for text); got {path.name!r}."
            f"{did_you_mean(_kind(path), known)} S3-Rec text files are read with read_s3rec."
        )
    return csv.reader(_open_text(path), delimiter=DELIMITERS[_kind(path)], strict=True)


def _places(header: list[str], columns: list[str], path: Path) -> list[int]:
    """Return where the columns stand in the header."""
    for column in columns:
        if header.count(column) != 1:
            seen = "no column" if column not in header else "more than one column"
            raise DataError(
                f"{path} has {seen} {column!r}; its columns are {header}.{did_you_mean(column, header)} "
                "Name the columns with user=, item=, time=, title=."
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
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be a Parquet file; reading it failed with: {error}. Fetch it again.") from error


def _read_parquet(path: Path, columns: list[str], filled: list[str]) -> pd.DataFrame:
    """Return the wanted columns of a Parquet file, indexed by row from 1."""
    df = _load_parquet(path)
    _places([str(column) for column in df.columns], columns, path)
    for column in filled:
        missing = np.flatnonzero(df[column].isna())
        if len(missing):
            raise DataError(
                f"Column {column!r} of {path} must not be empty; it is in row {missing[0] + 1}. Repair or drop the row."
            )
    if df.empty:
        raise DataError(f"{path} has no rows. Check that it is the right file.")
    return df[columns].set_axis(np.arange(1, len(df) + 1))


def _parse_times(times: pd.Series, path: Path) -> npt.NDArray[np.generic]:
    """Return times that sort: whole numbers exactly, else decimal numbers, else dates."""
    if times.dtype != object and not pd.api.types.is_string_dtype(times):
        return times.to_numpy()
    text = times.astype(str).str.strip().to_numpy(dtype=str)
    for kind in (np.int64, np.float64):
        try:
            return text.astype(kind)
        except (ValueError, OverflowError):
            continue
    dates = pd.to_datetime(pd.Series(text), format="ISO8601", utc=True, errors="coerce")
    is_number = pd.to_numeric(pd.Series(text), errors="coerce").notna()
    # Years alone read as dates too; a row is wrong if it is unlike the kind that most rows have.
    is_right = is_number if is_number.sum() >= dates.notna().sum() else dates.notna()
    bad = np.flatnonzero(~is_right)
    if len(bad):
        raise DataError(
            f"Times in column {times.name!r} of {path} must be all numbers or all ISO 8601 dates; line "
            f"{times.index[bad[0]]} has {str(text[bad[0]])!r}. Repair or drop it."
        )
    return dates.to_numpy()
