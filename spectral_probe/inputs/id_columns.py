"""Which column of a table of item vectors holds the ids of the items: compared with the catalogue, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectral_probe.errors import DataError
from spectral_probe.interactions.column_names import is_item_name, listing, plain_name
from spectral_probe.interactions.labels import label_of

#: Names that pandas and others give to a column of row numbers.
_INDEX_NAMES = ("", "index", "level0", "indexlevel0", "row", "rowid", "rownumber", "rownames", "unnamed:0")
#: With fewer rows, two or three numbers in a row say nothing.
FEWEST_ROWS = 3


@dataclass(frozen=True)
class VectorTable:
    """A table of item vectors as it was read.

    Attributes
    ----------
    path : Path
    names : list of str
        Of the columns; empty if the file has no header.
    columns : list of (n_rows,) sequences
        Values as they were read, text or numbers.
    """

    path: Path
    names: list[str]
    columns: list[Sequence[object]]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.columns[0]) if self.columns else 0

    def name(self, column: int) -> str:
        """Return what a column is called in an error."""
        return repr(self.names[column]) if self.names else f"number {column + 1}"

    def id_column(self, labels: Sequence[str], *, is_labelled: bool) -> int | None:
        """Return the index of the column with the ids of the items; None if the table has no ids.

        A column that has every label of the catalogue exactly once is one; else a column with the name of an id, or of
        text. A column that only resembles ids, or that counts the rows, is refused.

        Parameters
        ----------
        labels : sequence of str
            Of the catalogue, by index.
        is_labelled : bool
            Whether these are labels of a data set, and not mere indices.

        Raises
        ------
        DataError
            If the ids cannot be told from the features.
        """
        known = set(labels)
        named = [column for column, name in enumerate(self.names) if is_item_name(name)]
        exact = [column for column in range(len(self.columns)) if self._is_catalogue(column, known)]
        chosen = self._chosen(named, exact)
        if chosen is None:
            chosen = next((column for column in range(len(self.columns)) if self._is_text(column)), None)
        if chosen is None and self.columns and is_labelled and self._resembles(0, known):
            chosen = 0
        for column in range(len(self.columns)):
            if column != chosen and (column in exact or column in named or self._counts_rows(column)):
                raise self._doubtful(column, chosen)
            if chosen is None and is_labelled and self._resembles(column, known):
                raise self._doubtful(column, chosen)
        return chosen

    def _chosen(self, named: list[int], exact: list[int]) -> int | None:
        """Return the column that name and content agree on, or the only one that one of them gives."""
        for candidates in ([column for column in exact if column in named], exact, named):
            if len(candidates) == 1:
                return candidates[0]
            if len(candidates) > 1:
                raise DataError(
                    f"{self.path.name!r} has {len(candidates)} columns that could hold the ids of the items: "
                    f"{listing([self.name(column) for column in candidates])}. Leave one of them in the file."
                )
        return None

    def _doubtful(self, column: int, chosen: int | None) -> DataError:
        ids = "the ids are read from another column" if chosen is None else f"the ids are in column {self.name(chosen)}"
        if chosen is None:
            ids = "no column has the ids of the data set"
        return DataError(
            f"Column {self.name(column)} of {self.path.name!r} holds ids or row numbers, not a feature, and {ids}. "
            "Drop the column, or write the ids of the data set in a column item_id (pandas: index=False)."
        )

    def _is_catalogue(self, column: int, known: set[str]) -> bool:
        values = self.columns[column]
        if len(values) != len(known) or len(values) < 2 or label_of(values[0]) not in known:
            return False
        return {label_of(value) for value in values} == known

    def _is_text(self, column: int) -> bool:
        """Whether a column is not one of numbers: the first if any cell is text, another if most of them are."""
        values = self.columns[column]
        if not column:
            return any(not is_number(value) for value in values)
        return not is_number(values[0]) and 2 * sum(not is_number(value) for value in values) > len(values)

    def _resembles(self, column: int, known: set[str]) -> bool:
        """Whether a column of whole numbers has labels of the catalogue in most rows, and most of them differ."""
        values = self.columns[column]
        if sum(label_of(value) in known for value in values[:20]) * 4 < len(values[:20]):
            return False
        labels = [label_of(value) for value in values]
        if not all(label.removeprefix("-").isdigit() for label in labels):
            return False
        return 2 * sum(label in known for label in labels) > len(labels) and 2 * len(set(labels)) > len(labels)

    def _counts_rows(self, column: int) -> bool:
        """Whether a column is 0, 1, 2, … or 1, 2, 3, …, or has a name of row numbers and holds whole numbers."""
        values = self.columns[column]
        first = label_of(values[0])
        if first in ("0", "1") and len(values) >= FEWEST_ROWS:
            start = int(first)
            if all(label_of(value) == str(row) for row, value in enumerate(values, start=start)):
                return True
        is_index = bool(self.names) and plain_name(self.names[column]) in _INDEX_NAMES
        return is_index and all(label_of(value).removeprefix("-").isdigit() for value in values)


def is_number(value: object) -> bool:
    """Return whether a value is a number, or the text of one."""
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
