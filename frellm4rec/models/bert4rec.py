"""BERT4Rec: a two-sided transformer that fills in hidden items, and predicts the next one as a hidden last item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn.functional import gelu

from frellm4rec.models.batch import Batch, Supervision
from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.sequential import SequentialRecommender, with_bias, with_ones
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import Dropout, PostNormBlock, draw_weights

LOSSES = ("cloze", "softmax")


@dataclass(frozen=True)
class BERT4RecConfig(RecommenderConfig):
    """Settings of :class:`BERT4Rec`.

    Attributes
    ----------
    n_items : int
        Size of the catalogue.
    max_length : int
        Most recent items that are read; the mask after them has one more position.
    n_features : int
        Size of item embeddings and states.
    n_blocks, n_heads : int
        Transformer blocks, and attention heads in each.
    n_inner : int
        Width of the feed-forward part.
    dropout : float
        Rate at the embeddings, attention weights and both branches of a block.
    loss : {"cloze", "softmax"}
        Hidden items of whole histories, as published; or the item after a prefix alone, which other two-sided models
        are trained with. Both are a softmax over the catalogue.
    mask_share : float in (0, 1)
        Share of the items of a history that the cloze hides. The loss ``softmax`` hides none, and ignores it.
    last_only_share : float in [0, 1]
        Share of the histories of which the cloze reads a drawn prefix, and hides its last item alone. ``softmax``
        ignores it.
    max_masks : int
        Most items of a history that the cloze hides. ``softmax`` ignores it.
    """

    n_features: int = 50
    n_blocks: int = 2
    n_heads: int = 2
    n_inner: int = 200
    dropout: float = 0.2
    loss: Literal["cloze", "softmax"] = "cloze"
    mask_share: float = 0.4
    last_only_share: float = 0.5
    max_masks: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_features", "n_blocks", "n_heads", "n_inner", "max_masks"):
            self.check_at_least(name, 1)
        self.check_heads()
        self.check_within("dropout", "[0, 1)", "The published setting is 0.2.")
        self.check_one_of("loss", LOSSES)
        self.check_within("mask_share", "(0, 1)", "Published: 0.2 for long histories, 0.6 for short ones.")
        self.check_within("last_only_share", "[0, 1]", "Try 0.5.")


class BERT4Rec(SequentialRecommender):
    r"""Two-sided post-norm blocks over a history and a mask after it; the state of the mask rates the next item.

    .. math:: x_t = N(e_{s_t} + p_t), \quad H = B_n(\dots B_1(x)), \quad
              r_j = \langle N(\mathrm{GELU}(W h_{\mathrm{mask}} + b)), e_j \rangle + b_j

    Parameters
    ----------
    config : BERT4RecConfig
    seed : int
        Draws the initial weights: normal with standard deviation 0.02, truncated at two of them; biases 0, norms at
        the identity.

    Notes
    -----
    Source: Sun et al. 2019, Eqs. 1–8. Published: 64 features, 2 blocks, 2 heads, dropout 0.2, share of masks 0.2
    (MovieLens 1M, at most 40 of 200) to 0.6 (Beauty, at most 30 of 50), AdamW with rate 1e-4 for 400,000 steps of 256.

    Deviations:

    - The mask has a position of its own behind ``max_length`` items. Published: ``max_length - 1`` items and the mask.
    - Of half of the histories of a step, a drawn prefix is read, and its last item alone is hidden
      (``last_only_share``). Published: one of eleven copies hides the last item of a window, and windows slide. With
      one window of each user, its last item would be learned by heart.
    - Masks are drawn anew in each step. Published: ten copies of each history, masked beforehand.
    - A history is its newest items. Published: windows slide over longer ones.
    - The feed-forward part has dropout inside as well.
    - The rate neither warms up nor decays; the weight decay is of all parameters. Published: not of norms and biases.

    The instrument reads one row per item: ``embed`` is what the first block reads of item t, and of a block's states
    row t is that of the position after item t. In a run of one prefix its last row is the mask.
    """

    name: ClassVar[str] = "bert4rec"
    traits = Traits(is_causal=False)
    config_class = BERT4RecConfig
    config: BERT4RecConfig

    def __init__(self, config: BERT4RecConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        d = config.n_features
        # torch draws default weights from the global generator while layers are built; restore its state.
        with torch.random.fork_rng(devices=[]):
            self.items = nn.Embedding(config.n_items + 1, d)  # the last row is the mask
            self.positions = nn.Embedding(config.max_length + 1, d)
            self.embedding_norm = nn.LayerNorm(d)
            self.dropout = Dropout(config.dropout)
            self.blocks = nn.ModuleList(
                MaskedBlock(d, n_heads=config.n_heads, n_inner=config.n_inner, dropout=config.dropout)
                for _ in range(config.n_blocks)
            )
            self.head, self.head_norm = nn.Linear(d, d), nn.LayerNorm(d)
        self.bias = nn.Parameter(torch.zeros(config.n_items))
        draw_weights(self, seed, truncated=True)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states behind each item when a mask follows the last one, (batch, position, feature).

        Row t is the state of position t + 1. Only the row of the last item, which is the mask's, predicts the next
        item: the others have read it. See the base class.
        """
        self.check_inputs(inputs, lengths)
        ends = torch.arange(inputs.shape[1] + 1, device=inputs.device) == lengths[:, None]
        ids = torch.nn.functional.pad(inputs, (0, 1)).masked_fill(ends, self.config.n_items)
        return self._predictions(self._states(ids, lengths + 1)[:, 1:])

    def item_embeddings(self) -> torch.Tensor:
        """Return the item table with the item biases as its last feature, (n_items, feature + 1)."""
        return with_bias(self.items.weight[:-1], self.bias)

    @property
    def supervision(self) -> Supervision:
        """Where the loss is taken: the cloze chooses itself; without it, at the end of prefixes."""
        return "own" if self.config.loss == "cloze" else super().supervision

    @property
    def has_softmax_loss(self) -> bool:
        """Whether the loss is a softmax over the catalogue: that of the cloze is one too."""
        return True

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the softmax losses of the hidden items, and their number; see the base class.

        Notes
        -----
        Source: Sun et al. 2019, section 3.6 and Eq. 8. A hidden item is always replaced by the mask.
        """
        if self.config.loss == "softmax":
            return super().training_loss(batch, draws)
        is_hidden, n_read = self.draw_masks(batch.lengths, batch.inputs.shape[1], draws)
        states = self._states(batch.inputs.masked_fill(is_hidden, self.config.n_items), n_read)
        return self.softmax_of(self._predictions(states[is_hidden]), batch.inputs[is_hidden], batch.negatives)

    def draw_masks(
        self, lengths: torch.Tensor, n_positions: int, draws: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return which items of each history are hidden, at least one of each, and how many items are read.

        With probability ``last_only_share`` a prefix is read, its length uniform over 2…n, and its last item is hidden.
        Else all n items are read, of which :math:`\min(c, \max(1, \mathrm{round}(\rho n)))` are hidden, uniformly, with
        the share :math:`\rho` and the cap c of the config.

        Parameters
        ----------
        lengths : (batch,) int
        n_positions : int
        draws : torch.Generator
            On the CPU.

        Returns
        -------
        is_hidden : (batch, n_positions) bool
        n_read : (batch,) int
        """
        config, n_items = self.config, lengths.cpu()[:, None]
        positions = torch.arange(n_positions)
        uniform = torch.rand(2, len(n_items), 1, generator=draws, dtype=torch.float64)
        ends = torch.minimum(2 + (uniform[0] * (n_items - 1)).long(), n_items)
        keys = torch.rand(len(n_items), n_positions, generator=draws, dtype=torch.float64)
        ranks = keys.masked_fill(positions >= n_items, torch.inf).argsort(1).argsort(1)
        n_masks = (config.mask_share * n_items.double()).round().clamp(1, config.max_masks)
        is_last_only = uniform[1] < config.last_only_share
        is_hidden = torch.where(is_last_only, positions == ends - 1, ranks < n_masks)
        n_read = torch.where(is_last_only, ends, n_items)[:, 0]
        return is_hidden.to(lengths.device), n_read.to(lengths.device)

    def _states(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states of the last block for items and masks, (batch, position, feature)."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        states = self.dropout(self.embedding_norm(self.items(ids) + self.positions(positions)))
        is_visible = (positions < lengths[:, None])[:, None]
        for block in self.blocks:
            _, states = block(states[:, :-1], states[:, -1:], is_visible)
        return states

    def _predictions(self, states: torch.Tensor) -> torch.Tensor:
        """Return what is compared with the item table: the head of each state, and a 1 for the item bias."""
        return with_ones(self.head_norm(gelu(self.head(states))))


class MaskedBlock(nn.Module):
    """A post-norm block over n + 1 positions that shows the instrument n: before it the first ones, after it the last.

    A history of n items and a mask has one position more than items, and what is known after item t stands at t + 1.
    """

    def __init__(self, width: int, *, n_heads: int, n_inner: int, dropout: float) -> None:
        super().__init__()
        self.block = PostNormBlock(width, n_heads=n_heads, n_inner=n_inner, dropout=dropout)

    def forward(
        self, items: torch.Tensor, last: torch.Tensor, is_visible: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states of the last n positions, and of all n + 1.

        Parameters
        ----------
        items, last : (batch, n, feature) and (batch, 1, feature) float
        is_visible : (batch or 1, n + 1 or 1, n + 1) bool
            As of :class:`~frellm4rec.modules.transformer.MultiHeadAttention`.
        """
        states = self.block(torch.cat([items, last], dim=1), is_visible)
        return states[:, 1:], states
