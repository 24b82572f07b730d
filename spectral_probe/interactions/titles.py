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


def titles_differ(items: Iterable[object], titles: Iterable[object]) -> tuple[int, int]:
    """Return how many items have a title in several rows, and for how many of them the titles differ."""
    seen: dict[str, set[str]] = {}
    n_rows: dict[str, int] = {}
    for item, title in zip(items, titles, strict=True):
        if isinstance(title, str) and title.strip():
            label = label_of(item)
            seen.setdefault(label, set()).add(title.strip())
            n_rows[label] = n_rows.get(label, 0) + 1
    repeated = [label for label, n in n_rows.items() if n > 1]
    return len(repeated), sum(len(seen[label]) > 1 for label in repeated)


def titles_of_items(known: dict[str, str], items: Iterable[object]) -> list[str]:
    """Return the title of each item; an empty string where it has none."""
    return [known.get(label_of(item), "") for item in items]
