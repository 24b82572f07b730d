"""Interaction tables with one row per event: delimited text, Parquet, JSON lines."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from frellm4rec.data.counts import CountedDataset, Counts, log_notes, with_report
from frellm4rec.data.parsing.columns import Table, open_table, parse_times
from frellm4rec.data.parsing.text_files import not_utf8, stem, undecoded_byte
from frellm4rec.data.parsing.titles import titles_from_file
from frellm4rec.data.titles_beside import titles_beside
from spectral_probe.interactions.column_names import notes_on_columns
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import required_labels
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import first_titles, has_titles_of_reviews, titles_in_log, titles_of_items

#: Stands for "the usual name, if the table has one".
BY_NAME = "*"


def read_table(
    path: str | Path,
    *,
    user: str = BY_NAME,
    item: str = BY_NAME,
    time: str | None = BY_NAME,
    title: str | None = BY_NAME,
    titles: str | Path | None = None,
    name: str | None = None,
) -> CountedDataset:
    """Return the data set of a file with one row per event.

    Parameters
    ----------
    path : path
        ``.csv``, ``.tsv``, ``.txt``, ``.dat``, ``.data`` (UTF-8; the separator is recognised: comma, semicolon, tab,
        ``::`` or ``|``), RecBole's ``.inter``, ``.jsonl`` or ``.json`` (an object per line), ``.parquet``; text may be
        packed (``.gz``, ``.bz2``, ``.zip`` with one file). Labels follow the rule of
        :func:`~spectral_probe.interactions.labels.label_of`: ``007`` is not ``7``, and ``7 `` is.
    user, item, time, title : str
        Columns; ``*``: found by their usual names, such as ``userId`` and ``movieId``. In a file without a header their
        positions from 1. Times are whole numbers, decimal numbers or ISO 8601 dates; equal times keep the order of the
        file, and so do all rows with ``time=None`` or without such a column, which is noted. ``title=None``: no titles.
    titles : path, optional
        File with a column of item ids and one of titles, one row per item. Without it and without a column of titles,
        they are taken from a file beside this one that belongs to it: ``NAME.item``, ``movies.dat`` or ``u.item`` of
        MovieLens, ``meta_NAME.jsonl`` of the Amazon data. Such a file cannot make the reading fail.
    name : str, optional
        Name of the data set in outputs; the name of the file when left out.

    Raises
    ------
    DataError
        If the file or a column is missing, or a row is malformed; line and value are named.
    ConfigError
        If the ending of the file is unknown.
    MissingDependencyError
        If Parquet is asked for and pyarrow is not installed.
    """
    path = Path(path)
    given = {"user": user, "item": item, "time": time, "title": title if titles is None else None}
    named = {role: column for role, column in given.items() if column not in (None, BY_NAME)}
    table = open_table(path, named, roles=[role for role, column in given.items() if column is not None])
    columns, notes = dict(table.columns), list[str]()
    if "title" not in named and has_titles_of_reviews(table.header):
        columns.pop("title", None)
    filled = [columns[role] for role in ("user", "item", "time") if role in columns]
    df = table.read([*filled, *([columns["title"]] if "title" in columns else [])], filled=filled)
    notes += [*table.notes, *([] if _is_by_position(table) else notes_on_columns(columns, named))]
    if _is_by_position(table) and "time" not in columns:
        notes += notes_on_columns({}, ())
    for role in ("user", "item"):
        labels = required_labels(df[columns[role]], columns[role], where=str(path), unit=table.unit)
        df[columns[role]] = labels.values
        notes += [labels.note] if labels.note else []
    if "time" in columns:
        df[columns["time"]] = parse_times(df[columns["time"]], path)
    log = Interactions.from_frame(df, user=columns["user"], item=columns["item"], time=columns.get("time"))
    notes += _without_other_bytes(df, columns, is_named="title" in named, path=path)
    item_titles, title_notes = _titles(path, log, df, columns, titles=titles, title=title)
    dataset = Dataset.from_interactions(log, item_titles=item_titles, name=name or stem(path))
    notes += title_notes
    log_notes(path.name, notes)
    return with_report(dataset, [("as read", Counts.of_dataset(dataset))], notes)


def _is_by_position(table: Table) -> bool:
    return table.header == [str(position) for position in range(1, len(table.header) + 1)]


def _without_other_bytes(df: pd.DataFrame, columns: dict[str, str], *, is_named: bool, path: Path) -> list[str]:
    """Empty the titles that are not UTF-8 and return a note; those of a column that was named are an error."""
    if "title" not in columns:
        return []
    texts = df[columns["title"]]
    bad = [isinstance(text, str) and undecoded_byte(text) is not None for text in texts]
    if not any(bad):
        return []
    line = texts.index[bad.index(True)]
    if is_named:
        raise not_utf8(path, line, undecoded_byte(texts[line]) or 0)
    df.loc[bad, columns["title"]] = ""
    return [f"{sum(bad)} titles are not UTF-8, first in line {line}, and left empty. Convert the file to UTF-8."]


def _titles(
    path: Path,
    log: Interactions,
    df: pd.DataFrame,
    columns: dict[str, str],
    *,
    titles: str | Path | None,
    title: str | None,
) -> tuple[list[str] | None, list[str]]:
    """Return the titles of the items, and notes on them."""
    is_named = title not in (None, BY_NAME)
    if titles is not None:
        return titles_from_file(log, titles, item=columns["item"], title=title if is_named else None), []
    if "title" in columns:
        items, texts = df[columns["item"]], df[columns["title"]]
        column = columns["title"]
        known, note = (first_titles(items, texts), "") if is_named else titles_in_log(items, texts, column)
        if known is None:
            return None, [f"{note}; --columns title={column} uses it."]
        return titles_of_items(known, log.item_ids), []
    if title is None:
        return None, []
    return titles_beside(path, log)
