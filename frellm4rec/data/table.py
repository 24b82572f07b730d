"""Interaction tables with one row per event: CSV, TSV, Parquet."""

from __future__ import annotations

import logging
from pathlib import Path

from frellm4rec.data.counts import CountedDataset, Counts, with_report
from frellm4rec.data.parsing.columns import parse_times, read_columns
from frellm4rec.data.parsing.text_files import stem
from frellm4rec.data.parsing.titles import titles_from_file
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import required_labels
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import first_titles, titles_of_items

logger = logging.getLogger(__name__)


def read_table(
    path: str | Path,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = "timestamp",
    title: str | None = None,
    titles: str | Path | None = None,
    name: str | None = None,
) -> CountedDataset:
    """Return the data set of a CSV, TSV (plain or ``.gz``) or Parquet file with one row per event.

    Parameters
    ----------
    path : path
        Text files are UTF-8 with a header. Labels follow the rule of
        :func:`~spectral_probe.interactions.labels.label_of`: ``007`` is not ``7``, and ``7 `` is.
    user, item, time : str
        Columns. Times are whole numbers, decimal numbers or ISO 8601 dates; equal times keep the order of the file.
        ``time=None``: the rows are in order already.
    title : str, optional
        Column with item titles; the first non-empty one of an item is used.
    titles : path, optional
        Instead: a file with columns named as ``item`` and ``title`` (default name ``title``), one row per item.
    name : str, optional
        Name of the data set in outputs; the name of the file when left out.

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
    df = read_columns(path, [*wanted, *([title_column] if title_column else [])], filled=wanted)
    if time is not None:
        df[time] = parse_times(df[time], path)
    notes = []
    for column in (user, item):
        labels = required_labels(df[column], column, where=str(path), unit="line")
        df[column] = labels.values
        notes += [labels.note] if labels.note else []
    log = Interactions.from_frame(df, user=user, item=item, time=time)
    if title_column is not None:
        known = first_titles(df[item], df[title_column])
        item_titles: list[str] | None = titles_of_items(known, log.item_ids)
    else:
        item_titles = titles_from_file(log, titles, item=item, title=title or "title")
    for note in notes:
        logger.warning("%s: %s", path.name, note)
    dataset = Dataset.from_interactions(log, item_titles=item_titles, name=name or stem(path))
    return with_report(dataset, [("as read", Counts.of_dataset(dataset))], notes)
