"""From a name, a file or a table to a data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from spectral_probe.errors import ConfigError, DataError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import first_titles, titles_of_items
from spectral_probe.plugins.registry import load_plugin, plugin_names


def resolve_dataset(dataset: str | Dataset | pd.DataFrame, from_dir: Path | None = None) -> Dataset:
    """Return the data set that a name, a file or a table stands for.

    Parameters
    ----------
    dataset : str, Dataset or DataFrame
        ``name`` or ``name:argument`` of a data-set plug-in; the path of a file that the ``table`` plug-in reads; a
        table with the columns ``user_id``, ``item_id``, ``timestamp`` and, if there are titles, ``title``.
    from_dir : Path, optional
        Folder with the raw files of a named data set.

    Raises
    ------
    ConfigError
        If no plug-in has the name.
    DataError
        If the data are missing, malformed or empty.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, pd.DataFrame):
        log = Interactions.from_frame(dataset)
        titles = None
        if "title" in dataset.columns:
            titles = titles_of_items(first_titles(dataset["item_id"], dataset["title"]), log.item_ids)
        return Dataset.from_interactions(log, item_titles=titles, name="frame")
    known = plugin_names("datasets")
    name, _, argument = dataset.partition(":")
    if name in known:
        data = load_plugin("datasets", name)(argument or None, from_dir=from_dir)
    elif Path(dataset).expanduser().is_file():
        data = load_plugin("datasets", "table")(str(Path(dataset).expanduser()), from_dir=from_dir)
    elif Path(dataset).suffix or "/" in dataset:
        raise DataError(f"There is no file {dataset!r}. Give a file, or one of the data sets {known}.")
    else:
        raise ConfigError(
            f"Unknown data set {dataset!r}; known: {known}.{did_you_mean(name, known)} A file is accepted too."
        )
    if not isinstance(data, Dataset):
        raise DataError(f"The data-set plug-in {name!r} must return a Dataset; got {type(data).__name__}.")
    return data
