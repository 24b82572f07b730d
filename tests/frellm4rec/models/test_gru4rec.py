"""GRU4Rec: one step from the gate formulas, its losses by loops, and the faults that other versions of it have."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from frellm4rec.evaluation import evaluate
from frellm4rec.models import GRU4Rec, GRU4RecConfig, losses
from frellm4rec.models.negatives import draw_by_count
from frellm4rec.models.ranking_losses import (
    bpr_max,
    cross_entropy,
    negative_weights,
    shared_negatives_loss,
    top1_max,
)
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import Samples, make_batch
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_random, make_ring
from tests.frellm4rec.tiny_recommenders import padded


def make(**settings):
    values = {"n_items": 20, "max_length": 8, "n_features": 6, **settings}
    return GRU4Rec(GRU4RecConfig(**values), seed=1).eval()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def dot(row, vector):
    return sum(a * b for a, b in zip(row, vector, strict=True))


# The states


def gru_step(layer, x, h):
    """One step with scalars; torch stacks the matrices of r, z and c."""
    d = len(h)
    w, u = layer.gru.weight_ih_l0.tolist(), layer.gru.weight_hh_l0.tolist()
    b, b_u = layer.gru.bias_ih_l0.tolist(), layer.gru.bias_hh_l0.tolist()
    after = []
    for i in range(d):
        r = sigmoid(dot(w[i], x) + b[i] + dot(u[i], h) + b_u[i])
        z = sigmoid(dot(w[d + i], x) + b[d + i] + dot(u[d + i], h) + b_u[d + i])
        c = math.tanh(dot(w[2 * d + i], x) + b[2 * d + i] + r * (dot(u[2 * d + i], h) + b_u[2 * d + i]))
        after.append((1 - z) * c + z * h[i])
    return after


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_states_and_scores_from_the_gate_formulas(n_blocks):
    model = make(n_blocks=n_blocks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    table, bias = model.items.weight.tolist(), model.bias.tolist()
    history = [3, 17, 3, 9]
    states = [table[item] for item in history]
    for layer in model.blocks:
        h, after = [0.0] * 6, []
        for x in states:
            h = gru_step(layer, x, h)
            after.append(h)
        states = after
    scores = [dot(states[-1], table[item]) + bias[item] for item in range(20)]
    torch.testing.assert_close(model.score(*padded(history))[0], torch.tensor(scores), rtol=1e-5, atol=1e-5)


def test_number_of_parameters():
    """A table of 3,646 × 50, a bias for each item, and three gates: another number is another model."""
    model = GRU4Rec(GRU4RecConfig(n_items=3646))
    assert sum(p.numel() for p in model.parameters()) == 201_246
    two = GRU4Rec(GRU4RecConfig(n_items=3646, n_blocks=2))
    assert sum(p.numel() for p in two.parameters()) == 201_246 + 15_300


def test_the_read_table_is_the_scored_table_with_a_bias():
    model = make()
    with torch.no_grad():
        model.bias[4] += 2.5
        before = model.score(*padded([1, 2]))
        model.bias[4] -= 1.0
    torch.testing.assert_close(before[0, 4] - model.score(*padded([1, 2]))[0, 4], torch.tensor(1.0))
    assert torch.equal(model.item_embeddings()[:, :-1], model.items.weight)
    assert torch.equal(model.item_embeddings()[:, -1], model.bias)


def test_layers_are_tensors_and_every_layer_is_one():
    model = make(n_blocks=2)
    assert [name for name, _, _ in model.layers()] == ["embed", "block 1", "block 2"]
    for _, _, layer in model.layers():
        assert torch.is_tensor(layer(torch.zeros(2, 3, 6)))


def test_the_state_is_carried_through_the_whole_history():
    """Its gradient too: the first item moves the last state, and the loss there reaches it."""
    model = make()
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
        model.items.weight.mul_(5)
    inputs, lengths = padded([1, 2, 3, 4, 5, 6, 7])
    changed = inputs.clone()
    changed[0, 0] = 11
    assert (model(inputs, lengths)[0, -1] - model(changed, lengths)[0, -1]).abs().max() > 1e-4
    model(inputs, lengths)[0, -1].sum().backward()
    assert model.items.weight.grad[1].abs().max() > 1e-5


@pytest.mark.parametrize(("settings", "rates"), [({}, (0.2, 0.2)), ({"embedding_dropout": 0.4}, (0.4, 0.2))])
def test_two_dropouts(settings, rates):
    model = make(**settings)
    assert (model.dropout.rate, model.blocks[0].dropout.rate) == rates
    assert make(dropout=0.3).dropout.rate == 0.3


# The losses


def scored(seed=0, n=5, m=7, n_items=9):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(n, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(n_items, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, n_items, (n,), generator=generator)
    negatives = torch.randint(0, n_items, (m,), generator=generator)
    negatives[0], negatives[1] = targets[0], targets[2]
    return states, table, targets, negatives


def elu(x, a):
    return x if x > 0 else a * (math.exp(x) - 1)


def loop(kind, states, table, targets, negatives, a=0.5, penalty=1.0, log_weights=None):
    """Mean of a loss by a double loop over targets and negatives."""
    total = 0.0
    for h, target in zip(states.tolist(), targets.tolist(), strict=True):
        lowered = [0.0] * len(table) if log_weights is None else log_weights.tolist()
        score = [dot(h, x) - low for x, low in zip(table.tolist(), lowered, strict=True)]
        if kind == "bpr-max":
            score = [elu(r, a) if a else r for r in score]
        others = [j for j in negatives.tolist() if j != target]
        weight_sum = sum(math.exp(score[j]) for j in others)
        weights = [math.exp(score[j]) / weight_sum for j in others]
        assert sum(weights) == pytest.approx(1.0)
        if kind == "bpr-max":
            below = sum(s * sigmoid(score[target] - score[j]) for s, j in zip(weights, others, strict=True))
            total -= math.log(below + 1e-24)
            total += penalty * sum(s * score[j] ** 2 for s, j in zip(weights, others, strict=True))
        elif kind == "top1-max":
            for s, j in zip(weights, others, strict=True):
                total += s * (sigmoid(score[j] - score[target]) + sigmoid(score[j] ** 2))
        else:
            total -= math.log(math.exp(score[target]) / (math.exp(score[target]) + weight_sum))
    return total / len(targets)


def bpr_max_of(a, penalty):
    return lambda *scores: bpr_max(*scores, elu_scale=a, penalty=penalty)


@pytest.mark.parametrize("rows", [1, 2, 1000])
@pytest.mark.parametrize(
    ("row_losses", "kind", "settings"),
    [
        (bpr_max_of(0.5, 1.0), "bpr-max", {}),
        (bpr_max_of(1.0, 0.0), "bpr-max", {"a": 1.0, "penalty": 0.0}),
        (bpr_max_of(0.0, 1.9), "bpr-max", {"a": 0.0, "penalty": 1.9}),
        (top1_max, "top1-max", {}),
        (cross_entropy, "cross-entropy", {}),
        (cross_entropy, "cross-entropy", {"log_weights": torch.linspace(-1, 2, 9, dtype=torch.float64)}),
    ],
)
def test_losses_against_a_double_loop_and_their_gradients_against_plain_ones(
    monkeypatch, rows, row_losses, kind, settings
):
    monkeypatch.setitem(losses.CHUNK_ROWS, "cpu", rows)
    states, table, targets, negatives = scored()
    log_weights = settings.get("log_weights")
    loss = shared_negatives_loss(row_losses, states, table, targets, negatives, log_weights)
    assert loss.item() == pytest.approx(loop(kind, states, table, targets, negatives, **settings), rel=1e-10)
    scores = states @ table.T - (0.0 if log_weights is None else log_weights)
    is_negative = targets[:, None] != negatives
    plain = row_losses(scores.gather(1, targets[:, None])[:, 0], scores[:, negatives], is_negative).mean()
    expected = torch.autograd.grad(3 * plain, [states, table])
    torch.testing.assert_close(torch.autograd.grad(3 * loss, [states, table]), expected)


def test_weights_sum_to_one_without_the_target():
    scores = torch.tensor([[5.0, 1.0, 0.0], [5.0, 1.0, 0.0]])
    is_negative = torch.tensor([[False, True, True], [True, True, True]])
    weights = negative_weights(scores, is_negative)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights[0, 0] == 0.0
    torch.testing.assert_close(weights[0, 1], torch.sigmoid(torch.tensor(1.0)))
    assert torch.isfinite(negative_weights(scores, torch.zeros_like(is_negative))).all()


@pytest.mark.parametrize("row_losses", [bpr_max_of(0.5, 1.0), top1_max, cross_entropy])
def test_half_precision_is_computed_in_single(row_losses):
    states, table, targets, negatives = (x.detach() for x in scored())
    half = shared_negatives_loss(row_losses, states.bfloat16(), table.bfloat16(), targets, negatives)
    assert half.dtype == torch.float32
    exact = shared_negatives_loss(row_losses, states, table, targets, negatives)
    assert half.item() == pytest.approx(exact.item(), rel=0.05)


# The negatives


def test_items_are_drawn_in_proportion_to_their_weights():
    weights = torch.tensor([1.0, 0.0, 4.0, 9.0, 2.0]) ** 0.5
    drawn = draw_by_count(weights, 20_000, torch.Generator().manual_seed(0))
    counts = np.bincount(drawn, minlength=5)
    assert counts[1] == 0
    seen = weights.numpy() > 0
    expected = 20_000 * weights.numpy() / weights.sum().item()
    assert stats.chisquare(counts[seen], expected[seen], sum_check=False).pvalue > 0.001


def batch_of(histories, n_items=20):
    log = Interactions.from_sequences([np.array(h) for h in histories], n_items=n_items)
    samples = Samples([np.array(h) for h in histories], np.arange(len(histories)), log.user_items)
    return make_batch(samples, "every", torch.device("cpu"))


@pytest.mark.parametrize("loss", ["bpr-max", "top1-max", "cross-entropy"])
@pytest.mark.parametrize("log_correction", [False, True])
def test_the_loss_of_the_model_is_against_drawn_items_and_targets_of_the_batch(loss, log_correction):
    if log_correction and loss != "cross-entropy":
        return
    counts = torch.arange(20)
    settings = {"log_correction": log_correction, "n_negatives": 5}
    config = GRU4RecConfig(n_items=20, max_length=8, n_features=6, loss=loss, **settings)
    model = GRU4Rec(config, counts=counts, seed=1).eval()
    with torch.no_grad():
        model.items.weight.mul_(5)
        model.bias.normal_(generator=torch.Generator().manual_seed(0))
    batch = batch_of([[4, 9, 2, 7], [0, 1, 2, 3, 4, 5], [6, 6]])
    total, n_targets = model.training_loss(batch, torch.Generator().manual_seed(3))
    draws = torch.Generator().manual_seed(3)
    targets = batch.targets[batch.counts]
    others = targets[torch.randperm(9, generator=draws)[:3]]
    weights = counts.clamp(min=1).double().sqrt()
    drawn = draw_by_count(weights, 5, draws)
    lowered = None
    if log_correction:
        shares = [
            (w / sum(weights.tolist()), max(c, 1) / 191) for w, c in zip(weights.tolist(), range(20), strict=True)
        ]
        lowered = torch.tensor([math.log(5 * by_root + 3 * by_count) for by_root, by_count in shares])
    states = model(batch.inputs, batch.lengths)[batch.counts]
    expected = loop(loss, states, model.item_embeddings(), targets, torch.cat([others, drawn]), log_weights=lowered)
    assert n_targets == 9
    assert total.item() / 9 == pytest.approx(expected, rel=1e-5)


def test_counts_are_of_training_alone_and_are_saved(tmp_path):
    dataset = make_random()
    config = GRU4RecConfig(n_items=dataset.n_items, n_features=6)
    model = GRU4Rec.from_dataset(config, dataset)
    assert (
        model.counts.tolist() == np.bincount(np.concatenate([s[:-2] for s in dataset.sequences]), minlength=30).tolist()
    )
    assert "counts" in model.saved_state()
    loaded = GRU4Rec.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert torch.equal(loaded.counts, model.counts)
    with pytest.raises(ModelError, match="do not fit"):
        GRU4Rec.fill(GRU4Rec(GRU4RecConfig(n_items=31, n_features=6)), model.saved_state(), tmp_path)


def test_no_more_items_are_drawn_than_there_are():
    assert GRU4RecConfig(n_items=12).n_drawn == 12
    assert GRU4RecConfig(n_items=3646).n_drawn == 2048


def test_top1_max_learns_what_comes_next():
    """Its second term is at least one half, so its value cannot fall far; what it ranks is the measure."""
    ring = make_ring()
    config = GRU4RecConfig(n_items=ring.n_items, max_length=7, n_features=16, loss="top1-max")
    model = GRU4Rec.from_dataset(config, ring)
    settings = {"n_epochs": 30, "learning_rate": 1e-2, "batch_size": 16, "k": 1, "validate_every": 30}
    train(model, ring, TrainingConfig(**settings))
    assert evaluate(model, ring, k=1).ndcg.mean() > 0.95


# The settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "bpr_max"}, "Did you mean 'bpr-max'"),
        ({"n_blocks": 0}, "n_blocks must be a whole number of at least 1"),
        ({"n_negatives": 0}, "n_negatives must be a whole number of at least 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"embedding_dropout": -0.1}, r"embedding_dropout must lie in \[0, 1\)"),
        ({"popularity_power": 1.5}, r"popularity_power must lie in \[0, 1\]"),
        ({"penalty": -1.0}, r"penalty must lie in \[0, inf\)"),
        ({"elu_scale": "a"}, "elu_scale must lie in"),
        ({"log_correction": 1}, "log_correction must be true or false"),
        ({"log_correction": True}, "log_correction is of the loss cross-entropy; got True with bpr-max"),
        ({"loss": "softmax", "n_negatives": 100}, "n_negatives is of the loss bpr-max or top1-max or cross-entropy"),
        ({"loss": "top1-max", "penalty": 0.5}, "penalty is of the loss bpr-max; got 0.5 with top1-max"),
        ({"n_block": 2}, "Did you mean 'n_blocks'"),
    ],
)
def test_config_checks_itself(settings, message):
    with pytest.raises(ConfigError, match=message):
        GRU4RecConfig.from_dict({"n_items": 20, **settings})
