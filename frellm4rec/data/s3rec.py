"""S3-Rec text: one user per line, items oldest first."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from frellm4rec.data.counts import CountedDataset, Counts, log_notes, with_report
from frellm4rec.data.parsing.text_files import read_text, stem
from frellm4rec.data.parsing.titles import titles_from_file
from spectral_probe.errors import DataError
from spectral_probe.interactions.column_names import notes_on_columns
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import label_of
from spectral_probe.interactions.log import Interactions


def read_s3rec(path: str | Path, *, titles: str | Path | None = None, name: str | None = None) -> CountedDataset:
    """Return the data set of a text file with one user per line: ``user item item …``, oldest first.

    A file in which every line is ``user item`` may name a user more than once: it lists pairs, in the order of events.

    Parameters
    ----------
    path : path
        Plain or packed. Items are numbered by first appearance.
    titles : path, optional
        CSV, TSV or Parquet file with columns ``item_id`` and ``title``.
    name : str, optional
        Name of the data set in outputs; the name of the file when left out.

    Raises
    ------
    DataError
        If the file is missing, empty or malformed; line and value are named.
    """
    path = Path(path)
    rows, n_rewritten = _rows(path)
    is_pairs = all(len(row) == 2 for row in rows.values())
    first_line: dict[str, int] = {}
    histories: dict[str, list[str]] = {}
    for number, (user, *items) in rows.items():
        if user in histories and not is_pairs:
            raise DataError(
                f"{path} must have one line per user; user {user!r} of line {number} is already in line "
                f"{first_line[user]}. Join the two lines in time order."
            )
        first_line.setdefault(user, number)
        histories.setdefault(user, []).extend(items)
    codes, labels = pd.factorize(np.array([item for items in histories.values() for item in items], dtype=object))
    log = Interactions.from_sequences(
        np.split(codes, np.cumsum([len(items) for items in histories.values()])[:-1]),
        user_ids=np.array(list(histories), dtype=object),
        item_ids=np.asarray(labels),
    )
    dataset = Dataset.from_interactions(log, item_titles=titles_from_file(log, titles), name=name or stem(path))
    notes = [f"{n_rewritten} labels were written in another way, such as 12.0 for 12."] if n_rewritten else []
    notes += notes_on_columns({}, ()) if is_pairs else []
    log_notes(path.name, notes)
    return with_report(dataset, [("as read", Counts.of_dataset(dataset))], notes)


def _rows(path: Path) -> tuple[dict[int, list[str]], int]:
    """Return the labels in each line that is not blank, by its number, and how many were written in another way."""
    rows: dict[int, list[str]] = {}
    n_rewritten = 0
    for number, line in enumerate(io.StringIO(read_text(path)), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) == 1:
            raise DataError(
                f"{path} must have a user and at least one item on every line; line {number} reads {line.strip()!r}. "
                "Drop the line."
            )
        rows[number] = [label_of(field) for field in fields]
        if "" in rows[number]:
            raise DataError(
                f"{path} must have a label in every field; line {number} has {fields[rows[number].index('')]!r}, a "
                "word for a missing value. Drop or repair it."
            )
        n_rewritten += sum(label != field for label, field in zip(rows[number], fields, strict=True))
    if not rows:
        raise DataError(f"{path} has no interactions. Check that it is the right file.")
    return rows, n_rewritten
