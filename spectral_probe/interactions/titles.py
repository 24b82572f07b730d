"""Titles of items, joined by their labels."""

from __future__ import annotations

from collections.abc import Iterable

from spectral_probe.interactions.labels import label_of


def first_titles(items: Iterable[object], titles: Iterable[object]) -> dict[str, str]:
    """Return the first title of each item that is not empty, by the label of the item."""
    known: dict[str, str] = {}
    for item, title in zip(items, titles, strict=True):
        if isinstance(title, str) and title.strip() and (label := label_of(item)):
            known.setdefault(label, title.strip())
    return known


def titles_of_items(known: dict[str, str], items: Iterable[object]) -> list[str]:
    """Return the title of each item; an empty string where it has none."""
    return [known.get(label_of(item), "") for item in items]
