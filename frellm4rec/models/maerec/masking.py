"""Which part of the graph is masked, for how long, and how much that is rewarded."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from frellm4rec.models.maerec.config import MAERecConfig
from frellm4rec.models.maerec.graph import TransitionGraph


class PathMasking(nn.Module):
    r"""The masked items of a training, drawn anew every few steps, and its state between two steps.

    The state is in buffers, so it is in every checkpoint, and a resumed training goes on to the bit: the mask, the
    number of steps since it was drawn, the losses of these steps, and the sum of the losses of the step under way. A
    saved model holds it too, and its revision depends on it; scores do not.

    A step may come in several parts (``training.accumulation``). A part belongs to a new step if the weights have
    changed since the part before: a step masks once, and its loss is the mean over the targets of all its parts. Of
    several processes each masks with its own draws.

    Parameters
    ----------
    config : MAERecConfig
    """

    def __init__(self, config: MAERecConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("is_masked", torch.zeros(config.n_items, dtype=torch.bool))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.long))  # of the mask; 0: there is none
        self.register_buffer("losses", torch.zeros(config.mask_every + 1))
        self.register_buffer("n_losses", torch.zeros((), dtype=torch.long))
        self.register_buffer("step_loss", torch.zeros(2))  # sum of the step under way, and its targets
        self._weights: object = None
        self._masks = False
        self._reward = 1.0

    def begin(self, weights: torch.Tensor) -> tuple[bool, bool]:
        """Count a step if it is a new one; return whether it is new, and whether it masks.

        Parameters
        ----------
        weights : tensor
            Changed in place by every step.
        """
        key = (weights.data_ptr(), weights._version)
        if key == self._weights:
            return False, self._masks
        self._weights = key
        self._close_step()
        self._masks = int(self.n_steps) in (0, self.config.mask_every)
        if self._masks:
            self._reward = self.reward()
            # The last loss stays: the next decrease is measured from it.
            n = int(self.n_losses)
            if n:
                self.losses[0] = self.losses[n - 1]
                self.n_losses.fill_(1)
            self.n_steps.zero_()
        self.n_steps += 1
        return True, self._masks

    def record(self, loss_sum: torch.Tensor, n_targets: int) -> None:
        """Add the loss of the recommendation of a part of the step."""
        self.step_loss += torch.stack([loss_sum.detach().float(), loss_sum.new_tensor(n_targets).float()])

    def _close_step(self) -> None:
        """Append the mean loss of the step before, if there was one."""
        total, n_targets = self.step_loss.tolist()
        if n_targets:
            self.losses[int(self.n_losses)] = total / n_targets
            self.n_losses += 1
            self.step_loss.zero_()

    def reward(self) -> float:
        r"""Return the weight of the mask loss.

        With :math:`l_0, …, l_m` the losses since the last mask, it is 1 if :math:`l_{m-1} - l_m > (l_0 - l_m) / m`,
        else ``low_reward``; 1 while there are fewer than three.
        """
        losses = self.losses[: int(self.n_losses)].tolist()
        if len(losses) < 3:
            return 1.0
        mean = (losses[0] - losses[-1]) / (len(losses) - 1)
        return 1.0 if losses[-2] - losses[-1] > mean else self.config.low_reward

    def likeness(self, graph: TransitionGraph, embeddings: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        r"""Return how much each item is like its neighbourhood, (n_items,) float in [−1, 1]; with a gradient.

        The cosine of its embedding and the mean of the items that walks of at most ``mask_depth`` steps end at, each
        as often as walks do. Step h may take the edges of a matrix :math:`B_h`, a share ``mask_share`` ** h of all:

        .. math:: s = B_1 (E + B_2 (E + B_3 E)) - \mathrm{diag}(B_1 B_2)\, E

        The last term takes away the walks that go back to the item at once.
        """
        share, depth = self.config.mask_share, self.config.mask_depth
        uniforms = [torch.rand(graph.n_edges, generator=draws).to(embeddings.device) for _ in range(depth)]
        values = [graph.kept_edges(uniform < share ** (hop + 1)) for hop, uniform in enumerate(uniforms)]
        sums = graph.product(values[-1], embeddings)
        for matrix in values[-2::-1]:
            sums = graph.product(matrix, embeddings + sums)
        if depth > 1:
            sums = sums - graph.row_sums(values[0] * values[1])[:, None] * embeddings
        return cosine_similarity(embeddings, sums, dim=1)

    def loss(self, likeness: torch.Tensor) -> torch.Tensor:
        """Return the loss that raises the likeness, times the reward of this step."""
        return -likeness.mean() * self._reward

    @torch.no_grad()
    def draw(self, graph: TransitionGraph, likeness: torch.Tensor, draws: torch.Generator) -> None:
        """Mask anew: from the items with the largest likeness plus Gumbel noise along the edges.

        All edges of the seeds are masked. Of the items that they lead to, a share ``mask_share`` are the seeds of the
        next round, whose share is ``mask_share`` ** 2, until ``mask_depth`` rounds have passed.
        """
        config, device = self.config, likeness.device
        uniform = torch.rand(config.n_items, generator=draws)
        noisy = likeness - (-uniform.log()).log().to(device)
        is_seed = torch.zeros(config.n_items, dtype=torch.bool, device=device)
        is_seed[noisy.topk(min(config.n_seeds, config.n_items)).indices] = True
        is_masked = is_seed
        for hop in range(1, config.mask_depth):
            is_reached = graph.is_adjacent(is_seed) & ~is_masked
            is_seed = is_reached & (torch.rand(config.n_items, generator=draws) < config.mask_share**hop).to(device)
            is_masked = is_masked | is_seed
        self.is_masked.copy_(is_masked)
