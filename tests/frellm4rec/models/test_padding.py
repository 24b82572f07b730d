"""Right padding, rows by length, and batches that FreLLM4Rec runs in groups of similar length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frellm4rec.models.frellm4rec import model as module
from frellm4rec.models.padding import pad_right, rows_by_length
from tests.frellm4rec.tiny_recommenders import MAX_LENGTH, frellm4rec, padded


@pytest.fixture
def small_groups(monkeypatch):
    """Let any width run in groups of three."""
    monkeypatch.setattr(module, "NARROW_BELOW", 1)
    monkeypatch.setattr(module, "GROUP_ROWS", 3)


def histories(n, seed=0):
    rng = np.random.default_rng(seed)
    return padded(*(rng.integers(0, 12, n) for n in rng.integers(1, MAX_LENGTH + 1, n)))


def run_shapes(model, monkeypatch):
    """Record the shape of every batch that the backbone runs."""
    shapes, run = [], model.backbone.run
    monkeypatch.setattr(model.backbone, "run", lambda v, n: shapes.append(tuple(v.shape[:2])) or run(v, n))
    return shapes


def test_padding_ends_with_the_longest_history_of_the_batch():
    inputs, lengths = pad_right([np.array([3, 4]), np.array([5])], "cpu")
    assert inputs.tolist() == [[3, 4], [5, 0]]
    assert lengths.tolist() == [2, 1]


def test_rows_by_length_hold_every_row_once_longest_first():
    groups = rows_by_length(torch.tensor([2, 5, 2, 9, 5, 1, 2]), 3)
    assert [rows.tolist() for rows in groups] == [[3, 1, 4], [0, 2, 6], [5]]


@pytest.mark.parametrize("settings", [{"mode": "causal"}, {"mode": "prefix", "dropout": 0.3}, {"family": "bert"}])
def test_groups_give_the_states_and_gradients_of_the_whole_batch(settings, small_groups, monkeypatch):
    """Also with dropout, which is drawn for the whole batch, and with the filter along time."""
    model = frellm4rec(12, inputs="id", **settings).train()
    inputs, lengths = histories(10)
    is_valid = torch.arange(inputs.shape[1]) < lengths[:, None]
    shapes, results = run_shapes(model, monkeypatch), []
    for rows in (3, 10):
        monkeypatch.setattr(module, "GROUP_ROWS", rows)
        model.zero_grad()
        torch.manual_seed(1)
        states = model(inputs, lengths)
        assert states.shape == (*inputs.shape, model.width)
        states[is_valid].square().mean().backward()
        results.append([states.detach()[is_valid], *(p.grad.clone() for p in model.fusion.parameters())])
    for grouped, whole in zip(*results, strict=True):
        torch.testing.assert_close(grouped, whole, rtol=1e-3, atol=1e-5)
    assert [rows for rows, _ in shapes] == [3, 3, 3, 1, 10]
    longest = lengths.sort(descending=True).values
    assert [n for _, n in shapes] == [*longest[[0, 3, 6, 9]].tolist(), inputs.shape[1]]
    assert sum(rows * n for rows, n in shapes[:4]) < inputs.numel()


def test_only_a_step_of_a_wide_model_runs_in_groups(small_groups, monkeypatch):
    """Whole: evaluation, which the instrument hooks; few rows; recomputation; a narrow model."""
    model = frellm4rec(12, inputs="id", mode="causal")
    inputs, lengths = histories(10)
    shapes = run_shapes(model, monkeypatch)
    model.train()
    model.forward_sequences(inputs, lengths)
    model.score(inputs, lengths)
    model(inputs[:3], lengths[:3])
    model.enable_gradient_checkpointing()
    model(inputs, lengths)
    model.backbone.model.gradient_checkpointing_disable()
    monkeypatch.setattr(module, "NARROW_BELOW", model.width + 1)
    model(inputs, lengths)
    assert shapes == [tuple(inputs.shape)] * 2 + [tuple(inputs[:3].shape)] + [tuple(inputs.shape)] * 2
    monkeypatch.setattr(module, "NARROW_BELOW", model.width)
    model(inputs, lengths)
    assert len(shapes) == 5 + 4
