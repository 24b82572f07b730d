import json
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from frellm4rec.evaluation import evaluate
from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.models.traits import Traits
from frellm4rec.training import TrainingConfig, checkpoints, train
from frellm4rec.training.config import FULL_SOFTMAX_UP_TO
from spectral_probe.errors import ConfigError, ModelError, NonFiniteStateError, ResourceError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import frellm4rec


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
        traits, supervision = Traits(is_causal=False), "every"

    model = TwoSided(small(ring.n_items))
    with pytest.raises(ConfigError, match="not causal"):
        train(model, ring, FAST)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_epochs": 0},
        {"batch_size": 1.5},
        {"accumulation": True},
        {"save_every": -1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": "fast"},
        {"weight_decay": -0.1, "optimizer": "adamw"},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": "small"},
        {"optimizer": "sgd"},
        {"loss": "sampledd"},
        {"mixed_precision": "bf61"},
        {"gradient_checkpointing": "no"},
    ],
)
def test_config_checks_itself(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TrainingConfig.from_dict(settings)


def test_training_on_every_item_as_negative_is_training_on_the_full_softmax(ring):
    weights = []
    for settings in ({"loss": "full"}, {"loss": "sampled", "n_negatives": 50}):
        model = frellm4rec(12, mode="causal", inputs="id")
        train(model, ring, TrainingConfig(n_epochs=1, batch_size=16, **settings))
        weights.append(model.fusion.out.weight.detach())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-5)


def test_large_catalogues_are_sampled():
    config = TrainingConfig()
    assert not config.is_sampled(FULL_SOFTMAX_UP_TO)
    assert config.is_sampled(FULL_SOFTMAX_UP_TO + 1)
    assert FULL_SOFTMAX_UP_TO == 20_000
    assert not replace(config, loss="full").is_sampled(10**6)
    assert replace(config, loss="sampled").is_sampled(5)


def test_a_large_catalogue_never_meets_all_its_items(monkeypatch):
    n_items = FULL_SOFTMAX_UP_TO + 1
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, n_items, 5) for _ in range(4)]
    dataset = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=n_items))
    model, widths = SASRec(small(n_items)), []
    vectors = SASRec.item_vectors
    monkeypatch.setattr(SASRec, "item_vectors", lambda self, i: widths.append(len(i)) or vectors(self, i))
    monkeypatch.setattr("frellm4rec.models.sequential.softmax_loss", None)
    train(model, dataset, TrainingConfig(n_epochs=1, n_negatives=7))
    assert widths == [4 * 2 + 7]


# The step


@pytest.mark.parametrize("mode", ["causal", "prefix"])
@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_a_batch_in_parts_is_the_same_step(mode, loss, random_log):
    """Histories of unlike lengths: a part counts by its targets, not by its users."""
    gradients, losses = [], []
    for accumulation in (1, 3, 20, 2**31 - 1):
        model = frellm4rec(30, mode=mode, inputs="id")
        config = TrainingConfig(n_epochs=1, batch_size=15, accumulation=accumulation, loss=loss, n_negatives=5)
        train(model, random_log, config, log=lambda entry: losses.append(entry["loss"]))
        gradients.append([p.grad.clone() for p in model.fusion.parameters()])
    assert losses[1:] == pytest.approx([losses[0]] * 3, rel=1e-5)
    for split in gradients[1:]:
        for gradient, whole in zip(split, gradients[0], strict=True):
            torch.testing.assert_close(gradient, whole, rtol=1e-3, atol=1e-6)


def test_the_gradient_is_clipped(ring, monkeypatch):
    norms, step = [], torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    for clip in (None, 1e-3):
        train(SASRec(small(12)), ring, TrainingConfig(n_epochs=1, max_grad_norm=clip))
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-2)


def test_mixed_precision_on_a_cpu(ring):
    exact, mixed = [], []
    for precision, losses in (("no", exact), ("bf16", mixed)):
        for model in (frellm4rec(12, mode="causal"), SASRec(replace(small(12), dropout=0.0))):
            config = replace(FAST, n_epochs=1, validate_every=1, mixed_precision=precision)
            train(model, ring, config, log=lambda entry, losses=losses: losses.append(entry["loss"]))
            assert all(p.dtype == torch.float32 for p in model.parameters())
    assert mixed == pytest.approx(exact, rel=2e-2)
    assert mixed != exact, "something ran in half precision"
    with pytest.raises(ConfigError, match="fp16' needs a GPU"):
        train(SASRec(small(12)), ring, replace(FAST, mixed_precision="fp16"))


