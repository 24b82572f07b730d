"""Recommenders with states per position and an item table: a score is the inner product of the two."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import nn

from frellm4rec.models.base import Recommender
from frellm4rec.models.batch import Batch
from frellm4rec.models.losses import sampled_softmax_loss, softmax_loss, summed
from spectral_probe.errors import ConfigError
from spectral_probe.types import LayerState

#: Rows of the item table that are scored together.
_ROWS_AT_ONCE = 1 << 14


class SequentialRecommender(Recommender):
    """A recommender that turns a history into one state per position, and rates items by a table.

    A subclass with transformer blocks names them ``blocks`` and, where it has one, its last norm ``final_norm``:
    :meth:`layers` lists them. A model without layers says why in ``traits.why_no_layers``. An item bias is folded into
    the table: states :func:`with_ones`, table :func:`with_bias`.
    """

    #: Blocks that are recorded, and the norm after the last one, where a model has it.
    blocks: nn.ModuleList
    final_norm: nn.Module | None

    @abstractmethod
    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states from which scores are taken.

        Parameters
        ----------
        inputs : (batch, position) int
        lengths : (batch,) int

        Returns
        -------
        (batch, position, feature) float
            Row t is computed from items 0…t and predicts item t + 1; rows from the length on have no meaning.
        """

    @abstractmethod
    def item_embeddings(self) -> torch.Tensor:
        """Return the table that scores are inner products with, (n_items, feature)."""

    @property
    def width(self) -> int:
        """Number of features of the states."""
        with torch.no_grad():
            return int(self.item_embeddings().shape[1])

    def item_vectors(self, items: torch.Tensor) -> torch.Tensor:
        """Return the rows of the item table for items of any shape, (…, feature); a gradient passes through."""
        return self.item_embeddings()[items]

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return the layers in the order of computation, as the instrument reads them.

        The ``embed`` state is the input of the first block; a block's state is its output.
        """
        if self.why_no_layers:
            return []
        named: list[tuple[str, LayerState, nn.Module]] = [("embed", "embed", self.blocks[0])]
        named += [(f"block {i}", "block", block) for i, block in enumerate(self.blocks, start=1)]
        final_norm = getattr(self, "final_norm", None)
        return named if final_norm is None else [*named, ("final_norm", "final_norm", final_norm)]

    @torch.no_grad()
    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Run the model on right-padded item indices without dropout; the mode is restored afterwards."""
        was_training = self.training
        self.eval()
        try:
            states: torch.Tensor = self(inputs, lengths)
            return states
        finally:
            self.train(was_training)

    def last_states(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the rows of :meth:`forward` at the last valid positions, (batch, feature): scores are taken of them.

        A subclass overrides it where these rows alone take less time; so too :meth:`target_states`.
        """
        states: torch.Tensor = self(inputs, lengths)
        return states[torch.arange(len(inputs), device=inputs.device), lengths - 1]

    def target_states(self, batch: Batch) -> torch.Tensor:
        """Return the rows of :meth:`forward` where a loss is taken, (n_targets, feature), ordered as ``counts``."""
        states: torch.Tensor = self(batch.inputs, batch.lengths)
        return states[batch.counts]

    @property
    def has_softmax_loss(self) -> bool:
        """Whether the loss is a softmax over the catalogue: the config names no other as its ``loss``."""
        return getattr(self.config, "loss", "softmax") == "softmax"

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the softmax losses of a batch, and the number of targets; see the base class.

        Over the whole item table, or over the target and ``batch.negatives`` where the step has drawn them.

        Notes
        -----
        Source: FreLLM4Rec Eq. (3).
        """
        states = self.target_states(batch)
        return self.softmax_of(states, batch.targets[batch.counts], batch.negatives)

    def softmax_of(
        self, states: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor | None
    ) -> tuple[torch.Tensor, int]:
        """Return the sum of the softmax losses of some states, and their number.

        Parameters
        ----------
        states : (n, feature) float
        targets : (n,) int
        negatives : (n_negatives,) int or None
            Items that the step has drawn; None: the loss is over the whole item table.
        """
        n = len(targets)
        if negatives is None:
            return summed(softmax_loss(states, self.item_embeddings(), targets), n)
        vectors = self.item_vectors(torch.cat([targets, negatives]))
        loss = sampled_softmax_loss(states, vectors[:n], targets, vectors[n:], negatives, self.config.n_items)
        return summed(loss, n)

    @torch.no_grad()
    def score(self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return the inner products of the last valid state with the item embeddings; see the base class.

        Notes
        -----
        Source: FreLLM4Rec Eq. (3).
        """
        scores, _, dtype = self._inner_products(inputs, lengths, items)
        return scores.to(dtype)

    @torch.no_grad()
    def score_and_tolerance(
        self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return the scores and, for each row, the largest rounding difference between the scores of equal items.

        A matrix product rounds its last columns in another order than the others, so the scores of two items with equal
        vectors may differ in their last digits; for which items depends on the processor. With d features, two such
        inner products differ by at most :math:`d\,\epsilon\,\lVert h \rVert \lVert w \rVert`. The product is taken in
        float64, where this is far below any difference that training makes.

        Parameters
        ----------
        inputs, lengths, items
            As in :meth:`score`.

        Returns
        -------
        scores : (batch, n_candidates) or (batch, n_items) float64
            Float32 on a device without float64; of a model that overrides :meth:`score`, what it returns.
        tolerance : (batch,) float
            Items whose scores differ by no more than this are tied. It does not depend on ``items``. 0 for a model that
            overrides :meth:`score`.
        """
        if type(self).score is not SequentialRecommender.score:
            return super().score_and_tolerance(inputs, lengths, items)
        scores, tolerance, _ = self._inner_products(inputs, lengths, items)
        return scores, tolerance

    def _inner_products(
        self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.dtype]:
        """Return scores, tolerance and the dtype of the item table."""
        was_training = self.training
        self.eval()
        try:
            last = self.last_states(inputs, lengths)
            table = self.item_embeddings()
        finally:
            self.train(was_training)
        # The metal backend has no float64. Autocast leaves float64 alone.
        precise = torch.float32 if last.device.type == "mps" else torch.float64
        last = last.to(precise)
        longest = torch.linalg.vector_norm(table, dim=1, dtype=torch.float32).max().to(precise)
        # Twice the bound: the norms are rounded too.
        epsilon = 2 * last.shape[1] * torch.finfo(precise).eps
        tolerance = epsilon * torch.linalg.vector_norm(last, dim=1) * longest
        if items is not None:
            return torch.einsum("bd,bcd->bc", last, table[items].to(precise)), tolerance, table.dtype
        # Some rows at a time: a copy of a large table in float64 would not fit in memory.
        blocks = [last @ rows.to(precise).T for rows in table.split(_ROWS_AT_ONCE)]
        return torch.cat(blocks, dim=1), tolerance, table.dtype


def item_table_of(model: Recommender) -> torch.Tensor:
    """Return the item table of a model whose scores are inner products, (n_items, feature).

    Raises
    ------
    ConfigError
        If they are not.
    """
    if not isinstance(model, SequentialRecommender):
        raise ConfigError(
            f"{model.name} has no item embeddings: its scores are no inner products. Name a model that has an item "
            "table, such as sasrec."
        )
    return model.item_embeddings()


def with_ones(states: torch.Tensor) -> torch.Tensor:
    """Return states (…, feature) with a last feature of 1: [h; 1]."""
    return torch.cat([states, torch.ones_like(states[..., :1])], dim=-1)


def with_bias(table: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return an item table (n_items, feature) with its bias (n_items,) as the last feature: [w; b].

    The inner product of :func:`with_ones` of a state with a row is then ⟨h, w⟩ + b.
    """
    return torch.cat([table, bias[:, None].to(table.dtype)], dim=1)
