"""What FMLPRec and BSARec share, against one history at a time on an explicit right-aligned frame."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from frellm4rec.models import BSARec, BSARecConfig, FMLPRec, FMLPRecConfig
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import Samples, make_batch
from spectral_probe.errors import ConfigError
from spectral_probe.interactions.log import Interactions
from spectral_probe.recording.capture import capture
from tests.frellm4rec.tiny_recommenders import padded, states

N_ITEMS, T = 20, 8
SMALL = {"n_items": N_ITEMS, "max_length": T, "n_features": 6, "n_inner": 10}
KINDS = {
    "fmlprec": (FMLPRec, FMLPRecConfig, {}),
    "fmlprec 3 blocks": (FMLPRec, FMLPRecConfig, {"n_blocks": 3, "max_length": 7, "loss": "softmax"}),
    "bsarec": (BSARec, BSARecConfig, {}),
    "bsarec heads": (BSARec, BSARecConfig, {"n_heads": 2, "alpha": 0.3, "c": 1, "max_length": 7, "loss": "bce"}),
}
HISTORIES = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6], [19], [7, 7, 0, 12, 3]]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind, **changes):
    """A model with weights so large that every part matters."""
    model_class, config_class, settings = KINDS[kind]
    model = model_class(config_class.from_dict({**SMALL, **settings, **changes}), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return model


def slow_layers(model, history):
    """Return [embed, block 1, …] of one history, each (length, feature), in float64 on a frame of T positions."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    n_frame, length, width = model.config.max_length, len(history), model.config.n_features
    first = n_frame - length

    def norm(x, name):
        return layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x, name):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    frame = torch.zeros(n_frame, width, dtype=torch.float64)
    for t, item in enumerate(history, start=first):
        frame[t] = norm(weights["items.weight"][item] + weights["positions.weight"][t], "norm")
    layers = [frame[first:]]
    for number in range(model.config.n_blocks):
        block, after = f"blocks.{number}", torch.zeros_like(frame)
        mix = slow_filter if isinstance(model, FMLPRec) else slow_rescaling
        mixed = mix(model, frame, weights, block)
        for t in range(first, n_frame):
            if isinstance(model, FMLPRec):
                state = norm(frame[t] + mixed[t], f"{block}.filter_norm")
            else:
                read = slow_attention(model, frame, first, t, linear, f"{block}.attention")
                alpha = model.config.alpha
                state = alpha * norm(frame[t] + mixed[t], f"{block}.rescaler_norm")
                state = state + (1 - alpha) * norm(frame[t] + read, f"{block}.attention_norm")
            inner = linear(gelu(linear(state, f"{block}.inner.inner_in")), f"{block}.inner.inner_out")
            after[t] = norm(state + inner, f"{block}.inner_norm")
        frame = after
        layers.append(frame[first:])
    return layers


def slow_filter(model, frame, weights, block):
    kernel = torch.fft.irfft(torch.view_as_complex(weights[f"{block}.filter.weight"]), n=len(frame), dim=0)
    filtered = torch.zeros_like(frame)
    for t in range(len(frame)):
        for m in range(len(frame)):
            filtered[t] += kernel[m] * frame[(t - m) % len(frame)]
    return filtered


def slow_rescaling(model, frame, weights, block):
    n_frame, n_low = len(frame), model.config.c // 2
    rescaled = torch.zeros_like(frame)
    for t in range(n_frame):
        low = torch.zeros(frame.shape[1], dtype=torch.float64)
        for s in range(n_frame):
            low += (
                sum(math.cos(2 * math.pi * k * (t - s) / n_frame) for k in range(-n_low, n_low + 1))
                / n_frame
                * frame[s]
            )
        rescaled[t] = low + weights[f"{block}.rescaler.beta"] ** 2 * (frame[t] - low)
    return rescaled


def slow_attention(model, frame, first, t, linear, name):
    heads = []
    for head in torch.arange(frame.shape[1]).chunk(model.config.n_heads):
        query = linear(frame[t], f"{name}.query")[head]
        logits = [query @ linear(frame[s], f"{name}.key")[head] / math.sqrt(len(head)) for s in range(first, t + 1)]
        shares = torch.stack(logits).softmax(0)
        values = [linear(frame[s], f"{name}.value")[head] for s in range(first, t + 1)]
        heads.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    return linear(torch.cat(heads), f"{name}.output")


