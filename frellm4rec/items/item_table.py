"""The frozen item vectors of a model, filtered on the graph and scaled for the fusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from frellm4rec.modules.glpf import GraphLowPassFilter, IdealLowPassFilter, combine, power_coefficients
from spectral_probe.errors import DataError

GraphFilter = GraphLowPassFilter | IdealLowPassFilter


class ItemTable(nn.Module):
    r"""Frozen item vectors after the graph filter, centred and scaled to a root mean square of 1.

    The centre and the scale are those of the filtered table, one number per feature and one for all. The fusion starts
    from well-scaled inputs and loses nothing, because its first layer is affine. A filter that only shrinks all vectors
    by one factor has no effect.

    Parameters
    ----------
    basis : (n_terms, n_items, feature) float
        One term: the table itself. More: the Chebyshev terms of a filter whose strength is learned.
    centre : (feature,) float
    scale : () float
    logit : () float, optional
        Logit of the strength alpha to start from, where it is learned.

    Notes
    -----
    Source: FreLLM4Rec Eq. (7) for the filter. Cost of a fixed filter: none; it is applied once, by :meth:`filtered`.
    """

    def __init__(
        self, basis: torch.Tensor, centre: torch.Tensor, scale: torch.Tensor, logit: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("basis", basis)
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.logit = None if logit is None else nn.Parameter(logit.detach().clone())

    @classmethod
    def filtered(cls, vectors: torch.Tensor, graph_filter: GraphFilter | None) -> ItemTable:
        """Return the table of vectors (n_items, feature) after a filter; None leaves them as they are.

        Raises
        ------
        DataError
            If the vectors are not finite, or all equal after the filter.
        """
        vectors = vectors.float()
        is_learned = isinstance(graph_filter, GraphLowPassFilter) and graph_filter.logit is not None
        with torch.no_grad():
            result = vectors if graph_filter is None else graph_filter(vectors)
            basis = graph_filter.basis(vectors) if is_learned else result[None]
            centre = result.mean(0)
            scale = (result - centre).square().mean().sqrt()
        if not torch.isfinite(result).all() or not float(scale) > 0.0:
            raise DataError(
                f"Item vectors must be finite and differ from each other; after the graph filter their spread is "
                f"{float(scale):g}. Check the embeddings, or use another filter."
            )
        return cls(basis, centre, scale, graph_filter.logit if is_learned else None)

    @classmethod
    def from_saved(cls, weights: dict[str, torch.Tensor], prefix: str) -> ItemTable:
        """Return the table whose tensors were saved under names that begin with ``prefix``."""
        parts = [weights[f"{prefix}{name}"] for name in ("basis", "centre", "scale")]
        return cls(*parts, weights.get(f"{prefix}logit"))

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self.basis.shape[1])

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.basis.shape[2])

    @property
    def alpha(self) -> float | None:
        """The learned strength of the graph filter; None where it is fixed."""
        return None if self.logit is None else float(self.logit.detach().sigmoid())

    def forward(self, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return the vectors of items of any shape, (…, feature); of all items when left out."""
        basis = self.basis if items is None else self.basis[:, items.reshape(-1)]
        if self.logit is None:
            table = basis[0]
        else:
            table = combine(basis, power_coefficients(self.logit.sigmoid().double(), len(basis) - 1))
        table = (table - self.centre) / self.scale
        return table if items is None else table.reshape(*items.shape, -1)


def first_equal_items(tables: Sequence[ItemTable]) -> torch.Tensor | None:
    """Return, for each item, the first item with equal vectors in every table, (n_items,) int; None if all differ.

    Items without a title, for example, have equal text vectors.
    """
    groups = [torch.unique(table.basis.transpose(0, 1).flatten(1), dim=0, return_inverse=True)[1] for table in tables]
    distinct, group = torch.unique(torch.stack(groups, dim=1), dim=0, return_inverse=True)
    if len(distinct) == len(group):
        return None
    items = torch.arange(len(group), device=group.device)
    first = torch.full((len(distinct),), len(group), device=group.device).scatter_reduce(0, group, items, "amin")
    return first[group]
