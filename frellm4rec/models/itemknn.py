"""ItemKNN: items touched by the same users as the last items of the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array

from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.counted import CountedRecommender, last_items
from frellm4rec.models.traits import Traits
from spectral_probe.interactions.dataset import Dataset


@dataclass(frozen=True)
class ItemKNNConfig(RecommenderConfig):
    """Settings of :class:`ItemKNN`.

    Attributes
    ----------
    n_last : int
        Most recent items of the history that vote.
    n_neighbours : int
        Most similar items that an item votes for.
    shrink : float
        Added to the denominator of the similarity: fewer votes for items that few users touched.
    """

    n_last: int = 10
    n_neighbours: int = 100
    shrink: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_last", "n_neighbours"):
            self.check_at_least(name, 1)
        self.check_within("shrink", "[0, inf)", "Start with 0.")


class ItemKNN(CountedRecommender):
    r"""The score of an item is its summed similarity to the last items of the history.

    .. math:: \cos(i, j) = \frac{W_{ij}}{\sqrt{c_i c_j} + \text{shrink}}

    with :math:`W = R^\top R` the number of training users that touched both, and :math:`c_i` those that touched i. An
    item votes for its ``n_neighbours`` most similar ones; ties are cut in the order of the catalogue.

    Notes
    -----
    Source: Sarwar et al. 2001; Deshpande and Karypis 2004.
    """

    name: ClassVar[str] = "itemknn"
    traits = Traits(
        is_trained=False,
        is_inner_product=False,
        why_no_layers="it counts users that items share, and has no states",
        exceptions={"order": "ItemKNN takes its last items as a set"},
    )
    config_class = ItemKNNConfig
    config: ItemKNNConfig

    @staticmethod
    def count(config: Any, dataset: Dataset) -> csr_array:
        """Return the similarity of each item to its neighbours, (n_items, n_items), 0 to itself."""
        users = csr_array(dataset.train.user_items, dtype=np.float64)
        together = csr_array(users.T @ users)
        n_users = np.asarray(users.sum(axis=0)).ravel()
        rows = np.repeat(np.arange(config.n_items), np.diff(together.indptr))
        cosine = together.data / (np.sqrt(n_users[rows] * n_users[together.indices]) + config.shrink)
        is_other = rows != together.indices
        rows, columns, cosine = rows[is_other], together.indices[is_other], cosine[is_other]
        # Rank within each row: rows ascending, then similarity descending, then the order of the catalogue.
        order = np.lexsort((columns, -cosine, rows))
        rows, columns, cosine = rows[order], columns[order], cosine[order]
        starts = np.searchsorted(rows, np.arange(config.n_items))
        is_neighbour = np.arange(len(rows)) - starts[rows] < config.n_neighbours
        shape = (config.n_items, config.n_items)
        return csr_array((cosine[is_neighbour], (rows[is_neighbour], columns[is_neighbour])), shape=shape)

    def weights(self, inputs: torch.Tensor, lengths: torch.Tensor) -> csr_array:
        """Return the last items of each history, (batch, n_items)."""
        return last_items(inputs, lengths, self.config.n_last, self.config.n_items)
