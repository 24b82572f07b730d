"""Interaction logs: users × items, in time order, with their leave-one-out parts and probed sequences."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from spectral_probe.errors import DataError, did_you_mean, listed
from spectral_probe.interactions.labels import required_labels
from spectral_probe.types import IntArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events of users and items, in time order.

    Attributes
    ----------
    events : (n_events,) int
        Item index of every event, user after user, each user's events oldest first; repeats are kept.
    offsets : (n_users + 1,) int
        User u's events are ``events[offsets[u]:offsets[u + 1]]``.
    n_items : int
        Size of the catalogue; items without an event are allowed.
    user_ids, item_ids : (n_users,), (n_items,)
        The labels of the source, by index.
    """

    events: IntArray
    offsets: IntArray
    n_items: int
    user_ids: npt.NDArray[Any]
    item_ids: npt.NDArray[Any]
    user_items: csr_array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.offsets) < 2 or self.offsets[-1] != len(self.events) or not len(self.events):
            raise DataError(
                f"An interaction log needs at least one event; got {len(self.events)} events of "
                f"{max(len(self.offsets) - 1, 0)} users. Check the file and the filters applied to it."
            )
        low, high = int(self.events.min()), int(self.events.max())
        if low < 0 or high >= self.n_items:
            raise DataError(
                f"Item indices must lie in 0…{self.n_items - 1}; seen {low}…{high}. "
                "Re-index the log, or give the catalogue it belongs to."
            )
        # Copies, because summing duplicates rewrites indices and offsets in place.
        binary = csr_array(
            (np.ones(len(self.events), dtype=np.int32), self.events.astype(np.int32), self.offsets.copy()),
            shape=(self.n_users, self.n_items),
        )
        binary.sum_duplicates()
        binary.data[:] = 1
        object.__setattr__(self, "user_items", binary)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    @property
    def n_events(self) -> int:
        """Number of events, repeats included."""
        return len(self.events)

    def sequences(self) -> list[IntArray]:
        """Return each user's item indices, oldest first."""
        return np.split(self.events, self.offsets[1:-1])

    def lengths(self) -> IntArray:
        """Return the number of events of each user."""
        return np.diff(self.offsets)

    @classmethod
    def from_frame(
        cls, df: pd.DataFrame, user: str = "user_id", item: str = "item_id", time: str | None = "timestamp"
    ) -> Interactions:
        """Index a table with one row per event.

        Users are numbered by first appearance in the table, items by first appearance in the ordered log
        (user after user, oldest first). Equal times keep the order of the table; ``time=None`` keeps it for all events.
        Times are numbers, dates, or text of either (dates as ISO 8601). Labels follow the rule of
        :func:`~spectral_probe.interactions.labels.label_of`; a warning says how many were written in another way.

        Raises
        ------
        DataError
            If a column is missing, the table is empty, a user, item or time is missing or not finite, or a time is
            text of another kind.
        """
        required = [name for name in (user, item, time) if name is not None]
        for name in required:
            if name not in df.columns:
                columns = [str(column) for column in df.columns]
                raise DataError(
                    f"No column {name!r} in the interaction table; its columns are {listed(columns)}."
                    f"{did_you_mean(name, columns)} Name the columns with user=, item=, time=."
                )
        if df.columns.duplicated().any():
            duplicates = sorted({str(name) for name in df.columns[df.columns.duplicated()]})
            raise DataError(
                f"The interaction table has columns of the same name: {duplicates}. Rename or drop one of each."
            )
        if df.empty:
            raise DataError("The interaction table has no rows. Check the file and the filters applied to it.")
        users, items = (_labels(df[name], name) for name in (user, item))
        if time is not None:
            _check_times(df[time], time)
        user_code, user_ids = pd.factorize(users)
        if time is None:
            order = np.argsort(user_code, kind="stable")
        else:
            time_rank, _ = pd.factorize(_sortable_times(df[time]), sort=True)
            order = np.lexsort((time_rank, user_code))
        events, item_ids = pd.factorize(items[order])
        offsets = np.concatenate([[0], np.cumsum(np.bincount(user_code, minlength=len(user_ids)))])
        return cls(
            events=events.astype(np.int64),
            offsets=offsets.astype(np.int64),
            n_items=len(item_ids),
            user_ids=np.asarray(user_ids),
            item_ids=np.asarray(item_ids),
        )

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[npt.ArrayLike],
        *,
        n_items: int | None = None,
        user_ids: npt.ArrayLike | None = None,
        item_ids: npt.ArrayLike | None = None,
    ) -> Interactions:
        """Build a log from each user's item indices, oldest first."""
        arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
        events = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
        if n_items is None:
            n_items = len(np.asarray(item_ids)) if item_ids is not None else int(events.max(initial=-1)) + 1
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
        users = np.arange(len(arrays)) if user_ids is None else np.asarray(user_ids)
        items = np.arange(n_items) if item_ids is None else np.asarray(item_ids)
        if len(users) != len(arrays) or len(items) != n_items:
            raise DataError(
                f"{len(arrays)} sequences over {n_items} items came with {len(users)} user labels and {len(items)} "
                "item labels; give one label for each."
            )
        return cls(events=events, offsets=offsets, n_items=n_items, user_ids=users, item_ids=items)

    def subset(self, keep: npt.NDArray[np.bool_]) -> Interactions:
        """Return the log without the events where ``keep`` is False; every user and item keeps its index."""
        n_kept_before = np.concatenate([[0], np.cumsum(keep)])
        return Interactions(self.events[keep], n_kept_before[self.offsets], self.n_items, self.user_ids, self.item_ids)


def _labels(column: pd.Series[Any], name: str) -> npt.NDArray[Any]:
    """Return the labels of a column of a table in memory; what was rewritten is logged."""
    numbered = column.set_axis(np.arange(len(column)))
    labels = required_labels(numbered, name, where="the interaction table", base=" (counted from 0)")
    if labels.note:
        logger.warning("%s", labels.note)
    return labels.values


def _check_times(times: pd.Series[Any], name: str) -> None:
    missing = times.isna().to_numpy()
    if pd.api.types.is_numeric_dtype(times):
        missing = missing | ~np.isfinite(times.to_numpy(dtype=float))
    if missing.any():
        raise DataError(
            f"Column {name!r} is empty or not finite in {int(missing.sum())} of {len(times)} rows, first in row "
            f"{int(np.flatnonzero(missing)[0])} (counted from 0). Drop or repair these rows."
        )


def _sortable_times(times: pd.Series[Any]) -> pd.Series[Any]:
    """Return times that sort in time order; text would sort alphabetically, "10" before "9"."""
    if pd.api.types.is_numeric_dtype(times) or pd.api.types.is_datetime64_any_dtype(times):
        return times
    plain = times.astype(object)
    numbers = pd.to_numeric(plain, errors="coerce")
    if np.isfinite(numbers).all():
        return numbers
    dates = pd.to_datetime(plain, errors="coerce", format="ISO8601", utc=True)
    if dates.isna().any():
        raise DataError(
            f"Times must be numbers or ISO 8601 dates; column {times.name!r} holds {plain[dates.isna()].iloc[0]!r}. "
            "Convert the column first, for example with pandas.to_datetime(..., format=...)."
        )
    return dates
