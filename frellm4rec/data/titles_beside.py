"""Titles in a file that lies beside a log and belongs to it; such a file never decides whether the log is read."""

from __future__ import annotations

from pathlib import Path

from frellm4rec.data.amazon import read_titles
from frellm4rec.data.movielens import parse_titles
from frellm4rec.data.parsing.text_files import ending, read_bytes, stem
from frellm4rec.data.parsing.titles import or_note, titles_from_file
from spectral_probe.errors import DataError
from spectral_probe.interactions.labels import label_of
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import titles_of_items

_PACKINGS = ("", ".gz", ".bz2", ".zip")
#: Files with titles, by the name of the log without packing.
_OF_MOVIELENS = {"ratings.dat": "movies.dat", "ratings.csv": "movies.csv", "u.data": "u.item"}


def titles_beside(path: Path, log: Interactions) -> tuple[list[str] | None, list[str]]:
    """Return the title of every item from a file beside a log, and a note if there is one that cannot be used.

    Parameters
    ----------
    path : Path
        The log: beside ``NAME.inter`` lies ``NAME.item``; beside ``ratings.dat``, ``ratings.csv`` or ``u.data`` lies
        ``movies.dat``, ``movies.csv`` or ``u.item``; beside ``NAME.jsonl`` or ``NAME.csv`` of the Amazon data lies
        ``meta_NAME.jsonl``. Each may be packed.
    log : Interactions
    """
    beside = file_beside(path)
    if beside is None:
        return None, []
    return or_note(lambda: _read(beside, log, category=stem(path)), beside.name)


def file_beside(path: Path) -> Path | None:
    """Return the file with titles, the first of the possible names that is there."""
    name, kind = stem(path), ending(path)
    names = {".inter": [f"{name}.item"]}.get(kind, [f"meta_{name}.jsonl", f"meta_{name}.json"])
    names += [_OF_MOVIELENS[f"{name}{kind}"]] if f"{name}{kind}" in _OF_MOVIELENS else []
    candidates = (path.with_name(f"{other}{packing}") for other in names for packing in _PACKINGS)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _read(path: Path, log: Interactions, *, category: str) -> list[str] | None:
    """Return the title of every item; a file without any is an error."""
    name = f"{stem(path)}{ending(path)}"
    if name in ("movies.dat", "u.item"):
        by_number = parse_titles(read_bytes(path), name, "https://grouplens.org/datasets/movielens/")
        known = {label_of(number): title for number, title in by_number.items()}
    elif ending(path) in (".json", ".jsonl"):
        known, _ = read_titles(path, {label_of(item) for item in log.item_ids}, category)
    else:
        return titles_from_file(log, path)
    titles = titles_of_items(known, log.item_ids)
    if not any(titles):
        raise DataError(f"{path} has no title for any of the {log.n_items} items. Check that both use the same labels.")
    return titles
