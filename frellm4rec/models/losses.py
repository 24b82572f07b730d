"""Losses over the catalogue, and against sampled negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, logsigmoid

from spectral_probe.errors import ShapeError

#: Rows of scores in memory at once. On the CPU they should fit the cache: 128 rows take 0.42 of the plain loss's time.
CHUNK_ROWS = {"cpu": 128}
OTHER_CHUNK_ROWS = 8192
#: Up to this many items per negative the scores of the whole catalogue take less time than gathered vectors.
ITEMS_PER_NEGATIVE = 32


def softmax_loss(states: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    r"""Mean cross-entropy of the next item over the whole catalogue.

    .. math:: -\frac{1}{n} \sum_{i=1}^{n} \log
              \frac{\exp\langle h_i, x_{v_i}\rangle}{\sum_j \exp\langle h_i, x_j\rangle}

    Parameters
    ----------
    states : (n, feature) float
        Padded positions must be left out: nearly all the time goes into the product with the table.
    table : (n_items, feature) float
    targets : (n,) int
        Item that each state should predict.

    Raises
    ------
    ShapeError
        If the arrays do not fit together, or there is no target.

    Notes
    -----
    Source: FreLLM4Rec Eq. (3) with a full softmax. Cost: O(n · n_items · feature). Differentiable once. Computed in
    float32 or better: under autocast one of the two arrays is in half precision.
    """
    if states.shape[:1] != targets.shape or not len(targets):
        raise ShapeError(
            f"A loss needs one target for each state, and at least one; got states {tuple(states.shape)} and targets "
            f"{tuple(targets.shape)}. Leave out users without a target."
        )
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


def binary_loss(positive: torch.Tensor, negative: torch.Tensor, *, beta: float = 1.0) -> torch.Tensor:
    r"""Mean over targets of the binary cross-entropy of the target against its negatives.

    .. math:: -\beta \log \sigma(r_+) - \sum_{j=1}^{k} \log(1 - \sigma(r_j))

    Parameters
    ----------
    positive : (n,) float
        Scores of the targets.
    negative : (n, k) float
        Scores of their negatives.
    beta : float
        Weight of the target, see :func:`gbce_beta`; 1 is the plain loss.

    Notes
    -----
    Source: Kang and McAuley 2018 (k = 1, beta = 1); Petrov and Macdonald 2023 (gBCE).
    """
    return (-beta * logsigmoid(positive) - logsigmoid(-negative).sum(-1)).mean()


def in_batch_loss(
    states: torch.Tensor,
    candidates: torch.Tensor,
    columns: torch.Tensor,
    counts: torch.Tensor,
    probabilities: torch.Tensor,
    is_hidden: torch.Tensor,
) -> torch.Tensor:
    r"""Mean cross-entropy of the target against the items of the batch.

    .. math:: -\log \frac{e^{s_+} / q_+}{e^{s_+} / q_+ + \sum_{j \ne +} c_j\, e^{s_j} / q_j}

    An item is among the candidates in proportion to its popularity; dividing by q takes that back.

    Parameters
    ----------
    states : (n, feature) float
    candidates : (n_candidates, feature) float
        Vectors of the distinct items of the batch.
    columns : (n,) int
        Candidate that is the target of each state.
    counts : (n_candidates,) float
        How often each is in the batch.
    probabilities : (n_candidates,) float
        Of each to be an item of a batch.
    is_hidden : (n, n_candidates) bool
        Candidates that are no negative of a state, such as the other items of its user.

    Notes
    -----
    Source: Yuan et al. 2023 (MoRec), the in-batch loss of the published code; the correction is of Yi et al. 2019.
    """
    with torch.autocast(states.device.type, enabled=False):
        scores = _exact(states) @ _exact(candidates).T
        correction = probabilities.log().to(scores.dtype)
        wanted = scores.gather(1, columns[:, None]) - correction[columns, None]
        is_target = torch.arange(len(candidates), device=columns.device) == columns[:, None]
        others = (scores + counts.log().to(scores.dtype) - correction).masked_fill(is_hidden | is_target, -torch.inf)
        return (torch.cat([wanted, others], dim=1).logsumexp(1) - wanted[:, 0]).mean()


def scores_of(
    states: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inner products of states with the vectors of targets and of negatives, (n,) and (n, k).

    Of many negatives in a small catalogue the scores of all items are taken, which is faster than the vectors of the
    negatives. Computed in float32 or better.

    Parameters
    ----------
    states : (n, feature) float
    table : (n_items, feature) float
    targets, negatives : (n,) and (n, k) int
    """
    with torch.autocast(states.device.type, enabled=False):
        states, table = _exact(states), _exact(table)
        if len(table) <= ITEMS_PER_NEGATIVE * negatives.shape[1]:
            scores = states @ table.T
            return scores.gather(1, targets[:, None])[:, 0], scores.gather(1, negatives)
        positive = (states * embedding(targets, table)).sum(-1)
        return positive, torch.einsum("nd,nkd->nk", states, embedding(negatives, table))


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    r"""Return the power of the target's probability in gBCE.

    .. math:: \beta = a\Big(t\big(1 - \tfrac{1}{a}\big) + \tfrac{1}{a}\Big), \qquad a = \frac{k}{N - 1}

    t = 0 gives 1, the plain loss; t = 1 gives a, which undoes the effect of sampling on the probabilities.

    Notes
    -----
    Source: Petrov and Macdonald 2023 (gSASRec), where k is at most N − 1; a larger k gives a = 1.
    """
    a = min(1.0, n_negatives / (n_items - 1)) if n_items > 1 else 1.0
    return a * (t * (1.0 - 1.0 / a) + 1.0 / a)


def summed(mean_loss: torch.Tensor, n_targets: int) -> tuple[torch.Tensor, int]:
    """Return the sum of a loss from its mean over targets, and their number, as ``training_loss`` gives them.

    In float64, where a mean in float32 times a number and divided by it again is the same mean, and so is its gradient.
    Metal has no float64.
    """
    wide = mean_loss if mean_loss.device.type == "mps" else mean_loss.double()
    return wide * n_targets, n_targets


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
