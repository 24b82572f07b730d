"""Item titles: read from files, and cleaned of markup and scripts of web pages."""

from __future__ import annotations

import html
import re
import unicodedata
from pathlib import Path

from frellm4rec.data.parsing.columns import read_columns
from spectral_probe.errors import DataError
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import first_titles, titles_of_items

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


def titles_from_file(
    log: Interactions, path: str | Path | None, *, item: str = "item_id", title: str = "title"
) -> list[str] | None:
    """Return the title of every item from a file of titles, empty where it has none; None without a file.

    Raises
    ------
    DataError
        If the file or a column is missing or malformed, or it has no title for any item of the log.
    """
    if path is None:
        return None
    table = read_columns(Path(path), [item, title], filled=[])
    known = first_titles(table[item], table[title])
    titles = titles_of_items(known, log.item_ids)
    if not any(titles):
        raise DataError(
            f"{path} has no title for any of the {log.n_items} items; its first item is {next(iter(known), '')!r}, "
            f"the log's is {str(log.item_ids[0])!r}. Check that both use the same labels."
        )
    return titles