def test_only_a_model_with_a_backbone_can_recompute(ring):
    with pytest.raises(ConfigError, match="sasrec has no backbone"):
        train(SASRec(small(12)), ring, replace(FAST, gradient_checkpointing=True))
    weights = []
    for flag in (False, True):
        model = frellm4rec(12, mode="causal")
        train(model, ring, replace(FAST, n_epochs=1, gradient_checkpointing=flag))
        weights.append(model.fusion.out.weight.detach())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-5)


# Stopping, and going on


class StoppedError(Exception):
    """What a kill looks like from inside."""


CASES = {
    "sasrec": ({"save_every": 2}, 8),
    "causal, at the end of epochs": ({}, 8),
    "prefix, sampled, in parts": ({"save_every": 1, "loss": "sampled", "n_negatives": 4, "accumulation": 2}, 14),
}


def make(case, seed=0):
    if case == "sasrec":
        return SASRec(small(12), seed=seed)
    mode = case.split(",")[0]
    return frellm4rec(12, mode=mode, dropout=0.2, seed=seed, learnable_cutoff=mode == "causal")


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_training_ends_as_an_undisturbed_one(case, ring, tmp_path, monkeypatch):
    """Stopped within epoch 3 of 4, gone on with another model, another global state, another number of threads."""
    settings, n_calls = CASES[case]
    config = TrainingConfig(n_epochs=4, batch_size=16, learning_rate=1e-2, validate_every=1, k=1, **settings)
    entries, resumed = [], []
    straight = make(case)
    record = train(straight, ring, config, seed=3, log=entries.append)
    model = make(case)
    kind, calls, forward = type(model), [], type(model).forward

    def limited(self, inputs, lengths):
        if self.training:
            calls.append(1)
            if len(calls) > n_calls:
                raise StoppedError
        return forward(self, inputs, lengths)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "forward", limited)
        with pytest.raises(StoppedError):
            train(model, ring, config, seed=3, checkpoints=tmp_path, log=resumed.append)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".partial-1-of-a-killed-one").mkdir()
    n_before = len(resumed)
    assert 1 <= n_before < 4
    torch.manual_seed(99)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = make(case, seed=7)
        again = train(other, ring, config, seed=3, checkpoints=tmp_path, resume=True, log=resumed.append)
    finally:
        torch.set_num_threads(threads)
    assert other.revision == straight.revision
    assert again == record
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{3 * 4:09d}-end"]
    same = [{n: v for n, v in e.items() if not n.endswith("seconds")} for e in resumed]
    assert same == [{n: v for n, v in e.items() if not n.endswith("seconds")} for e in entries]
    assert train(make(case), ring, config, seed=3, checkpoints=tmp_path, resume=True) == record


def test_what_is_left_is_the_best_epoch(random_log, tmp_path):
    model, saved = SASRec(small(30)), []
    config = TrainingConfig(n_epochs=500, batch_size=16, learning_rate=1e-2, validate_every=1, patience=3)
    keep = lambda best: saved.append(best.save_pretrained(tmp_path / f"{len(saved)}"))  # noqa: E731
    record = train(model, random_log, config, keep_best=keep)
    assert record.best_epoch < record.epochs[-1] == record.best_epoch + 3
    assert SASRec.from_pretrained(saved[-1]).revision == model.revision
    is_best = np.maximum.accumulate([-1.0, *record.validation_ndcg[:-1]]) < record.validation_ndcg
    assert len(saved) == is_best.sum()


@pytest.mark.parametrize("damage", ["weights", "state", "missing", "other model"])
def test_a_damaged_checkpoint_is_named(damage, ring, tmp_path):
    config = replace(FAST, n_epochs=1)
    train(SASRec(small(12)), ring, config, checkpoints=tmp_path)
    (folder,) = tmp_path.iterdir()
    if damage == "weights":
        content = (folder / "state.safetensors").read_bytes()
        (folder / "state.safetensors").write_bytes(content[:-9])
    elif damage == "state":
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({**state, "epohc": 1}))
    elif damage == "missing":
        (folder / "state.json").unlink()
    model = SASRec(replace(small(12), n_blocks=1) if damage == "other model" else small(12))
    with pytest.raises(ModelError, match=rf"(?s){folder.name} cannot be read .* Delete it"):
        train(model, ring, config, checkpoints=tmp_path, resume=True)


