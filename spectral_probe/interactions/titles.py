"""Titles of items, joined by their labels."""

from __future__ import annotations

from collections.abc import Iterable

from spectral_probe.interactions.labels import label_of

#: With fewer items that have a title in several rows, different titles of an item prove nothing.
FEWEST_ITEMS = 5
#: Columns that a table of reviews has: its titles are those of the reviews.
_OF_REVIEWS = {"text", "reviewText", "review_text", "helpful_vote"}


def first_titles(items: Iterable[object], titles: Iterable[object]) -> dict[str, str]:
    """Return the first title of each item that is not empty, by the label of the item."""
    known: dict[str, str] = {}
    for item, title in zip(items, titles, strict=True):
        if isinstance(title, str) and title.strip() and (label := label_of(item)):
            known.setdefault(label, title.strip())
    return known


def has_titles_of_reviews(header: Iterable[str]) -> bool:
    """Whether a column ``title`` of a table is that of reviews: the table also has their text."""
    return bool(_OF_REVIEWS & set(header))


def titles_in_log(items: Iterable[object], titles: Iterable[object], name: str) -> tuple[dict[str, str] | None, str]:
    """Return the titles of the items from a column of a log, by label; None and a note if it is not about the items.

    Parameters
    ----------
    items, titles : sequence
        Of each row.
    name : str
        Of the column, for the note.
    """
    n_items, n_differing = titles_differ(items, titles)
    if n_items < FEWEST_ITEMS or 2 * n_differing <= n_items:
        return first_titles(items, titles), ""
    return None, (
        f"column {name!r} differs between the rows of one item for {n_differing} of {n_items} items, so it is not the "
        "title of the item and is not used"
    )


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
