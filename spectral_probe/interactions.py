"""Interaction logs: users × items, in time order, with their leave-one-out parts and probed sequences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from spectral_probe.errors import ConfigError, DataError, did_you_mean

IntArray = npt.NDArray[np.int64]
SequencePart = Literal["train", "valid", "full"]
#: How many of a user's last items each part leaves out.
HELD_OUT: dict[str, int] = {"train": 2, "valid": 1, "full": 0}


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who touched what, in time order.

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
        # Copies: summing duplicates rewrites indices and offsets in place, and those of the log must stay.
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
        (user after user, oldest first). Equal times keep the order of the table; ``time=None`` keeps it throughout.
        Times are numbers, dates, or text of either (dates as ISO 8601).

        Raises
        ------
        DataError
            If a column is missing, the table is empty, a user, item or time is missing or not finite, or a time is
            text of another kind.
        """
        wanted = [name for name in (user, item, time) if name is not None]
        for name in wanted:
            if name not in df.columns:
                columns = [str(column) for column in df.columns]
                raise DataError(
                    f"No column {name!r} in the interaction table; its columns are {columns}."
                    f"{did_you_mean(name, columns)} Name the columns with user=, item=, time=."
                )
        if df.columns.duplicated().any():
            twice = sorted({str(name) for name in df.columns[df.columns.duplicated()]})
            raise DataError(f"The interaction table has columns of the same name: {twice}. Rename or drop one of each.")
        if df.empty:
            raise DataError("The interaction table has no rows. Check the file and the filters applied to it.")
        for name in wanted:
            missing = df[name].isna().to_numpy()
            if pd.api.types.is_numeric_dtype(df[name]):
                missing = missing | ~np.isfinite(df[name].to_numpy(dtype=float))
            if missing.any():
                raise DataError(
                    f"Column {name!r} is empty or not finite in {int(missing.sum())} of {len(df)} rows, first in row "
                    f"{int(np.flatnonzero(missing)[0])} (counted from 0). Drop or repair these rows."
                )
        user_code, user_ids = pd.factorize(df[user])
        if time is None:
            order = np.argsort(user_code, kind="stable")
        else:
            time_rank, _ = pd.factorize(_sortable_times(df[time]), sort=True)
            order = np.lexsort((time_rank, user_code))
        events, item_ids = pd.factorize(df[item].to_numpy()[order])
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
        kept = np.concatenate([[0], np.cumsum(keep)])
        return Interactions(self.events[keep], kept[self.offsets], self.n_items, self.user_ids, self.item_ids)


def _sortable_times(times: pd.Series[Any]) -> pd.Series[Any]:
    """Return times that sort as time does; text would sort by its letters, "10" before "9"."""
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
    """Whole histories and, apart from them, the training part alone.

    Attributes
    ----------
    train : Interactions
        What graphs, item embeddings and anything fitted may see.
    sequences : list of (length,) int arrays
        Whole histories in time order, in the user order of ``train``.
    user_ids, item_ids : arrays
        Labels by index.
    item_titles : list of str or None
        Title of each item; an empty string where it is unknown.
    name : str
        What outputs call the data set.
    """

    train: Interactions
    sequences: list[IntArray]
    user_ids: npt.NDArray[Any]
    item_ids: npt.NDArray[Any]
    item_titles: list[str] | None = None
    name: str = "dataset"

    def __post_init__(self) -> None:
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
                "know the answers; use Dataset.from_interactions to split leave-one-out."
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

    def fingerprint(self) -> str:
        """Return a SHA-256 over histories, catalogue size and titles: equal data, equal fingerprint."""
        digest = hashlib.sha256(str(self.n_items).encode())
        for sequence in self.sequences:
            digest.update(np.int64(len(sequence)).tobytes() + sequence.astype("<i8").tobytes())
        for title in self.item_titles or ():
            digest.update(title.encode() + b"\0")
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ProbeSequences:
    """What a model reads and what it should predict, one row per probed user.

    Row t of ``inputs`` is :math:`v_t`, row t of ``targets`` is :math:`v_{t+1}`; right-padded with 0, the truth about
    padding is in ``lengths`` alone.

    Attributes
    ----------
    inputs, targets : (n, T) int
    lengths : (n,) int
        Number of targets.
    users : (n,) int
        Row of each sequence in the training log.
    """

    inputs: IntArray
    targets: IntArray
    lengths: IntArray
    users: IntArray

    def __len__(self) -> int:
        return len(self.lengths)


def probe_sequences(
    dataset: Dataset,
    *,
    part: SequencePart = "valid",
    max_length: int = 50,
    max_users: int | None = None,
    seed: int = 0,
) -> ProbeSequences:
    """Return the most recent ``max_length`` targets of every user who can be probed.

    ``part`` chooses the history: ``train`` without the validation and test items, ``valid`` (default) without the test
    item, ``full`` all of it. Users with fewer than three interactions are left out, as they have no held-out items.
    ``max_users`` draws that many of the others, without replacement, from ``seed``.

    Raises
    ------
    ConfigError
        If ``part``, ``max_length`` or ``max_users`` is out of range.
    DataError
        If no user is left.
    """
    if part not in HELD_OUT:
        raise ConfigError(f"sequence must be one of {sorted(HELD_OUT)}; got {part!r}.{did_you_mean(part, HELD_OUT)}")
    if max_length < 1:
        raise ConfigError(f"max_length must be at least 1; got {max_length}.")
    if max_users is not None and max_users < 1:
        raise ConfigError(f"The number of users must be at least 1; got {max_users}.")
    users = np.array([u for u, s in enumerate(dataset.sequences) if len(s) >= 3], dtype=np.int64)
    if max_users is not None and max_users < len(users):
        users = np.sort(np.random.default_rng(seed).choice(users, size=max_users, replace=False))
    windows = [dataset.sequences[u][: len(dataset.sequences[u]) - HELD_OUT[part]][-(max_length + 1) :] for u in users]
    keep = np.array([len(w) >= 2 for w in windows], dtype=bool)
    users, windows = users[keep], [w for w in windows if len(w) >= 2]
    if not windows:
        raise DataError(
            f"No user of {dataset.name!r} has at least three interactions and two items in the {part!r} part; "
            "nothing can be probed. Use longer histories."
        )
    lengths = np.array([len(w) - 1 for w in windows], dtype=np.int64)
    inputs = np.zeros((len(windows), int(lengths.max())), dtype=np.int64)
    targets = np.zeros_like(inputs)
    for row, window in enumerate(windows):
        inputs[row, : len(window) - 1], targets[row, : len(window) - 1] = window[:-1], window[1:]
    return ProbeSequences(inputs, targets, lengths, users)


def batches_by_length(lengths: IntArray, size: int) -> Iterator[IntArray]:
    """Yield row numbers, ``size`` at a time, sequences of like length together (stable in the row order)."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