def test_a_full_disk_keeps_the_checkpoint_before(ring, tmp_path, monkeypatch):
    write, written = checkpoints.save_file, []

    def full(*args):
        written.append(1)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        write(*args)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(ResourceError, match=r"No space left .* continue with --resume"):
        train(SASRec(small(12)), ring, replace(FAST, n_epochs=2), checkpoints=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003-end"]


@pytest.mark.parametrize("layer", ["embed", "block 2", "final_norm"])
@pytest.mark.parametrize("kind", ["sasrec", "frellm4rec"])
def test_a_loss_that_breaks_names_epoch_step_and_layer(kind, layer, ring, tmp_path):
    model = SASRec(small(12)) if kind == "sasrec" else frellm4rec(12, mode="causal")
    part = {name: module for name, _, module in model.layers()}[layer]
    calls = []

    def poison(state):
        calls.append(1)
        return state * float("nan") if len(calls) > 4 else state

    def is_looking():
        return model.training or len(calls) > 4

    if layer == "embed":
        part.register_forward_pre_hook(lambda m, args: (poison(args[0]), *args[1:]) if is_looking() else args)
    else:
        part.register_forward_hook(lambda m, args, out: poison(out) if is_looking() else out)
    config = replace(FAST, n_epochs=3, validate_every=1)
    revisions = []
    with pytest.raises(NonFiniteStateError) as caught:
        train(model, ring, config, checkpoints=tmp_path, keep_best=lambda best: revisions.append(best.revision))
    assert f"nan in epoch 2, step 2, first seen in layer '{layer}'" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003-end"]
    assert len(revisions) == 1


def test_weights_that_break_in_the_last_step_are_neither_measured_nor_kept(ring, tmp_path):
    """A finite loss with a gradient that is not: the epoch's validation must not run on what it leaves."""
    model, calls, revisions = SASRec(small(12)), [], []

    def poison(gradient):
        calls.append(1)
        return gradient * float("inf") if len(calls) == 6 else gradient

    model.final_norm.bias.register_hook(poison)
    config = replace(FAST, n_epochs=3, validate_every=1)
    with pytest.raises(NonFiniteStateError, match="after epoch 2, step 3 they are not"):
        train(model, ring, config, checkpoints=tmp_path, keep_best=lambda best: revisions.append(best.revision))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003-end"]
    restored = SASRec(small(12))
    record = train(restored, ring, replace(FAST, n_epochs=1, validate_every=1))
    assert revisions == [restored.revision]
    assert record.epochs == [1]


# Several processes


def train_share(rank, n_processes, port, out):
    """One process of several that train together, are stopped in epoch 2, and go on."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}

    def stop(entry):
        if entry["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(tiny_prefix(), make_ring(), TWO_EPOCHS, checkpoints=out / "checkpoints", log=stop)
    torch.distributed.barrier()
    model, entries = tiny_prefix(seed=rank + 5), []
    train(model, make_ring(), TWO_EPOCHS, checkpoints=out / "checkpoints", resume=True, log=entries.append)
    model.save_pretrained(out / f"{rank}")
    (out / f"{rank}.json").write_text(json.dumps([entry["loss"] for entry in entries]))


TWO_EPOCHS = TrainingConfig(n_epochs=2, batch_size=16, learning_rate=1e-2, validate_every=1, max_grad_norm=1.0)


def tiny_prefix(seed=0):
    return frellm4rec(12, mode="prefix", inputs="id", seed=seed)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(train_share, args=(2, port, tmp_path), nprocs=2)
    model, entries = tiny_prefix(), []
    train(model, make_ring(), TWO_EPOCHS, log=entries.append)
    losses = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert losses[0] == losses[1] == pytest.approx([entries[1]["loss"]], rel=1e-4)
    weights = [type(model).read_saved(tmp_path / f"{rank}")[1] for rank in range(2)]
    for name, tensor in model.saved_state().items():
        assert torch.equal(weights[0][name], weights[1][name])
        torch.testing.assert_close(weights[0][name], tensor, rtol=1e-3, atol=1e-4)
