"""Losses over the catalogue."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from spectral_probe.errors import ShapeError

#: Rows of scores in memory at once. On the CPU they should fit the cache: 128 rows take 0.42 of the plain loss's time.
CHUNK_ROWS = {"cpu": 128}
OTHER_CHUNK_ROWS = 8192


def full_softmax_loss(
    states: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    r"""Mean cross-entropy of the next item over the whole catalogue, at every valid position.

    .. math:: -\frac{1}{\sum_u T_u} \sum_u \sum_{t < T_u} \log
              \frac{\exp\langle h_{ut}, x_{v_{t+1}}\rangle}{\sum_j \exp\langle h_{ut}, x_j\rangle}

    Parameters
    ----------
    states : (batch, position, feature) float
    table : (n_items, feature) float
    targets : (batch, position) int
        Item that row t should predict; right-padded with anything.
    lengths : (batch,) int
        Number of targets.

    Raises
    ------
    ShapeError
        If the arrays do not fit together, or there is no target.

    Notes
    -----
    Source: FreLLM4Rec Eq. (3) with a full softmax. Cost: O(sum of lengths · n_items · feature); padded positions are
    taken out before the product with the table, where nearly all the time goes. Differentiable once.
    """
    if states.shape[:2] != targets.shape or lengths.shape != targets.shape[:1]:
        raise ShapeError(
            f"States, targets and lengths must agree in batch and position; got {tuple(states.shape)}, "
            f"{tuple(targets.shape)}, {tuple(lengths.shape)}. Right-pad targets like the inputs."
        )
    is_valid = torch.arange(targets.shape[1], device=targets.device) < lengths[:, None]
    if not is_valid.any():
        raise ShapeError(f"A loss needs at least one target; got lengths {lengths.tolist()[:8]}. Leave such users out.")
    return softmax_loss(states[is_valid], table, targets[is_valid])


def softmax_loss(states: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of targets (n,) for states (n, feature) over a table (n_items, feature).

    Computed in float32 or better: under autocast one of the two arrays is in half precision.
    """
    with torch.autocast(states.device.type, enabled=False):
        loss: torch.Tensor = _SoftmaxCrossEntropy.apply(_exact(states), _exact(table), targets)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax_loss(
    states: torch.Tensor,
    target_vectors: torch.Tensor,
    targets: torch.Tensor,
    negative_vectors: torch.Tensor,
    negatives: torch.Tensor,
    n_items: int,
) -> torch.Tensor:
    r"""Mean cross-entropy of the target against items sampled uniformly, an estimate of the full softmax.

    .. math:: -\log \frac{e^{s_+}}{e^{s_+} + \frac{N - 1}{m} \sum_{j \in S,\, j \ne +} e^{s_j}}

    The factor (N − 1)/m, m the number of sampled items other than the target, makes the sum an unbiased estimate of
    that over all other items.

    Parameters
    ----------
    states, target_vectors : (n, feature) float
    targets : (n,) int
    negative_vectors : (n_negatives, feature) float
        Shared by all rows.
    negatives : (n_negatives,) int
        Distinct items; a row's target among them is ignored for that row.
    n_items : int
        Size N of the catalogue.

    Notes
    -----
    Source: FreLLM4Rec Eq. (3) with a sampled softmax, for catalogues whose full softmax is out of reach.
    """
    with torch.autocast(states.device.type, enabled=False):
        states, target_vectors, negative_vectors = _exact(states), _exact(target_vectors), _exact(negative_vectors)
        wanted = (states * target_vectors).sum(-1, keepdim=True)
        is_target = targets[:, None] == negatives
        n_others = (len(negatives) - is_target.sum(1, keepdim=True)).clamp(min=1).to(states.dtype)
        correction = torch.log((n_items - 1) / n_others)
        others = (states @ negative_vectors.T + correction).masked_fill(is_target, -torch.inf)
        return (torch.cat([wanted, others], dim=1).logsumexp(1) - wanted[:, 0]).mean()


def _exact(values: torch.Tensor) -> torch.Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Cross-entropy of inner products, a few rows at a time, so that the scores fit the cache; they are not stored.

    The gradients (softmax − one-hot, times the other factor) are formed in the forward pass, while the scores exist.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of states (n, feature) against a table (n_items, feature)."""
        n = len(states)
        rows = CHUNK_ROWS.get(states.device.type, OTHER_CHUNK_ROWS)
        states_grad, table_grad = torch.empty_like(states), torch.zeros_like(table)
        transposed = table.T.contiguous()
        loss = states.new_zeros(())
        for start in range(0, n, rows):
            part, wanted = states[start : start + rows], targets[start : start + rows, None]
            scores = part @ transposed
            target_scores = scores.gather(1, wanted)
            largest = scores.amax(1, keepdim=True)
            scores.sub_(largest).exp_()
            normaliser = scores.sum(1, keepdim=True)
            loss += (normaliser.log() + largest - target_scores).sum()
            scores.div_(normaliser * n)
            scores.scatter_add_(1, wanted, torch.full_like(target_scores, -1.0 / n))
            torch.mm(scores, table, out=states_grad[start : start + rows])
            table_grad.addmm_(scores.T, part)
        ctx.save_for_backward(states_grad, table_grad)
        return loss / n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:  # type: ignore[override]
        """Scale the gradients already formed."""
        states_grad, table_grad = ctx.saved_tensors
        return grad * states_grad, grad * table_grad, None
