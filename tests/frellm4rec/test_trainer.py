import numpy as np
import pytest
import torch
from torch.nn import functional

from frellm4rec.evaluation import evaluate
from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.training import TrainingConfig, full_softmax_loss, train
from frellm4rec.training import losses as losses_module
from spectral_probe.errors import ConfigError, NonFiniteStateError, ShapeError
from spectral_probe.interactions import Dataset, Interactions


def small(n_items, **settings):
    return SASRecConfig(n_items=n_items, max_length=8, n_features=16, n_inner=16, dropout=0.1, **settings)


FAST = TrainingConfig(n_epochs=30, batch_size=16, learning_rate=1e-2, validate_every=10, patience=10, k=1)


def test_learns_a_ring_of_items(ring):
    model = SASRec(small(ring.n_items))
    before = evaluate(model, ring, k=1).ndcg.mean()
    record = train(model, ring, FAST)
    after = evaluate(model, ring, k=1).ndcg.mean()
    assert before < 0.6
    assert after > 0.95
    assert record.losses[-1] < record.losses[0]
    assert record.best_epoch in record.epochs
    assert not model.training


def test_same_seed_same_weights_and_the_global_generator_is_spared(ring):
    config = TrainingConfig(n_epochs=3, batch_size=16, validate_every=2, k=1)
    torch.manual_seed(5)
    expected = torch.rand(2)
    revisions = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        model = SASRec(small(ring.n_items), seed=0)
        train(model, ring, config, seed=seed)
        torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)
        revisions.append(model.revision)
    assert revisions[0] == revisions[1] != revisions[2]


def test_held_out_items_never_reach_the_weights():
    """Other validation and test items, the same weights (after one epoch, before validation can choose)."""
    generator = np.random.default_rng(0)
    revisions = []
    histories = [generator.permutation(20)[:6] for _ in range(12)]
    for shift in (0, 1):
        changed = [np.concatenate([h[:-2], (h[-2:] + shift) % 20]) for h in histories]
        dataset = Dataset.from_interactions(Interactions.from_sequences(changed, n_items=20))
        model = SASRec(small(20))
        train(model, dataset, TrainingConfig(n_epochs=1))
        revisions.append(model.revision)
    assert revisions[0] == revisions[1]


def test_keeps_the_best_epoch_and_stops_early(random_log):
    # Nothing can be learned, so the validation soon stops improving.
    model = SASRec(small(random_log.n_items))
    config = TrainingConfig(n_epochs=500, batch_size=16, learning_rate=1e-2, validate_every=1, patience=4)
    record = train(model, random_log, config)
    assert record.epochs[-1] == record.best_epoch + 4 < 500
    assert max(record.validation_ndcg) == record.validation_ndcg[record.epochs.index(record.best_epoch)]
    assert evaluate(model, random_log, part="valid").ndcg.mean() == max(record.validation_ndcg)


def test_a_diverged_loss_names_the_step(ring):
    model = SASRec(small(ring.n_items))
    with torch.no_grad():
        model.items.weight[0] = torch.nan
    with pytest.raises(NonFiniteStateError, match="nan in epoch 1, step 1"):
        train(model, ring, FAST)


def test_refuses_a_two_sided_model(ring):
    class TwoSided(SASRec):
        is_causal, supervision = False, "every"

    model = TwoSided(small(ring.n_items))
    with pytest.raises(ConfigError, match="not causal"):
        train(model, ring, FAST)


@pytest.mark.parametrize("settings", [{"n_epochs": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}])
def test_config_checks_itself(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TrainingConfig(**settings)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_loss_in_chunks_equals_the_plain_one(monkeypatch, rows):
    monkeypatch.setitem(losses_module.CHUNK_ROWS, "cpu", rows)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    table = (30 * torch.randn(9, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 9, (3, 5), generator=generator)
    lengths = torch.tensor([5, 2, 3])
    is_valid = torch.arange(5) < lengths[:, None]
    plain = functional.cross_entropy((states @ table.T)[is_valid], targets[is_valid])
    expected = torch.autograd.grad(3 * plain, [states, table])
    loss = full_softmax_loss(states, table, targets, lengths)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, [states, table]), expected)


def test_loss_refuses_shapes_that_do_not_fit():
    states, table, targets = torch.zeros(2, 3, 4), torch.zeros(5, 4), torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ShapeError, match="agree in batch"):
        full_softmax_loss(states, table, targets[:, :2], torch.tensor([1, 1]))
    with pytest.raises(ShapeError, match="at least one target"):
        full_softmax_loss(states, table, targets, torch.tensor([0, 0]))
