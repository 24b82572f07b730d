import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.sparse import csr_array
from torch.nn import functional

from frellm4rec.models import losses
from frellm4rec.models.batch import Batch
from frellm4rec.models.losses import binary_loss, gbce_beta, sampled_softmax_loss, scores_of, softmax_loss, summed
from frellm4rec.models.negatives import draw_unseen
from spectral_probe.errors import DataError, ShapeError


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_loss_in_chunks_equals_the_plain_one(monkeypatch, rows):
    monkeypatch.setitem(losses.CHUNK_ROWS, "cpu", rows)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(10, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    table = (30 * torch.randn(9, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 9, (10,), generator=generator)
    plain = functional.cross_entropy(states @ table.T, targets)
    expected = torch.autograd.grad(3 * plain, [states, table])
    loss = softmax_loss(states, table, targets)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, [states, table]), expected)


def test_loss_refuses_shapes_that_do_not_fit():
    states, table, targets = torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ShapeError, match="one target for each state"):
        softmax_loss(states, table, targets[:2])
    with pytest.raises(ShapeError, match="at least one"):
        softmax_loss(states[:0], table, targets[:0])


# The sampled softmax


def sampled(states, table, targets, negatives):
    n_items = len(table)
    return sampled_softmax_loss(states, table[targets], targets, table[negatives], negatives, n_items)


@pytest.fixture
def scored():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    return states, table, torch.randint(0, 9, (6,), generator=generator)


def test_sampled_softmax_against_a_slow_one(scored):
    states, table, targets = scored
    negatives = torch.tensor([7, 2, int(targets[0]), 5])
    total = 0.0
    for h, target in zip(states.tolist(), targets.tolist(), strict=True):
        score = [sum(a * b for a, b in zip(h, x, strict=True)) for x in table.tolist()]
        others = [j for j in negatives.tolist() if j != target]
        estimate = (len(table) - 1) / len(others) * sum(math.exp(score[j]) for j in others)
        total += -math.log(math.exp(score[target]) / (math.exp(score[target]) + estimate))
    assert sampled(states, table, targets, negatives).item() == pytest.approx(total / 6, rel=1e-12)


def test_sampling_every_item_is_the_full_softmax(scored):
    states, table, targets = scored
    estimate, full = sampled(states, table, targets, torch.randperm(9)), softmax_loss(states, table, targets)
    torch.testing.assert_close(estimate, full)
    expected = torch.autograd.grad(full, [states, table])
    torch.testing.assert_close(torch.autograd.grad(estimate, [states, table]), expected)


# One against few


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_binary_loss_against_a_slow_one(scored, beta, monkeypatch):
    states, table, targets = scored
    negatives = torch.randint(0, 9, (6, 3), generator=torch.Generator().manual_seed(1))
    total = 0.0
    for h, target, others in zip(states.tolist(), targets.tolist(), negatives.tolist(), strict=True):
        score = [sum(a * b for a, b in zip(h, x, strict=True)) for x in table.tolist()]
        total -= beta * math.log(1 / (1 + math.exp(-score[target])))
        total -= sum(math.log(1 - 1 / (1 + math.exp(-score[j]))) for j in others)
    gradients = []
    for items_per_negative in (0, 100):  # gathered vectors, and the scores of all items
        monkeypatch.setattr(losses, "ITEMS_PER_NEGATIVE", items_per_negative)
        loss = binary_loss(*scores_of(states, table, targets, negatives), beta=beta)
        assert loss.item() == pytest.approx(total / 6, rel=1e-12)
        gradients.append(torch.autograd.grad(loss, [states, table]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_power_of_the_target(t):
    assert gbce_beta(99, 100, t) == pytest.approx(1.0)  # every other item is a negative
    a = 20 / 99
    assert gbce_beta(20, 100, t) == pytest.approx(1.0 - t * (1.0 - a))
    assert gbce_beta(20, 100, 0.0) == pytest.approx(1.0)
    assert gbce_beta(20, 100, 1.0) == pytest.approx(a)
    assert gbce_beta(500, 100, t) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [1, 3, 49, 1234, 98_765])
def test_a_sum_divided_by_its_number_is_the_mean_to_the_bit(n):
    mean = torch.tensor(0.3712345, requires_grad=True)
    total, n_targets = summed(mean, n)
    assert total.item() / n_targets == mean.item()
    (total / n_targets).backward()
    assert mean.grad == torch.tensor(1.0)


# Negatives


def batch_of(histories, n_items):
    """A batch of users whose training items are these, with one target for each position."""
    rows = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    columns = np.concatenate(histories)
    user_items = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(histories), n_items))
    width = max(map(len, histories))
    lengths = torch.tensor([len(h) for h in histories])
    inputs = torch.zeros(len(histories), width, dtype=torch.long)
    counts = torch.arange(width) < lengths[:, None]
    return Batch(inputs, lengths, inputs, counts, torch.arange(len(histories)), user_items)


def test_negatives_are_uniform_over_what_the_user_has_not_touched():
    histories = [np.array([0, 3, 4, 11]), np.array([5]), np.array([9, 2, 1])]
    batch = batch_of(histories, 12)
    drawn = draw_unseen(batch, 4000, torch.Generator().manual_seed(0))
    assert drawn.shape == (8, 4000)
    users = batch.counts.nonzero()[:, 0]
    for user, history in enumerate(histories):
        items = drawn[users == user].flatten()
        unseen = np.setdiff1d(np.arange(12), history)
        counts = np.bincount(items, minlength=12)
        assert counts[history].sum() == 0
        assert stats.chisquare(counts[unseen]).pvalue > 0.001
        assert counts[unseen].min() > 0


def test_negatives_are_of_the_row_that_the_batch_names():
    batch = batch_of([np.array([0, 1]), np.array([2, 3]), np.array([1])], 4)
    other = Batch(
        batch.inputs[:1], batch.lengths[:1], batch.targets[:1], batch.counts[:1], torch.tensor([1]), batch.user_items
    )
    assert set(draw_unseen(other, 50, torch.Generator().manual_seed(0)).flatten().tolist()) == {0, 1}


def test_who_has_touched_everything_has_no_negative():
    with pytest.raises(DataError, match=re.escape("has touched all 3")):
        draw_unseen(batch_of([np.array([0, 1, 2]), np.array([1])], 3), 1, torch.Generator())
