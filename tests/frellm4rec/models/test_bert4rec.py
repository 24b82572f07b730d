import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from frellm4rec.models import BERT4Rec, BERT4RecConfig
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import Samples, make_batch
from frellm4rec.training.divergence import first_broken_layer
from spectral_probe.errors import ConfigError, NonFiniteStateError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.recording.capture import capture
from tests.frellm4rec.tiny_recommenders import padded

N_ITEMS, MAX_LENGTH = 12, 7
HISTORIES = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6], [11], [7, 7, 0]]


def small(scale=15.0, **settings):
    """A model whose states differ clearly, with biases that are not 0."""
    values = {"n_items": N_ITEMS, "max_length": MAX_LENGTH, "n_features": 8, "n_inner": 12, **settings}
    model = BERT4Rec(BERT4RecConfig(**values), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
            else:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def samples_of(*histories):
    log = Interactions.from_sequences([np.asarray(h) for h in histories], n_items=N_ITEMS)
    return Samples([np.asarray(h) for h in histories], np.arange(len(histories)), log.user_items)


def batch_of(*histories):
    return make_batch(samples_of(*histories), "own", torch.device("cpu"))


# The forward pass, with loops


def norm(vector, layer):
    centred = vector - vector.mean()
    return centred / math.sqrt(centred.square().mean().item() + layer.eps) * layer.weight + layer.bias


def linear(layer, vector):
    return layer.weight @ vector + layer.bias


def slow_states(model, ids):
    """The states before the first block and after each block for items and masks, as lists of vectors."""
    table, positions = model.items.weight, model.positions.weight
    states = [norm(table[item] + positions[t], model.embedding_norm) for t, item in enumerate(ids)]
    layers = [states]
    for outer in model.blocks:
        block, after = outer.block, []
        attention, width = block.attention, len(states[0]) // block.attention.n_heads
        for state in states:
            read = []
            for head in range(attention.n_heads):
                part = slice(head * width, (head + 1) * width)
                query = linear(attention.query, state)[part]
                scores = [(query @ linear(attention.key, s)[part]).item() / math.sqrt(width) for s in states]
                weights = [math.exp(score - max(scores)) for score in scores]
                values = [linear(attention.value, s)[part] for s in states]
                read.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
            attended = norm(state + linear(attention.output, torch.cat(read)), block.attention_norm)
            inner = functional.gelu(linear(block.inner.inner_in, attended))
            after.append(norm(attended + linear(block.inner.inner_out, inner), block.inner_norm))
        states = after
        layers.append(states)
    return layers


def slow_scores(model, state):
    head = norm(functional.gelu(linear(model.head, state)), model.head_norm)
    return torch.stack([head @ model.items.weight[item] + model.bias[item] for item in range(N_ITEMS)])


@torch.no_grad()
def test_scores_are_those_of_the_mask_after_the_history():
    model = small()
    scores = model.score(*padded(*HISTORIES))
    assert scores.std() > 0.1
    for row, history in enumerate(HISTORIES):
        expected = slow_scores(model, slow_states(model, [*history, N_ITEMS])[-1][-1])
        torch.testing.assert_close(scores[row], expected, rtol=1e-4, atol=1e-4)


def test_number_of_parameters():
    model = BERT4Rec(BERT4RecConfig(n_items=3646))
    assert sum(p.numel() for p in model.parameters()) == 252_596
    assert model.positions.weight.shape == (51, 50)
    assert model.width == 51


def test_initial_weights_are_truncated():
    weights = BERT4Rec(BERT4RecConfig(n_items=3646)).items.weight
    assert 0.039 < weights.abs().max() <= 0.04
    assert abs(weights.std() - 0.88 * 0.02) < 2e-4


# The cloze


def count_by_rule(length, share, cap):
    return min(cap, max(1, round(share * length)))


@pytest.mark.parametrize(("share", "cap"), [(0.4, 30), (0.2, 30), (0.6, 3)])
def test_number_of_hidden_items_by_the_rule(share, cap):
    model = small(mask_share=share, max_masks=cap, last_only_share=0.0)
    lengths = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8] * 20)
    hidden, n_read = model.draw_masks(lengths, 8, torch.Generator().manual_seed(0))
    assert torch.equal(n_read, lengths)
    for length, row in zip(lengths.tolist(), hidden, strict=True):
        assert int(row.sum()) == count_by_rule(length, share, cap) >= 1
        assert not row[length:].any()


