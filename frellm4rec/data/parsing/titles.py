"""Item titles: read from files, and cleaned of markup and scripts of web pages."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from frellm4rec.data.parsing.columns import open_table
from frellm4rec.data.parsing.text_files import undecoded_byte
from spectral_probe.errors import DataError, SpectralProbeError
from spectral_probe.interactions.column_names import USUAL_NAMES, plain_name
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import first_titles, titles_of_items

Titles = TypeVar("Titles")
#: Columns that hold titles in a file of items, where no column has a usual name.
OTHER_TITLES = ("name", "label")
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.DOTALL)
#: The end of a page's keyword tag that was collected as a title: ``Duct Tape,3M,90128" />``.
TAG_TAIL = re.compile(r'"?\s*/>\s*$')
#: Marks a line of a page's script that was collected as a title.
SCRIPT = re.compile(r"getTime\(|var aPageStart|<script", re.IGNORECASE)
INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\xa0\u200b-\u200f\u2028-\u202f\u2060\ufeff\ud800-\udfff]")
#: UTF-8 read as Windows-1252: a lead byte, then what may follow one.
MOJIBAKE = re.compile("[ÂÃ].")


def clean_title(value: object, *, category: str = "") -> str:
    """Return a title as plain text on one line, or an empty string if it is not a title.

    Entities and tags are resolved, whitespace is single, letters are composed (NFC), and UTF-8 that was read as
    Windows-1252 is repaired. The result is empty for a value that is not text, a line of script, and a title that only
    repeats the category of the shop.

    Parameters
    ----------
    value : object
        The title as it was read.
    category : str
        Name of the category as in file names, ``Industrial_and_Scientific``.
    """
    if not isinstance(value, str) or SCRIPT.search(value):
        return ""
    text = value
    for _ in range(3):  # entities are sometimes escaped again; each round resolves one layer
        resolved = html.unescape(text)
        if resolved == text:
            break
        text = resolved
    text = TAG_TAIL.sub("", TAG.sub(" ", text))
    text = MOJIBAKE.sub(_as_utf8, text)
    text = re.sub(r"\s+", " ", INVISIBLE.sub(" ", text)).strip()
    # The rest of a no-break space that was read with the wrong code page.
    text = re.sub(r"(?<![A-ZÂ-Ý])Â(?= |$)", "", text)
    text = re.sub(r" {2,}", " ", unicodedata.normalize("NFC", text)).strip()
    return "" if category and _letters(text) == _letters(category) else text


def _as_utf8(match: re.Match[str]) -> str:
    try:
        return match.group().encode("cp1252").decode("utf-8")
    except UnicodeError:
        return match.group()


def _letters(text: str) -> str:
    """Return only the words of a name: ``Industrial & Scientific`` and ``Industrial_and_Scientific`` are the same."""
    return re.sub(r"[^a-z0-9]+", " ", text.casefold().replace("&", " and ")).strip()


def or_note(read: Callable[[], Titles], name: str) -> tuple[Titles | None, list[str]]:
    """Return the titles that a function reads; None and a note with the reason where it fails.

    For files of titles that nobody named: they do not decide whether the log beside them is read.
    """
    try:
        return read(), []
    except SpectralProbeError as error:
        return None, [f"titles are left out, because {name} cannot be used: {error}"]


def titles_from_file(
    log: Interactions, path: str | Path | None, *, item: str | None = None, title: str | None = None
) -> list[str] | None:
    """Return the title of every item from a file of titles, empty where it has none; None without a file.

    Parameters
    ----------
    log : Interactions
    path : path, optional
        Any table that :func:`~frellm4rec.data.parsing.columns.open_table` reads.
    item : str, optional
        Column with item ids, if the file has it; else the one of a usual name.
    title : str, optional
        Column with titles; the one of a usual name when left out.

    Raises
    ------
    DataError
        If the file or a column is missing or malformed, or it has no title for any item of the log.
    """
    if path is None:
        return None
    known = _known_titles(Path(path), item, title)
    titles = titles_of_items(known, log.item_ids)
    if not any(titles):
        raise DataError(
            f"{path} has no title for any of the {log.n_items} items; its first item is {next(iter(known), '')!r}, "
            f"the log's is {str(log.item_ids[0])!r}. Check that both use the same labels."
        )
    return titles


def _known_titles(path: Path, item: str | None, title: str | None) -> dict[str, str]:
    """Return the titles in a file, by the label of the item."""
    roles = ("item", "title")
    named = {"title": title} if title else {}
    header = open_table(path, roles=(), required=()).header
    if item is not None and item in header:
        named["item"] = item
    if not title and not any(plain_name(column) in USUAL_NAMES["title"] for column in header):
        named |= dict.fromkeys(["title"], next((column for column in header if column in OTHER_TITLES), ""))
        named = {role: column for role, column in named.items() if column}
    table = open_table(path, named, roles=roles, required=roles)
    rows = table.read([table.columns[role] for role in roles], filled=[])
    titles = rows[table.columns["title"]]
    broken = [isinstance(text, str) and undecoded_byte(text) is not None for text in titles]
    if any(broken):
        raise DataError(
            f"{path} must be UTF-8 text; the titles of {sum(broken)} items are not, first in line "
            f"{titles.index[broken.index(True)]}. Convert it to UTF-8."
        )
    return first_titles(rows[table.columns["item"]], titles)
