"""Caser: its convolutions by nested loops, its windows, its loss by a loop, and what weakens other versions of it."""

import math

import numpy as np
import pytest
import torch

from frellm4rec.evaluation import evaluate
from frellm4rec.models import Caser, CaserConfig
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import Samples, make_batch
from spectral_probe.errors import ConfigError
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import padded


def make(**settings):
    """An untrained model whose weights are all drawn, the item bias too."""
    values = {"n_items": 20, "max_length": 9, "n_features": 3, "window": 4, "n_horizontal": 2, "n_vertical": 2}
    model = Caser(CaserConfig(**{**values, **settings}), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def by_loops(model, window):
    """The state of a window (L, d) of vectors, with scalars."""
    n_rows, d = len(window), len(window[0])
    features = []
    for filters in model.horizontal:
        weight, bias = filters.weight.tolist(), filters.bias.tolist()  # (n_h, d, height)
        for f in range(len(weight)):
            highest = -math.inf
            for start in range(n_rows - len(weight[f][0]) + 1):
                total = bias[f]
                for row in range(len(weight[f][0])):
                    for column in range(d):
                        total += weight[f][column][row] * window[start + row][column]
                highest = max(highest, total, 0.0)
            features.append(highest)
    weight, bias = model.vertical.weight.tolist(), model.vertical.bias.tolist()  # (n_v, L)
    for f in range(len(weight)):
        for column in range(d):
            features.append(bias[f] + sum(weight[f][row] * window[row][column] for row in range(n_rows)))
    weight, bias = model.to_state.weight.tolist(), model.to_state.bias.tolist()
    return [
        max(0.0, b + sum(w * x for w, x in zip(row, features, strict=True)))
        for row, b in zip(weight, bias, strict=True)
    ]


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 6])
def test_states_and_scores_by_nested_loops(window, length):
    model = make(window=window)
    history = [3, 17, 3, 9, 0, 11][:length]
    vectors = [[0.0] * 3] * (window - 1) + [model.items.weight[item].tolist() for item in history]
    with torch.no_grad():
        states = model(*padded(history, width=8))[0]
    for t in range(length):
        expected = [*by_loops(model, vectors[t : t + window]), 1.0]
        torch.testing.assert_close(states[t], torch.tensor(expected), rtol=1e-5, atol=1e-5)
    outputs, bias = model.outputs.weight.tolist(), model.bias.tolist()
    scores = [
        sum(h * w for h, w in zip(states[length - 1].tolist(), [*row, b], strict=True))
        for row, b in zip(outputs, bias, strict=True)
    ]
    torch.testing.assert_close(model.score(*padded(history))[0], torch.tensor(scores), rtol=1e-5, atol=1e-5)


def test_a_state_reads_its_window_and_nothing_else():
    model = make()
    inputs, lengths = padded([1, 2, 3, 4, 5, 6, 7, 8])
    before = model(inputs, lengths)[0]
    for changed_at in range(8):
        changed = inputs.clone()
        changed[0, changed_at] = 15
        moved = (model(changed, lengths)[0] - before).abs().max(1).values > 1e-4
        assert moved.tolist() == [changed_at <= t < changed_at + 4 for t in range(8)]


def test_missing_items_are_zero_after_training_too():
    ring = make_ring()
    model = Caser(CaserConfig(n_items=ring.n_items, max_length=7, n_features=8))
    train(model, ring, TrainingConfig(n_epochs=2, validate_every=2, batch_size=16, learning_rate=1e-2))
    with torch.no_grad():
        state = model(*padded([5], width=7))[0, 0]
        vectors = [[0.0] * 8] * 4 + [model.items.weight[5].tolist()]
        torch.testing.assert_close(state[:-1], torch.tensor(by_loops(model, vectors)), rtol=1e-5, atol=1e-5)


def test_number_of_parameters():
    """Two tables of 3,646 × 50, an item bias, convolutions and a map: another number is another model."""
    model = Caser(CaserConfig(n_items=3646))
    assert sum(p.numel() for p in model.parameters()) == 394_400
    convolutions = [*model.horizontal.parameters(), *model.vertical.parameters()]
    assert sum(p.numel() for p in convolutions) == 12_104


