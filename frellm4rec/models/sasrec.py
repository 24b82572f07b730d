"""SASRec: a causal self-attention recommender trained from scratch; the paper compares it with language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from frellm4rec.models.base import RecommenderConfig
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.modules.transformer import Dropout, TransformerBlock
from spectral_probe.errors import ConfigError
from spectral_probe.types import LayerState


@dataclass(frozen=True)
class SASRecConfig(RecommenderConfig):
    """Settings of :class:`SASRec`.

    Attributes
    ----------
    n_items : int
        Size of the catalogue.
    max_length : int
        Most recent items that are read.
    n_features : int
        Size of item embeddings and states.
    n_blocks, n_heads : int
        Transformer blocks, and attention heads in each.
    n_inner : int
        Width of the feed-forward part.
    dropout : float
        Rate at the embeddings, attention weights and both branches of a block.
    """

    n_items: int
    max_length: int = 50
    n_features: int = 50
    n_blocks: int = 2
    n_heads: int = 1
    n_inner: int = 50
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_features", "n_blocks", "n_heads", "n_inner"):
            self.check_at_least(name, 1)
        if self.n_features % self.n_heads:
            raise ConfigError(
                f"n_heads must divide n_features; got n_heads={self.n_heads}, n_features={self.n_features}. "
                "Choose 1 or 2 heads for 50 features."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout must lie in [0, 1); got {self.dropout}. The paper's setting is 0.5.")


class SASRec(SequentialRecommender):
    """A pre-norm transformer over learned item and position embeddings; scores use the same item table.

    Parameters
    ----------
    config : SASRecConfig
    seed : int
        Draws the initial weights: normal with standard deviation 0.02, biases 0, norms at the identity.

    Notes
    -----
    Source: Kang and McAuley 2018, the SASRec of FreLLM4Rec Fig. 1b. Deviations: pre-norm blocks with one final norm
    and a GELU feed-forward part, as today's decoders have, so that its layers compare with theirs; full softmax instead
    of one sampled negative.
    """

    name: ClassVar[str] = "sasrec"
    is_causal: ClassVar[bool] = True
    config_class = SASRecConfig
    config: SASRecConfig

    def __init__(self, config: SASRecConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        # torch draws default weights from the global generator while layers are built; restore its state.
        with torch.random.fork_rng(devices=[]):
            self.items = nn.Embedding(config.n_items, config.n_features)
            self.positions = nn.Embedding(config.max_length, config.n_features)
            self.dropout = Dropout(config.dropout)
            self.blocks = nn.ModuleList(
                TransformerBlock(
                    config.n_features, n_heads=config.n_heads, n_inner=config.n_inner, dropout=config.dropout
                )
                for _ in range(config.n_blocks)
            )
            self.final_norm = nn.LayerNorm(config.n_features)
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states after the final norm, (batch, position, feature); see the base class."""
        self.check_inputs(inputs, lengths)
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        states = self.dropout(self.items(inputs) + self.positions(positions))
        for block in self.blocks:
            states = block(states)
        return self.final_norm(states)

    def item_embeddings(self) -> torch.Tensor:
        """Return the item table, (n_items, feature)."""
        return self.items.weight

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return the layers in the order of computation, as the instrument reads them.

        The ``embed`` state is the input of the first block: item plus position embedding.
        """
        named: list[tuple[str, LayerState, nn.Module]] = [("embed", "embed", self.blocks[0])]
        named += [(f"block {i}", "block", block) for i, block in enumerate(self.blocks, start=1)]
        return [*named, ("final_norm", "final_norm", self.final_norm)]

    @torch.no_grad()
    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Run the model on right-padded item indices without dropout; the mode is restored afterwards."""
        was_training = self.training
        self.eval()
        try:
            return self(inputs, lengths)
        finally:
            self.train(was_training)