def test_hidden_items_are_uniform_over_the_history():
    n, length, width = 10_000, 5, 8
    model = small(mask_share=0.4, last_only_share=0.0)
    hidden, _ = model.draw_masks(torch.full((n,), length), width, torch.Generator().manual_seed(0))
    assert int(hidden.sum()) == 2 * n
    counts = hidden.sum(0)
    assert counts[length:].tolist() == [0, 0, 0]
    # Two of five, without replacement: the counts vary by 1 - 1/4 of what independent draws would.
    deviation = float(((counts[:length] - 0.4 * n) ** 2 / (0.4 * n)).sum()) / (3 / 4)
    assert stats.chi2.sf(deviation, length - 1) > 1e-3


def test_half_of_the_histories_hide_the_last_item_of_a_prefix_alone():
    """Prefixes have lengths uniform over 2…n; of the other histories all items are read."""
    n, length = 10_000, 8
    model = small(mask_share=0.4, last_only_share=0.5)
    hidden, n_read = model.draw_masks(torch.full((n,), length), length, torch.Generator().manual_seed(0))
    is_last_only = hidden.sum(1) == 1
    assert torch.equal(hidden[is_last_only].int().argmax(1), n_read[is_last_only] - 1)
    assert (hidden[~is_last_only].sum(1) == 3).all()
    assert (n_read[~is_last_only] == length).all()
    assert abs(float(is_last_only.float().mean()) - 0.5) < 4 * 0.5 / math.sqrt(n)
    counts = torch.bincount(n_read[is_last_only], minlength=length + 1)
    assert counts[:2].tolist() == [0, 0]
    assert stats.chisquare(counts[2:].numpy()).pvalue > 1e-3
    for share, expected in ((0.0, False), (1.0, True)):
        rows, _ = small(last_only_share=share).draw_masks(torch.full((99,), length), length, torch.Generator())
        assert ((rows.sum(1) == 1) == expected).all()
    assert model.draw_masks(torch.ones(9, dtype=torch.long), 1, torch.Generator())[1].tolist() == [1] * 9


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_that_of_hidden_items_alone(seed):
    """Against a loop; the gradient at items that are not hidden is 0; a hidden item is never read."""
    model = small()
    histories = [[4, 9, 2, 7], [0, 1, 2, 3, 4, 5, 6, 8], [3, 3]]
    batch = batch_of(*histories)
    hidden, n_read = model.draw_masks(batch.lengths, 8, torch.Generator().manual_seed(seed))
    outputs = []
    handle = model.blocks[-1].register_forward_hook(lambda m, args, output: outputs.append(output[1]))
    loss, n_targets = model.training_loss(batch, torch.Generator().manual_seed(seed))
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, outputs[0], retain_graph=True)
    assert torch.equal(gradient.abs().sum(-1) > 0, hidden)
    expected = 0.0
    for history, row, n in zip(histories, hidden.tolist(), n_read.tolist(), strict=True):
        ids = [N_ITEMS if is_hidden else item for item, is_hidden in zip(history[:n], row[:n], strict=True)]
        states = slow_states(model, ids)[-1]
        for t, item in enumerate(history):
            if row[t]:
                expected -= torch.log_softmax(slow_scores(model, states[t]), 0)[item].item()
    assert n_targets == int(hidden.sum())
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_sampling_every_item_is_the_full_softmax():
    model, batch = small(), batch_of([4, 9, 2, 7], [0, 1, 2])
    full, n = model.training_loss(batch, torch.Generator().manual_seed(0))
    sampled = make_batch(samples_of([4, 9, 2, 7], [0, 1, 2]), "own", torch.device("cpu"), torch.arange(N_ITEMS))
    loss, m = model.training_loss(sampled, torch.Generator().manual_seed(0))
    assert n == m
    torch.testing.assert_close(loss, full)
    assert model.has_softmax_loss


def test_the_position_of_the_mask_after_a_full_history_is_trained():
    """Windows are one item longer than what is read, so that the last position is seen in training too."""
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, N_ITEMS, 14) for _ in range(8)]
    dataset = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=N_ITEMS))
    model = small(scale=1.0)
    before = model.positions.weight.detach().clone()
    train(model, dataset, TrainingConfig(n_epochs=1, batch_size=8, k=1))
    assert ((model.positions.weight - before).abs().amax(1) > 1e-5).all()


