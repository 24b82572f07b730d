"""BSARec: causal attention beside a rescaling of high frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from frellm4rec.models.aligned import AlignedBlock, AlignedConfig, AlignedRecommender
from frellm4rec.models.padding import run_in_groups
from frellm4rec.modules.frame import Frame
from frellm4rec.modules.frequency import FrequencyRescaler
from frellm4rec.modules.transformer import Dropout, FeedForward, MultiHeadAttention, causal_mask

#: Rows whose attention is computed together, each group padded to its own longest.
GROUP_ROWS = 64


@dataclass(frozen=True)
class BSARecConfig(AlignedConfig):
    """Settings of :class:`BSARec`: those of :class:`AlignedConfig`, and these.

    Attributes
    ----------
    n_heads : int
        Heads of the attention; a divisor of ``n_features``.
    alpha : float in [0, 1]
        Share of the rescaled branch; the attention has the rest. At 0 the states are those of a SASRec with norms after
        its residuals.
    c : int
        Frequencies that count as low, those of both signs counted: the first ⌊c/2⌋ + 1 of the real transform.
    """

    n_heads: int = 1
    alpha: float = 0.7
    c: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least("n_heads", 1)
        self.check_at_least("c", 1)
        self.check_within("alpha", "[0, 1]", "The paper's settings are 0.1, 0.3, 0.5, 0.7 and 0.9.")
        self.check_heads()


class BSARecBlock(AlignedBlock):
    r"""One block: :math:`y = \alpha N_1(x + D(R(x))) + (1 - \alpha) N_2(x + D(A(x)))`, then :math:`N_3(y + D(F(y)))`.

    R is :class:`FrequencyRescaler`, A causal attention, D dropout, and F is of :class:`FeedForward`, without dropout
    between its maps.

    Notes
    -----
    Source: Shin et al. 2024, section 4. Its Eqs. (5) and (9) do not agree with its Fig. 3; this is the figure, and the
    published code.
    """

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        width, dropout = config.n_features, config.dropout
        self.alpha = config.alpha
        self.rescaler = FrequencyRescaler(config.max_length, width, config.c)
        self.attention = MultiHeadAttention(width, n_heads=config.n_heads, dropout=dropout)
        self.inner = FeedForward(width, n_inner=config.n_inner, dropout=dropout, drops_inner=False)
        self.rescaler_norm, self.attention_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner_norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the states after the block, (batch, position, feature)."""
        attended = run_in_groups(self._attend, states, frame.lengths, GROUP_ROWS)
        return frame.unpack(self._add(*(frame.pack(x) for x in (states, self.rescaler(states), attended))))

    def newest(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the state of the newest item after the block, (batch, feature)."""
        newest = frame.newest(states)
        attended = self.attention.read_by(newest, states, frame.is_valid)
        return self._add(newest, self.rescaler.newest(states, frame), attended)

    def _attend(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return what each position reads. Padding comes after every item, so the causal mask alone hides it."""
        attended: torch.Tensor = self.attention(states, causal_mask(states.shape[1], states.device))
        return attended

    def _add(self, states: torch.Tensor, rescaled: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Return what a position makes of its state and of both branches."""
        rescaled = self.rescaler_norm(states + self.dropout(rescaled))
        attended = self.attention_norm(states + self.dropout(attended))
        states = self.alpha * rescaled + (1.0 - self.alpha) * attended
        added: torch.Tensor = self.inner_norm(states + self.inner(states))
        return added


class BSARec(AlignedRecommender):
    r"""Blocks that add up causal attention and a rescaling of high frequencies, with norms after the residuals.

    Parameters
    ----------
    config : BSARecConfig
    seed : int
        Draws the initial weights: normal with standard deviation 0.02, β with 1; biases 0, norms at the identity.

    Notes
    -----
    Source: Shin et al. 2024 (BSARec). Published defaults: 64 features, 2 blocks, dropout 0.5, batches of 256, histories
    of 50, all prefixes of each user, softmax over the catalogue at the last position. Published on LastFM: learning
    rate 1e-3, alpha 0.9, c 3, 1 head. Deviations: 50 features. Padding is exactly 0 in what both branches read; the
    published code learns a vector for it, which tells the filter how long a history is. The norms add 1e-5 to a
    variance instead of 1e-12. Every block draws its own β; the published blocks start with the same. There are no
    samples with an empty history. The states see later items through the rescaling alone; at ``alpha`` 0 they still
    depend on the length of the prefix, because positions are counted from its end.
    """

    name: ClassVar[str] = "bsarec"
    config_class = BSARecConfig
    config: BSARecConfig

    def make_block(self) -> BSARecBlock:
        """Return a new block."""
        return BSARecBlock(self.config)
