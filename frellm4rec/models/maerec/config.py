"""The settings of MAERec, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frellm4rec.models.config import RecommenderConfig
from spectral_probe.errors import ConfigError

LOSSES = ("bce", "softmax")


@dataclass(frozen=True)
class MAERecConfig(RecommenderConfig):
    """Settings of :class:`MAERec`.

    Attributes
    ----------
    n_items, max_length : int
        Size of the catalogue; number of most recent items that are read.
    n_features : int
        Size of item embeddings and states.
    reach : int
        Largest distance in a training sequence at which two items are neighbours on the graph.
    n_propagations : int
        Products with the normalised graph; the item table is the sum of the embeddings and all products.
    n_blocks, n_heads : int
        Transformer blocks, and attention heads in each.
    n_inner : int or None
        Width of the feed-forward part; four times ``n_features`` when left out.
    dropout : float
        At the embeddings, attention weights, the inner features and both branches of a block.
    loss : {"bce", "softmax"}
        Binary cross-entropy against one unseen item; or the softmax over the catalogue (full or sampled).
    mae_weight : float
        Weight of the masked autoencoder: masking and reconstruction. 0 leaves it out.
    mask_every : int
        Steps after which the graph is masked anew.
    n_seeds : int
        Items from which a mask starts.
    mask_depth : int
        Rounds of masking, and steps of the neighbourhood that an item is compared with.
    mask_share : float in (0, 1)
        Its h-th power is the share of the reached items that are masked in the next round, and of the edges of a
        neighbourhood in step h.
    low_reward : float in [0, 1]
        Weight of the mask loss while the loss of the recommendation falls no faster than before.
    n_reconstructed : int
        Masked edges that are reconstructed in a step.
    n_corrupted : int
        Wrong edges for each of these, half with each end replaced.
    """

    n_features: int = 50
    reach: int = 3
    n_propagations: int = 2
    n_blocks: int = 2
    n_heads: int = 2
    n_inner: int | None = None
    dropout: float = 0.3
    loss: Literal["bce", "softmax"] = "bce"
    mae_weight: float = 1.0
    mask_every: int = 10
    n_seeds: int = 50
    mask_depth: int = 3
    mask_share: float = 0.5
    low_reward: float = 0.2
    n_reconstructed: int = 2048
    n_corrupted: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("n_features", "reach", "n_propagations", "n_blocks", "n_heads", "mask_every", "n_seeds", "mask_depth")
        for name in (*counts, "n_reconstructed"):
            self.check_at_least(name, 1)
        self.check_at_least("n_corrupted", 2)
        if self.n_inner is not None:
            self.check_at_least("n_inner", 1)
        self.check_heads()
        if self.n_corrupted % 2:
            raise ConfigError(f"n_corrupted must be even, half for each end; got {self.n_corrupted}. The paper has 40.")
        self.check_one_of("loss", LOSSES)
        self.check_within("dropout", "[0, 1)", "The paper's setting is 0.3.")
        self.check_within("mae_weight", "[0, inf)", "0 is off.")
        self.check_within("mask_share", "(0, 1)", "The paper's setting is 0.5.")
        self.check_within("low_reward", "[0, 1]", "The paper's setting is 0.2.")

    @property
    def inner_width(self) -> int:
        """Width of the feed-forward part."""
        return self.n_inner or 4 * self.n_features
