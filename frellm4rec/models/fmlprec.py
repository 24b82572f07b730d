"""FMLPRec: learned filters in the frequency domain, and feed-forward maps; no attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from frellm4rec.models.aligned import AlignedBlock, AlignedConfig, AlignedRecommender
from frellm4rec.modules.frame import Frame
from frellm4rec.modules.frequency import FrequencyFilter
from frellm4rec.modules.transformer import Dropout, FeedForward


@dataclass(frozen=True)
class FMLPRecConfig(AlignedConfig):
    """Settings of :class:`FMLPRec`: those of :class:`AlignedConfig`, with the published loss."""

    loss: Literal["softmax", "bce"] = "bce"


class FMLPRecBlock(AlignedBlock):
    r"""One block: :math:`y = N_1(x + D(\mathrm{filter}(x)))`, then :math:`N_2(y + D(F(y)))`.

    D is dropout, and F is of :class:`FeedForward`, without dropout between its maps.

    Notes
    -----
    Source: Zhou et al. 2022, Eqs. (4) to (8).
    """

    def __init__(self, config: FMLPRecConfig) -> None:
        super().__init__()
        width = config.n_features
        self.filter = FrequencyFilter(config.max_length, width)
        self.filter_norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner = FeedForward(width, n_inner=config.n_inner, dropout=config.dropout, drops_inner=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the states after the block, (batch, position, feature)."""
        return frame.unpack(self._add(frame.pack(states), frame.pack(self.filter(states))))

    def newest(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the state of the newest item after the block, (batch, feature)."""
        return self._add(frame.newest(states), self.filter.newest(states, frame))

    def _add(self, states: torch.Tensor, filtered: torch.Tensor) -> torch.Tensor:
        """Return what a position makes of its state and of the filtered one."""
        states = self.filter_norm(states + self.dropout(filtered))
        added: torch.Tensor = self.inner_norm(states + self.inner(states))
        return added


class FMLPRec(AlignedRecommender):
    r"""Blocks of a learned circular convolution along the history and a feed-forward map, with norms after residuals.

    Parameters
    ----------
    config : FMLPRecConfig
    seed : int
        Draws the initial weights: normal with standard deviation 0.02, the filters too; biases 0, norms at the
        identity.

    Notes
    -----
    Source: Zhou et al. 2022 (FMLP-Rec). Published defaults: 64 features, 2 blocks, dropout 0.5, learning rate 1e-3,
    batches of 256, histories of 50, all prefixes of each user, binary cross-entropy against one item outside the user's
    history. Deviations: 50 features. Padding is exactly 0 before every filter; the published code learns a vector for
    it, which tells the filter how long a history is. The norms add 1e-5 to a variance instead of 1e-12. Negatives are
    outside the user's training items. There are no samples with an empty history.
    """

    name: ClassVar[str] = "fmlprec"
    config_class = FMLPRecConfig
    config: FMLPRecConfig

    def make_block(self) -> FMLPRecBlock:
        """Return a new block."""
        return FMLPRecBlock(self.config)
