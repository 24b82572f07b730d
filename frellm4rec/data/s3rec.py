"""S3-Rec text: one user per line, items oldest first."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from frellm4rec.data.counts import CountedDataset, Counts, with_report
from frellm4rec.data.parsing.text_files import read_text, stem
from frellm4rec.data.parsing.titles import titles_from_file
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import label_of
from spectral_probe.interactions.log import Interactions

logger = logging.getLogger(__name__)


def read_s3rec(path: str | Path, *, titles: str | Path | None = None, name: str | None = None) -> CountedDataset:
    """Return the data set of a text file with one user per line: ``user item item …``, oldest first.

    Parameters
    ----------
    path : path
        Plain or ``.gz``. Items are numbered by first appearance.
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
    user_ids: dict[str, int] = {}
    items: list[list[str]] = []
    n_rewritten = 0
    for number, line in enumerate(io.StringIO(read_text(path)), start=1):
        fields = line.split()
        if not fields:
            continue
        labels = [label_of(field) for field in fields]
        if "" in labels:
            raise DataError(
                f"{path} must have a label in every field; line {number} has {fields[labels.index('')]!r}, a word "
                "for a missing value. Drop or repair it."
            )
        n_rewritten += sum(label != field for label, field in zip(labels, fields, strict=True))
        fields = labels
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
    dataset = Dataset.from_interactions(log, item_titles=titles_from_file(log, titles), name=name or stem(path))
    notes = [f"{n_rewritten} labels were written in another way, such as 12.0 for 12."] if n_rewritten else []
    for note in notes:
        logger.warning("%s: %s", path.name, note)
    return with_report(dataset, [("as read", Counts.of_dataset(dataset))], notes)
