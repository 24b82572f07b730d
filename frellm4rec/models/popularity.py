"""Popularity: every user is recommended the items that most users have touched."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from scipy.sparse import csr_array

from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.counted import CountedRecommender
from frellm4rec.models.traits import Traits
from spectral_probe.interactions.dataset import Dataset


class PopularityConfig(RecommenderConfig):
    """Settings of :class:`Popularity`: none but the size of the catalogue."""


class Popularity(CountedRecommender):
    """The score of an item is the number of users who touched it in training."""

    name: ClassVar[str] = "popularity"
    traits = Traits(
        is_trained=False,
        is_inner_product=False,
        why_no_layers="it counts users, and has no states",
        exceptions={
            "order": "popularity does not read the history",
            "learns": "popularity does not read the history",
        },
    )
    config_class = PopularityConfig
    config: PopularityConfig

    @staticmethod
    def count(config: Any, dataset: Dataset) -> csr_array:
        """Return an empty table: the history says nothing."""
        return csr_array((config.n_items, config.n_items))

    def weights(self, inputs: torch.Tensor, lengths: torch.Tensor) -> csr_array:
        """Return zeros."""
        return csr_array((len(inputs), self.config.n_items))

    def _tie_breaker(self) -> torch.Tensor:
        return self.popularity
