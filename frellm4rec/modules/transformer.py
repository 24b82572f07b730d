"""The transformer blocks that the recommenders share, their parts, and their initial weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import gelu, relu, silu

ACTIVATIONS = {"gelu": gelu, "relu": relu, "swish": silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


class Dropout(nn.Module):
    """Dropout from single-precision uniforms: on the CPU far faster than the draws of ``nn.Dropout``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states with a share of ``rate`` set to 0 and the others scaled up; unchanged in evaluation."""
        if not self.training or not self.rate:
            return states
        # In place: a mask of truth values, and its product with the scale, cost more than the draws.
        mask = torch.rand_like(states, dtype=torch.float32).ge_(self.rate).mul_(1.0 / (1.0 - self.rate))
        return states * mask.to(states.dtype)


class TransformerBlock(nn.Module):
    r"""One causal pre-norm block: :math:`x + A(N_1 x)`, then :math:`x + F(N_2 x)`.

    Parameters
    ----------
    width : int
        Features of a state.
    n_heads : int
        Heads of the attention; a divisor of ``width``.
    n_inner : int
        Features inside the feed-forward part.
    dropout : float
        Of the attention weights, the inner features and both outputs.
    """

    def __init__(self, width: int, *, n_heads: int, n_inner: int, dropout: float) -> None:
        super().__init__()
        d = width
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(d)
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.output = nn.Linear(d, d)
        self.inner_norm = nn.LayerNorm(d)
        self.inner_in, self.inner_out = nn.Linear(d, n_inner), nn.Linear(n_inner, d)
        self.dropout = Dropout(dropout)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the residual stream after the block, (batch, position, feature)."""
        x = self.attention_norm(states)
        heads = (*x.shape[:2], self.n_heads, -1)
        query, key, value = (project(x).view(heads).transpose(1, 2) for project in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        # Right padding comes after every valid position, so the causal mask alone excludes it.
        is_later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        weights = self.dropout(scores.masked_fill(is_later, -torch.inf).softmax(-1))
        states = states + self.dropout(self.output((weights @ value).transpose(1, 2).reshape(x.shape)))
        inner = self.dropout(gelu(self.inner_in(self.inner_norm(states))))
        return states + self.dropout(self.inner_out(inner))


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with an output map and dropout of the weights.

    Parameters
    ----------
    width : int
        Features of a state.
    n_heads : int
        A divisor of ``width``.
    dropout : float
        Of the attention weights.
    """

    def __init__(self, width: int, *, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, states: torch.Tensor, is_visible: torch.Tensor) -> torch.Tensor:
        """Return what each position reads, (batch, position, feature).

        Parameters
        ----------
        states : (batch, position, feature) float
        is_visible : (batch or 1, position, position) bool
            Whether position t may read position s. A position that sees nothing gets the bias of the output map.
        """
        heads = (*states.shape[:2], self.n_heads, -1)
        projections = (self.query, self.key, self.value)
        query, key, value = (project(states).view(heads).transpose(1, 2) for project in projections)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = self._weights(scores, ~is_visible[:, None])
        return self.output((weights @ value).transpose(1, 2).reshape(states.shape))

    def read_by(self, reader: torch.Tensor, states: torch.Tensor, is_visible: torch.Tensor) -> torch.Tensor:
        r"""Return what a single state per row reads, (batch, feature), as :meth:`forward` does up to rounding.

        The maps of keys and values are applied to the reader and to what it has read, not to every position:
        :math:`q^\top (K x_s + b) = (K^\top q)^\top x_s + q^\top b`, of which the last term changes no weight, and
        :math:`\sum_s w_s (V x_s + c) = V \sum_s w_s x_s + c \sum_s w_s`.

        Parameters
        ----------
        reader : (batch, feature) float
        states : (batch, position, feature) float
        is_visible : (batch, position) bool
            Which positions it may read.
        """
        heads = (self.n_heads, -1)
        query = self.query(reader).unflatten(1, heads)
        asked = torch.einsum("bhe,hed->bhd", query, self.key.weight.unflatten(0, heads))
        weights = self._weights(asked @ states.mT / math.sqrt(query.shape[-1]), ~is_visible[:, None])
        value = torch.einsum("bhd,hed->bhe", weights @ states, self.value.weight.unflatten(0, heads))
        value = value + weights.sum(-1, keepdim=True) * self.value.bias.unflatten(0, heads)
        return self.output(value.flatten(1))

    def _weights(self, scores: torch.Tensor, is_hidden: torch.Tensor) -> torch.Tensor:
        """Return the weights of scores, (…, position): those of hidden positions are 0."""
        scores = scores.masked_fill(is_hidden, torch.finfo(scores.dtype).min)
        return self.dropout(scores.softmax(-1).masked_fill(is_hidden, 0.0))


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, and dropout after each; no residual, no norm.

    Parameters
    ----------
    width, n_inner : int
        Features of a state, and between the two maps.
    dropout : float
    activation : {"gelu", "relu"}
    drops_inner : bool
        Whether there is dropout between the two maps too.
    """

    def __init__(
        self, width: int, *, n_inner: int, dropout: float, activation: str = "gelu", drops_inner: bool = True
    ) -> None:
        super().__init__()
        self.inner_in, self.inner_out = nn.Linear(width, n_inner), nn.Linear(n_inner, width)
        self.dropout = Dropout(dropout)
        self.inner_dropout = Dropout(dropout if drops_inner else 0.0)
        self.activation = ACTIVATIONS[activation]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the map of each state, (batch, position, feature)."""
        return self.dropout(self.inner_out(self.inner_dropout(self.activation(self.inner_in(states)))))


class PostNormBlock(nn.Module):
    r"""One block with its norms after the residuals: :math:`y = N_1(x + A(x))`, then :math:`N_2(y + F(y))`.

    Parameters
    ----------
    width, n_heads, n_inner : int
        As of :class:`MultiHeadAttention` and :class:`FeedForward`.
    dropout : float
        Of the attention weights, the attention's output, and inside and after the feed-forward part.
    activation : str
        A name in :data:`ACTIVATIONS`.
    """

    def __init__(self, width: int, *, n_heads: int, n_inner: int, dropout: float, activation: str = "gelu") -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, n_heads=n_heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.inner = FeedForward(width, n_inner=n_inner, dropout=dropout, activation=activation)
        self.inner_norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, states: torch.Tensor, is_visible: torch.Tensor) -> torch.Tensor:
        """Return the normed states after the block, (batch, position, feature); ``is_visible`` as of the attention."""
        states = self.attention_norm(states + self.dropout(self.attention(states, is_visible)))
        return self.inner_norm(states + self.inner(states))


def causal_mask(n_positions: int, device: torch.device) -> torch.Tensor:
    """Return (1, position, position) bool: whether position t may read position s, s ≤ t.

    Right padding comes after every valid position, so this mask alone excludes it.
    """
    return torch.ones(1, n_positions, n_positions, dtype=torch.bool, device=device).tril()


def draw_weights(model: nn.Module, seed: int, *, std: float = 0.02, truncated: bool = False) -> None:
    """Draw the weights of linear maps and embeddings, normal with this standard deviation; biases become 0.

    With ``truncated``, no weight is further than two standard deviations from 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            if truncated:
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            else:
                nn.init.normal_(module.weight, std=std, generator=generator)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
