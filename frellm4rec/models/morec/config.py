"""The settings of MoRec, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frellm4rec.models.config import RecommenderConfig
from spectral_probe.errors import ConfigError

#: Loss → negatives that are drawn, where the config does not say.
LOSSES: dict[str, int] = {"bce": 1, "in-batch": 0, "softmax": 0}
MODES = ("frozen", "end_to_end")
#: Settings of the mode ``end_to_end`` alone.
_OF_END_TO_END = ("n_trained_layers", "max_tokens")


@dataclass(frozen=True)
class MoRecConfig(RecommenderConfig):
    """Settings of :class:`MoRec`.

    Attributes
    ----------
    n_items, max_length : int
        Size of the catalogue; number of most recent items that are read.
    backbone : str
        Alias, local folder or hub repository of the text encoder.
    backbone_revision : str or None
        Commit of a hub repository.
    backbone_weights, backbone_dtype : str or None
        Hash and dtype of the encoder's weights, filled in when the model is made. A given hash that differs is an
        error.
    mode : {"frozen", "end_to_end"}
        Titles are encoded once, before the training, or in every step with the last layers of the encoder trained.
    n_trained_layers : int
        End to end: how many of the encoder's last layers are trained.
    max_tokens : int
        End to end: tokens of a title that are read.
    n_perceptron_layers : {1, 2}
        Linear maps, each with a GELU, from the vector of a title to that of an item.
    n_features : int
        Size of item vectors and states.
    n_blocks, n_heads : int
        Transformer blocks, and attention heads in each.
    n_inner : int or None
        Width of the feed-forward part; four times ``n_features`` when left out.
    dropout : float
        Before the second linear map, at the embeddings, attention weights, the inner features and both branches of a
        block.
    loss : {"bce", "in-batch", "softmax"}
        Binary cross-entropy against unseen items; cross-entropy against the items of the batch with the correction for
        their popularity; softmax over the catalogue (full or sampled, as the training says).
    n_negatives : int or None
        Under ``bce`` of each target, under ``in-batch`` uniformly drawn items that join those of the batch; None: 1
        and 0.
    """

    backbone: str = "minilm"
    backbone_revision: str | None = None
    backbone_weights: str | None = None
    backbone_dtype: str | None = None
    mode: Literal["frozen", "end_to_end"] = "frozen"
    n_trained_layers: int = 2
    max_tokens: int = 30
    n_perceptron_layers: int = 2
    n_features: int = 50
    n_blocks: int = 2
    n_heads: int = 2
    n_inner: int | None = None
    dropout: float = 0.1
    loss: Literal["bce", "in-batch", "softmax"] = "bce"
    n_negatives: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_trained_layers", "max_tokens", "n_features", "n_blocks", "n_heads"):
            self.check_at_least(name, 1)
        self.check_one_of("mode", MODES)
        self.check_one_of("loss", LOSSES)
        if self.n_perceptron_layers not in (1, 2):
            raise ConfigError(f"n_perceptron_layers must be 1 or 2; got {self.n_perceptron_layers!r}. The paper has 1.")
        if self.n_inner is not None:
            self.check_at_least("n_inner", 1)
        self.check_heads()
        self.check_within("dropout", "[0, 1)", "The paper's setting is 0.1.")
        self._check_unused()

    def _check_unused(self) -> None:
        """Refuse settings that would change nothing."""
        if self.n_negatives is not None:
            self.check_at_least("n_negatives", 1)
            if self.loss == "softmax":
                raise ConfigError(
                    f"n_negatives is of the losses bce and in-batch; got {self.n_negatives} with softmax. For a "
                    "sampled softmax set training.loss=sampled and training.n_negatives."
                )
        for name in _OF_END_TO_END if self.mode == "frozen" else ():
            if getattr(self, name) != getattr(MoRecConfig, name):
                raise ConfigError(
                    f"{name} is of the mode end_to_end; got {getattr(self, name)} with frozen. Leave it out."
                )

    @property
    def inner_width(self) -> int:
        """Width of the feed-forward part."""
        return self.n_inner or 4 * self.n_features

    @property
    def drawn_negatives(self) -> int:
        """Negatives that are drawn, of each target or for the batch."""
        return LOSSES[self.loss] if self.n_negatives is None else self.n_negatives
