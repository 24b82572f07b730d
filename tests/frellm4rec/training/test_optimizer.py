"""The learning rate over the epochs, and what weight decay means to each optimizer."""

from dataclasses import replace

import pytest
import torch

from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.training import TrainingConfig, train
from spectral_probe.errors import ConfigError

CONFIG = TrainingConfig(n_epochs=5, batch_size=16, learning_rate=1e-2, validate_every=1, k=1)


def small(ring):
    return SASRec(SASRecConfig(n_items=ring.n_items, max_length=8, n_features=8, n_inner=8, dropout=0.1))


def test_the_rate_falls_after_so_many_epochs_again_and_again(ring):
    rates = []
    config = replace(CONFIG, decay_every=2, decay_factor=0.1)
    train(small(ring), ring, config, log=lambda entry: rates.append(entry["learning_rate"]))
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])
    assert config.learning_rate_in(1) == CONFIG.learning_rate_in(5) == 1e-2


def test_steps_are_taken_with_the_rate_of_their_epoch(ring):
    """A factor near 0 after the first epoch leaves the weights of that epoch."""
    one, five = small(ring), small(ring)
    train(one, ring, replace(CONFIG, n_epochs=1))
    weights = []
    config = replace(CONFIG, decay_every=1, decay_factor=1e-12, patience=10)
    train(five, ring, config, log=lambda _: weights.append(five.items.weight.detach().clone()))
    torch.testing.assert_close(weights[-1], weights[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(weights[0], one.items.weight.detach(), rtol=0, atol=0)


def test_a_resumed_training_goes_on_with_the_rate_of_its_epoch(ring, tmp_path):
    config = replace(CONFIG, decay_every=2, save_every=1, optimizer="adamw", weight_decay=0.1)
    straight, resumed = small(ring), small(ring)
    train(straight, ring, config)

    def stop(entry):
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(resumed, ring, config, checkpoints=tmp_path, log=stop)
    resumed = small(ring)
    rates = []
    train(resumed, ring, config, checkpoints=tmp_path, resume=True, log=lambda e: rates.append(e["learning_rate"]))
    assert resumed.revision == straight.revision
    assert rates[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize(("optimizer", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_weight_decay_is_that_of_the_optimizer(optimizer, kind, ring):
    """One step of the trainer is one step of PyTorch's optimizer with the same gradient and decay."""
    config = replace(CONFIG, n_epochs=1, batch_size=10_000, optimizer=optimizer, weight_decay=0.5)
    plain = {**config.to_dict(), "weight_decay": 0.0}
    with_decay, without = small(ring), small(ring)
    before = [p.detach().clone() for p in with_decay.parameters()]
    train(with_decay, ring, config)
    train(without, ring, TrainingConfig(**plain))
    assert with_decay.revision != without.revision
    # Adam puts the penalty into the moments: a first step has the length of the rate, whatever the penalty.
    # AdamW takes rate × decay × weight off, besides.
    after = [p.detach() for p in with_decay.parameters()]
    other = [p.detach() for p in without.parameters()]
    if kind is torch.optim.AdamW:
        for start, end, plain_end in zip(before, after, other, strict=True):
            torch.testing.assert_close(end, plain_end - 1e-2 * 0.5 * start, rtol=1e-4, atol=1e-6)
    else:
        moved = torch.cat([(end - start).abs().flatten() for start, end in zip(before, after, strict=True)])
        assert float(moved.max()) <= 1e-2 * (1 + 1e-4)


@pytest.mark.parametrize(
    "values", [{"decay_every": -1}, {"decay_every": 1.5}, {"decay_factor": 0}, {"decay_factor": 2}]
)
def test_a_decay_that_cannot_be_is_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        TrainingConfig(**values)


def test_a_decay_factor_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="decay_factor"):
        TrainingConfig(decay_factor="much")