@every_kind
def test_states_equal_those_of_one_history_at_a_time(kind):
    """Row t is of item t, in a batch of mixed lengths, in every layer that the instrument reads."""
    model = build(kind)
    seen = states(model, *padded(*HISTORIES))
    assert list(seen) == ["embed", *(f"block {i + 1}" for i in range(model.config.n_blocks))]
    for row, history in enumerate(HISTORIES):
        for layer, expected in zip(seen, slow_layers(model, history), strict=True):
            torch.testing.assert_close(seen[layer][row, : len(history)].double(), expected, **CLOSE)
            assert torch.equal(seen[layer][row, len(history) :], torch.zeros_like(seen[layer][row, len(history) :]))
    assert torch.equal(model.forward_sequences(*padded(*HISTORIES)), seen[f"block {model.config.n_blocks}"])


@every_kind
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_instrument_reads_the_last_state_of_every_prefix(kind, batch_size):
    """capture() against a loop over users and prefixes; row t of a Gram is of the prefix that ends with item t."""
    model = build(kind)
    inputs, lengths = padded(*HISTORIES, width=7, fill=13)
    captured = capture(model, inputs.numpy(), lengths.numpy(), batch_size=batch_size)
    assert captured.is_causal  # no row has seen its answer
    assert captured.layer_states == ("embed", *["block"] * model.config.n_blocks)
    for user, history in enumerate(HISTORIES):
        prefixes = [slow_layers(model, history[: t + 1]) for t in range(len(history))]
        for layer in range(model.config.n_blocks + 1):
            last = torch.stack([layers[layer][-1] for layers in prefixes])
            gram = captured.grams[user, layer, : len(history), : len(history)]
            np.testing.assert_allclose(gram, (last @ last.T).numpy(), rtol=1e-3, atol=1e-3)


@every_kind
def test_a_state_of_a_longer_prefix_is_another_one(kind):
    """Even of the same items up to t: so the loss at every position would be of states that have read their answer."""
    model = build(kind)
    whole = model.forward_sequences(*padded(HISTORIES[1]))[0]
    prefixes = [model.forward_sequences(*padded(HISTORIES[1][: t + 1]))[0, -1] for t in range(7)]
    torch.testing.assert_close(prefixes[-1], whole[-1], **CLOSE)
    assert all((prefixes[t] - whole[t]).abs().max() > 1e-2 for t in range(6))


@every_kind
def test_padding_is_exactly_zero_in_what_every_part_reads(kind):
    """After the embedding and after every block, in training as well, whatever stands in the padding."""
    model = build(kind).train()
    inputs, lengths = padded(*HISTORIES, width=T - 1, fill=5)
    is_padding = torch.arange(T - 1) >= lengths[:, None]
    read = []
    mixers = ("filter", "rescaler")  # the attention reads the same as the rescaler, in another order
    modules = [m for block in model.blocks for m in (block, *(getattr(block, n, None) for n in mixers)) if m]
    handles = [m.register_forward_pre_hook(lambda _, args: read.append(args[0])) for m in modules]
    output = model(inputs, lengths)
    for handle in handles:
        handle.remove()
    assert len(read) == len(modules)
    assert all(state[is_padding].abs().max() == 0.0 for state in [*read, output])
    model.eval()
    other = torch.where(is_padding, 17, inputs)
    assert torch.equal(model(other, lengths), model(inputs, lengths))


@every_kind
def test_the_width_of_the_batch_and_later_items_do_not_matter(kind):
    model = build(kind)
    full = model.config.max_length
    for history in HISTORIES:
        narrow = model.last_states(*padded(history))
        inputs, lengths = padded(history, width=full, fill=2)
        torch.testing.assert_close(model.last_states(inputs, lengths), narrow, **CLOSE)
        inputs[0, len(history) :] = 11
        assert torch.equal(model.last_states(inputs, lengths), model.last_states(*padded(history, width=full)))


