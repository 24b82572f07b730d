"""What FMLPRec and BSARec share: right-aligned histories on a frame of fixed length, and the loss at the last item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from frellm4rec.models.batch import Batch
from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.losses import binary_loss, scores_of, summed
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.models.traits import Traits
from frellm4rec.modules.frame import Frame
from frellm4rec.modules.frequency import FrequencyFilter, FrequencyRescaler
from frellm4rec.modules.transformer import Dropout, draw_weights
from spectral_probe.errors import ConfigError

LOSSES = ("softmax", "bce")


@dataclass(frozen=True)
class AlignedConfig(RecommenderConfig):
    """Settings of :class:`AlignedRecommender`.

    Attributes
    ----------
    n_items : int
        Size of the catalogue.
    max_length : int
        Most recent items that are read, and the length T of the frame.
    n_features : int
        Size of item embeddings and states.
    n_blocks : int
    n_inner : int
        Width of the feed-forward part; published: four times the features.
    dropout : float
        Rate at the embeddings and at both branches of a block.
    loss : {"softmax", "bce"}
        Softmax over the catalogue (full or sampled, as the training says), or binary cross-entropy against one item
        that the user has not touched.
    """

    n_features: int = 50
    n_blocks: int = 2
    n_inner: int = 200
    dropout: float = 0.5
    loss: Literal["softmax", "bce"] = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_features", "n_blocks", "n_inner"):
            self.check_at_least(name, 1)
        self.check_within("dropout", "[0, 1)", "The paper's setting is 0.5.")
        self.check_one_of("loss", LOSSES)


class AlignedBlock(nn.Module, ABC):
    """A block of an :class:`AlignedRecommender`; all states are right-padded, and exactly 0 at the padding."""

    @abstractmethod
    def forward(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the states after the block, (batch, position, feature)."""

    @abstractmethod
    def newest(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the state of the newest item after the block, (batch, feature), without computing the others."""


class AlignedRecommender(SequentialRecommender):
    """A recommender whose blocks mix all positions of a right-aligned frame; the state of the newest item scores.

    Embedding plus position, norm, dropout; then the blocks. Positions are counted back from the newest item. Padding is
    exactly 0 after the embedding and in what every part of a block reads, so that neither its content, nor the width of
    the batch, nor other rows can matter. Scores use the table of the item embeddings. A loss and a score need the last
    row alone, so of the last block only that row is computed.

    Parameters
    ----------
    config : AlignedConfig
    seed : int
        Draws the initial weights: normal with standard deviation 0.02, biases 0, norms at the identity.

    Notes
    -----
    Row t of :meth:`forward` depends on all items of the prefix that is given, and on its length. Only the last row has
    the meaning that the base class gives: it has read the items up to its own and no other. The instrument therefore
    runs these models prefix by prefix.
    """

    traits = Traits(is_causal=False)
    config_class = AlignedConfig
    config: AlignedConfig

    def __init__(self, config: AlignedConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        # torch draws default weights from the global generator while layers are built; restore its state.
        with torch.random.fork_rng(devices=[]):
            self.items = nn.Embedding(config.n_items, config.n_features)
            self.positions = nn.Embedding(config.max_length, config.n_features)
            self.norm = nn.LayerNorm(config.n_features)
            self.dropout = Dropout(config.dropout)
            self.blocks = nn.ModuleList(self.make_block() for _ in range(config.n_blocks))
        draw_weights(self, seed)
        generator = torch.Generator().manual_seed(seed + 2**32)
        for module in self.modules():
            if isinstance(module, (FrequencyFilter, FrequencyRescaler)):
                module.draw(generator)

    @abstractmethod
    def make_block(self) -> AlignedBlock:
        """Return a new block for the config; called while the model is built."""

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states after the last block, (batch, position, feature), 0 at the padding; see the base class."""
        states, frame = self.embed(inputs, lengths)
        for block in self.blocks:
            states = block(states, frame)
        return states

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, Frame]:
        """Return what the first block reads, (batch, position, feature), and the frame of the batch."""
        self.check_inputs(inputs, lengths)
        frame = Frame.of(lengths, inputs.shape[1], self.config.max_length)
        positions = frame.n_frame - 1 - frame.pack(frame.ages)
        states = self.items(frame.pack(inputs)) + self.positions(positions)
        return frame.unpack(self.dropout(self.norm(states))), frame

    def last_states(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the rows of :meth:`forward` at the newest items, (batch, feature)."""
        states, frame = self.embed(inputs, lengths)
        *first, last = cast(list[AlignedBlock], list(self.blocks))
        for block in first:
            states = block(states, frame)
        return last.newest(states, frame)

    def target_states(self, batch: Batch) -> torch.Tensor:
        """Return the states of the newest items, (batch, feature).

        Raises
        ------
        ConfigError
            If a loss is asked for elsewhere: of a state that has read the item to be predicted.
        """
        steps = torch.arange(batch.inputs.shape[1], device=batch.inputs.device)
        if not torch.equal(batch.counts, steps == batch.lengths[:, None] - 1):
            raise ConfigError(
                f"{self.name} reads all items of a prefix at every position, so the loss is taken at the last position "
                f"alone; got {batch.n_targets} targets for {len(batch.lengths)} prefixes. Train it with "
                "training.supervision=prefix or all-prefixes."
            )
        return self.last_states(batch.inputs, batch.lengths)

    def item_embeddings(self) -> torch.Tensor:
        """Return the item table, (n_items, feature)."""
        return self.items.weight

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the losses of a batch, and the number of targets; see the base class."""
        if self.has_softmax_loss:
            return super().training_loss(batch, draws)
        states, targets = self.target_states(batch), batch.targets[batch.counts]
        negatives = draw_unseen(batch, 1, draws)
        positive, negative = scores_of(states, self.item_embeddings(), targets, negatives)
        return summed(binary_loss(positive, negative), len(targets))
