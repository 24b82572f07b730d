"""The reconstruction of masked edges: an edge against pairs of items that are no neighbours."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, relu

from frellm4rec.models.maerec.config import MAERecConfig
from frellm4rec.models.maerec.graph import TransitionGraph
from frellm4rec.models.negatives import draw_absent

#: Edges whose products are in memory at once. On the CPU they should fit the cache: 128 take half the time of all.
_EDGES_AT_ONCE = {"cpu": 128}
_OTHER_EDGES_AT_ONCE = 2048


class EdgeDecoder(nn.Module):
    r"""Scores of pairs of items from the products of their vectors in all layers of the propagation.

    .. math:: r_{ij} = \mathrm{MLP}\big(\Vert_{a, b = 1}^{L}\; e_i^{(a)} \odot e_j^{(b)}\big)

    with an MLP d·L² → d·L → d → 1 and ReLU.

    Parameters
    ----------
    config : MAERecConfig
    """

    def __init__(self, config: MAERecConfig) -> None:
        super().__init__()
        self.config = config
        d, n_layers = config.n_features, config.n_propagations
        self.maps = nn.ModuleList(nn.Linear(*pair) for pair in pairwise((d * n_layers**2, d * n_layers, d, 1)))

    def forward(self, layers: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the scores of pairs of items.

        Parameters
        ----------
        layers : (n_items, n_layers, feature) float
        first, second : (…) int
            Of shapes that broadcast.

        Returns
        -------
        (…) float
        """
        left, right = (embedding(items, layers.flatten(1)).unflatten(-1, layers.shape[1:]) for items in (first, second))
        hidden = (left.unsqueeze(-2) * right.unsqueeze(-3)).flatten(-3)
        for linear in self.maps[:-1]:
            hidden = relu(linear(hidden))
        return self.maps[-1](hidden).squeeze(-1)

    def loss(
        self, graph: TransitionGraph, layers: list[torch.Tensor], is_masked: torch.Tensor, draws: torch.Generator
    ) -> torch.Tensor:
        r"""Return the mean over drawn masked edges of :math:`-\log \mathrm{softmax}` of the edge among wrong ones.

        Of the wrong edges half keep the first item and half the second; the other is none of its neighbours. Edges with
        an item that is a neighbour of all others are left out; without any edge the loss is 0.

        Parameters
        ----------
        graph : TransitionGraph
        layers : list of (n_items, feature) float
            From :meth:`TransitionGraph.propagate` on the masked graph; the first, the embeddings, is not read.
        is_masked : (n_items,) bool
        draws : torch.Generator
        """
        first, second = self.drawn_edges(graph, is_masked, draws)
        stacked = torch.stack(layers[1:], dim=1)
        if not len(first):
            return stacked.new_zeros(())
        n_each = self.config.n_corrupted // 2
        others = [draw_absent(graph.neighbours, end.cpu(), n_each, draws).to(end.device) for end in (first, second)]
        with torch.autocast(stacked.device.type, enabled=False):
            loss: torch.Tensor = _Reconstruction.apply(  # type: ignore[no-untyped-call]
                self, first, second, *others, stacked, *self.parameters()
            )
        return loss

    def drawn_edges(
        self, graph: TransitionGraph, is_masked: torch.Tensor, draws: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both ends of the drawn masked edges, (n,) int each; no edge twice."""
        first, second = graph.edges.long()
        has_others = graph.starts.diff() < graph.n_items
        is_candidate = (is_masked[first] | is_masked[second]) & has_others[first] & has_others[second]
        candidates = is_candidate.nonzero()[:, 0]
        order = torch.randperm(len(candidates), generator=draws)[: self.config.n_reconstructed]
        chosen = candidates[order.to(candidates.device)]
        return first[chosen], second[chosen]


class _Reconstruction(torch.autograd.Function):
    """The mean loss of edges, some at a time, so that their products fit the cache.

    The gradients are formed in the forward pass, while the products exist.
    """

    @staticmethod
    def forward(
        ctx: Any,
        decoder: EdgeDecoder,
        first: torch.Tensor,
        second: torch.Tensor,
        others_of_first: torch.Tensor,
        others_of_second: torch.Tensor,
        stacked: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of edges (n,) against wrong ones (n, n_corrupted / 2) of each end."""
        layers = stacked.detach().requires_grad_()
        wanted = [layers, *decoder.parameters()]
        gradients = [torch.zeros_like(tensor) for tensor in wanted]
        total, size = stacked.new_zeros(()), _EDGES_AT_ONCE.get(stacked.device.type, _OTHER_EDGES_AT_ONCE)
        for start in range(0, len(first), size):
            i, j, wrong_j, wrong_i = (
                part[start : start + size] for part in (first, second, others_of_first, others_of_second)
            )
            with torch.enable_grad():
                of_first = decoder(layers, i[:, None], torch.cat([j[:, None], wrong_j], dim=1))
                scores = torch.cat([of_first, decoder(layers, wrong_i, j[:, None])], dim=1)
                loss = (scores.logsumexp(1) - scores[:, 0]).sum() / len(first)
            for gradient, part in zip(gradients, torch.autograd.grad(loss, wanted), strict=True):
                gradient += part
            total += loss.detach()
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Scale the gradients already formed."""
        return (None, None, None, None, None, *(grad * gradient for gradient in ctx.saved_tensors))
