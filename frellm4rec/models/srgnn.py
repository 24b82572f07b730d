"""SR-GNN: the graph of a history's transitions, gated propagation over it, and attention over its positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import Dropout

CHOICES = {"edges": ("binary", "counts"), "loss": ("softmax",)}


@dataclass(frozen=True)
class SRGNNConfig(RecommenderConfig):
    """Settings of :class:`SRGNN`.

    Attributes
    ----------
    n_items : int
        Size of the catalogue.
    max_length : int
        Most recent items that are read.
    n_features : int
        Size of item embeddings and states.
    n_steps : int
        Steps of propagation.
    dropout : float
        Rate at the item embeddings; the published model has none.
    edges : {"binary", "counts"}
        Whether a transition that comes again counts once, as in the authors' code, or each time, as in the paper.
    loss : {"softmax"}
        The published loss, over the catalogue.
    """

    n_features: int = 50
    n_steps: int = 1
    dropout: float = 0.0
    edges: Literal["binary", "counts"] = "binary"
    loss: Literal["softmax"] = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_features", "n_steps"):
            self.check_at_least(name, 1)
        self.check_within("dropout", "[0, 1)", "The paper has none; 0.25 is a fair start.")
        for name, known in CHOICES.items():
            self.check_one_of(name, known)


class SRGNN(SequentialRecommender):
    r"""A history is a graph of its distinct items; its state reads the graph from the last item.

    A step of propagation, with H the states of the nodes and a gated unit G:

    .. math:: m = [A_{in} (H W_{in} + b_{in}) + c_{in};\; A_{out} (H W_{out} + b_{out}) + c_{out}], \qquad
              H \leftarrow G(m, H)

    The state of the history, with :math:`h_t` the node of the item at position t and :math:`s_l` that of the last one:

    .. math:: s_h = W_3 \Big[s_l;\; \sum_t a_t h_t\Big], \qquad a_t = q^\top \sigma(W_1 s_l + W_2 h_t)

    Parameters
    ----------
    config : SRGNNConfig
    seed : int
        Draws the initial weights: all uniform within ±1/√n_features, as published.

    Notes
    -----
    Source: Wu et al. 2019 (AAAI). Published defaults: 100 features, 1 step, all prefixes as samples, Adam with 1e-3,
    times .1 every 3 of 30 epochs, L2 penalty 1e-5, batches of 100.

    Deviations. The rate does not decay unless ``training.decay_every`` says so: every 3 epochs would leave a small data
    set untrained. The validation chooses the epoch; in the authors' script the test items do. A rate of dropout at the
    embeddings may be set. Edges are binary, as in the authors' code; the paper counts transitions.
    """

    name: ClassVar[str] = "srgnn"
    traits = Traits(is_causal=False, why_no_layers="its states belong to the nodes of a graph, not to positions")
    config_class = SRGNNConfig
    config: SRGNNConfig

    def __init__(self, config: SRGNNConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        width = config.n_features
        # torch draws default weights from the global generator while layers are built; restore its state.
        with torch.random.fork_rng(devices=[]):
            self.items = nn.Embedding(config.n_items, width)
            self.message_in, self.message_out = nn.Linear(width, width), nn.Linear(width, width)
            self.offset_in, self.offset_out = (nn.Parameter(torch.empty(width)) for _ in range(2))
            self.cell = nn.GRUCell(2 * width, width)
            self.last_map, self.node_map = nn.Linear(width, width), nn.Linear(width, width)
            self.attention = nn.Linear(width, 1, bias=False)
            self.to_state = nn.Linear(2 * width, width)
        self.dropout = Dropout(config.dropout)
        generator, bound = torch.Generator().manual_seed(seed), 1.0 / math.sqrt(width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the state of each whole history, the same at each position, (batch, position, feature).

        Maps of single nodes are of valid positions alone, since most of a batch of prefixes is padding.

        Notes
        -----
        Source: Wu et al. 2019, Eqs. (1) to (7). Cost: O(batch · position² · feature) for each step.
        """
        self.check_inputs(inputs, lengths)
        node_of, incoming, outgoing = session_graphs(inputs, lengths, is_binary=self.config.edges == "binary")
        is_valid = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
        nodes = self.dropout(self.items(inputs[is_valid]))
        incoming, outgoing = incoming.to(nodes.dtype), outgoing.to(nodes.dtype)
        for _ in range(self.config.n_steps):
            received = (incoming @ _padded(self.message_in(nodes), is_valid))[is_valid] + self.offset_in
            passed_on = (outgoing @ _padded(self.message_out(nodes), is_valid))[is_valid] + self.offset_out
            nodes = self.cell(torch.cat([received, passed_on], dim=-1), nodes)
        row_starts = torch.cumsum(lengths, 0) - lengths
        states = nodes[(node_of + row_starts[:, None])[is_valid]]
        return self._read_out(states, is_valid, lengths)[:, None].expand(-1, inputs.shape[1], -1)

    def _read_out(self, states: torch.Tensor, is_valid: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the state of each history, (batch, feature), from those of its positions, (n_valid, feature)."""
        last = states[torch.cumsum(lengths, 0) - 1]
        of_last = self.last_map(last).repeat_interleave(lengths, dim=0)
        weights = self.attention(torch.sigmoid(of_last + self.node_map(states)))
        # Not a softmax, as published: a long history has a longer sum.
        whole = _padded(weights * states, is_valid).sum(1)
        state: torch.Tensor = self.to_state(torch.cat([last, whole], dim=-1))
        return state

    def item_embeddings(self) -> torch.Tensor:
        """Return the item table, (n_items, feature): the embeddings before any propagation."""
        return self.items.weight


def session_graphs(
    inputs: torch.Tensor, lengths: torch.Tensor, *, is_binary: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the graph of each history: its nodes are the distinct items, each at the first position of its item.

    Parameters
    ----------
    inputs, lengths : (batch, position) and (batch,) int
    is_binary : bool
        Whether a transition that comes again counts once.

    Returns
    -------
    node_of : (batch, position) int
        First position of the item at each position; of padding, a position without meaning.
    incoming, outgoing : (batch, position, position) float
        Row i: the weights with which node i receives from the nodes before it, and from those after it. A row sums to 1
        or, without such nodes or without a node at this position, to 0. An item that follows itself has a loop.

    Notes
    -----
    Source: Wu et al. 2019, section "Constructing Session Graphs".
    """
    n_positions = inputs.shape[1]
    is_valid = torch.arange(n_positions, device=inputs.device) < lengths[:, None]
    is_same = (inputs[:, :, None] == inputs[:, None, :]) & is_valid[:, None, :]
    node_of = is_same.to(torch.uint8).argmax(2)  # the first of equal maxima
    edges = torch.zeros(len(inputs), n_positions * n_positions, device=inputs.device)
    keys = node_of[:, :-1] * n_positions + node_of[:, 1:]
    edges.scatter_add_(1, keys, is_valid[:, 1:].to(edges.dtype))
    edges = edges.view(-1, n_positions, n_positions)
    edges = edges.clamp(max=1.0) if is_binary else edges
    outgoing = edges / edges.sum(2, keepdim=True).clamp(min=1.0)
    backward = edges.transpose(1, 2)
    return node_of, backward / backward.sum(2, keepdim=True).clamp(min=1.0), outgoing


def _padded(values: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
    """Return values of the valid positions (n_valid, feature) as (batch, position, feature), 0 elsewhere."""
    rows = is_valid.flatten().nonzero()[:, 0]
    flat = values.new_zeros(is_valid.numel(), values.shape[1]).index_copy(0, rows, values)
    return flat.view(*is_valid.shape, -1)
