"""From a name, a file or a table to a data set."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pandas as pd

from spectral_probe.errors import ConfigError, DataError, did_you_mean
from spectral_probe.interactions.column_names import (
    ROLES,
    find_columns,
    format_columns,
    notes_on_columns,
    parse_columns,
)
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import has_titles_of_reviews, titles_in_log, titles_of_items
from spectral_probe.plugins.registry import load_plugin, plugin_names
from spectral_probe.storage.regular import check_regular

logger = logging.getLogger(__name__)
#: The plug-in that reads files, and what begins the columns after the name of a file.
TABLE = "table"
_COLUMNS = re.compile(rf',(?="?({"|".join(ROLES)})=)')


def resolve_dataset(dataset: str | Dataset | pd.DataFrame, from_dir: Path | None = None) -> Dataset:
    """Return the data set that a name, a file or a table stands for.

    Parameters
    ----------
    dataset : str, Dataset or DataFrame
        ``name`` or ``name:argument`` of a data-set plug-in; the path of a file that the ``table`` plug-in reads; a
        table with the columns ``user_id``, ``item_id``, ``timestamp`` and, if there are titles, ``title``, or with
        other usual names of these.
    from_dir : Path, optional
        Folder with the raw files of a named data set, or from which the path of a file begins.

    Raises
    ------
    ConfigError
        If no plug-in has the name, or ``from_dir`` would be ignored.
    DataError
        If the data are missing, malformed or empty.
    """
    if not isinstance(dataset, str):
        if from_dir is not None:
            raise ConfigError(f"A data set in memory reads no files; got from_dir={str(from_dir)!r}. Leave it out.")
        return dataset if isinstance(dataset, Dataset) else _from_frame(dataset)
    known = plugin_names("datasets")
    name, _, argument = dataset.partition(":")
    path = Path(from_dir or "", Path(dataset).expanduser())
    if name in known:
        data = load_plugin("datasets", name)(argument or None, from_dir=from_dir)
    elif path.is_file():
        data = load_plugin("datasets", "table")(str(Path(dataset).expanduser()), from_dir=from_dir)
    elif path.exists():
        check_regular(path)
        raise DataError(f"{dataset} must be a regular file. Name a file, or one of the data sets {known}.")
    elif Path(dataset).suffix or "/" in dataset:
        raise DataError(f"There is no file {str(path)!r}. Give a file, or one of the data sets {known}.")
    else:
        raise ConfigError(
            f"Unknown data set {dataset!r}; known: {known}.{did_you_mean(name, known)} A file is accepted too."
        )
    if not isinstance(data, Dataset):
        raise DataError(f"The data-set plug-in {name!r} must return a Dataset; got {type(data).__name__}.")
    return data


def with_columns(dataset: str, columns: str | None) -> str:
    """Return the name of a data set whose columns are named: ``table:FILE,user=…,item=…``; the name itself without.

    The name carries the columns, so a run that notes its data set can read it again.

    Parameters
    ----------
    dataset : str
        A file, or ``table:FILE``. Columns that it names already are replaced.
    columns : str, optional
        ``user=…,item=…,time=…,title=…``.

    Raises
    ------
    ConfigError
        If the columns are not of this form, or the data set is not a file.
    """
    if columns is None:
        return dataset
    named = parse_columns(columns)
    name, _, argument = dataset.partition(":")
    if name in plugin_names("datasets"):
        if name != TABLE or not argument:
            raise ConfigError(
                f"--columns names the columns of a file, and {dataset!r} has a form of its own. Leave it out, "
                "or name a file with --dataset."
            )
        dataset = argument
    return f"{TABLE}:{split_columns(dataset)[0]},{format_columns(named)}"


def split_columns(argument: str, folder: Path | None = None) -> tuple[str, str]:
    """Return the file and the columns of ``FILE,user=…,item=…``; the longest name of an existing file is the file.

    Relative names begin in ``folder``.
    """
    ends = [(len(argument), len(argument)), *((match.start(), match.end()) for match in _COLUMNS.finditer(argument))]
    ends.sort(reverse=True)
    for end, begin in ends:
        if Path(folder or "", argument[:end]).expanduser().exists():
            return argument[:end], argument[begin:]
    end, begin = ends[-1] if len(ends) > 1 else ends[0]
    return argument[:end], argument[begin:]


def _from_frame(frame: pd.DataFrame) -> Dataset:
    """Return the data set of a table in memory."""
    header = [str(column) for column in frame.columns]
    columns = find_columns(header, where="the interaction table")
    table = frame.set_axis(header, axis=1)
    log = Interactions.from_frame(table, columns["user"], columns["item"], columns.get("time"))
    for note in notes_on_columns(columns, ()):
        logger.warning("%s", note)
    titles = None
    if "title" in columns and not has_titles_of_reviews(header):
        known, note = titles_in_log(table[columns["item"]], table[columns["title"]], columns["title"])
        if known is None:
            logger.warning("%s.", note)
        else:
            titles = titles_of_items(known, log.item_ids)
    return Dataset.from_interactions(log, item_titles=titles, name="frame")