def test_the_loss_softmax_is_of_the_item_after_a_prefix():
    model = small(loss="softmax")
    assert (model.supervision, small().supervision) == ("prefix", "own")
    batch = make_batch(samples_of([4, 9, 2, 7], [0, 1, 2]), "prefix", torch.device("cpu"))
    loss, n_targets = model.training_loss(batch, torch.Generator())
    scores = model.score(*padded([4, 9, 2], [0, 1]))
    expected = functional.cross_entropy(scores, torch.tensor([7, 2]), reduction="sum")
    assert n_targets == 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_dropout_is_of_the_training_alone():
    model, batch = small(dropout=0.5), batch_of([4, 9, 2, 7])
    losses = [model.training_loss(batch, torch.Generator().manual_seed(0))[0].item() for _ in range(2)]
    assert losses[0] == losses[1]
    model.train()
    losses = [model.training_loss(batch, torch.Generator().manual_seed(0))[0].item() for _ in range(2)]
    assert losses[0] != losses[1]


# The probe


@torch.no_grad()
def test_a_capture_is_of_single_prefixes():
    """Row t of a block is the mask after items 0…t, of ``embed`` what is read of item t; nothing later is read."""
    model = small()
    inputs, lengths = padded(*HISTORIES)
    recorded = capture(model, inputs.numpy(), lengths.numpy(), batch_size=3)
    assert list(recorded.layer_names) == ["embed", "block 1", "block 2"]
    for row, history in enumerate(HISTORIES):
        n = len(history)
        prefixes = [slow_states(model, [*history[: t + 1], N_ITEMS]) for t in range(n)]
        for layer in range(3):
            states = torch.stack([p[layer][-2 if layer == 0 else -1] for p in prefixes])
            gram = torch.from_numpy(recorded.grams[row, layer, :n, :n])
            torch.testing.assert_close(gram, states @ states.T, rtol=1e-4, atol=1e-4)


def test_states_of_a_whole_history_have_read_what_follows():
    """So rows before the last are no predictions; a capture that took them from one pass would differ."""
    model = small()
    inputs, lengths = padded(HISTORIES[1])
    changed = inputs.clone()
    changed[0, 6] = 10
    with torch.no_grad():
        before, after = model(inputs, lengths), model(changed, lengths)
    assert (after - before).abs().amax(-1).min() > 1e-3
    whole = capture(model, inputs.numpy(), lengths.numpy(), prefixes=False)
    by_prefix = capture(model, inputs.numpy(), lengths.numpy())
    assert np.abs(whole.grams[0, 1] - by_prefix.grams[0, 1]).max() > 1e-2
    np.testing.assert_allclose(whole.grams[0, 0], by_prefix.grams[0, 0], rtol=1e-5, atol=1e-5)


def test_a_training_that_diverges_names_the_layer():
    model, batch = small(), batch_of([0, 1, 2, 3, 4, 5, 6, 8])
    assert first_broken_layer(model, batch) is None
    with torch.no_grad():
        model.blocks[1].block.inner.inner_out.bias.fill_(math.nan)
    assert first_broken_layer(model, batch) == "block 2"
    dataset = Dataset.from_interactions(Interactions.from_sequences([np.arange(12)] * 3, n_items=N_ITEMS))
    with pytest.raises(NonFiniteStateError, match="block 2"):
        train(model, dataset, TrainingConfig(n_epochs=1, k=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 3}, "n_heads must divide n_features; got n_heads=3, n_features=50"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1\.0"),
        ({"dropout": "a"}, "dropout must lie"),
        ({"loss": "close"}, "loss must be one of .* Did you mean 'cloze'"),
        ({"mask_share": 0.0}, r"mask_share must lie in \(0, 1\); got 0\.0\. Published"),
        ({"mask_share": 1}, "mask_share .* got 1"),
        ({"mask_share": True}, "mask_share .* got True"),
        ({"last_only_share": 1.5}, r"last_only_share must lie in \[0, 1\]; got 1\.5"),
        ({"max_masks": 0}, "max_masks must be a whole number of at least 1; got 0"),
        ({"n_blocks": 1.5}, r"n_blocks .* got 1\.5"),
        ({"mask_shar": 0.5}, "Did you mean 'mask_share'"),
    ],
)
def test_config_checks_itself(settings, message):
    with pytest.raises(ConfigError, match=message):
        BERT4RecConfig.from_dict({"n_items": 5, **settings})
