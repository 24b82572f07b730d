"""Tables in text files: separator and header are recognised, a row never takes in other rows, lines are counted."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from frellm4rec.data.parsing.text_files import ending, not_utf8, read_text, undecoded_byte
from spectral_probe.errors import DataError, did_you_mean
from spectral_probe.interactions.column_names import USUAL_NAMES, find_columns, plain_name
from spectral_probe.interactions.labels import label_of


@dataclass(frozen=True)
class TextFormat:
    """Separators to try, the most likely first; whether the header gives a type with every name (``user_id:token``)."""

    separators: tuple[str, ...]
    is_typed: bool = False


#: By file ending, without that of the packing. RecBole's atomic files are tab-separated and typed, without quotes.
TEXT = {
    ".csv": TextFormat((",", ";", "\t", "::", "|")),
    ".tsv": TextFormat(("\t", ";", ",", "::", "|")),
    ".txt": TextFormat(("\t", ",", ";", "::", "|")),
    ".dat": TextFormat(("::", "\t", ",", ";", "|")),
    ".data": TextFormat(("\t", "::", ",", ";", "|")),
    ".inter": TextFormat(("\t",), is_typed=True),
    ".item": TextFormat(("\t",), is_typed=True),
}
FIELD_TYPES = ("token", "token_seq", "float", "float_seq")
#: Lines that are looked at to tell the columns of a file without a header, and the least number that is a time.
_N_SAMPLE, _LEAST_TIME = 200, 1e8
#: The values of a rating, whatever its scale.
_RATINGS = (-10, 100)


class TextTable:
    """A table of text with one row per line; the constructor reads the file and its header.

    Attributes
    ----------
    header : list of str
        Names of the columns; in a file without a header their positions, ``1``, ``2``, ….
    columns : dict
        Column of each role that the table has.
    notes : list of str
        What the reader of a result should know of how the file was read.
    unit : str
        What the index of the rows counts.

    Parameters
    ----------
    path : Path
    named : mapping, optional
        Columns by role that the caller named.
    roles, required : collections of str
        Roles to look for, and those that the table must have.
    """

    unit = "line"

    def __init__(
        self,
        path: Path,
        named: Mapping[str, str] | None = None,
        *,
        roles: Collection[str] = ("user", "item", "time", "title"),
        required: Collection[str] = ("user", "item"),
    ) -> None:
        # A long text in a column that nobody asked for is no error; the limit of the csv module is 128 KiB.
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        self.path, self.notes = path, []
        self._format = TEXT[ending(path)]
        self._text = read_text(path, errors="surrogateescape")
        self._first, first = next((n, line) for n, line in self._lines() if line.strip())
        if (byte := undecoded_byte(first)) is not None:
            raise not_utf8(path, self._first, byte)
        self._read_layout(first, dict(named or {}), roles, required)

    def read(self, columns: list[str], *, filled: Collection[str]) -> pd.DataFrame:
        """Return the wanted columns as text, indexed by the number of the line.

        Raises
        ------
        DataError
            If a row has too few or too many fields, or an empty value in one of the columns ``filled``; if its quotes
            are broken; if there are no rows. The line is named.
        """
        indices = [self.header.index(column) for column in columns]
        checked = [(self.header.index(column), column) for column in filled]
        values: list[list[str]] = []
        line_numbers: list[int] = []
        for number, row in self._rows():
            if len(row) != len(self.header):
                raise DataError(
                    f"{self.path} must have {len(self.header)} fields on every line; line {number} has {len(row)}: "
                    f"{self._separator.join(row)[:80]!r}. Repair or drop the line."
                )
            for index, column in checked:
                value = row[index]
                if not value.strip():
                    raise DataError(
                        f"Column {column!r} of {self.path} must not be empty; it is in line {number}. "
                        "Repair or drop the line."
                    )
                if (byte := undecoded_byte(value)) is not None:
                    raise not_utf8(self.path, number, byte)
                if "\n" in value or "\r" in value:
                    raise DataError(
                        f"Column {column!r} of {self.path} must be on one line; that of line {number} has a line "
                        f"break: {value[:60]!r}. Repair the quotes of the line."
                    )
            values.append([row[index] for index in indices])
            line_numbers.append(number)
        if not values:
            raise DataError(f"{self.path} has a header but no rows. Check that it is the right file.")
        return pd.DataFrame(values, columns=columns, index=line_numbers, dtype=object)

    def _lines(self) -> Iterator[tuple[int, str]]:
        return enumerate(io.StringIO(self._text, newline=""), start=1)

    # --- separator, header, columns ---

    def _read_layout(
        self, first: str, named: dict[str, str], roles: Collection[str], required: Collection[str]
    ) -> None:
        """Choose the separator with which the header has the columns; else tell them by position."""
        problem: DataError | None = None
        by_position = bool(named) and all(column.isascii() and column.isdigit() for column in named.values())
        candidates = [s for s in self._format.separators if len(self._split(first, s)) > 1]
        for separator in candidates or self._format.separators[:1]:
            header = [field.strip() for field in self._split(first, separator)]
            header = [_untyped(field, self.path) for field in header] if self._format.is_typed else header
            if by_position and set(named.values()) <= set(header):
                if header in ([str(n + start) for n in range(len(header))] for start in (0, 1)):
                    raise DataError(
                        f"Line 1 of {self.path} reads {first.strip()[:80]!r}, which may be a header or data, so the "
                        "columns cannot be told by numbers. Give the file a header with names."
                    )
                continue
            try:
                self.columns = find_columns(header, named, where=str(self.path), roles=roles, required=required)
            except DataError as error:
                problem = problem or error
                continue
            self._separator, self.header, self._has_header = separator, header, True
            return
        for separator in candidates if not self._format.is_typed else ():
            sample = [self._split(line, separator) for _, line in islice(self._lines(), _N_SAMPLE) if line.strip()]
            header = [str(position) for position in range(1, len(sample[0]) + 1)]
            columns = _by_position(sample) if not named else named if set(named.values()) <= set(header) else None
            if columns is None or not set(required) <= set(columns):
                continue
            self._separator, self.header, self.columns = separator, header, columns
            self._has_header = by_position and self._is_header(sample, columns)
            listed = ", ".join(f"{role} {column}" for role, column in columns.items())
            lead = "line 1 is a header and is skipped" if self._has_header else "no header"
            self.notes.append(f"{lead}: the columns by position are {listed}.")
            return
        if problem is None:
            raise DataError(
                f"{self.path} has no columns of the numbers {list(named.values())}: line 1 reads {first[:80]!r}. Count "
                "its columns from 1."
            )
        if not find_columns(self._split(first, separator), where=str(self.path), required=()):
            hint = " Without a header, name the columns by their positions: --columns user=1,item=2,time=3."
            raise DataError(f"{problem}{hint}") from None
        raise problem

    def _is_header(self, sample: list[list[str]], columns: dict[str, str]) -> bool:
        """Whether the first line names the columns that are given by position; a doubtful one is refused.

        With a column of times: it has no time there, and the second line has one. Without: it has a usual name of the
        user at the position of the user and one of the item at that of the item, or one of them that ends in ``id``.
        """
        cells = {role: [row[int(column) - 1] for row in sample[:2]] for role, column in columns.items()}
        if "time" in cells:
            return not _is_time(cells["time"][0]) and len(sample) > 1 and _is_time(cells["time"][1])
        names = [plain_name(cells[role][0]) for role in ("user", "item")]
        usual = [name for name, role in zip(names, ("user", "item"), strict=True) if name in USUAL_NAMES[role]]
        if len(usual) == 2 or any(name.endswith("id") for name in usual):
            return True
        if usual:
            raise DataError(
                f"Line 1 of {self.path} reads {str(sample[0])[:80]}, which may be a header or data. Delete it if it is "
                "a header; else give the file a header with names, and name the columns by them."
            )
        return False

    def _split(self, line: str, separator: str) -> list[str]:
        """Return the fields of one line."""
        line = line.rstrip("\r\n")
        if self._format.is_typed or len(separator) > 1 or '"' not in line:
            return line.split(separator)
        quoted = _unquoted(line, separator)
        return line.split(separator) if quoted is None else quoted

    # --- rows ---

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the first line and the fields of each row."""
        rows = self._quoted_rows() if self._separator in (",", ";", "|") else self._plain_rows()
        return islice(rows, int(self._has_header), None)

    def _plain_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield rows of a format in which a row is a line; a quote that does not enclose a field is a character."""
        separator = self._separator
        for number, line in self._lines():
            line = line.rstrip("\r\n")
            if not line:
                continue
            fields = line.split(separator)
            if '"' in line and not self._format.is_typed and len(separator) == 1:
                quoted = _unquoted(line, separator)
                if quoted is not None and len(quoted) == len(self.header):
                    fields = quoted
            yield number, fields

    def _quoted_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield rows of a format in which a quoted field may hold separators and line breaks."""
        taken: list[str] = []

        def lines() -> Iterator[str]:
            for _, line in self._lines():
                taken.append(line)
                yield line

        reader = csv.reader(lines(), delimiter=self._separator, strict=True)
        number, n_spanning, n_lines = 1, 0, 0
        while True:
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise DataError(
                    f"{self.path} must be a well-formed table; line {number}: {error}. Repair the line: a field that "
                    "contains a quote is put in quotes, and the quote is doubled."
                ) from None
            if len(taken) > 1:
                self._refuse_swallowed_rows(number, taken)
                n_spanning, n_lines = n_spanning + 1, n_lines + len(taken)
            if row:
                yield number, row
            number += len(taken)
            taken.clear()
        if n_spanning:
            self.notes.append(f"{n_spanning} rows have quoted fields that span lines ({n_lines} lines in all).")

    def _refuse_swallowed_rows(self, number: int, lines: list[str]) -> None:
        """Refuse a quoted field in which a later line is a row of its own: a stray quote would swallow it."""
        for offset, line in enumerate(lines[1:], start=1):
            text = line.rstrip("\r\n")
            for fields in (text.split(self._separator), _unquoted(text, self._separator)):
                if fields is not None and len(fields) == len(self.header) and self._is_row(fields):
                    raise DataError(
                        f"A quote in line {number} of {self.path} opens a field that ends in line "
                        f"{number + len(lines) - 1}, and line {number + offset} is a row of its own: {text[:60]!r}. "
                        "Repair the quotes (a quote inside a field is doubled), or drop the line."
                    )

    def _is_row(self, fields: list[str]) -> bool:
        """Whether fields have a user, an item and a time."""
        values = {role: fields[self.header.index(column)].strip(' "') for role, column in self.columns.items()}
        if not all(values.get(role, "x") for role in ("user", "item")):
            return False
        return "time" not in values or _is_time(values["time"])


