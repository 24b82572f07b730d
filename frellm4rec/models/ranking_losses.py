"""Losses of a target against items that all rows of a step share: bpr-max, top1-max and cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import elu, embedding

from frellm4rec.models.losses import CHUNK_ROWS, OTHER_CHUNK_ROWS

#: Takes the scores of targets (rows,) and of negatives (rows, m), and which of these are negatives of the row (rows, m)
#: bool; returns the loss of each row, (rows,).
RowLosses = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
#: Added inside the logarithm of bpr-max, as published.
EPSILON = 1e-24


def negative_weights(negative: torch.Tensor, is_negative: torch.Tensor) -> torch.Tensor:
    r"""Return the softmax :math:`s_j` over the negatives of each row, (rows, m); the target is not among them.

    Parameters
    ----------
    negative : (rows, m) float
        Scores.
    is_negative : (rows, m) bool
        False where the item is the row's target: its weight is 0. A row without negatives has no weights.

    Notes
    -----
    Source: Hidasi and Karatzoglou 2018, Eq. (9).
    """
    lowest = torch.finfo(negative.dtype).min
    return negative.masked_fill(~is_negative, lowest).softmax(-1) * is_negative


def bpr_max(
    target: torch.Tensor, negative: torch.Tensor, is_negative: torch.Tensor, *, elu_scale: float, penalty: float
) -> torch.Tensor:
    r"""Return the bpr-max loss of each row, (rows,).

    .. math:: -\log \Big(\sum_j s_j\, \sigma(r_i - r_j) + 10^{-24}\Big) + \lambda \sum_j s_j r_j^2

    Parameters
    ----------
    target, negative, is_negative
        As of :data:`RowLosses`.
    elu_scale : float
        Scale a of the ELU that all scores pass first; 0: none.
    penalty : float
        Weight λ of the squared scores.

    Notes
    -----
    Source: Hidasi and Karatzoglou 2018, Eq. (11); the ELU is of the authors' code.
    """
    if elu_scale:
        target, negative = elu(target, elu_scale), elu(negative, elu_scale)
    weights = negative_weights(negative, is_negative)
    share_below = (weights * torch.sigmoid(target[:, None] - negative)).sum(-1)
    return penalty * (weights * negative.square()).sum(-1) - torch.log(share_below + EPSILON)


def top1_max(target: torch.Tensor, negative: torch.Tensor, is_negative: torch.Tensor) -> torch.Tensor:
    r"""Return the top1-max loss of each row, (rows,).

    .. math:: \sum_j s_j \big(\sigma(r_j - r_i) + \sigma(r_j^2)\big)

    Notes
    -----
    Source: Hidasi and Karatzoglou 2018, Eq. (10).
    """
    weights = negative_weights(negative, is_negative)
    return (weights * (torch.sigmoid(negative - target[:, None]) + torch.sigmoid(negative.square()))).sum(-1)


def cross_entropy(target: torch.Tensor, negative: torch.Tensor, is_negative: torch.Tensor) -> torch.Tensor:
    r"""Return the cross-entropy of the target over itself and the negatives of each row, (rows,).

    .. math:: -\log \frac{e^{r_i}}{e^{r_i} + \sum_j e^{r_j}}

    Notes
    -----
    Source: Hidasi and Karatzoglou 2018, Eq. (4), over the sampled items.
    """
    others = negative.masked_fill(~is_negative, -torch.inf)
    return torch.cat([target[:, None], others], dim=1).logsumexp(1) - target


def shared_negatives_loss(
    row_losses: RowLosses,
    states: torch.Tensor,
    table: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    log_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean over targets of a loss against negatives that all rows share.

    The scores of some rows at a time are in memory, so that they fit the cache, and their gradients are formed while
    they exist. Computed in float32 or better. Differentiable once.

    Parameters
    ----------
    row_losses : callable
        Of the scores, see :data:`RowLosses`.
    states : (n, feature) float
    table : (n_items, feature) float
    targets : (n,) int
    negatives : (m,) int
        May repeat; a row ignores its target among them.
    log_weights : (n_items,) float, optional
        Subtracted from all scores, such as the logarithm of how often an item is drawn.
    """
    with torch.autocast(states.device.type, enabled=False):
        states, table = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (states, table))
        target_scores = (states * embedding(targets, table)).sum(-1)
        offsets = None
        if log_weights is not None:
            log_weights = log_weights.to(states.dtype)
            target_scores, offsets = target_scores - log_weights[targets], log_weights[negatives]
        vectors = embedding(negatives, table)
        loss: torch.Tensor = _InChunks.apply(row_losses, states, target_scores, vectors, targets, negatives, offsets)  # type: ignore[no-untyped-call]
    return loss


class _InChunks(torch.autograd.Function):
    """Mean of a loss of scores, a few rows at a time; the scores are not stored."""

    @staticmethod
    def forward(
        ctx: Any,
        row_losses: RowLosses,
        states: torch.Tensor,
        target_scores: torch.Tensor,
        vectors: torch.Tensor,
        targets: torch.Tensor,
        negatives: torch.Tensor,
        offsets: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the mean loss; offsets (m,) are subtracted from the scores of the negatives."""
        n = len(states)
        size = CHUNK_ROWS.get(states.device.type, OTHER_CHUNK_ROWS)
        states_grad, targets_grad = torch.empty_like(states), torch.empty_like(target_scores)
        vectors_grad, loss = torch.zeros_like(vectors), states.new_zeros(())
        transposed = vectors.T.contiguous()
        for start in range(0, n, size):
            rows = slice(start, start + size)
            part, is_negative = states[rows], targets[rows, None] != negatives
            scores = part @ transposed
            scores = scores if offsets is None else scores - offsets
            with torch.enable_grad():
                leaves = target_scores[rows].detach().requires_grad_(), scores.detach().requires_grad_()
                part_loss = row_losses(*leaves, is_negative).sum() / n
                targets_grad[rows], scores_grad = torch.autograd.grad(part_loss, leaves)
            loss += part_loss.detach()
            torch.mm(scores_grad, vectors, out=states_grad[rows])
            vectors_grad.addmm_(scores_grad.T, part)
        ctx.save_for_backward(states_grad, targets_grad, vectors_grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Scale the gradients already formed."""
        gradients = (grad * part for part in ctx.saved_tensors)
        return (None, *gradients, None, None, None)
