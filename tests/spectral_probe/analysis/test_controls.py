"""Controls change what they say they change, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spectral_probe.analysis.controls import random_weights, shuffle_history
from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import ConfigError
from spectral_probe.interactions.sequences import ProbeSequences
from spectral_probe.recording.capture import capture
from tests.spectral_probe.tiny_models import CONFIGS, WIDTH, tiny


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_random_weights_redraw_matrices_and_keep_the_rest(family):
    original = HFDecoder(tiny(family), np.random.default_rng(0).normal(size=(5, WIDTH)))
    with torch.no_grad():  # norms that differ from their initial values, so that keeping them can be seen
        for parameter in original.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in original.named_parameters()}
    control = random_weights(original, seed=3)
    tables = {id(p) for m in control.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    n_redrawn = 0
    for name, parameter in control.named_parameters():
        weight = parameter.detach()
        old = before[name]
        assert torch.equal(original.get_parameter(name), old)
        if weight.ndim < 2 or id(parameter) in tables:
            assert torch.equal(weight, old), name
            continue
        n_redrawn += 1
        n, spread = weight.numel(), float(old.std())
        assert float(weight.mean()) == pytest.approx(float(old.mean()), abs=5 * spread / n**0.5), name
        assert float(weight.std()) == pytest.approx(spread, rel=5 / (2 * n) ** 0.5), name
        assert abs(np.corrcoef(weight.flatten(), old.flatten())[0, 1]) < 5 / n**0.5, name
    assert n_redrawn >= 3 * 4
    assert torch.equal(control.item_embeddings, original.item_embeddings)
    assert control.revision != original.revision


def test_random_weights_are_seeded_and_keep_a_spread_of_their_own():
    model = HFDecoder(tiny("qwen2"))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.normal_(0.3, 0.01)
    state = torch.get_rng_state()
    first, again, other = (random_weights(model, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.revision == again.revision != other.revision
    drawn = first.model.layers[0].mlp.up_proj.weight.detach()
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.002)
    assert float(drawn.std()) == pytest.approx(0.01, rel=0.1)


def test_random_weights_of_a_module_with_bare_tables():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Parameter(torch.randn(6, 4))
            self.composition = nn.Linear(4, 4)
            self.norm = nn.LayerNorm((2, 4))

    model = Model()
    control = random_weights(model)
    assert torch.equal(control.positions, model.positions)
    assert torch.equal(control.norm.weight, model.norm.weight)
    assert not torch.equal(control.composition.weight, model.composition.weight)


def test_random_weights_can_be_captured_and_the_input_is_unchanged():
    model = HFDecoder(tiny("llama"), np.random.default_rng(0).normal(size=(9, WIDTH)))
    inputs, lengths = np.arange(8).reshape(2, 4), np.array([4, 3])
    trained, control = capture(model, inputs, lengths), capture(random_weights(model), inputs, lengths)
    np.testing.assert_array_equal(control.grams[:, 0], trained.grams[:, 0])
    assert not np.allclose(control.grams[:, 1], trained.grams[:, 1])


def test_random_weights_need_weights():
    for nothing in (nn.Embedding(3, 3), object()):
        with pytest.raises(ConfigError, match="random-weights"):
            random_weights(nothing)


def probe_of(n: int, T: int) -> ProbeSequences:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, T + 1, size=n)
    inputs = np.where(np.arange(T) < lengths[:, None], rng.integers(1, 50, size=(n, T)), 0)
    return ProbeSequences(inputs, np.where(inputs, inputs + 100, 0), lengths, np.arange(n) * 3)


def test_shuffled_history_keeps_every_pair_and_the_padding():
    probe = probe_of(40, 12)
    before = probe.inputs.copy()
    shuffled = shuffle_history(probe, seed=1)
    np.testing.assert_array_equal(probe.inputs, before)
    np.testing.assert_array_equal(shuffled.targets, np.where(shuffled.inputs, shuffled.inputs + 100, 0))
    np.testing.assert_array_equal(np.sort(shuffled.inputs, axis=1), np.sort(probe.inputs, axis=1))
    for row, length in enumerate(probe.lengths):
        assert (shuffled.inputs[row, :length] > 0).all()
        assert not shuffled.inputs[row, length:].any()
    assert (shuffled.inputs != probe.inputs).any(axis=1)[probe.lengths > 6].mean() > 0.9
    np.testing.assert_array_equal(shuffled.lengths, probe.lengths)
    np.testing.assert_array_equal(shuffled.users, probe.users)


def test_shuffled_history_depends_on_the_seed_and_the_user_alone():
    probe = probe_of(40, 12)
    shuffled = shuffle_history(probe, seed=1)
    np.testing.assert_array_equal(shuffle_history(probe, seed=1).inputs, shuffled.inputs)
    assert not np.array_equal(shuffle_history(probe, seed=2).inputs, shuffled.inputs)
    subset = ProbeSequences(probe.inputs[5:9], probe.targets[5:9], probe.lengths[5:9], probe.users[5:9])
    np.testing.assert_array_equal(shuffle_history(subset, seed=1).inputs, shuffled.inputs[5:9])
    same = ProbeSequences(
        np.tile(np.arange(1, 13), (30, 1)), np.tile(np.arange(1, 13), (30, 1)), np.full(30, 12), np.arange(30)
    )
    assert len(np.unique(shuffle_history(same, seed=0).inputs, axis=0)) > 25  # not one order for all users
