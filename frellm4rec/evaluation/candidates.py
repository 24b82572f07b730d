"""Candidate lists: each user's target among negatives, drawn once and shared by all models."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from frellm4rec.data import log_fingerprint
from spectral_probe.errors import ConfigError, DataError, did_you_mean
from spectral_probe.interactions import Dataset

EvaluationPart = Literal["valid", "test"]
#: Where the target of each part stands in the history.
TARGET_PLACE: dict[str, int] = {"valid": -2, "test": -1}


@dataclass(frozen=True, eq=False)
class Candidates:
    """One list of items per evaluated user, the target first.

    Attributes
    ----------
    items : (n, 1 + n_negatives) int
        Column 0 is the target, the others are distinct items that the user never touched.
    users : (n,) int
        Row of each list in the data set's training log.
    part : str
        ``valid`` or ``test``: which held-out item is the target.
    seed : int
        What the negatives were drawn from.
    fingerprint : str
        Of the log they belong to.
    """

    items: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    part: EvaluationPart
    seed: int
    fingerprint: str

    @property
    def n_negatives(self) -> int:
        """Number of negatives beside each target."""
        return self.items.shape[1] - 1

    def save(self, path: str | Path) -> Path:
        """Write the lists to one ``.npz`` file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                items=self.items,
                users=self.users,
                part=np.array(self.part),
                seed=np.array(self.seed),
                fingerprint=np.array(self.fingerprint),
            )
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Candidates:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataError
            If the file is missing or is not one of candidates.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                return cls(
                    held["items"],
                    held["users"],
                    str(held["part"]),  # type: ignore[arg-type]
                    int(held["seed"]),
                    str(held["fingerprint"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"Candidates are read from the .npz that Candidates.save writes; reading {path} failed with: {error}. "
                "Draw them again with sample_candidates."
            ) from error


def evaluated_users(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return the users with at least three interactions, who alone have held-out items."""
    users = np.array([u for u, s in enumerate(dataset.sequences) if len(s) >= 3], dtype=np.int64)
    if not len(users):
        raise DataError(f"No user of {dataset.name!r} has three interactions; nothing can be evaluated.")
    return users


def check_part(part: str) -> None:
    """Refuse a part that has no held-out target."""
    if part not in TARGET_PLACE:
        raise ConfigError(f"part must be 'valid' or 'test'; got {part!r}.{did_you_mean(part, TARGET_PLACE)}")


def sample_candidates(
    dataset: Dataset, *, part: EvaluationPart = "test", n_negatives: int = 99, seed: int = 0
) -> Candidates:
    """Return every user's target with negatives drawn uniformly from the items that the user never touched.

    A user's negatives depend on the log, the seed and the user alone, so every model meets the same lists, and
    validation and test share them.

    Parameters
    ----------
    dataset : Dataset
    part : {"test", "valid"}
        Target: the last item or the second-last.
    n_negatives : int
        99 gives the ``99+1`` protocol.
    seed : int

    Raises
    ------
    ConfigError
        If ``part``, ``n_negatives`` or ``seed`` is out of range.
    DataError
        If a user has touched so much that fewer than ``n_negatives`` items are left.

    Notes
    -----
    Source: FreLLM4Rec section 4.1.
    """
    check_part(part)
    if n_negatives < 1 or seed < 0:
        raise ConfigError(
            f"n_negatives must be at least 1 and seed at least 0; got n_negatives={n_negatives}, seed={seed}."
        )
    fingerprint = log_fingerprint(dataset)
    users = evaluated_users(dataset)
    items = np.empty((len(users), 1 + n_negatives), dtype=np.int64)
    for row, user in enumerate(users):
        history = dataset.sequences[user]
        is_untouched = np.ones(dataset.n_items, dtype=bool)
        is_untouched[history] = False
        untouched = np.flatnonzero(is_untouched)
        if len(untouched) < n_negatives:
            raise DataError(
                f"User {dataset.user_ids[user]!r} never touched only {len(untouched)} of {dataset.n_items} items; "
                f"{n_negatives} negatives cannot be drawn. Use fewer negatives or the full ranking."
            )
        generator = np.random.default_rng([int(fingerprint[:16], 16), seed, int(user)])
        items[row, 0] = history[TARGET_PLACE[part]]
        items[row, 1:] = generator.choice(untouched, size=n_negatives, replace=False)
    return Candidates(items, users, part, seed, fingerprint)
