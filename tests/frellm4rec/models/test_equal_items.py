"""Items with equal tables: equal vectors to the bit, and ties in every ranking."""

import pytest
import torch

from frellm4rec.items.item_table import ItemTable, first_equal_items
from frellm4rec.models import FreLLM4Rec, FreLLM4RecConfig
from frellm4rec.runs.recommendation import recommend
from tests.frellm4rec.tiny_recommenders import backbone, padded


@pytest.mark.parametrize("n_items", [5, 16, 33, 70])
def test_items_with_equal_tables_tie_at_every_position(n_items):
    rows = torch.randn(n_items, 10, generator=torch.Generator().manual_seed(0))
    rows[n_items // 2] = rows[0]
    rows[-1] = rows[0]
    rows[1] = rows[-2]
    text = {"text": ItemTable.filtered(rows, None)}
    config = FreLLM4RecConfig(n_items=n_items, max_length=7, backbone="tiny llama", inputs="text", mode="causal")
    model = FreLLM4Rec(config, text, backbone=backbone(), seed=0).eval()
    with torch.no_grad():
        fused = model.item_embeddings()
    for first, second in ((0, n_items // 2), (0, n_items - 1), (1, n_items - 2)):
        assert torch.equal(fused[first], fused[second])
    assert len(torch.unique(fused, dim=0)) == n_items - 3
    scores, tolerance = model.score_and_tolerance(*padded([2, 3]))
    assert float((scores[0, 0] - scores[0, -1]).abs()) <= float(tolerance[0])
    ranked = recommend(model, [2], k=n_items, include_seen=True).items.tolist()
    first = ranked.index(0)
    assert ranked[first : first + 3] == [0, n_items // 2, n_items - 1]


def test_equal_items_are_those_equal_in_every_table():
    ids = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    titles = torch.tensor([[5.0], [6], [5], [5]])
    both = [
        ItemTable(ids[None], torch.zeros(2), torch.ones(())),
        ItemTable(titles[None], torch.zeros(1), torch.ones(())),
    ]
    assert first_equal_items(both).tolist() == [0, 1, 2, 0]
    assert first_equal_items(both[:1]).tolist() == [0, 0, 2, 0]
    assert first_equal_items([ItemTable(torch.eye(3)[None], torch.zeros(3), torch.ones(()))]) is None


def test_equal_items_take_the_vector_of_the_first_where_a_product_rounds_rows_differently(monkeypatch):
    rows = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    rows[4] = rows[1]
    config = FreLLM4RecConfig(n_items=6, max_length=7, backbone="tiny llama", inputs="text", mode="causal")
    model = FreLLM4Rec(config, {"text": ItemTable.filtered(rows, None)}, backbone=backbone(), seed=0).eval()
    rounded = model._fuse_all().detach() * (1 + 1e-7 * torch.arange(6).unsqueeze(1))
    assert not torch.equal(rounded[4], rounded[1])
    monkeypatch.setattr(model, "_fuse_all", lambda: rounded)
    with torch.no_grad():
        assert torch.equal(model.item_embeddings(), rounded[[0, 1, 2, 3, 1, 5]])
    assert model.item_embeddings() is rounded  # training computes every row
