"""RecBole's atomic files: ``.inter`` and ``.item``, tab-separated, with a type for every column (``user_id:token``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from frellm4rec.data.counts import CountedDataset
from frellm4rec.data.parsing.text_files import stem
from frellm4rec.data.table import BY_NAME, read_table
from frellm4rec.data.titles_beside import file_beside
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import disk_errors, whole_file


def read_recbole(
    path: str | Path,
    *,
    user: str = BY_NAME,
    item: str = BY_NAME,
    time: str | None = BY_NAME,
    title: str | None = None,
    name: str | None = None,
) -> CountedDataset:
    """Return the data set of an ``.inter`` file and, for titles, the ``.item`` file beside it.

    Parameters
    ----------
    path : path
        The ``.inter`` file, plain or packed: one row per event, UTF-8, no quotes.
    user, item, time : str
        Columns, without their types; found by their usual names when left out. ``time=None``: the rows are in order
        already.
    title : str, optional
        Column of the ``.item`` file with titles, which must then be readable. When left out, titles are taken if the
        file has them, and a note says why if not.
    name : str, optional
        Name of the data set in outputs; the name of the file when left out.

    Raises
    ------
    DataError
        If the file is missing, its header has no types, a column is missing, or a row is malformed; line and value are
        named.

    Notes
    -----
    Format: https://recbole.io/docs/user_guide/data/atomic_files.html
    """
    path = Path(path)
    columns = {"user": user, "item": item, "time": time, "name": name}
    if title is None:
        return read_table(path, title=BY_NAME, **columns)
    items = file_beside(path)
    if items is None:
        raise DataError(f"Titles are in {stem(path)}.item, beside {path}; there is no such file. Leave out title=.")
    return read_table(path, titles=items, title=title, **columns)


def write_recbole(dataset: Dataset, folder: str | Path, *, name: str | None = None) -> Path:
    """Write ``NAME.inter`` and, if there are titles, ``NAME.item`` into ``folder/NAME``, where RecBole looks for them.

    A data set keeps the order of events, not their times: ``timestamp`` is the position within the history, from 0.

    Parameters
    ----------
    dataset : Dataset
        Whole histories are written, held-out items included.
    folder : path
        Made if it is missing. Existing files of the same name are replaced, each atomically.
    name : str, optional
        The data set's name when left out; characters that a file name cannot have become ``-``.

    Returns
    -------
    Path
        The ``.inter`` file. :func:`read_recbole` gives the same histories and titles back, by label.

    Raises
    ------
    ConfigError
        If a label is empty or holds a tab or a line break.
    ResourceError
        If the folder cannot be written.
    """
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in name or dataset.name).strip(".-") or "dataset"
    users, items = _labels(dataset.user_ids, "user"), _labels(dataset.item_ids, "item")
    target = Path(folder) / name
    events = (
        f"{users[row]}\t{items[item]}\t{position}"
        for row, sequence in enumerate(dataset.sequences)
        for position, item in enumerate(sequence)
    )
    with disk_errors(target, next_step="Free space there, or name another folder."):
        _write(target / f"{name}.inter", "user_id:token\titem_id:token\ttimestamp:float", events)
        if dataset.item_titles is not None:
            # RecBole reads a title as words with single spaces between them.
            rows = (f"{items[i]}\t{' '.join(title.split())}" for i, title in enumerate(dataset.item_titles))
            _write(target / f"{name}.item", "item_id:token\ttitle:token_seq", rows)
    return target / f"{name}.inter"


def _labels(labels: Sequence[object] | np.ndarray, kind: str) -> list[str]:
    """Return labels as text, each on one line and in one field."""
    texts = [str(label) for label in labels]
    for text in texts:
        if text.strip() != text or not text or any(c in text for c in "\t\n\r"):
            raise ConfigError(
                f"RecBole's files need labels without tab, line break or outer space; one {kind} is called {text!r}. "
                "Rename it before the export."
            )
    if len(set(texts)) != len(texts):
        raise ConfigError(f"Written as text, two {kind}s have the same label. Rename one before the export.")
    return texts


def _write(path: Path, header: str, rows: Iterable[str]) -> None:
    """Write a file atomically."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(header + "\n")
        file.writelines(row + "\n" for row in rows)
