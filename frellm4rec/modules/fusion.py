"""The fusion of an item's ID and text vectors into the input vector of a language model."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import gelu

from spectral_probe.errors import ConfigError


class FusionMLP(nn.Module):
    r"""Two layers over the joined vectors, :math:`x_i = W_2\,\mathrm{GELU}(W_1 [e_{id}(i); e_{text}(i)])` with biases.

    Parameters
    ----------
    widths : sequence of int
        Width of each source, in the order in which they are passed; one or more.
    width : int
        Width d of the language model.
    n_hidden : int, optional
        Width between the layers; that of the language model when left out.
    dropout : float
        Rate between the layers, in training.

    Notes
    -----
    Source: FreLLM4Rec Eq. (2).
    """

    def __init__(self, widths: list[int], width: int, n_hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        _check(widths, dropout)
        self.hidden = nn.Linear(sum(widths), n_hidden or width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(n_hidden or width, width)

    def forward(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the item vectors, (…, d_model), of sources (…, width)."""
        return self.out(self.dropout(gelu(self.hidden(torch.cat(sources, dim=-1)))))


class GatedFusion(nn.Module):
    r"""A gated sum, :math:`x_i = g \odot P_1 e_{id}(i) + (1 - g) \odot P_2 e_{text}(i)`.

    .. math:: g = \sigma(W [P_1 e_{id}(i); P_2 e_{text}(i)] + b)

    With one source it is that source's projection. Parameters as in :class:`FusionMLP`.

    Notes
    -----
    Source: the published code of FreLLM4Rec, which uses this sum where the paper has Eq. (2).
    """

    def __init__(self, widths: list[int], width: int, n_hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        _check(widths, dropout)
        if len(widths) > 2 or n_hidden is not None:
            raise ConfigError(f"The gated sum joins two sources and has no hidden layer; got {widths}, {n_hidden}.")
        self.projections = nn.ModuleList(nn.Linear(source_width, width) for source_width in widths)
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Linear(2 * width, width) if len(widths) == 2 else None

    def forward(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the item vectors, (…, d_model), of sources (…, width)."""
        projected = [self.dropout(project(x)) for project, x in zip(self.projections, sources, strict=True)]
        if self.gate is None:
            return projected[0]
        g = torch.sigmoid(self.gate(torch.cat(projected, dim=-1)))
        return g * projected[0] + (1.0 - g) * projected[1]


#: ``fusion`` of a configuration → how ID and text become one vector.
FUSIONS: dict[str, type[FusionMLP] | type[GatedFusion]] = {"mlp": FusionMLP, "gate": GatedFusion}


def _check(widths: list[int], dropout: float) -> None:
    if not widths:
        raise ConfigError("A fusion needs at least one source: id, text or both.")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"dropout must lie in [0, 1); got {dropout}.")
