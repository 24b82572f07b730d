"""Control ``split-graph``: the probe's graph comes from one half of the users, a model's own graph from the other.

A model that filters its item vectors with W, and a probe that measures with the same W, share the noise of W. With W of
two halves of the users they do not. The item vectors keep what they were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from spectral_probe.analysis.node_graphs import NodeGraphs
from spectral_probe.analysis.options import MAIN, AnalysisOptions
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import SpectralEnergy


def user_halves(user_items: csr_array, seed: int) -> tuple[csr_array, csr_array]:
    """Return the interactions of two halves of the users, each with a row for every user."""
    n_users = user_items.shape[0]
    is_first = np.zeros(n_users, dtype=bool)
    is_first[np.random.default_rng([seed, n_users]).permutation(n_users)[: n_users // 2]] = True
    halves = []
    for is_in in (is_first, ~is_first):
        half = csr_array(user_items.multiply(is_in[:, None]))
        half.eliminate_zeros()
        halves.append(half)
    return halves[0], halves[1]


def capture_name(half: int) -> str:
    """Return the name of the capture for a probe on half 0 or 1, of a model whose own graph is of the other half."""
    return f"split-graph-{half + 1}"


def split_graph_energy(
    captures: Mapping[str, LayerGrams], graph: ItemGraph, options: AnalysisOptions, cache_dir: Path | None
) -> SpectralEnergy:
    """Return the components measured on the graph of each half, averaged user by user.

    A model without a graph of its own has one capture, which is measured on both halves.
    """
    energies = []
    for half, interactions in enumerate(user_halves(graph.user_items, options.seed)):
        grams = captures.get(capture_name(half), captures[MAIN])
        graphs = NodeGraphs.build(grams, ItemGraph.from_interactions(interactions), "carried", options, cache_dir)
        energies.append(graphs.energy(grams, nulls=("swap",)))
    first, second = energies
    is_valid = first.is_valid & second.is_valid
    split = {
        treatment: {
            name: np.where(is_valid[:, None], (values + second.split[treatment][name]) / 2, np.nan)
            for name, values in parts.items()
        }
        for treatment, parts in first.split.items()
    }
    weights = np.where(is_valid, (first.weights + second.weights) / 2, 0.0)
    match_error = (first.match_error + second.match_error) / 2
    return replace(first, split=split, weights=weights, is_valid=is_valid, match_error=match_error)
