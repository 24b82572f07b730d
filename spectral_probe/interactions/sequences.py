"""The sequences that are probed: the part of each history, and the batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spectral_probe.errors import ConfigError, DataError, check_choice
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.types import IntArray

SequencePart = Literal["train", "valid", "full"]


#: How many of a user's last items each part leaves out.
HELD_OUT: dict[str, int] = {"train": 2, "valid": 1, "full": 0}


@dataclass(frozen=True, eq=False)
class ProbeSequences:
    """Inputs of a model and the targets it should predict, one row per probed user.

    Row t of ``inputs`` is :math:`v_t`, row t of ``targets`` is :math:`v_{t+1}`; right-padded with 0;
    only ``lengths`` tells padding from item 0.

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
    check_choice("sequence", part, sorted(HELD_OUT))
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
    """Yield row numbers, ``size`` at a time; sequences of similar length share a batch (stable in the row order)."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
