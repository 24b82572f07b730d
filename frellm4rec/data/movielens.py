"""MovieLens 100K and 1M (GroupLens): ratings as interactions, in the order of their times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from frellm4rec.data.core_filter import k_core
from frellm4rec.data.counts import CountedDataset, Counts, core_label, log_notes, with_report
from frellm4rec.data.parsing.members import decode_line, read_member
from frellm4rec.data.parsing.titles import or_note
from spectral_probe.errors import ConfigError, DataError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions


@dataclass(frozen=True)
class Release:
    """The raw files of one release.

    Attributes
    ----------
    name : str
        As in ``movielens:NAME``.
    ratings : str
        File with user, movie, rating (1-5) and time (seconds since 1970) per line, without a header.
    separator : str
        Between the fields of that file.
    n_ratings : int
        Lines of the owner's file, from its readme.
    titles : tuple of str
        Files with titles, the owner's first.
    """

    name: str
    ratings: str
    separator: str
    n_ratings: int
    titles: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where the raw files come from, for errors."""
        return f"MovieLens {self.name.upper()}, ml-{self.name}.zip, from https://grouplens.org/datasets/movielens/"


RELEASES = {
    "100k": Release("100k", "u.data", "\t", 100_000, ("u.item", "ml-100k.item")),
    "1m": Release("1m", "ratings.dat", "::", 1_000_209, ("movies.dat", "ml-1m.item")),
}


def movielens_release(name: str | None) -> Release:
    """Return the release of a name, ``100k`` or ``1m``.

    Raises
    ------
    ConfigError
        If no release or an unknown one is named.
    """
    known = list(RELEASES)
    if not name:
        raise ConfigError(f"MovieLens needs a release, one of {known}; none was named. Write movielens:100k.")
    if name not in RELEASES:
        raise ConfigError(
            f"MovieLens has the releases {known} here; got {name!r}.{did_you_mean(name.lower(), known)} Write "
            "movielens:100k or movielens:1m; another release can be read as a table."
        )
    return RELEASES[name]


def load_movielens(
    source: str | Path, release: str, *, k: int = 5, iterative: bool = True, is_whole: bool = True
) -> CountedDataset:
    """Return MovieLens 100K (943 users, 1,349 items, 99,287 interactions after the filter) or 1M.

    Every rating is one interaction, whatever its value: rating a movie means having seen it. A user's second rating of
    a movie is dropped (the first row of the file counts; the owner's files have none). Interactions are sorted by time
    within each user; equal times, which are common (most ratings share a second with another), keep the file's order.
    An iterative ``k``-core follows. Users and items are numbered by first appearance.

    Parameters
    ----------
    source : path
        Folder or zip with ``u.data`` (100K; tab-separated) or ``ratings.dat`` (1M; separated by ``::``), and for titles
        ``u.item`` (``|``) or ``movies.dat`` (``::``), Latin-1 or UTF-8, each plain or gzipped. Without these, titles
        are read from RecBole's ``ml-100k.item`` or ``ml-1m.item``; without any, the data set has no titles. Files of
        the other release are not read.
    release : {"100k", "1m"}
        Which of the two.
    k, iterative : see :func:`~frellm4rec.data.core_filter.k_core`
        The filter of the paper's data sets is the default.
    is_whole : bool
        True (default): refuse ratings that are not as many as the owner's, and titles that lack a movie; a file that
        was cut off reads like a smaller data set otherwise. False: read an extract.

    Returns
    -------
    CountedDataset
        ``report`` counts the ratings, the (user, movie) pairs, and what the filter left. ``user_ids`` and ``item_ids``
        are the owner's numbers; ``item_titles`` are as in the file, the owner's with the year: ``Toy Story (1995)``.

    Raises
    ------
    ConfigError
        If the release is unknown.
    DataError
        If a file is missing, unreadable, malformed (with the line) or not whole, or nothing is left after the filter.

    Notes
    -----
    Source: Harper and Konstan, "The MovieLens Datasets", ACM TiiS 2015, and the readme of each release. Not a data set
    of the FreLLM4Rec paper. Deviation: none from the preparation of LastFM.
    """
    source, files = Path(source), movielens_release(release)
    content = read_member(source, files.ratings, dataset=f"MovieLens {files.name}", origin=files.origin)
    if content is None:
        raise _missing_ratings(source, files)
    rows = _parse_ratings(content, f"{source.name}/{files.ratings}", files)
    if is_whole and len(rows) != files.n_ratings:
        raise DataError(
            f"{source.name}/{files.ratings} must have the {files.n_ratings:,} ratings of {files.origin}; it has "
            f"{len(rows):,}. Fetch it again, or read an extract as a table with columns user_id, item_id, timestamp."
        )
    df = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    stages = [("ratings", Counts.of_frame(df))]
    rated = df["item_id"].unique()
    df = df.drop_duplicates(["user_id", "item_id"], keep="first")
    stages.append(("user-movie pairs", Counts.of_frame(df)))
    df = k_core(df.sort_values(["user_id", "timestamp"], kind="stable"), k, iterative=iterative)
    stages.append((core_label(k, iterative), Counts.of_frame(df)))
    log = Interactions.from_frame(df)
    rated = rated if is_whole else rated[:0]
    read, notes = or_note(lambda: _read_titles(source, files, rated), f"the file of titles in {source.name}")
    names, titles_file = read or (None, "")
    titles = None if names is None else [names.get(int(movie), "") for movie in log.item_ids]
    if names is not None and titles_file != files.titles[0]:
        notes.append(f"titles are those of {titles_file}, which may lack the year of {files.titles[0]}.")
    log_notes(f"movielens:{files.name}", notes)
    dataset = Dataset.from_interactions(log, item_titles=titles, name=f"movielens:{files.name}")
    return with_report(dataset, stages, notes)


