"""Data sets by name: the plug-ins of the group ``spectral_probe.datasets``."""

from __future__ import annotations

import os
from pathlib import Path

from frellm4rec.data.amazon import AmazonOptions, load_amazon, read_amazon
from frellm4rec.data.demo import make_demo
from frellm4rec.data.download import HETREC_LASTFM, MOVIELENS, amazon_metadata, amazon_reviews, fetch
from frellm4rec.data.lastfm import load_lastfm
from frellm4rec.data.movielens import load_movielens, movielens_release
from frellm4rec.data.parsing.text_files import ending, open_unpacked
from frellm4rec.data.s3rec import read_s3rec
from frellm4rec.data.table import read_table
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.column_names import parse_columns
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import split_columns

DATA_VARIABLE = "FRELLM4REC_DATA"


def demo(argument: str | None = None, *, from_dir: Path | None = None) -> Dataset:
    """Return the built-in made-up data set (800 users, 400 items), which needs no file.

    Parameters
    ----------
    argument : str, optional
        Seed, as in ``demo:7``; 0 when left out.
    from_dir : path, optional
        Refused: nothing is read.

    Raises
    ------
    ConfigError
        If the seed is not a whole number, 0 or more, or a folder is given.
    """
    if from_dir is not None:
        raise ConfigError(f"demo is built in and reads no files; got --from-dir {from_dir}. Leave it out.")
    if argument is not None and not (argument.isascii() and argument.isdigit()):
        raise ConfigError(f"The argument of demo is a seed, a whole number from 0 on; got {argument!r}. Try demo:7.")
    return make_demo(seed=int(argument or 0)).dataset


def lastfm(argument: str | None = None, *, from_dir: Path | None = None) -> Dataset:
    """Return LastFM (1,090 users, 3,646 items) from the raw HetRec files.

    See :func:`lastfm_source`.
    """
    return load_lastfm(lastfm_source(argument, from_dir=from_dir))


def lastfm_source(argument: str | None = None, *, from_dir: Path | None = None) -> Path:
    """Return the folder or zip with the raw HetRec files; without one, fetch the zip.

    Parameters
    ----------
    argument : str, optional
        Folder or zip with the raw files, as in ``lastfm:FOLDER``.
    from_dir : path, optional
        The same as an option. One of the two at most.

    Without either, ``LastFM`` or ``lastfm`` in the folder that the environment variable ``FRELLM4REC_DATA`` names;
    without that, the archive of GroupLens, downloaded once.

    Raises
    ------
    DataError
        If two paths are named, or the download fails.
    """
    if argument and from_dir is not None and Path(argument) != Path(from_dir):
        raise DataError(f"LastFM is read from one path; got {argument!r} and {str(from_dir)!r}. Name one of them.")
    if argument or from_dir is not None:
        return Path(argument or from_dir or "").expanduser()
    return _folder_from_environment("LastFM", "lastfm") or fetch(HETREC_LASTFM, "lastfm")


def movielens(argument: str | None = None, *, from_dir: Path | None = None) -> Dataset:
    """Return MovieLens 100K (943 users, 1,349 items) or 1M, as in movielens:100k; every rating is an interaction.

    Parameters
    ----------
    argument : {"100k", "1m"}
        Release.
    from_dir : path, optional
        Folder or zip with the raw files, see :func:`movielens_source`.

    Raises
    ------
    ConfigError
        If no release or an unknown one is named.
    DataError
        If files are missing, malformed, not whole or cannot be downloaded.
    """
    return load_movielens(movielens_source(argument, from_dir=from_dir), argument or "")


