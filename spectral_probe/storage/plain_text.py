"""Titles, ids, names and paths come from outside: what a terminal or a Markdown reader would obey is written out."""

from __future__ import annotations

import math
import re
from typing import Any

#: Control characters but tab and newline, marks that reverse the direction of text, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONG_WORD = re.compile(r"\S{301,}")
#: The beginning of an HTML tag; ``p < 0.01`` is none.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def plain(text: object) -> str:
    r"""Return a text with every character that a terminal would obey written out, such as ``\x1b``."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def shortened(text: str) -> str:
    """Return a text whose words of more than 300 characters, such as a value typed by mistake, are cut."""
    return _LONG_WORD.sub(lambda match: f"{match[0][:200]}… ({len(match[0]):,} characters)", text)


def markdown_text(text: object) -> str:
    """Return a text for a Markdown page: no control characters, and HTML is shown instead of obeyed."""
    return _TAG.sub("&lt;", plain(text))


def markdown_cell(text: object) -> str:
    """Return the content of a cell of a Markdown table: as :func:`markdown_text`, on one line, without a border."""
    return " ".join(markdown_text(text).split()).replace("|", r"\|")


def without_nan(value: Any) -> Any:
    """Return a value with NaN and infinities replaced by None, because JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