@every_kind
def test_the_last_states_alone_equal_the_last_rows_and_so_do_their_gradients(kind):
    model = build(kind)
    inputs, lengths = padded(*HISTORIES)
    every, alone = model(inputs, lengths)[torch.arange(4), lengths - 1], model.last_states(inputs, lengths)
    torch.testing.assert_close(alone, every, **CLOSE)
    direction = torch.randn(every.shape, generator=torch.Generator().manual_seed(0))
    named = [(name, p) for name, p in model.named_parameters() if not name.endswith("key.bias")]
    expected, got = (torch.autograd.grad((x * direction).sum(), [p for _, p in named]) for x in (every, alone))
    for (name, _), left, right in zip(named, got, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3, msg=name)


def batch_of(histories, supervision):
    log = Interactions.from_sequences([np.array(h) for h in histories], n_items=N_ITEMS)
    samples = Samples([np.array(h) for h in histories], np.arange(len(histories)), log.user_items)
    if supervision == "all-prefixes":
        samples = samples.all_prefixes()
    return make_batch(samples, supervision, torch.device("cpu"))


@every_kind
def test_the_loss_at_every_position_is_refused(kind, ring):
    model = build(kind)
    with pytest.raises(ConfigError, match="supervision=prefix or all-prefixes"):
        model.training_loss(batch_of(HISTORIES[:2], "every"), torch.Generator())
    model = build(kind, n_items=ring.n_items)
    with pytest.raises(ConfigError, match="not causal"):
        train(model, ring, TrainingConfig(n_epochs=1, k=1, supervision="every"))
    assert model.supervision == "prefix"
    train(model, ring, TrainingConfig(n_epochs=1, k=1, supervision="all-prefixes"))


@every_kind
@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_losses_against_a_loop_over_all_prefixes(kind, loss):
    model = build(kind, loss=loss)
    assert model.has_softmax_loss == (loss == "softmax")
    histories = [[4, 9, 2, 7], [0, 1, 2, 3, 4, 5]]
    batch = batch_of(histories, "all-prefixes")
    total, n_targets = model.training_loss(batch, torch.Generator().manual_seed(3))
    negatives = draw_unseen(batch, 1, torch.Generator().manual_seed(3))[:, 0].tolist()
    table = model.item_embeddings().double()
    expected, row = 0.0, 0
    for history in histories:
        for end in range(1, len(history)):
            scores = table @ slow_layers(model, history[:end])[-1][-1]
            if loss == "softmax":
                expected -= scores.log_softmax(0)[history[end]].item()
            else:
                assert negatives[row] not in history
                chances = scores.sigmoid()
                expected -= (chances[history[end]].log() + (1 - chances[negatives[row]]).log()).item()
            row += 1
    assert n_targets == row == 8
    assert total.item() == pytest.approx(expected, rel=1e-4)


@every_kind
def test_one_interaction_more_moves_every_position_by_one(kind):
    """Positions are counted from the newest item: the rows of the position table that a history does not reach are
    not read."""
    model = build(kind)
    before = model.last_states(*padded([3, 1, 2]))
    with torch.no_grad():
        model.positions.weight[:-3] += 1.0
    torch.testing.assert_close(model.last_states(*padded([3, 1, 2])), before)
    assert not torch.allclose(model.last_states(*padded([3, 1, 2, 4])), before, atol=1e-2)


@every_kind
def test_trains_in_mixed_precision(kind, ring):
    model = build(kind, n_items=ring.n_items)
    record = train(model, ring, TrainingConfig(n_epochs=2, k=1, mixed_precision="bf16", validate_every=1))
    assert all(math.isfinite(loss) for loss in record.losses)


BAD = [
    ({"n_features": 0}, "n_features must be a whole number of at least 1; got 0"),
    ({"n_inner": 2.5}, r"n_inner .* got 2\.5"),
    ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1"),
    ({"dropout": -0.1}, r"dropout must lie in \[0, 1\); got -0\.1"),
    ({"dropout": True}, "got True"),
    ({"loss": "bec"}, "Did you mean 'bce'"),
    ({"n_block": 2}, "Did you mean 'n_blocks'"),
]


@pytest.mark.parametrize("config_class", [FMLPRecConfig, BSARecConfig])
@pytest.mark.parametrize(("settings", "message"), BAD)
def test_configs_check_themselves(config_class, settings, message):
    with pytest.raises(ConfigError, match=message):
        config_class.from_dict({"n_items": 5, **settings})
