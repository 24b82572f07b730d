"""Numbers of users, items and interactions before and after every filter, beside the paper's Table 1."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from frellm4rec.data.core_filter import k_core
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Size of a log; repeats of a (user, item) pair count as interactions."""

    users: int
    items: int
    interactions: int

    @property
    def mean_length(self) -> float:
        """Interactions per user."""
        return self.interactions / self.users if self.users else float("nan")

    @classmethod
    def of_frame(cls, df: pd.DataFrame, user: str = "user_id", item: str = "item_id") -> Counts:
        """Count the rows of a table and its distinct users and items."""
        return cls(int(df[user].nunique()), int(df[item].nunique()), len(df))

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> Counts:
        """Count whole histories, held-out items included; items without interactions do not count."""
        items = np.concatenate(dataset.sequences)
        return cls(dataset.n_users, len(np.unique(items)), len(items))


#: Table 1 of the paper (FreLLM4Rec), by the name of the data set.
PAPER_TABLE_1 = {
    "amazon:All_Beauty": Counts(2151, 2150, 11422),
    "amazon:Luxury_Beauty": Counts(11490, 6534, 71898),
    "amazon:Movies_and_TV": Counts(309555, 86678, 1697533),
    "lastfm": Counts(1090, 3646, 52551),
}


@dataclass(frozen=True)
class FilterReport:
    """Counts after every filter, from the raw file to the data set.

    Attributes
    ----------
    name : str
        Name of the data set.
    stages : tuple of (label, Counts)
        From the raw file to the data set, one per filter.
    n_titles : int or None
        Items of the data set with a title; None where there are no titles at all.
    notes : tuple of str
        Remarks on the counts.
    """

    name: str
    stages: tuple[tuple[str, Counts], ...]
    n_titles: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def raw(self) -> Counts:
        """Counts before the first filter."""
        return self.stages[0][1]

    @property
    def filtered(self) -> Counts:
        """Counts after the last filter."""
        return self.stages[-1][1]

    @property
    def paper(self) -> Counts | None:
        """The data set's row in the paper's Table 1, or None; options after the name are ignored."""
        return PAPER_TABLE_1.get(self.name.partition(",")[0])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per stage, and the paper's where there is one: stage, users, items, interactions, mean."""
        rows = [*self.stages, *([("paper, Table 1", self.paper)] if self.paper else [])]
        return pd.DataFrame(
            [(label, c.users, c.items, c.interactions, c.mean_length) for label, c in rows],
            columns=["stage", "users", "items", "interactions", "mean_length"],
        )

    def __str__(self) -> str:
        return format_report(self)


@dataclass(frozen=True, eq=False)
class CountedDataset(Dataset):
    """A data set with the report of how it was filtered."""

    report: FilterReport | None = None


def with_report(dataset: Dataset, stages: list[tuple[str, Counts]], notes: list[str] | None = None) -> CountedDataset:
    """Return the data set with a report; its counts are those of the last stage."""
    titles = dataset.item_titles
    report = FilterReport(
        name=dataset.name,
        stages=tuple(stages),
        n_titles=None if titles is None else sum(bool(title) for title in titles),
        notes=tuple(notes or ()),
    )
    fields = (dataset.train, dataset.sequences, dataset.user_ids, dataset.item_ids, titles, dataset.name)
    return CountedDataset(*fields, report=report)


def log_notes(name: str, notes: Iterable[str]) -> None:
    """Log what the reader of a result should know of the data, a warning for each note."""
    for note in notes:
        logger.warning("%s: %s", name, note)


def report_of(dataset: Dataset) -> FilterReport:
    """Return the report of a data set; one stage, "as read", where its loader did not filter."""
    report = getattr(dataset, "report", None)
    if isinstance(report, FilterReport):
        return report
    unfiltered = with_report(dataset, [("as read", Counts.of_dataset(dataset))]).report
    assert unfiltered is not None
    return unfiltered


def filter_core(dataset: Dataset, k: int = 5, *, iterative: bool = True) -> CountedDataset:
    """Return a data set after a core filter on its whole histories, see :func:`frellm4rec.data.core_filter.k_core`.

    Raises
    ------
    ConfigError, DataError
        See :func:`frellm4rec.data.core_filter.k_core`.
    """
    before = report_of(dataset)
    df = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(dataset.n_users), [len(s) for s in dataset.sequences]),
            "item_id": np.concatenate(dataset.sequences),
        }
    )
    log = Interactions.from_frame(k_core(df, k, iterative=iterative), time=None)
    users, items = log.user_ids.astype(np.int64), log.item_ids.astype(np.int64)
    titles = None if dataset.item_titles is None else [dataset.item_titles[item] for item in items]
    log = replace(log, user_ids=dataset.user_ids[users], item_ids=dataset.item_ids[items])
    filtered = Dataset.from_interactions(log, item_titles=titles, name=dataset.name)
    stages = [*before.stages, (core_label(k, iterative), Counts.of_dataset(filtered))]
    return with_report(filtered, stages, list(before.notes))


def core_label(k: int, iterative: bool) -> str:
    """Return the name of a core filter in a report."""
    return f"{'iterative' if iterative else 'single-pass'} {k}-core"


def format_report(report: FilterReport) -> str:
    """Return the report as text: a line per stage, the paper's row, then the notes.

    Notes
    -----
    The paper's Amazon rows are not an iterative core: its code makes one pass over the raw counts.
    """
    rows = [("", "users", "items", "interactions", "mean length")]
    for label, users, items, interactions, mean in report.to_frame().itertuples(index=False):
        rows.append((label, f"{users:,}", f"{items:,}", f"{interactions:,}", f"{mean:.2f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if report.paper is not None:
        verdict = "the same as" if report.filtered == report.paper else "not the same as"
        lines.append(f"counts are {verdict} the paper's")
    n_items = report.filtered.items
    titles = "no titles" if report.n_titles is None else f"{report.n_titles:,} of {n_items:,} items have a title"
    return "\n".join([report.name, *lines, titles, *(f"note: {note}" for note in report.notes)])
