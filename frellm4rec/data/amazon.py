"""Amazon review data (2018), a.k.a. Amazon v2: reviews and metadata as JSON lines, by category."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pandas as pd

from frellm4rec.data.core_filter import k_core
from frellm4rec.data.counts import CountedDataset, Counts, core_label, log_notes, with_report
from frellm4rec.data.parsing.json_lines import MAX_BROKEN_SHARE, JsonLines
from frellm4rec.data.parsing.titles import clean_title, or_note
from spectral_probe.errors import ConfigError, DataError, check_choice, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import label_of
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.titles import titles_of_items

# fmt: off
CATEGORIES = (
    "AMAZON_FASHION", "All_Beauty", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Books", "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards",
    "Grocery_and_Gourmet_Food", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store", "Luxury_Beauty",
    "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden",
    "Pet_Supplies", "Prime_Pantry", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games",
    "Video_Games",
)
# fmt: on
#: Above this share of repeated interactions the report has a note: predicting a repeat is not recommending.
MANY_REPEATS = 0.05


@dataclass(frozen=True)
class AmazonOptions:
    """How reviews become interactions.

    Attributes
    ----------
    k : int
        Least number of reviews per user and per item.
    core : {"iterative", "single", "none"}
        ``iterative`` (default): the k-core proper. ``single``: one pass over the raw counts, as the paper's code
        makes it. ``none``: no filter.
    repeats : {"keep", "first"}
        Whether a user's later reviews of the same item count. ``keep`` (default) is what the published files do;
        ``first`` keeps the earliest review of each pair, as LastFM is prepared.
    """

    k: int = 5
    core: Literal["iterative", "single", "none"] = "iterative"
    repeats: Literal["keep", "first"] = "keep"

    def __post_init__(self) -> None:
        for name, known in (("core", ("iterative", "single", "none")), ("repeats", ("keep", "first"))):
            check_choice(name, getattr(self, name), known)
        if self.k < 1:
            raise ConfigError(f"A core filter needs k of at least 1; got k={self.k}. Use k=5 for the paper's filter.")

    @property
    def needs_all_reviews(self) -> bool:
        """Whether the owner's 5-core file is not enough: the filter uses raw counts, or k is below 5."""
        return self.core != "iterative" or self.k < 5

    def argument(self, category: str) -> str:
        """Return what :meth:`parse` reads: the category, and the options that are not the default."""
        changed = [f",{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return category + "".join(changed)

    @classmethod
    def parse(cls, argument: str) -> tuple[str, AmazonOptions]:
        """Return category and options of ``Gift_Cards`` or ``Gift_Cards,core=single,repeats=first,k=5``.

        Raises
        ------
        ConfigError
            If the category is not one of :data:`CATEGORIES`, or an option or its value is unknown.
        """
        category, *parts = [part.strip() for part in argument.split(",")]
        if category not in CATEGORIES:
            raise ConfigError(
                f"Amazon v2 has no category {category!r}; known: {', '.join(CATEGORIES)}."
                f"{did_you_mean(category, CATEGORIES)}"
            )
        given: dict[str, str] = {}
        for part in parts:
            name, equals, value = part.partition("=")
            if not equals or name not in ("k", "core", "repeats") or name in given:
                raise ConfigError(
                    f"The options of amazon are core=, repeats= and k=, each once; got {part!r}."
                    f"{did_you_mean(name, ('core', 'repeats'))} Write for example amazon:{category},core=single."
                )
            given[name] = value
        k = given.pop("k", "5")
        if not (k.isascii() and k.isdigit()):
            raise ConfigError(f"k must be a whole number of at least 1; got {k!r}.")
        return category, cls(k=int(k), **given)  # type: ignore[arg-type]  # checked by the constructor


def review_files(category: str) -> tuple[str, ...]:
    """Return the possible file names of a category's reviews; all reviews come before the owner's 5-core."""
    names = (f"{category}.json", f"{category}_5.json")
    return tuple(f"{name}{gz}" for name in names for gz in (".gz", ""))


def metadata_files(category: str) -> tuple[str, ...]:
    """Return the possible file names of a category's metadata."""
    return (f"meta_{category}.json.gz", f"meta_{category}.json")


def find_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of the names that is a file in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def load_amazon(
    category: str,
    folder: str | Path,
    options: AmazonOptions | None = None,
    *,
    max_broken_share: float = MAX_BROKEN_SHARE,
) -> CountedDataset:
    """Return a category from a folder with its reviews and, for titles, its metadata.

    Parameters
    ----------
    category : str
        As in the file names: ``Gift_Cards``.
    folder : path
        Holds ``Gift_Cards.json`` (all reviews; preferred) or ``Gift_Cards_5.json`` (the owner's 5-core), and perhaps
        ``meta_Gift_Cards.json``; each plain or ``.gz``.
    options : AmazonOptions, optional
        Filter and repeats.
    max_broken_share : float
        Largest share of broken lines that is allowed in a file.

    Raises
    ------
    DataError
        If no reviews are found, a file is malformed, or nothing is left after the filter.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"Amazon {category} needs a folder; {folder} is not a folder. Name the folder of its files.")
    reviews = find_file(folder, review_files(category))
    if reviews is None:
        raise DataError(
            f"{folder} must have the reviews of {category}, one of {', '.join(review_files(category))}; it has none of "
            "them. Name the folder that has them with --from-dir, or leave --from-dir out to download them."
        )
    metadata = find_file(folder, metadata_files(category))
    return read_amazon(reviews, metadata, category, options, max_broken_share=max_broken_share)


def read_amazon(
    reviews: Path,
    metadata: Path | None,
    category: str,
    options: AmazonOptions | None = None,
    *,
    max_broken_share: float = MAX_BROKEN_SHARE,
) -> CountedDataset:
    """Return the data set of a file of reviews and a file of metadata, with the counts of every step.

    Reviews are sorted by time within each user; equal times (they are days) keep the order of the file. Parameters and
    errors are those of :func:`load_amazon`.
    """
    options = options or AmazonOptions()
    df, notes = read_reviews(reviews, max_broken_share=max_broken_share)
    is_owners_core = reviews.name.startswith(f"{category}_5.json")
    stages = [("owner's 5-core file" if is_owners_core else "all reviews", Counts.of_frame(df))]
    if is_owners_core and options.needs_all_reviews:
        notes.append(
            f"{reviews.name} holds only the owner's 5-core, but this filter uses raw counts. Start from "
            f"{category}.json instead."
        )
    is_repeat = df.sort_values("timestamp", kind="stable").duplicated(["user_id", "item_id"])
    if options.repeats == "first":
        df = df[~is_repeat.reindex(df.index)]
        stages.append(("repeats removed", Counts.of_frame(df)))
    elif is_repeat.mean() > MANY_REPEATS:
        notes.append(
            f"{is_repeat.mean():.0%} of the reviews repeat an earlier review of the same item by the same user; "
            "repeats=first drops them."
        )
    if options.core != "none":
        df = k_core(df, options.k, iterative=options.core == "iterative")
        stages.append((core_label(options.k, options.core == "iterative"), Counts.of_frame(df)))
    log = Interactions.from_frame(df)
    titles = None
    if metadata is not None:
        items = set(log.item_ids)
        read, title_notes = or_note(
            lambda: read_titles(metadata, items, category, max_broken_share=max_broken_share), metadata.name
        )
        if read is not None:
            titles, title_notes = titles_of_items(read[0], log.item_ids), read[1]
        notes += title_notes
    name = f"amazon:{options.argument(category)}"
    log_notes(name, notes)
    return with_report(Dataset.from_interactions(log, item_titles=titles, name=name), stages, notes)


def read_reviews(path: Path, *, max_broken_share: float = MAX_BROKEN_SHARE) -> tuple[pd.DataFrame, list[str]]:
    """Return user_id, item_id, timestamp of every review in the order of the file, and a note if lines are broken.

    Raises
    ------
    DataError
        If the file is damaged, or more lines than allowed lack a reviewerID, an asin or a whole unixReviewTime.
    """
    lines = JsonLines(path, max_broken_share=max_broken_share)
    rows: list[tuple[str, str, int]] = []
    for review in lines:
        user, item = _label(review.get("reviewerID")), _label(review.get("asin"))
        time = _whole_number(review.get("unixReviewTime"))
        if user and item and time is not None:
            rows.append((user, item, time))
        else:
            values = {name: review.get(name) for name in ("reviewerID", "asin", "unixReviewTime")}
            lines.reject(f"must have a reviewerID, an asin and a whole unixReviewTime; it has {str(values)[:120]}")
    lines.check()
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), _broken_note(lines)


def read_titles(
    path: Path, items: set[str], category: str, *, max_broken_share: float = MAX_BROKEN_SHARE
) -> tuple[dict[str, str], list[str]]:
    """Return the cleaned title of each of the items that has one, and a note if lines are broken.

    Metadata list some products more than once; the first entry with a title is used. Those of 2023 name a product by
    ``parent_asin``, those of 2018 by ``asin``.

    Raises
    ------
    DataError
        If the file is damaged, or more lines than allowed have no asin.
    """
    lines = JsonLines(path, max_broken_share=max_broken_share)
    titles: dict[str, str] = {}
    for product in lines:
        asin = _label(product.get("parent_asin") or product.get("asin"))
        if not asin:
            lines.reject(f"must have an asin; it has {str(product.get('asin'))[:60]!r}")
        elif asin in items and asin not in titles:
            title = clean_title(product.get("title"), category=category)
            if title:
                titles[asin] = title
    lines.check()
    return titles, _broken_note(lines)


def _broken_note(lines: JsonLines) -> list[str]:
    return [f"{lines.n_broken} of {lines.n_lines} lines of {lines.path.name} are broken."] if lines.n_broken else []


def _label(value: object) -> str:
    """Return the label of a user or an item; empty for anything but text, and for text with lone surrogates."""
    if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
        return ""
    return label_of(value)


def _whole_number(value: object) -> int | None:
    """Return seconds since 1970, given as a number or as text; None for anything that is not a time."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**62) < value < 2**62:
        return None
    return value
