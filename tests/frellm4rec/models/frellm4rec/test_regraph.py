"""A trained FreLLM4Rec with its graph filter on another graph: undone and done again, against the filter itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frellm4rec.items.item_table import ItemTable
from frellm4rec.models import FreLLM4Rec
from frellm4rec.models.frellm4rec.regraph import graph_filter, refiltered, unfiltered
from frellm4rec.modules.glpf import GraphLowPassFilter
from spectral_probe.analysis.split_graph import user_halves
from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.tiny_recommenders import backbone, frellm4rec

N_ITEMS = 30


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(4)
    histories = [rng.choice(N_ITEMS, size=int(rng.integers(5, 12)), replace=False) for _ in range(60)]
    return Dataset.from_interactions(Interactions.from_sequences(histories, n_items=N_ITEMS))


@pytest.mark.parametrize(
    "settings", [{"alpha": 0.3}, {"alpha": 0.4, "glpf_order": 2}, {"alpha": 0.3, "learnable_alpha": True}]
)
def test_a_table_refiltered_is_the_raw_table_on_the_other_graph(dataset, settings) -> None:
    own = ItemGraph.from_interactions(dataset.train.user_items, self_loops=True)
    half = ItemGraph.from_interactions(user_halves(dataset.train.user_items, seed=0)[0], self_loops=True)
    config = frellm4rec(N_ITEMS, inputs="id", **settings).config
    raw = torch.randn(N_ITEMS, 6, generator=torch.Generator().manual_seed(1))
    table = ItemTable.filtered(raw, graph_filter(config, own))
    torch.testing.assert_close(unfiltered(table, config, own), raw, rtol=1e-4, atol=1e-4)
    expected = ItemTable.filtered(raw, graph_filter(config, half))
    torch.testing.assert_close(refiltered(table, config, own, half).basis, expected.basis, rtol=1e-4, atol=1e-4)
    assert (expected.basis - table.basis).abs().max() > 1e-2
    torch.testing.assert_close(refiltered(table, config, own, own).basis, table.basis, rtol=1e-4, atol=1e-4)


def test_a_model_on_half_a_graph_reads_the_vectors_of_that_graph(dataset) -> None:
    R = dataset.train.user_items
    own, half = ItemGraph.from_interactions(R, self_loops=True), user_halves(R, seed=0)[0]
    config = frellm4rec(N_ITEMS, inputs="id").config
    raw = torch.randn(N_ITEMS, 12, generator=torch.Generator().manual_seed(1))
    tables = {"id": ItemTable.filtered(raw, GraphLowPassFilter(own, config.alpha))}
    model = FreLLM4Rec(config, tables, backbone=backbone()).eval()
    assert model.has_graph
    before = model.item_embeddings().clone()
    twin = model.on_graph(half, R)
    graph = ItemGraph.from_interactions(half, self_loops=True)
    expected = FreLLM4Rec(
        config, {"id": ItemTable.filtered(raw, GraphLowPassFilter(graph, config.alpha))}, backbone=backbone()
    ).eval()
    expected.fusion.load_state_dict(model.fusion.state_dict())
    torch.testing.assert_close(twin.item_embeddings(), expected.item_embeddings(), rtol=1e-4, atol=1e-4)
    assert (twin.item_embeddings() - before).abs().max() > 1e-3
    torch.testing.assert_close(model.item_embeddings(), before, rtol=0, atol=0)


def test_what_cannot_be_undone_is_refused(dataset) -> None:
    own = ItemGraph.from_interactions(dataset.train.user_items, self_loops=True)
    raw = torch.randn(N_ITEMS, 6, generator=torch.Generator().manual_seed(1))
    ideal = frellm4rec(N_ITEMS, inputs="id", glpf_keep=0.5).config
    table = ItemTable.filtered(raw, graph_filter(ideal, own))
    with pytest.raises(ConfigError, match="cannot be undone"):
        refiltered(table, ideal, own, own)
    assert not frellm4rec(N_ITEMS, inputs="id", alpha=0.0).has_graph
    assert not frellm4rec(N_ITEMS, inputs="text").has_graph
