"""Data sets: whole histories and, separately, their training part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import DataError
from spectral_probe.interactions.log import Interactions
from spectral_probe.storage.hashing import digest
from spectral_probe.types import IntArray


def leave_one_out(log: Interactions) -> Interactions:
    """Return the training part of a log: every history without its last two items.

    The last item is the test item and the second-last the validation item. Users with fewer than three
    interactions cannot be split; they stay whole in the training part.
    """
    lengths = log.lengths()
    position = np.arange(log.n_events) - np.repeat(log.offsets[:-1], lengths)
    train_length = np.where(lengths >= 3, lengths - 2, lengths)
    return log.subset(position < np.repeat(train_length, lengths))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Whole histories and, separately, their training part.

    Attributes
    ----------
    train : Interactions
        The only data that graphs, item embeddings and fitted models may use.
    sequences : list of (length,) int arrays
        Whole histories in time order, in the user order of ``train``.
    user_ids, item_ids : arrays
        Labels by index.
    item_titles : list of str or None
        Title of each item; an empty string where it is unknown.
    name : str
        Name of the data set in outputs.
    """

    train: Interactions
    sequences: list[IntArray]
    user_ids: npt.NDArray[Any]
    item_ids: npt.NDArray[Any]
    item_titles: list[str] | None = None
    name: str = "dataset"

    def __post_init__(self) -> None:
        # Read-only views: the fingerprint is computed once, and a history that changes later would not match it.
        views = [np.asarray(sequence).view() for sequence in self.sequences]
        for view in views:
            view.flags.writeable = False
        object.__setattr__(self, "sequences", views)
        if len(self.sequences) != self.train.n_users:
            raise DataError(
                f"Data set {self.name!r} has {len(self.sequences)} histories but {self.train.n_users} training users; "
                "both must list the same users in the same order."
            )
        if self.item_titles is not None and len(self.item_titles) != self.train.n_items:
            raise DataError(
                f"Data set {self.name!r} has {len(self.item_titles)} titles for {self.train.n_items} items; "
                "give one title per item, empty where unknown."
            )
        expected = leave_one_out(self.log)
        if not (
            np.array_equal(expected.offsets, self.train.offsets) and np.array_equal(expected.events, self.train.events)
        ):
            raise DataError(
                f"The training part of data set {self.name!r} is not its histories without their last two items "
                f"({self.train.n_events} training events, {expected.n_events} expected). A graph built from it would "
                "contain held-out items; use Dataset.from_interactions to split leave-one-out."
            )

    @property
    def log(self) -> Interactions:
        """The whole log, validation and test items included."""
        return Interactions.from_sequences(
            self.sequences, n_items=self.train.n_items, user_ids=self.user_ids, item_ids=self.item_ids
        )

    @property
    def n_users(self) -> int:
        """Number of users."""
        return self.train.n_users

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return self.train.n_items

    @classmethod
    def from_interactions(
        cls, log: Interactions, *, item_titles: list[str] | None = None, name: str = "dataset"
    ) -> Dataset:
        """Split a log leave-one-out."""
        return cls(leave_one_out(log), log.sequences(), log.user_ids, log.item_ids, item_titles, name)

    def fingerprint(self, *, titles: bool = True) -> str:
        """Return a SHA-256 over histories and catalogue size: equal data, equal fingerprint. It is computed once.

        Parameters
        ----------
        titles : bool
            False leaves the titles out. Results that depend on the log alone (negatives, trained ID models) then
            stay valid when titles are added or corrected.
        """
        return self._fingerprint if titles and self.item_titles else self._log_fingerprint

    @cached_property
    def _log_fingerprint(self) -> str:
        return digest(self._log_parts())

    @cached_property
    def _fingerprint(self) -> str:
        return digest([*self._log_parts(), *(f"{title}\0" for title in self.item_titles or ())])

    def _log_parts(self) -> Iterator[str | bytes | npt.NDArray[Any]]:
        yield str(self.n_items)
        for sequence in self.sequences:
            yield np.int64(len(sequence)).tobytes()
            yield sequence.astype("<i8")