def movielens_source(argument: str | None, *, from_dir: Path | None = None) -> Path:
    """Return the folder or zip with the raw files of a release; without one, fetch the zip.

    Parameters
    ----------
    argument : {"100k", "1m"}
        Release.
    from_dir : path, optional
        Folder or zip. Without it, ``ml-100k`` or ``ml-1m`` in the folder that the environment variable
        ``FRELLM4REC_DATA`` names; without that, the archive of GroupLens, downloaded once.

    Raises
    ------
    ConfigError
        If no release or an unknown one is named.
    DataError
        If the download fails.
    """
    release = movielens_release(argument).name
    if from_dir is not None:
        return Path(from_dir).expanduser()
    return _folder_from_environment(f"ml-{release}") or fetch(MOVIELENS[release], "movielens")


def amazon(argument: str | None, *, from_dir: Path | None = None) -> Dataset:
    """Return a category of the Amazon review data (2018), from a folder or downloaded.

    Parameters
    ----------
    argument : str
        ``Gift_Cards``, or with options ``Gift_Cards,core=single,repeats=first,k=5``, see
        :class:`frellm4rec.data.amazon.AmazonOptions`.
    from_dir : path, optional
        Folder with the category's files. Without it, a folder of the category's name inside that of the environment
        variable ``FRELLM4REC_DATA``; without that, the files are downloaded once: the owner's 5-core where the filter
        can start from it, else all reviews (up to several GB).

    Raises
    ------
    ConfigError
        If no category is named, or the category or an option is unknown.
    DataError
        If files are missing, malformed or cannot be downloaded, or nothing is left after the filter.
    """
    if not argument:
        raise ConfigError("The Amazon data need a category; none was named. Name one, as in amazon:Gift_Cards.")
    category, options = AmazonOptions.parse(argument)
    folder = Path(from_dir).expanduser() if from_dir is not None else _folder_from_environment(category)
    if folder is not None:
        return load_amazon(category, folder, options)
    reviews = fetch(amazon_reviews(category, is_owners_core=not options.needs_all_reviews), f"amazon/{category}")
    metadata = fetch(amazon_metadata(category), f"amazon/{category}")
    return read_amazon(reviews, metadata, category, options)


def table(argument: str | None, *, from_dir: Path | None = None) -> Dataset:
    """Return the data set of a file: CSV, TSV, Parquet, JSON lines, RecBole, or S3-Rec text.

    See :func:`~frellm4rec.data.table.read_table`.

    Parameters
    ----------
    argument : str
        The file, and perhaps its columns: ``log.csv``, ``log.csv,user=userId,item=movieId,time=ts,title=name``. Columns
        that are not named are found by their usual names.
    from_dir : path, optional
        Folder that a relative path starts from.

    Raises
    ------
    ConfigError
        If no file is named, its columns are named in another way, or its path does not begin in ``from_dir``.
    DataError
        If the file is missing or malformed.
    """
    if not argument:
        raise ConfigError("A table is read from a file; none was named. Give its path, as in table:log.csv.")
    name, columns = split_columns(argument, None if from_dir is None else Path(from_dir))
    if from_dir is not None and Path(name).expanduser().is_absolute():
        raise ConfigError(
            f"{name} is an absolute path, which does not begin in --from-dir {from_dir}. Leave out the option, or give "
            "the path from there on."
        )
    path = Path(from_dir or "", name).expanduser()
    named = parse_columns(columns) if columns else {}
    if ending(path) == ".txt" and not named and not is_table(path):
        return read_s3rec(path)
    return read_table(path, **named)


def is_table(path: Path) -> bool:
    """Return whether a text file is a table, with a header or a row of a user and an item in every line.

    What is left is S3-Rec text: a user and the items of the user in every line.
    """
    with open_unpacked(path) as file:
        first = file.readline(1 << 20).decode("utf-8-sig", "replace").rstrip("\r\n")
    return any(separator in first for separator in ("\t", ",", ";", "::", "|"))


def _folder_from_environment(*names: str) -> Path | None:
    """Return the folder of a data set inside the one that :data:`DATA_VARIABLE` names, if there is one."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        return None
    return next((folder for name in names if (folder := Path(root).expanduser() / name).exists()), None)
