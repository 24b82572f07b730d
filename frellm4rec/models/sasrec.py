"""SASRec: a causal self-attention recommender trained from scratch; the paper compares it with language models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from frellm4rec.models.batch import Batch
from frellm4rec.models.config import RecommenderConfig, later
from frellm4rec.models.losses import binary_loss, gbce_beta, scores_of, summed
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import Dropout, TransformerBlock, draw_weights
from spectral_probe.errors import ConfigError

#: Loss → negatives of each target, where the config does not say.
LOSSES: dict[str, int] = {"softmax": 0, "bce": 1, "gbce": 256}


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
        Rate at the embeddings, attention weights, the inner features and both branches of a block.
    loss : {"softmax", "bce", "gbce"}
        Softmax over the catalogue (full or sampled, as the training says); binary cross-entropy against one unseen
        item, as published; or gBCE of gSASRec, against many.
    n_negatives : int or None
        Of each target under ``bce`` and ``gbce``; None: 1 and 256.
    gbce_t : float in [0, 1]
        How far gBCE undoes the over-confidence of sampling; 0 is the plain loss.
    """

    n_features: int = 50
    n_blocks: int = 2
    n_heads: int = 1
    n_inner: int = 50
    dropout: float = 0.5
    loss: Literal["softmax", "bce", "gbce"] = later("softmax")
    n_negatives: int | None = later(None)
    gbce_t: float = later(0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_features", "n_blocks", "n_heads", "n_inner"):
            self.check_at_least(name, 1)
        self.check_heads()
        self.check_within("dropout", "[0, 1)", "The paper's setting is 0.5.")
        self.check_one_of("loss", LOSSES)
        if self.n_negatives is not None:
            self.check_at_least("n_negatives", 1)
            if self.loss == "softmax":
                raise ConfigError(
                    f"n_negatives is of the losses bce and gbce; got {self.n_negatives} with softmax. For a sampled "
                    "softmax set training.loss=sampled and training.n_negatives."
                )
        self.check_within("gbce_t", "[0, 1]", "gSASRec takes 0.75.")
        if self.gbce_t != 0.75 and self.loss != "gbce":
            raise ConfigError(f"gbce_t is of the loss gbce; got {self.gbce_t} with {self.loss}. Leave it out.")

    @property
    def negatives_per_target(self) -> int:
        """Negatives that are drawn for each target; 0 under the softmax. By default no more than there are items."""
        default = min(LOSSES[self.loss], max(1, self.n_items - 1)) if LOSSES[self.loss] else 0
        return default if self.n_negatives is None else self.n_negatives


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
    and a GELU feed-forward part, as today's decoders have, so that its layers compare with theirs; full softmax unless
    ``loss`` is ``bce``, the published one.
    """

    name: ClassVar[str] = "sasrec"
    traits = Traits()
    config_class = SASRecConfig
    config: SASRecConfig

    def __init__(self, config: SASRecConfig, *, seed: int = 0) -> None:
        super().__init__()
        if config.negatives_per_target >= max(2, config.n_items):
            raise ConfigError(
                f"A target has at most {config.n_items - 1} negatives, all other items; got "
                f"n_negatives={config.n_negatives}. Leave it out, or choose fewer."
            )
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
        draw_weights(self, seed)

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

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the losses of a batch, and the number of targets; see the base class.

        Negatives are uniform over the items that the user has not touched in training. gBCE is divided by the number
        of terms of a target, as published. Deviation: its scores are lowered by log k, which changes no ranking. With k
        negatives the loss wants scores around −log k; the published model reaches them with an output table of its own.
        Here the table is tied, and would put all items and all states into one direction instead.
        """
        config, n_negatives = self.config, self.config.negatives_per_target
        if not n_negatives:
            return super().training_loss(batch, draws)
        states = self(batch.inputs, batch.lengths)[batch.counts]
        targets, negatives = batch.targets[batch.counts], draw_unseen(batch, n_negatives, draws)
        positive, negative = scores_of(states, self.item_embeddings(), targets, negatives)
        is_generalised = config.loss == "gbce"
        beta = gbce_beta(n_negatives, config.n_items, config.gbce_t) if is_generalised else 1.0
        offset = math.log(n_negatives) if is_generalised else 0.0
        loss = binary_loss(positive - offset, negative - offset, beta=beta)
        return summed(loss / (n_negatives + 1) if is_generalised else loss, len(targets))