def _unquoted(line: str, separator: str) -> list[str] | None:
    """Return the fields of a line in which quotes enclose whole fields; None if they do not."""
    try:
        rows = list(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _is_time(text: str) -> bool:
    if pd.notna(pd.to_numeric(text, errors="coerce")):
        return True
    return pd.notna(pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True))


def _numbers(sample: list[list[str]], column: int) -> pd.Series:
    return pd.to_numeric(pd.Series([row[column] for row in sample]), errors="coerce")


def _by_position(sample: list[list[str]]) -> dict[str, str] | None:
    """Return the columns by role of a file without a header: ``user item [rating] [time]``; None if in doubt.

    Users and items must be whole numbers, for text may be a header of other names; a rating is a small number, and a
    time a large one.
    """
    width = len(sample[0])
    if width not in (2, 3, 4) or any(len(row) != width for row in sample):
        return None
    if not all(label_of(row[column]).isdigit() for row in sample for column in (0, 1)):
        return None
    columns = {"user": "1", "item": "2"}
    if width == 2:
        return columns
    if not (_numbers(sample, width - 1) >= _LEAST_TIME).all():
        return None
    if width == 4 and not _numbers(sample, 2).between(*_RATINGS).all():
        return None
    return {**columns, "time": str(width)}


def _untyped(field: str, path: Path) -> str:
    """Return the name in a RecBole header field."""
    name, colon, kind = field.strip().rpartition(":")
    if not colon or not name or kind not in FIELD_TYPES:
        raise DataError(
            f"{path} must have a header of name:type fields, the type one of {', '.join(FIELD_TYPES)}; line 1 has "
            f"{field[:80]!r}.{did_you_mean(kind, FIELD_TYPES)} Write for example user_id:token."
        )
    return name
