"""GRU4Rec: gated recurrent layers over a tied item table with a bias, trained against shared negatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import nn

from frellm4rec.models.batch import Batch
from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.losses import summed
from frellm4rec.models.negatives import draw_by_count
from frellm4rec.models.ranking_losses import RowLosses, bpr_max, cross_entropy, shared_negatives_loss, top1_max
from frellm4rec.models.sequential import SequentialRecommender, with_bias, with_ones
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import Dropout
from spectral_probe.errors import ConfigError
from spectral_probe.interactions.dataset import Dataset

LOSSES = ("bpr-max", "top1-max", "cross-entropy", "softmax")
#: Setting → default, and the losses that it is of.
_OF_A_LOSS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "n_negatives": (2048, LOSSES[:3]),
    "popularity_power": (0.5, LOSSES[:3]),
    "elu_scale": (0.5, ("bpr-max",)),
    "penalty": (1.0, ("bpr-max",)),
    "log_correction": (False, ("cross-entropy",)),
}


@dataclass(frozen=True)
class GRU4RecConfig(RecommenderConfig):
    """Settings of :class:`GRU4Rec`.

    Attributes
    ----------
    n_items : int
        Size of the catalogue.
    max_length : int
        Most recent items that are read.
    n_features : int
        Size of item embeddings and states.
    n_blocks : int
        Recurrent layers.
    dropout : float
        Rate at the output of each layer.
    embedding_dropout : float or None
        Rate at the item embeddings; None: as ``dropout``.
    loss : {"bpr-max", "top1-max", "cross-entropy", "softmax"}
        The first three are against negatives that all rows of a step share; ``softmax`` is over the catalogue, full or
        sampled, as the training says.
    n_negatives : int
        Items drawn for a step, beside targets of the batch; at most as many as the catalogue has.
    popularity_power : float in [0, 1]
        An item is drawn with a probability proportional to this power of its number of training events.
    elu_scale : float
        Scale of the ELU that the scores of ``bpr-max`` pass first; 0: none.
    penalty : float
        Weight of the squared scores of negatives in ``bpr-max``.
    log_correction : bool
        Whether ``cross-entropy`` lowers each score by the logarithm of how often its item is expected among the
        negatives.
    """

    n_features: int = 50
    n_blocks: int = 1
    dropout: float = 0.2
    embedding_dropout: float | None = None
    loss: Literal["bpr-max", "top1-max", "cross-entropy", "softmax"] = "bpr-max"
    n_negatives: int = 2048
    popularity_power: float = 0.5
    elu_scale: float = 0.5
    penalty: float = 1.0
    log_correction: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_features", "n_blocks", "n_negatives"):
            self.check_at_least(name, 1)
        for name in ("dropout", *(() if self.embedding_dropout is None else ("embedding_dropout",))):
            self.check_within(name, "[0, 1)", "0.2 is the default of this model.")
        self.check_one_of("loss", LOSSES)
        self.check_within("popularity_power", "[0, 1]", "0.5 is the default, 0 is uniform.")
        for name in ("elu_scale", "penalty"):
            self.check_within(name, "[0, inf)", "The default is a good start.")
        self.check_switch("log_correction")
        for name, (default, losses) in _OF_A_LOSS.items():
            value = getattr(self, name)
            if value != default and self.loss not in losses:
                raise ConfigError(
                    f"{name} is of the loss {' or '.join(losses)}; got {value!r} with {self.loss}. Leave it out."
                )

    @property
    def n_drawn(self) -> int:
        """Items drawn for a step."""
        return min(self.n_negatives, self.n_items)


class GRULayer(nn.Module):
    r"""A layer of gated recurrent units, from left to right, that starts from zero.

    .. math:: z &= \sigma(W_z x_t + U_z h + b_z), \quad r = \sigma(W_r x_t + U_r h + b_r) \\
              c &= \tanh(W_c x_t + b_c + r \odot (U_c h + b'_c)), \quad h_t = (1 - z) \odot c + z \odot h

    ``nn.GRU`` returns a tuple; this layer returns the states alone, after dropout, as the instrument reads them.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)
        self.dropout = Dropout(dropout)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states of the layer at each position, (batch, position, feature)."""
        states, _ = self.gru(states)
        dropped_out: torch.Tensor = self.dropout(states)
        return dropped_out


class GRU4Rec(SequentialRecommender):
    r"""Recurrent layers over item embeddings; the score of item j is :math:`\langle h_t, E_j \rangle + b_j`.

    The states are as wide as the embeddings, and the same table E is read and scored ("constrained embedding").

    Parameters
    ----------
    config : GRU4RecConfig
    counts : (n_items,) int, optional
        Training events of each item, by which negatives are drawn. :meth:`from_dataset` counts them; when left out, all
        items count the same. They are saved with the weights.
    seed : int
        Draws the initial weights: uniform within ±√(6 / (rows + columns)) of each matrix, biases 0, as published.

    Notes
    -----
    Source: Hidasi et al. 2016 (ICLR); Hidasi and Karatzoglou 2018 (CIKM). Published settings: 100 to 512 units, Adagrad
    with momentum and learning rates of .03 to .1, batches of 32 to 240, 2,048 negatives, popularity power .3 to .5,
    penalty .9 to 1.95, ELU .5 to 1, dropout up to .5.

    Deviations. Published training runs sessions side by side, carries the state from step to step, and does not
    differentiate through it. Here a history is read whole and the gradient goes back through all positions; the authors
    recommend this for long histories. Adam in place of Adagrad. The negatives of a step are drawn for the positions of
    all histories together; other targets of the batch that are negatives too are a random subset, as many as the batch
    has histories, which is their number in the published batch. All of them, thousands in a step of whole histories,
    would draw by popularity alone and cost more than the drawn items. An item that never occurs in training counts as
    if it occurred once, so that it can be a negative. Each gate has the two biases of ``nn.GRU``.
    """

    name: ClassVar[str] = "gru4rec"
    traits = Traits()
    config_class = GRU4RecConfig
    config: GRU4RecConfig
    counts: torch.Tensor

    def __init__(self, config: GRU4RecConfig, *, counts: torch.Tensor | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        width = config.n_features
        # torch draws default weights from the global generator while layers are built; restore its state.
        with torch.random.fork_rng(devices=[]):
            self.items = nn.Embedding(config.n_items, width)
            self.blocks = nn.ModuleList(GRULayer(width, config.dropout) for _ in range(config.n_blocks))
        self.bias = nn.Parameter(torch.zeros(config.n_items))
        rate = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        self.dropout = Dropout(rate)
        counts = torch.ones(config.n_items, dtype=torch.int64) if counts is None else counts
        self.register_buffer("counts", counts)
        self._draw_weights(seed)

    @classmethod
    def from_dataset(
        cls, config: Any, dataset: Dataset, *, seed: int = 0, device: str = "cpu", dtype: str = "auto"
    ) -> Self:
        """Return an untrained model that has counted the training events of each item; see the base class."""
        counts = np.bincount(dataset.train.events, minlength=config.n_items)
        return cls(config, counts=torch.from_numpy(counts.astype(np.int64)), seed=seed).to(device)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states of the last layer with a 1 for the item bias, (batch, position, feature + 1).

        Right padding needs no packing: it comes after every valid position.
        """
        self.check_inputs(inputs, lengths)
        states = self.dropout(self.items(inputs))
        for block in self.blocks:
            states = block(states)
        return with_ones(states)

    def item_embeddings(self) -> torch.Tensor:
        """Return the item table with its bias, (n_items, feature + 1)."""
        return with_bias(self.items.weight, self.bias)

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the losses of a batch, and the number of targets; see the base class.

        Notes
        -----
        Source: Hidasi and Karatzoglou 2018, Eqs. (4), (10) and (11).
        """
        if self.has_softmax_loss:
            return super().training_loss(batch, draws)
        states = self(batch.inputs, batch.lengths)[batch.counts]
        targets = batch.targets[batch.counts]
        others = targets[torch.randperm(len(targets), generator=draws)[: len(batch.inputs)].to(targets.device)]
        weights = self.counts.clamp(min=1).double() ** self.config.popularity_power
        negatives = torch.cat([others, draw_by_count(weights, self.config.n_drawn, draws)])
        log_weights = self._expected(weights, len(others)).log() if self.config.log_correction else None
        loss = shared_negatives_loss(
            self._row_losses(), states, self.item_embeddings(), targets, negatives, log_weights
        )
        return summed(loss, len(targets))

    def _row_losses(self) -> RowLosses:
        """Return the loss of the config as a function of scores."""
        config = self.config
        if config.loss == "bpr-max":
            return partial(bpr_max, elu_scale=config.elu_scale, penalty=config.penalty)
        return top1_max if config.loss == "top1-max" else cross_entropy

    def _expected(self, weights: torch.Tensor, n_others: int) -> torch.Tensor:
        """Return how often each item is expected among the negatives, (n_items,): drawn, or a target of the batch."""
        counts = self.counts.clamp(min=1).double()
        return self.config.n_drawn * weights / weights.sum() + n_others * counts / counts.sum()

    def _draw_weights(self, seed: int) -> None:
        """Draw each matrix, gates apart, uniformly as published; biases become 0."""
        generator = torch.Generator().manual_seed(seed)
        nn.init.xavier_uniform_(self.items.weight, generator=generator)
        for name, parameter in self.blocks.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
                continue
            for gate in parameter.chunk(3):
                nn.init.xavier_uniform_(gate, generator=generator)