def _missing_ratings(source: Path, files: Release) -> DataError:
    """Return the error for a source without the ratings; it names the release whose ratings are there instead."""
    for other in RELEASES.values():
        if other is not files and _has_ratings(source, other):
            return DataError(
                f"MovieLens {files.name} needs {files.ratings} (plain or .gz); {source} does not have it, but has "
                f"{other.ratings}, which is the other release. Write movielens:{other.name}, or name another folder."
            )
    return DataError(
        f"MovieLens {files.name} needs {files.ratings} (plain or .gz); {source} does not have it. Get it from "
        f"{files.origin}, and give the folder or the zip."
    )


def _has_ratings(source: Path, files: Release) -> bool:
    """Whether the ratings of a release are in the source and readable."""
    return read_member(source, files.ratings, dataset=f"MovieLens {files.name}", origin=files.origin) is not None


def _parse_ratings(content: bytes, where: str, files: Release) -> np.ndarray:
    """Return (n_rows, 3) int: user, movie, time in seconds, in the order of the file."""
    if content.lstrip()[:1] == b"<":
        raise DataError(
            f"{where} must hold ratings; it starts with {content.lstrip()[:40]!r} and is a web page. Get the file from "
            f"{files.origin}."
        )
    rows: list[tuple[int, int, int]] = []
    for number, raw in enumerate(content.decode("latin-1").split("\n"), start=1):
        line = raw.rstrip("\r")
        if not line:
            continue
        try:
            user, movie, rating, time = map(int, line.split(files.separator))
            if not 1 <= rating <= 5 or max(abs(user), abs(movie), abs(time)) >= 2**62:
                raise ValueError
        except ValueError:
            raise DataError(
                f"{where} must have user, movie, rating (1 to 5) and time, whole numbers separated by "
                f"{files.separator!r}, on every line; line {number} reads {line[:80]!r}. Use the file of GroupLens "
                "unchanged."
            ) from None
        rows.append((user, movie, time))
    if not rows:
        raise DataError(f"{where} has no ratings. Fetch it again from {files.origin}.")
    return np.array(rows, dtype=np.int64)


def _read_titles(source: Path, files: Release, rated: np.ndarray) -> tuple[dict[int, str] | None, str]:
    """Return the titles by movie and the file they were read from, the first that the source has; None without one.

    It must have a line for each of the ``rated`` movies.
    """
    for name in files.titles:
        content = read_member(source, name, dataset=f"MovieLens {files.name}", origin=files.origin)
        if content is not None:
            names = parse_titles(content, f"{source.name}/{name}", files.origin)
            _check_titles(names, rated, f"{source.name}/{name}", files)
            return names, name
    return None, ""


def parse_titles(content: bytes, where: str, origin: str) -> dict[int, str]:
    """Return titles by movie; the form of the lines follows from the name of the file, the end of ``where``.

    Raises
    ------
    DataError
        If a line has another form; its number is named.
    """
    names: dict[int, str] = {}
    for number, raw in enumerate(content.split(b"\n"), start=1):
        line = decode_line(raw)
        if not line or (number == 1 and line.startswith("item_id:")):
            continue
        try:
            movie, title = _title_fields(line, where)
            names[int(movie)] = title.strip()
        except ValueError:
            raise DataError(
                f"{where} must have the number and the title of a movie on every line, in the owner's form; line "
                f"{number} reads {line[:80]!r}. Fetch the file again from {origin}."
            ) from None
    return names


def _title_fields(line: str, where: str) -> tuple[str, str]:
    """Return the fields with number and title; ValueError if the line has another number of fields."""
    if where.endswith("u.item"):
        movie, title, _dates_and_genres = line.split("|", 2)
        if line.count("|") != 23:
            raise ValueError
        return movie, title
    if where.endswith("movies.dat"):
        movie, rest = line.split("::", 1)
        title, _genres = rest.rsplit("::", 1)
        return movie, title
    movie, title, *_ = line.split("\t")
    return movie, title


def _check_titles(names: dict[int, str], rated: np.ndarray, where: str, files: Release) -> None:
    """Refuse a file of titles without a line for a rated movie."""
    missing = [int(movie) for movie in rated if int(movie) not in names]
    if missing:
        raise DataError(
            f"{where} must have a line for every rated movie; it lacks {len(missing):,} of {len(rated):,}, for example "
            f"movie {missing[0]}. Fetch the file again from {files.origin}."
        )
