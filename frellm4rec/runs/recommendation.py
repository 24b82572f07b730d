"""The best next items for a user of the data set, or for a given history."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from frellm4rec.evaluation.metrics import best_first
from frellm4rec.models.base import Recommender
from spectral_probe.errors import ConfigError, DataError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import label_of
from spectral_probe.types import IntArray


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The items that a model ranks first after a history.

    Attributes
    ----------
    items : (n,) int
        Best first; tied scores in the order of the catalogue.
    scores : (n,) float
        As ``model.score`` returns them: of a model with an item table, inner products with the user's last state;
        comparable within one user only.
    history : (n_history,) int
        Items given, oldest first.
    n_read : int
        Most recent items of the history that the model has read.
    """

    items: IntArray
    scores: npt.NDArray[np.float64]
    history: IntArray
    n_read: int

    @property
    def is_truncated(self) -> bool:
        """Whether the history is longer than what the model reads."""
        return self.n_read < len(self.history)

    def to_frame(self, dataset: Dataset) -> pd.DataFrame:
        """Return rank, item_id, title and score, one row per item."""
        return pd.DataFrame(
            {
                "rank": np.arange(1, len(self.items) + 1),
                "item_id": [str(dataset.item_ids[item]) for item in self.items],
                "title": titles_of(dataset, self.items),
                "score": self.scores,
            }
        )


def recommend(model: Recommender, history: npt.ArrayLike, *, k: int = 10, include_seen: bool = False) -> Recommendation:
    """Return the k items that the model scores highest as the next one.

    Parameters
    ----------
    model : Recommender
        Reads the most recent ``model.config.max_length`` items.
    history : (n_history,) int
        Item indices, oldest first.
    k : int
        Number of items; fewer are returned if fewer are left.
    include_seen : bool
        Whether items of the history may be recommended again.

    Raises
    ------
    ConfigError
        If ``k`` is out of range.
    DataError
        If the history is empty or leaves nothing to recommend, an item is unknown, or a score is NaN.
    """
    items = np.asarray(history, dtype=np.int64)
    n_items = model.config.n_items
    if isinstance(k, bool) or not 1 <= k <= n_items:
        raise ConfigError(f"k must be a whole number in 1…{n_items}, the size of the catalogue; got {k!r}.")
    if items.ndim != 1 or not len(items):
        raise DataError("A history needs at least one item; got none. Give item indices, oldest first.")
    if items.min() < 0 or items.max() >= n_items:
        raise DataError(
            f"Item indices must lie in 0…{n_items - 1}; got {items.min()}…{items.max()}. Use the data set of the model."
        )
    recent = items[-model.config.max_length :]
    device = model.device
    inputs = torch.from_numpy(recent.copy())[None].to(device)
    lengths = torch.tensor([len(recent)], device=device)
    scores, tolerance = (x[0].cpu().double().numpy() for x in model.score_and_tolerance(inputs, lengths))
    if np.isnan(scores).any():
        raise DataError(f"Scores must be numbers; {int(np.isnan(scores).sum())} are NaN. Train the model again.")
    is_allowed = np.ones(n_items, dtype=bool)
    if not include_seen:
        is_allowed[items] = False
    allowed = np.flatnonzero(is_allowed)
    if not len(allowed):
        raise DataError("The history contains the whole catalogue; no item is left to recommend. Use --include-seen.")
    best = allowed[best_first(scores[allowed], k, tolerance=float(tolerance))]
    return Recommendation(best, scores[best].astype(np.float32).astype(np.float64), items, len(recent))


def find_user(dataset: Dataset, user_id: str) -> int:
    """Return the row of the user with this id; an unknown id is a DataError."""
    ids = [label_of(label) for label in dataset.user_ids]
    label = label_of(user_id)
    if not label or label not in ids:
        raise DataError(
            f"Data set {dataset.name!r} has no user {user_id!r} among its {len(ids)}; ids look like {ids[0]!r}."
            f"{did_you_mean(user_id, ids)} Give an id of the data, or a history."
        )
    return ids.index(label)


def parse_history(dataset: Dataset, text: str) -> IntArray:
    """Return the items of a history given as text: ids or titles, oldest first, separated by commas.

    A name that is both an id and a title is read as the id. The case of titles does not matter. A name that contains a
    comma is put in double quotes.

    Raises
    ------
    DataError
        If the history is empty, or a name is unknown or is the title of several items.
    """
    try:
        lines = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(
            f"A history is names separated by commas, a name with a comma in double quotes; {text!r} cannot be read: "
            f"{error}. Close the quote, or write a quote inside a name twice."
        ) from error
    names = [name.strip() for line in lines for name in line if name.strip()]
    if not names:
        raise DataError(f"A history needs at least one item; got {text!r}. Give ids or titles separated by commas.")
    ids: dict[str, int] = {label_of(label): item for item, label in enumerate(dataset.item_ids)}
    titles: dict[str, list[int]] = {}
    for item, title in enumerate(dataset.item_titles or ()):
        if title:
            titles.setdefault(title.casefold(), []).append(item)
    return np.array([_find_item(dataset, name, ids, titles) for name in names], dtype=np.int64)


def _find_item(dataset: Dataset, name: str, ids: dict[str, int], titles: dict[str, list[int]]) -> int:
    if label_of(name) in ids:
        return ids[label_of(name)]
    matches = titles.get(name.casefold(), [])
    if len(matches) == 1:
        return matches[0]
    if matches:
        choices = ", ".join(str(dataset.item_ids[item]) for item in matches[:5])
        raise DataError(f"{len(matches)} items have the title {name!r}. Give one of their ids instead: {choices}.")
    known = [*ids, *(dataset.item_titles or ())]
    raise DataError(
        f"Data set {dataset.name!r} has no item with the id or title {name!r}.{did_you_mean(name, known)} "
        "Put a title that contains a comma in double quotes."
    )


def titles_of(dataset: Dataset, items: IntArray) -> list[str]:
    """Return the titles of items; an empty string for an item without a title."""
    return ["" if dataset.item_titles is None else dataset.item_titles[item] for item in items]


def describe(recommendation: Recommendation, dataset: Dataset) -> dict[str, Any]:
    """Return a recommendation as plain values, as printed by ``--json``."""
    history = recommendation.history
    return {
        "history": [
            {"item_id": str(dataset.item_ids[item]), "title": title}
            for item, title in zip(history, titles_of(dataset, history), strict=True)
        ],
        "n_read": recommendation.n_read,
        "is_truncated": recommendation.is_truncated,
        "items": recommendation.to_frame(dataset).to_dict("records"),
    }
