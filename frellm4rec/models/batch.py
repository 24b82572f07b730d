"""What a training step shows a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from scipy.sparse import csr_array

#: Where the loss is taken: at every position; at the last position of one prefix per user, drawn again for each step;
#: at the last position of every prefix, each a sample of the epoch; where the model itself says.
Supervision = Literal["every", "prefix", "all-prefixes", "own"]
SUPERVISIONS: tuple[Supervision, ...] = ("every", "prefix", "all-prefixes", "own")


@dataclass(frozen=True)
class Batch:
    """Histories and the items that follow.

    Attributes
    ----------
    inputs : (batch, position) int
        At most ``max_length`` positions; with supervision ``own``, of which the model hides some, one more.
    lengths : (batch,) int
    targets : (batch, position) int
        Item that row t should predict. With supervision ``own``: the inputs themselves.
    counts : (batch, position) bool
        Where a loss is taken.
    users : (batch,) int
        Row of each history in ``user_items``.
    user_items : csr_array (n_users, n_items)
        Training interactions of all users: negatives are drawn outside a user's row.
    negatives : (n_negatives,) int, optional
        Distinct items drawn for the step, the same for every row: for a sampled softmax.
    """

    inputs: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    counts: torch.Tensor
    users: torch.Tensor
    user_items: csr_array
    negatives: torch.Tensor | None = None

    @property
    def n_targets(self) -> int:
        """Number of predictions."""
        return int(self.counts.sum())
