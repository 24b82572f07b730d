"""Histories of different lengths on a frame of fixed length: which positions hold items, and how old each item is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class Frame:
    r"""Right-padded histories that stand right-aligned on a frame of T positions, the newest item at T − 1.

    A filter on the frame is a circular convolution, which commutes with a rotation of the frame. So the states stay
    right-padded: rotated by T − length, they are the right-aligned ones. Only the position of an item on the frame,
    T − 1 minus its age, is looked up. Maps that work position by position run on the packed states, without padding.

    Attributes
    ----------
    lengths : (batch,) int
    n_positions : int
        Positions of the right-padded batch, at most T.
    n_frame : int
        T.
    is_valid : (batch, n_positions) bool
        Where the batch holds items.
    index : (n_valid,) int
        Number of each valid position in the flattened batch.
    """

    lengths: torch.Tensor
    n_positions: int
    n_frame: int
    is_valid: torch.Tensor
    index: torch.Tensor

    @classmethod
    def of(cls, lengths: torch.Tensor, n_positions: int, n_frame: int) -> Self:
        """Return the frame of a batch with these lengths, (batch,) int."""
        is_valid = torch.arange(n_positions, device=lengths.device) < lengths[:, None]
        return cls(lengths, n_positions, n_frame, is_valid, is_valid.flatten().nonzero()[:, 0])

    @property
    def ages(self) -> torch.Tensor:
        """Number of newer items in the history, (batch, n_positions) int; 0 for the newest item, and for padding."""
        steps = torch.arange(self.n_positions, device=self.lengths.device)
        return (self.lengths[:, None] - 1 - steps).clamp(min=0)

    def pack(self, values: torch.Tensor) -> torch.Tensor:
        """Return the valid positions of (batch, n_positions, …), row by row: (n_valid, …)."""
        return values.flatten(0, 1).index_select(0, self.index)

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """Return (batch, n_positions, …) from (n_valid, …); padding is exactly 0."""
        flat = packed.new_zeros(self.is_valid.numel(), *packed.shape[1:])
        return flat.index_copy_(0, self.index, packed).view(*self.is_valid.shape, *packed.shape[1:])

    def newest(self, values: torch.Tensor) -> torch.Tensor:
        """Return the last valid position of each history, (batch, …) from (batch, n_positions, …)."""
        return values[torch.arange(len(self.lengths), device=values.device), self.lengths - 1]
