"""Our models, data sets and inputs as plug-ins of the instrument; PyTorch is imported when one is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from frellm4rec.data.demo import make_demo
from frellm4rec.data.lastfm import SOURCE, load_lastfm
from frellm4rec.data.table import column_names, read_s3rec, read_table
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions import Dataset

if TYPE_CHECKING:
    from frellm4rec.models.sasrec import SASRec

DATA_VARIABLE = "FRELLM4REC_DATA"


def sasrec(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> SASRec:
    """Return SASRec trained on the data set's training part, from the cache where it is there."""
    from frellm4rec.embeddings import trained_sasrec

    return trained_sasrec(dataset, seed=seed, device=device)


def id_embeddings(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> npt.NDArray[np.float32]:
    """Return one vector per item from training interactions alone, (n_items, 50): SASRec's item table."""
    from frellm4rec.embeddings import sasrec_item_table

    return sasrec_item_table(dataset, seed=seed, device=device)


def demo(argument: str | None = None, *, from_dir: Path | None = None) -> Dataset:
    """Return the built-in made-up data set (800 users, 400 items), which needs no file.

    Parameters
    ----------
    argument : str, optional
        Seed, as in ``demo:7``; 0 when left out.
    from_dir : path, optional
        Not used: nothing is read.

    Raises
    ------
    ConfigError
        If the seed is not a whole number, 0 or more.
    """
    if argument is not None and not (argument.isascii() and argument.isdigit()):
        raise ConfigError(f"The argument of demo is a seed, a whole number from 0 on; got {argument!r}. Try demo:7.")
    return make_demo(seed=int(argument or 0)).dataset


def lastfm(argument: str | None = None, *, from_dir: Path | None = None) -> Dataset:
    """Return LastFM (1,090 users, 3,646 items) from the raw HetRec files.

    Parameters
    ----------
    argument : str, optional
        Folder or zip with the raw files, as in ``lastfm:FOLDER``.
    from_dir : path, optional
        The same as an option. One of the two at most.

    Without either, ``LastFM`` or ``lastfm`` in the folder that the environment variable ``FRELLM4REC_DATA`` names.

    Raises
    ------
    DataError
        If no folder is named, or its files are missing or malformed.
    """
    if argument and from_dir is not None and Path(argument) != Path(from_dir):
        raise DataError(f"LastFM is read from one place; got {argument!r} and {str(from_dir)!r}. Name one of them.")
    if argument or from_dir is not None:
        return load_lastfm(Path(argument or from_dir or "").expanduser())
    options = (
        f"Get {SOURCE}, and name the folder or zip with --from-dir, as lastfm:FOLDER, or put it in a folder LastFM "
        f"inside ${DATA_VARIABLE}."
    )
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise DataError(
            f"LastFM must be on this machine; no folder was named and ${DATA_VARIABLE} is not set. {options}"
        )
    for name in ("LastFM", "lastfm"):
        folder = Path(root).expanduser() / name
        if folder.exists():
            return load_lastfm(folder)
    raise DataError(f"LastFM must be on this machine; ${DATA_VARIABLE}={root} has no folder LastFM. {options}")


def table(argument: str | None, *, from_dir: Path | None = None) -> Dataset:
    """Return the data set of a file: CSV, TSV or Parquet, or S3-Rec text (``.txt``), text plain or ``.gz``.

    Tables have the columns ``user_id``, ``item_id``, ``timestamp`` and, if there are titles, ``title``.

    Parameters
    ----------
    argument : str
        The file.
    from_dir : path, optional
        Folder that a relative path starts from.

    Raises
    ------
    ConfigError
        If no file is named.
    DataError
        If the file is missing or malformed.
    """
    if not argument:
        raise ConfigError("A table is read from a file; none was named. Give its path, as in table:log.csv.")
    path = Path(from_dir or "", argument).expanduser()
    if path.name.removesuffix(".gz").endswith(".txt"):
        return read_s3rec(path)
    return read_table(path, title="title" if "title" in column_names(path) else None)
