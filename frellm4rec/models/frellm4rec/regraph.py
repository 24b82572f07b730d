"""A trained FreLLM4Rec with its graph filter on another graph, for the control ``split-graph`` of the instrument."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array, identity
from scipy.sparse.linalg import splu

from frellm4rec.items.item_table import GraphFilter, ItemTable
from frellm4rec.models.frellm4rec.config import FreLLM4RecConfig
from frellm4rec.modules.glpf import GraphLowPassFilter, IdealLowPassFilter
from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph

#: Largest relative error of the vectors that come back through the filter.
_TOLERANCE = 1e-3


def graph_filter(config: FreLLM4RecConfig, graph: ItemGraph) -> GraphFilter:
    """Return the graph filter of a configuration on a graph."""
    if config.glpf_keep is not None:
        return IdealLowPassFilter(graph, config.glpf_keep, config.self_loops)
    return GraphLowPassFilter(
        graph, config.alpha, config.glpf_order, config.self_loops, learnable=config.learnable_alpha
    )


def refiltered(table: ItemTable, config: FreLLM4RecConfig, training: ItemGraph, other: ItemGraph) -> ItemTable:
    """Return a table that was filtered on ``training`` as it would be filtered on ``other``.

    Raises
    ------
    ConfigError
        If the filter cannot be undone: the ideal low-pass, or a strength at which a frequency vanishes.
    """
    new_filter = graph_filter(config, other)
    with torch.no_grad():
        if config.learnable_alpha and table.logit is not None and isinstance(new_filter, GraphLowPassFilter):
            assert new_filter.logit is not None
            new_filter.logit.copy_(table.logit)
        filtered = ItemTable.filtered(unfiltered(table, config, training), new_filter)
    return filtered.to(table.basis.device)


def unfiltered(table: ItemTable, config: FreLLM4RecConfig, graph: ItemGraph) -> torch.Tensor:
    r"""Return the item vectors (n_items, feature) before :math:`(I - \alpha L)^K`, on the graph of the training."""
    basis = table.basis.detach().cpu()
    if config.learnable_alpha:
        return basis[0]  # the first Chebyshev term is the table itself
    if config.glpf_keep is not None:
        raise ConfigError("The ideal low-pass (glpf_keep) cannot be undone. Leave out the control split-graph.")
    if config.alpha == 0.0:
        return basis[0]
    if graph.self_loops != config.self_loops:
        graph = ItemGraph.from_interactions(graph.user_items, self_loops=config.self_loops)
    operator = csr_array(identity(graph.n_items, format="csr") - config.alpha * graph.laplacian())
    vectors = filtered = basis[0].double().numpy()
    try:
        solver = splu(operator.tocsc())
        for _ in range(config.glpf_order):
            vectors = solver.solve(vectors)
    except RuntimeError:  # exactly singular
        vectors = np.full_like(filtered, np.nan)
    again = vectors
    for _ in range(config.glpf_order):
        again = operator @ again
    error = np.abs(again - filtered).max() / np.abs(filtered).max()
    if not error < _TOLERANCE or np.abs(vectors).max() > np.abs(filtered).max() / _TOLERANCE:
        raise ConfigError(
            f"The graph filter with alpha={config.alpha:g} and order={config.glpf_order} removes a frequency and "
            "cannot be undone. Leave out the control split-graph."
        )
    return torch.from_numpy(vectors.astype(np.float32))