def test_scores_are_of_a_table_that_is_not_read():
    """States are not negative, so a table that is also read would have to give up half of its directions."""
    model = make()
    history = padded([1, 2, 3])
    before = model.score(*history)
    with torch.no_grad():
        model.outputs.weight[7] += 1.0
        model.bias[8] += 2.0
    change = model.score(*history) - before
    assert change[0].nonzero().flatten().tolist() == [7, 8]
    assert (model(*padded([1, 2, 3])) >= 0).all()
    assert not torch.equal(model.items.weight, model.outputs.weight)


# The loss


def batch_of(histories, supervision="every", n_items=20):
    log = Interactions.from_sequences([np.array(h) for h in histories], n_items=n_items)
    samples = Samples([np.array(h) for h in histories], np.arange(len(histories)), log.user_items)
    return make_batch(samples, supervision, torch.device("cpu"))


@pytest.mark.parametrize("n_targets", [1, 3])
@pytest.mark.parametrize("n_negatives", [1, 3])
@pytest.mark.parametrize("n_items", [20, 200])
def test_loss_by_a_loop(n_targets, n_negatives, n_items):
    model = make(n_targets=n_targets, n_negatives=n_negatives, n_items=n_items)
    histories = [[4, 9, 2, 7], [0, 1, 2, 3, 4, 5, 6], [8, 8]]
    batch = batch_of(histories, n_items=n_items)
    total, n = model.training_loss(batch, torch.Generator().manual_seed(3))
    negatives = draw_unseen(batch, n_negatives, torch.Generator().manual_seed(3)).tolist()
    states, table = model(batch.inputs, batch.lengths).detach(), model.item_embeddings().detach()
    expected = 0.0
    for number, (row, t) in enumerate(batch.counts.nonzero().tolist()):

        def probability(item, state=states[row, t]):
            return 1 / (1 + math.exp(-float(state @ table[item])))

        following = histories[row][t + 1 : t + 1 + n_targets]
        assert not set(negatives[number]) & set(histories[row])
        expected -= sum(math.log(probability(item)) for item in following) / len(following)
        expected -= sum(math.log(1 - probability(item)) for item in negatives[number]) / n_negatives
    assert n == 3 + 6 + 1
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_no_target_lies_behind_the_training_items():
    """Targets are filled up with item 0, which must get no gradient where it is no negative."""
    model, batch = make(n_targets=3), batch_of([[4, 9, 2, 7], [1, 2]])
    is_drawn = [bool((draw_unseen(batch, 3, torch.Generator().manual_seed(seed)) == 0).any()) for seed in range(20)]
    assert set(is_drawn) == {False, True}
    for seed in range(20):
        total, _ = model.training_loss(batch, torch.Generator().manual_seed(seed))
        gradient = torch.autograd.grad(total, model.outputs.weight)[0]
        assert bool(gradient[0].any()) == is_drawn[seed]


def test_three_targets_are_learned_as_the_next_three():
    ring = make_ring()
    model = Caser(CaserConfig(n_items=ring.n_items, max_length=7, n_features=32, dropout=0.0))
    train(model, ring, TrainingConfig(n_epochs=40, learning_rate=1e-2, batch_size=16, k=1, validate_every=40))
    assert evaluate(model, ring, k=3).recall.mean() > 0.95


def test_every_position_weighs_the_same():
    """However many targets it has: without knowledge its loss is 2 log 2."""
    model = make(n_targets=3)
    with torch.no_grad():
        model.outputs.weight.zero_()
        model.bias.zero_()
    total, n = model.training_loss(batch_of([[1, 2, 3, 4], [5, 6]]), torch.Generator().manual_seed(0))
    assert n == 4
    assert total.item() / n == pytest.approx(2 * math.log(2))


# The settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "bpr"}, r"loss must be one of bce, softmax;"),
        ({"window": 0}, "window must be a whole number of at least 1"),
        ({"window": 9, "max_length": 8}, "window must be at most max_length"),
        ({"n_targets": 1.5}, "n_targets must be a whole number"),
        ({"n_negatives": 0}, "n_negatives must be a whole number of at least 1"),
        ({"dropout": 1}, r"dropout must lie in \[0, 1\)"),
        ({"windows": 5}, "Did you mean 'window'"),
    ],
)
def test_config_checks_itself(settings, message):
    with pytest.raises(ConfigError, match=message):
        CaserConfig.from_dict({"n_items": 20, **settings})
