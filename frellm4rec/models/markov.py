"""First-order Markov chain: what followed the last item of the history."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array

from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.counted import CountedRecommender, last_items
from frellm4rec.models.traits import Traits
from spectral_probe.interactions.dataset import Dataset


class MarkovConfig(RecommenderConfig):
    """Settings of :class:`MarkovChain`: none but the size of the catalogue."""


class MarkovChain(CountedRecommender):
    r"""The score of item j after item i is how often j followed i at once, divided by how often anything followed i.

    .. math:: s_{ij} = \frac{\#(i \to j)}{\sum_k \#(i \to k)}

    over the training parts of all histories. Items that never followed i are ordered by popularity.
    """

    name: ClassVar[str] = "markov"
    traits = Traits(is_trained=False, is_inner_product=False, why_no_layers="it counts transitions, and has no states")
    config_class = MarkovConfig
    config: MarkovConfig

    @staticmethod
    def count(config: Any, dataset: Dataset) -> csr_array:
        """Return the shares of the transitions, (n_items, n_items)."""
        sequences = [s for s in dataset.train.sequences() if len(s) >= 2]
        before = np.concatenate([s[:-1] for s in sequences] or [np.empty(0, np.int64)])
        after = np.concatenate([s[1:] for s in sequences] or [np.empty(0, np.int64)])
        shape = (config.n_items, config.n_items)
        counts = csr_array((np.ones(len(before)), (before, after)), shape=shape)
        counts.sum_duplicates()
        n_followers = np.asarray(counts.sum(axis=1)).ravel()
        counts.data /= np.repeat(n_followers, np.diff(counts.indptr))
        return counts

    def weights(self, inputs: torch.Tensor, lengths: torch.Tensor) -> csr_array:
        """Return the last item of each history, (batch, n_items)."""
        return last_items(inputs, lengths, 1, self.config.n_items)
