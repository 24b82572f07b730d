"""LastFM (HetRec 2011 Last.fm-2K): from the raw tag events to the paper's 1,090 users and 3,646 items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from frellm4rec.data.core_filter import k_core
from frellm4rec.data.counts import CountedDataset, Counts, core_label, log_notes, with_report
from frellm4rec.data.parsing.members import decode_line, read_member
from frellm4rec.data.parsing.titles import or_note
from spectral_probe.errors import DataError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions

EVENTS_FILE = "user_taggedartists-timestamps.dat"
ARTISTS_FILE = "artists.dat"
#: Where the raw files come from, for errors.
SOURCE = "HetRec 2011 Last.fm-2K, hetrec2011-lastfm-2k.zip, from https://grouplens.org/datasets/hetrec-2011/"


def load_lastfm(source: str | Path, *, k: int = 5, iterative: bool = True) -> CountedDataset:
    """Return LastFM as the paper uses it: 1,090 users, 3,646 items, 52,551 interactions.

    A user's tags of one artist become one interaction, at the time of the first row in the file. Interactions are
    sorted by time within each user; equal times, which are common (75 distinct dates), keep the file's order.
    An iterative ``k``-core follows. Users and items are numbered by first appearance.

    Parameters
    ----------
    source : path
        Folder or zip with ``user_taggedartists-timestamps.dat`` and ``artists.dat``, each plain or gzipped.
        ``artists.dat`` may be missing or damaged: the data set then has no titles, and a note if it is damaged.
    k, iterative : see :func:`~frellm4rec.data.core_filter.k_core`
        The paper's filter is the default.

    Returns
    -------
    CountedDataset
        ``report`` counts the raw tags, the (user, artist) pairs, and what the filter left. ``user_ids`` and
        ``item_ids`` are HetRec's userID and artistID; ``item_titles`` are artist names, empty where
        ``artists.dat`` has none (22 of the 3,646).

    Raises
    ------
    DataError
        If the events are missing, unreadable or malformed (with the line), or nothing is left after the filter.

    Notes
    -----
    Source: FreLLM4Rec Table 1; S3-Rec ``LastFM.txt``, which this equals line for line.
    """
    source = Path(source)
    content = read_member(source, EVENTS_FILE, dataset="LastFM", origin=SOURCE)
    if content is None:
        raise DataError(
            f"LastFM needs {EVENTS_FILE} (plain or .gz); {source} does not have it. Get it from {SOURCE}, and give the "
            "folder or the zip."
        )
    rows = _parse_events(content, f"{source.name}/{EVENTS_FILE}")
    df = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    stages = [("tag assignments", Counts.of_frame(df))]
    df = df.drop_duplicates(["user_id", "item_id"], keep="first")
    stages.append(("user-artist pairs", Counts.of_frame(df)))
    df = k_core(df.sort_values(["user_id", "timestamp"], kind="stable"), k, iterative=iterative)
    stages.append((core_label(k, iterative), Counts.of_frame(df)))
    log = Interactions.from_frame(df)
    names, notes = or_note(lambda: _read_artists(source), ARTISTS_FILE)
    titles = None if names is None else [names.get(int(artist), "") for artist in log.item_ids]
    log_notes("lastfm", notes)
    return with_report(Dataset.from_interactions(log, item_titles=titles, name="lastfm"), stages, notes)


def _read_artists(source: Path) -> dict[int, str] | None:
    """Return artist names by artistID; None without a file of them."""
    artists = read_member(source, ARTISTS_FILE, dataset="LastFM", origin=SOURCE)
    return None if artists is None else _parse_artists(artists, f"{source.name}/{ARTISTS_FILE}")


def _columns(header: str, wanted: tuple[str, ...], where: str) -> list[int]:
    """Return the indices of the wanted columns in a tab-separated header line."""
    names = header.split("\t")
    for name in wanted:
        if name not in names:
            raise DataError(
                f"{where} must start with a header that names {', '.join(wanted)}; line 1 reads {header[:80]!r}."
                f"{did_you_mean(name, names)} Use the file of HetRec 2011 unchanged."
            )
    return [names.index(name) for name in wanted]


def _parse_events(content: bytes, where: str) -> np.ndarray:
    """Return (n_rows, 3) int: userID, artistID, timestamp in ms, in the order of the file."""
    # Split on the newline byte only: str.splitlines would also break at \x85, which is a letter in other encodings.
    lines = content.decode("latin-1").split("\n")
    header = lines[0].rstrip("\r")
    columns = _columns(header, ("userID", "artistID", "timestamp"), where)
    width = header.count("\t") + 1
    rows: list[tuple[int, ...]] = []
    for number, raw in enumerate(lines[1:], start=2):
        line = raw.rstrip("\r")
        if not line:
            continue
        fields = line.split("\t")
        try:
            if len(fields) != width:
                raise ValueError
            row = tuple([int(fields[column]) for column in columns])
            if max(map(abs, row)) >= 2**62:
                raise ValueError
            rows.append(row)
        except ValueError:
            raise DataError(
                f"{where} must have {width} tab-separated whole numbers per line; line {number} reads {line[:80]!r}. "
                "Repair or drop the line."
            ) from None
    if not rows:
        raise DataError(f"{where} has a header but no events. Fetch it again from {SOURCE}.")
    return np.array(rows, dtype=np.int64)


def _parse_artists(content: bytes, where: str) -> dict[int, str]:
    """Return artist names by artistID."""
    lines = content.split(b"\n")
    id_column, name_column = _columns(decode_line(lines[0]), ("id", "name"), where)
    names: dict[int, str] = {}
    for number, raw in enumerate(lines[1:], start=2):
        line = decode_line(raw)
        if not line:
            continue
        fields = line.split("\t")
        try:
            names[int(fields[id_column])] = fields[name_column].strip()
        except (ValueError, IndexError):
            raise DataError(
                f"{where} must have an artist id and a name on every line; line {number} reads {line[:80]!r}. "
                "Repair or drop the line."
            ) from None
    return names
