"""Tables of interactions in any format: delimited text, Parquet, JSON lines."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from frellm4rec.data.parsing.json_lines import JsonLines
from frellm4rec.data.parsing.text_files import ending, read_bytes
from frellm4rec.data.parsing.text_tables import TEXT, TextTable
from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, did_you_mean
from spectral_probe.interactions.column_names import find_columns
from spectral_probe.interactions.labels import label_of
from spectral_probe.storage.regular import check_regular

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
_LOG_ROLES = ("user", "item", "time", "title")


class Table(Protocol):
    """An opened table: its columns are known, its rows are not read yet."""

    header: list[str]
    columns: dict[str, str]
    notes: list[str]
    unit: str

    def read(self, columns: list[str], *, filled: Collection[str]) -> pd.DataFrame:
        """Return the wanted columns, indexed by the number of the line (Parquet: of the row, from 1)."""


def open_table(
    path: Path,
    named: Mapping[str, str] | None = None,
    *,
    roles: Collection[str] = _LOG_ROLES,
    required: Collection[str] = ("user", "item"),
) -> Table:
    """Return the table in a file, told by its ending; text may be packed.

    Parameters
    ----------
    path : Path
    named : mapping, optional
        Columns by role that the caller named; the others are found by their usual names.
    roles, required : collections of str
        Roles to look for, and those that the table must have.

    Raises
    ------
    ConfigError
        If the ending is unknown.
    DataError
        If the file cannot be read, or a column is missing or in doubt.
    MissingDependencyError
        If Parquet is asked for and pyarrow is not installed.
    """
    check_regular(path)
    kind = ending(path)
    if kind in PARQUET:
        return ParquetTable(path, named, roles=roles, required=required)
    if kind in JSON_LINES:
        return JsonTable(path, named, roles=roles, required=required)
    if kind not in TEXT:
        known = [*TEXT, *PARQUET, *JSON_LINES]
        raise ConfigError(
            f"A table ends in {', '.join(known)}, perhaps packed (.gz, .bz2, .zip); got {path.name!r}."
            f"{did_you_mean(kind, known)} Rename or convert the file."
        )
    return TextTable(path, named, roles=roles, required=required)


class ParquetTable:
    """A Parquet file; see :class:`Table`."""

    unit = "row"

    def __init__(
        self, path: Path, named: Mapping[str, str] | None, *, roles: Collection[str], required: Collection[str]
    ) -> None:
        self.path, self.notes = path, list[str]()
        content = read_bytes(path)
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise MissingDependencyError(
                'Parquet files need pyarrow, which is not installed: pip install "spectral-probe[parquet]"'
            ) from error
        try:
            self._file = parquet.ParquetFile(io.BytesIO(content))
            self.header = [str(name) for name in self._file.schema_arrow.names]
        except Exception as error:  # a damaged file can raise any exception
            raise self._damaged(error) from error
        self.columns = find_columns(self.header, named, where=str(path), roles=roles, required=required)

    def read(self, columns: list[str], *, filled: Collection[str]) -> pd.DataFrame:
        """Return the wanted columns, indexed by row from 1."""
        try:
            df = self._file.read(columns=columns).to_pandas(ignore_metadata=True)[columns]
        except Exception as error:
            raise self._damaged(error) from error
        if df.empty:
            raise DataError(f"{self.path} has no rows. Check that it is the right file.")
        df = df.set_axis(np.arange(1, len(df) + 1))
        for column in filled:
            missing = np.flatnonzero(df[column].isna())
            if len(missing):
                raise DataError(
                    f"Column {column!r} of {self.path} must not be empty; it is in row {missing[0] + 1}. "
                    "Repair or drop the row."
                )
            odd = next((v for v in df[column] if not np.isscalar(v) and not hasattr(v, "isoformat")), None)
            if odd is not None:
                raise DataError(
                    f"Column {column!r} of {self.path} must hold numbers, text or dates; it holds {str(odd)[:80]!r} "
                    f"({type(odd).__name__}). Write one event per row."
                )
        return df

    def _damaged(self, error: Exception) -> DataError:
        if isinstance(error, MemoryError):
            raise error
        return DataError(f"{self.path} must be a Parquet file; reading it failed with: {error}. Fetch it again.")


class JsonTable:
    """JSON lines, an object for each event; its columns are the keys of most of the first. See :class:`Table`."""

    unit = "line"
    _N_SAMPLE = 100

    def __init__(
        self, path: Path, named: Mapping[str, str] | None, *, roles: Collection[str], required: Collection[str]
    ) -> None:
        self.path, self.notes = path, list[str]()
        lines = JsonLines(path)
        sample = list(islice(lines, self._N_SAMPLE))
        if not sample:
            lines.check()
            raise DataError(f"{path} must have one JSON object per line; it has none. Convert it.")
        # A key that a few events lack is a column, and one that a few events have is none, unless it is named.
        counts = Counter(str(key) for entry in sample for key in entry)
        wanted = set((named or {}).values())
        self.header = [key for key, n in counts.items() if 2 * n >= len(sample) or key in wanted]
        self.columns = find_columns(self.header, named, where=str(path), roles=roles, required=required)

    def read(self, columns: list[str], *, filled: Collection[str]) -> pd.DataFrame:
        """Return the wanted columns, indexed by line; a few lines without them are left out with a note."""
        lines = JsonLines(self.path)
        labels = [self.columns[role] for role in ("user", "item") if role in self.columns]
        values: list[list[Any]] = []
        line_numbers: list[int] = []
        for entry in lines:
            row = [entry.get(column) for column in columns]
            given = dict(zip(columns, row, strict=True))
            if any(isinstance(given[c], list | dict | bool) or given[c] in (None, "") for c in filled) or any(
                not _is_label(given[c]) for c in labels if c in given
            ):
                lines.reject(f"must have {', '.join(filled)}; it has {str(given)[:120]}")
                continue
            values.append(row)
            line_numbers.append(lines.line_number)
        lines.check()
        if lines.n_broken:
            self.notes.append(f"{lines.n_broken} of {lines.n_lines} lines of {self.path.name} are broken and left out.")
        if not values:
            raise DataError(f"{self.path} has no rows. Check that it is the right file.")
        return pd.DataFrame(values, columns=columns, index=line_numbers, dtype=object)


def _is_label(value: object) -> bool:
    """Whether a value can be a label: not missing, and without lone surrogates."""
    label = label_of(value)
    return bool(label) and (label.isascii() or not any("\ud800" <= c <= "\udfff" for c in label))


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
