"""Recommenders that are counted, not trained: a sparse table of item × item, and how items are rated by it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import csr_array

from frellm4rec.models.base import Recommender
from spectral_probe.interactions.dataset import Dataset

#: Names of the tensors of a table.
_PARTS = ("indptr", "indices", "values")


class CountedRecommender(Recommender):
    """A recommender whose scores are sums of rows of a table that the training part determines.

    Parameters
    ----------
    config : RecommenderConfig
    table : csr_array (n_items, n_items), optional
        Row i: what an item i of a history says of every item as the next one.
    popularity : (n_items,) float, optional
        Number of users of each item in training.
    seed : int
        Not used: the data determine the model.
    """

    def __init__(
        self,
        config: Any,
        *,
        table: csr_array | None = None,
        popularity: np.ndarray[Any, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        n = config.n_items
        table = csr_array((n, n), dtype=np.float64) if table is None else table.sorted_indices()
        values = {"indptr": table.indptr.astype(np.int64), "indices": table.indices.astype(np.int64)}
        values |= {"values": table.data.astype(np.float64)}
        values |= {"popularity": np.zeros(n) if popularity is None else np.asarray(popularity, dtype=np.float64)}
        for name, array in values.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))

    @classmethod
    def from_dataset(
        cls, config: Any, dataset: Dataset, *, seed: int = 0, device: str = "cpu", dtype: str = "auto"
    ) -> Self:
        """Count the training part of a data set; see the base class."""
        popularity = np.asarray(dataset.train.user_items.sum(axis=0), dtype=np.float64).ravel()
        return cls(config, table=cls.count(config, dataset), popularity=popularity).to(device)

    @staticmethod
    @abstractmethod
    def count(config: Any, dataset: Dataset) -> csr_array:
        """Return the table, (n_items, n_items), from the training part of a data set."""

    @abstractmethod
    def weights(self, inputs: torch.Tensor, lengths: torch.Tensor) -> csr_array:
        """Return how much each row of the table counts for each history, (batch, n_items)."""

    @torch.no_grad()
    def score(self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores of items as the next one, float64; see the base class.

        Items that the table leaves equal are ordered by popularity: its share, below the smallest entry of the table,
        is added.
        """
        self.check_inputs(inputs, lengths)
        parts = tuple(getattr(self, name).cpu().numpy() for name in ("values", "indices", "indptr"))
        table = csr_array(parts, shape=(self.config.n_items, self.config.n_items))
        scores = torch.from_numpy((self.weights(inputs, lengths) @ table).toarray())
        scores = scores.to(self.popularity.device) + self._tie_breaker()
        return scores if items is None else scores.gather(1, items)

    def _tie_breaker(self) -> torch.Tensor:
        """Return a share of each item's popularity, (n_items,), too small to reorder what the table tells apart."""
        smallest = float(self.values.min()) if len(self.values) else 1.0
        return self.popularity / (self.popularity.sum().clamp(min=1.0)) * smallest * 1e-6

    def load_saved_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load what :meth:`saved_state` returned; the size of the table comes with it."""
        expected = {*_PARTS, "popularity"}
        n = self.config.n_items
        if set(weights) != expected:
            raise RuntimeError(f"a table of {n} items has {sorted(expected)}; got {sorted(weights)}")
        sizes = {name: len(tensor) for name, tensor in weights.items()}
        n_entries = sizes["values"]
        is_whole = sizes == {"indptr": n + 1, "popularity": n, "indices": n_entries, "values": n_entries}
        if not is_whole or int(weights["indptr"][-1]) != n_entries or bool((weights["indptr"].diff() < 0).any()):
            raise RuntimeError(f"a table of {n} items has {n + 1} row starts and {n} counts; the sizes are {sizes}")
        if n_entries and not 0 <= int(weights["indices"].min()) <= int(weights["indices"].max()) < n:
            raise RuntimeError(f"a table of {n} items names items 0…{n - 1}; it names {int(weights['indices'].max())}")
        for name, tensor in weights.items():
            self.register_buffer(name, tensor)


def last_items(inputs: torch.Tensor, lengths: torch.Tensor, n_last: int, n_items: int) -> csr_array:
    """Return which items are among the last ``n_last`` of each history, (batch, n_items); each counts once."""
    positions = torch.arange(inputs.shape[1], device=inputs.device)
    is_last = (positions < lengths[:, None]) & (positions >= lengths[:, None] - n_last)
    rows, columns = is_last.nonzero(as_tuple=True)
    items = inputs[rows, columns]
    shape = (len(inputs), n_items)
    chosen = csr_array((np.ones(len(items)), (rows.cpu().numpy(), items.cpu().numpy())), shape=shape)
    chosen.sum_duplicates()
    chosen.data[:] = 1.0
    return chosen
