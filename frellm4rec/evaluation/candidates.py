"""Candidate lists: each user's target among negatives, drawn once and shared by all models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError, SmallCatalogueError, did_you_mean, what_failed
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import disk_errors, write_npz
from spectral_probe.storage.cache import CACHE_VARIABLE, cache_root
from spectral_probe.storage.hashing import digest
from spectral_probe.storage.reading import read_npz
from spectral_probe.types import MOST_SEED

EvaluationPart = Literal["valid", "test"]
#: Position of each part's target in the history.
TARGET_POSITION: dict[str, int] = {"valid": -2, "test": -1}
_ARRAYS = {"items": ("iu", 2), "users": ("iu", 1), "part": ("U", 0), "seed": ("iu", 0), "fingerprint": ("U", 0)}


@dataclass(frozen=True, eq=False)
class Candidates:
    """One list of items per evaluated user, the target first.

    Attributes
    ----------
    items : (n, 1 + n_negatives) int
        Column 0 is the target, the others are distinct items that are not in the user's history.
    users : (n,) int
        Row of each list in the data set's training log.
    part : str
        ``valid`` or ``test``: which held-out item is the target.
    seed : int
        Seed of the negatives.
    fingerprint : str
        Of the log that the lists belong to.
    """

    items: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    part: EvaluationPart
    seed: int
    fingerprint: str

    @property
    def n_negatives(self) -> int:
        """Number of negatives beside each target."""
        return int(self.items.shape[1] - 1)

    @property
    def digest(self) -> str:
        """Short SHA-256 of users and lists; equal lists have equal digests, whatever their seed."""
        return digest([str(self.items.shape), self.users.astype("<i8"), self.items.astype("<i8")])[:12]

    def check(self, dataset: Dataset, part: str) -> None:
        """Refuse lists of another part or data set, and lists that do not have the right target first.

        Raises
        ------
        DataError
        """
        fingerprint = dataset.fingerprint(titles=False)
        if self.part != part or self.fingerprint != fingerprint:
            raise DataError(
                f"The candidates are of part {self.part!r} and data {self.fingerprint[:8]}; the evaluation is of part "
                f"{part!r} and data {fingerprint[:8]}. Draw them again with sample_candidates."
            )
        items, users = self.items, self.users
        if items.ndim != 2 or items.shape[1] < 2 or users.shape != items.shape[:1] or not len(users):
            raise DataError(
                f"Candidates are (n, 1 + n_negatives) items of (n,) users; the shapes are {items.shape} and "
                f"{users.shape}. Draw them again with sample_candidates."
            )
        is_known = (users >= 0) & (users < dataset.n_users)
        if not is_known.all() or items.min() < 0 or items.max() >= dataset.n_items:
            raise DataError(
                f"Candidates must be among the {dataset.n_users} users and {dataset.n_items} items of "
                f"{dataset.name!r}; seen users {users.min()}…{users.max()} and items {items.min()}…{items.max()}. "
                "Draw them again with sample_candidates."
            )
        held_out = evaluated_users(dataset)
        targets = np.full(dataset.n_users, -1)
        targets[held_out] = [dataset.sequences[user][TARGET_POSITION[part]] for user in held_out]
        wrong = np.flatnonzero(items[:, 0] != targets[users])
        if len(wrong):
            raise DataError(
                f"The first candidate of a list is the user's {part} item; it is not for {len(wrong)} of {len(users)} "
                f"users, first for {str(dataset.user_ids[users[wrong[0]]])!r}. Draw them again with sample_candidates."
            )

    def save(self, path: str | Path) -> Path:
        """Write the lists to one ``.npz`` file, atomically."""
        path = Path(path)
        labels = {name: np.array(getattr(self, name)) for name in ("part", "seed", "fingerprint")}
        write_npz(path, {"items": self.items, "users": self.users, **labels}, is_compressed=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Candidates:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataError
            If the file is missing, does not hold candidates, or has an item twice in a list.
        """
        try:
            arrays = read_npz(path, _ARRAYS)
        except (OSError, ValueError) as error:
            raise DataError(
                f"Candidates are read from the .npz that Candidates.save writes; reading {path} failed with: {error}. "
                "Draw them again with sample_candidates."
            ) from error
        candidates = cls(
            arrays["items"],
            arrays["users"],
            str(arrays["part"]),  # type: ignore[arg-type]
            int(arrays["seed"]),
            str(arrays["fingerprint"]),
        )
        candidates._check_distinct()
        return candidates

    def _check_distinct(self) -> None:
        ordered = np.sort(np.atleast_2d(self.items), axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any() or len(np.unique(self.users)) < len(self.users):
            raise DataError(
                "A list of candidates must not have an item twice, and a user must have one list; some break this "
                "rule. Draw them again with sample_candidates."
            )


def evaluated_users(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return the users with at least three interactions; only these have held-out items."""
    users = np.array([u for u, s in enumerate(dataset.sequences) if len(s) >= 3], dtype=np.int64)
    if not len(users):
        raise DataError(f"No user of {dataset.name!r} has three interactions; nothing can be evaluated.")
    return users


def check_part(part: str) -> None:
    """Refuse a part that has no held-out target."""
    if part not in TARGET_POSITION:
        raise ConfigError(f"part must be 'valid' or 'test'; got {part!r}.{did_you_mean(part, TARGET_POSITION)}")


def sample_candidates(
    dataset: Dataset, *, part: EvaluationPart = "test", n_negatives: int = 99, seed: int = 0
) -> Candidates:
    """Return every user's target with negatives drawn uniformly from the items that are not in the user's history.

    A user's negatives depend only on the log, the seed and the user, so every model gets the same lists, and validation
    and test share them.

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
    SmallCatalogueError
        If fewer than ``n_negatives`` items are outside a user's history.

    Notes
    -----
    Source: FreLLM4Rec section 4.1.
    """
    check_part(part)
    if n_negatives < 1 or not 0 <= seed <= MOST_SEED:
        raise ConfigError(
            f"n_negatives must be at least 1 and seed in 0…{MOST_SEED}; got n_negatives={n_negatives}, seed={seed}."
        )
    fingerprint = dataset.fingerprint(titles=False)
    users = evaluated_users(dataset)
    _check_catalogue(dataset, users, n_negatives)
    items = np.empty((len(users), 1 + n_negatives), dtype=np.int64)
    for row, user in enumerate(users):
        history = dataset.sequences[user]
        is_untouched = np.ones(dataset.n_items, dtype=bool)
        is_untouched[history] = False
        untouched = np.flatnonzero(is_untouched)
        generator = np.random.default_rng([int(fingerprint[:16], 16), seed, int(user)])
        items[row, 0] = history[TARGET_POSITION[part]]
        items[row, 1:] = generator.choice(untouched, size=n_negatives, replace=False)
    return Candidates(items, users, part, seed, fingerprint)


def _check_catalogue(dataset: Dataset, users: npt.NDArray[np.int64], n_negatives: int) -> None:
    n_outside = np.array([dataset.n_items - len(np.unique(dataset.sequences[user])) for user in users])
    short = np.flatnonzero(n_outside < n_negatives)
    if len(short):
        fewest = short[np.argmin(n_outside[short])]
        raise SmallCatalogueError(
            f"{n_negatives} negatives cannot be drawn for {len(short)} of {len(users)} users of {dataset.name!r}: it "
            f"has {dataset.n_items} items, and only {n_outside[fewest]} of them are outside the history of user "
            f"{str(dataset.user_ids[users[fewest]])!r}. Use fewer negatives, or the full ranking."
        )


def candidates_path(fingerprint: str, *, part: str, n_negatives: int, seed: int) -> Path:
    """Return the path for the lists of a log, part, number of negatives and seed; the file need not exist."""
    return cache_root() / "candidates" / f"{fingerprint[:16]}-{part}-{n_negatives}+1-seed{seed}.npz"


def stored_candidates(
    dataset: Dataset, *, part: EvaluationPart = "test", n_negatives: int = 99, seed: int = 0
) -> Candidates:
    """Return the lists of :func:`sample_candidates` from the cache; draw and store them if they are missing.

    Every model is evaluated with the same file, also after the drawing code has changed.

    Raises
    ------
    DataError
        If the stored file is damaged or holds something else; or as in :func:`sample_candidates`.
    ResourceError
        If the file cannot be written.
    """
    check_part(part)
    fingerprint = dataset.fingerprint(titles=False)
    path = candidates_path(fingerprint, part=part, n_negatives=n_negatives, seed=seed)
    if not path.exists():
        drawn = sample_candidates(dataset, part=part, n_negatives=n_negatives, seed=seed)
        next_step = f"Free space there, or set {CACHE_VARIABLE} to another folder."
        with disk_errors(path, what="Writing the candidates", next_step=next_step):
            drawn.save(path)
    try:
        candidates = Candidates.load(path)
        candidates.check(dataset, part)
        if candidates.n_negatives != n_negatives or candidates.seed != seed:
            raise DataError(f"It holds {candidates.n_negatives}+1 candidates of seed {candidates.seed}.")
        if len(candidates.users) != (n_users := len(evaluated_users(dataset))):
            raise DataError(f"It holds lists of {len(candidates.users)} of {n_users} users.")
    except DataError as error:
        raise DataError(
            f"The stored candidates {path} are damaged or not those of {dataset.name!r}, {part}, {n_negatives}+1, seed "
            f"{seed}: {what_failed(error)} Delete this file; the same lists are then drawn again."
        ) from error
    return candidates
