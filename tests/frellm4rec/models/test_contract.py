"""What every recommender must do, whatever it is made of.

Each clause runs over every registered model, in the tiny form that its recipe gives, and over variants of some. A model
that does not meet one of :data:`~frellm4rec.models.traits.CLAUSES` declares so with a reason; then the clause must
really fail, so that no exception outlives its cause.
"""

import numpy as np
import pytest
import torch

from frellm4rec.evaluation import evaluate
from frellm4rec.models.traits import CLAUSES
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import Samples, make_batch, training_samples
from spectral_probe.backbones import LayeredModel
from spectral_probe.errors import ConfigError, DataError, ShapeError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import MAX_LENGTH, NAMES, build, load, padded, states

HISTORIES = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6], [11], [7, 7, 0]]
N_ITEMS = 12
RING = make_ring(n_items=N_ITEMS)
#: Epochs and learning rate, enough for a cycle of twelve items; a prefix per user and step gives few targets.
STEPS = {"every": (20, 1e-2), "prefix": (50, 1e-2), "all-prefixes": (20, 1e-2), "own": (50, 1e-2)}
#: The same for models that need more and smaller steps, as post-norm transformers do.
SMALL_STEPS = {"bert4rec": (200, 3e-3)}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
MODELS = {name: build(name, RING) for name in NAMES}


def models(meets=lambda model: True):
    """Parametrise over the names of the models that meet a condition."""
    return pytest.mark.parametrize("name", [name for name, model in MODELS.items() if meets(model)])


every_recommender = models()
trained_ones = models(lambda model: model.traits.is_trained)
layered_ones = models(lambda model: not model.why_no_layers)
tabled_ones = models(lambda model: model.traits.is_inner_product)


def fast(model, **changes):
    n_epochs, learning_rate = SMALL_STEPS.get(model.name, STEPS[model.supervision])
    values = {"n_epochs": n_epochs, "learning_rate": learning_rate, "batch_size": 16, "k": 1}
    return TrainingConfig(**{**values, "validate_every": n_epochs, **changes})


def briefly(model, dataset, seed=0, **changes):
    if model.traits.is_trained:
        train(model, dataset, fast(model, **{"n_epochs": 2, "validate_every": 1, **changes}), seed=seed)


def a_model(name, seed=0):
    """An untrained model whose scores differ clearly."""
    model = build(name, RING, seed).eval()
    if float(model.score(*padded(*HISTORIES)).std()) < 0.1:  # small initial weights
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(15)
    return model


@every_recommender
def test_learns_what_comes_next(name):
    model = build(name, RING)
    before = evaluate(model, RING, k=1).ndcg.mean()
    losses = []
    if model.traits.is_trained:
        train(model, RING, fast(model), log=lambda entry: losses.append(entry["loss"]))
        assert losses[-1] < 0.5 * losses[0]
    after = evaluate(model, RING, k=1).ndcg.mean()
    assert (after > 0.95) == ("learns" not in model.traits.exceptions)
    if model.traits.is_trained:
        assert before < 0.6
        assert not model.training


@every_recommender
def test_save_and_load_give_the_same_scores(name, tmp_path):
    model = build(name, RING)
    briefly(model, RING)
    loaded = load(name, model.save_pretrained(tmp_path / "model"))
    assert torch.equal(loaded.score(*padded(*HISTORIES)), model.score(*padded(*HISTORIES)))
    if model.traits.is_inner_product:
        assert torch.equal(loaded.item_embeddings(), model.item_embeddings())
    assert loaded.revision == model.revision
    assert (model.revision != build(name, RING).revision) == model.traits.is_trained
    assert loaded.config == model.config
    assert loaded.traits == model.traits
    assert not loaded.training


@every_recommender
def test_scores_ignore_padding_batch_mates_and_their_order(name):
    model = a_model(name)
    together = model.score(*padded(*HISTORIES))
    assert together.shape == (len(HISTORIES), N_ITEMS)
    assert together.std() > 0.1 or not model.traits.is_trained, "scores that hardly differ would pass anything"
    for row, history in enumerate(HISTORIES):
        for width in (len(history), MAX_LENGTH):
            torch.testing.assert_close(model.score(*padded(history, width=width))[0], together[row], **CLOSE)
    torch.testing.assert_close(model.score(*padded(*HISTORIES[::-1])), together.flip(0), **CLOSE)
    filled, lengths = padded(*HISTORIES, fill=5)
    torch.testing.assert_close(model.score(filled, lengths), together, **CLOSE)


@every_recommender
def test_the_order_of_a_history_matters(name):
    model = a_model(name)
    scores = model.score(*padded([1, 2, 3], [3, 1, 2], [2, 3, 1]))
    moved = float((scores - scores[0]).abs().max())
    assert (moved > 1e-3) == ("order" not in model.traits.exceptions)


@every_recommender
def test_candidates_are_rated_one_by_one(name):
    """In any order, in any company, and as in the ranking of the whole catalogue."""
    model, (inputs, lengths) = a_model(name), padded(*HISTORIES)
    items = torch.stack([torch.randperm(N_ITEMS, generator=torch.Generator().manual_seed(row))[:5] for row in range(4)])
    scores, tolerance = model.score_and_tolerance(inputs, lengths, items)
    assert tolerance.shape == (4,)
    order = torch.tensor([3, 0, 4, 1, 2])
    reordered = model.score_and_tolerance(inputs, lengths, items[:, order])[0]
    alone = torch.cat([model.score_and_tolerance(inputs, lengths, items[:, c : c + 1])[0] for c in range(5)], dim=1)
    differences = [float((reordered - scores[:, order]).abs().max()), float((alone - scores).abs().max())]
    assert (max(differences) < 1e-5) == ("company" not in model.traits.exceptions)
    if model.traits.can_rank_all:
        torch.testing.assert_close(model.score(inputs, lengths).gather(1, items).double(), scores.double(), **CLOSE)


@tabled_ones
def test_scores_are_inner_products_with_the_item_table(name):
    model, (inputs, lengths) = a_model(name), padded(*HISTORIES)
    items = torch.tensor([[3, 5], [0, 1], [2, 2], [11, 0]])
    with torch.no_grad():
        last = model(inputs, lengths)[torch.arange(4), lengths - 1]
    table = model.item_embeddings().detach()
    assert table.shape == (N_ITEMS, model.width)
    scores = model.score(inputs, lengths, items)
    torch.testing.assert_close(scores, torch.einsum("bd,bcd->bc", last, table[items]), **CLOSE)
    torch.testing.assert_close(model.score(inputs, lengths).gather(1, items), scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.item_vectors(items), model.item_embeddings()[items], **CLOSE)


@every_recommender
def test_layers_are_named_in_order_or_there_is_a_reason(name):
    model = MODELS[name]
    layers = [(layer, state) for layer, state, _ in model.layers()]
    assert bool(layers) == (not model.why_no_layers)
    if not layers:
        return
    assert isinstance(model, LayeredModel)
    names = [layer for layer, _ in layers]
    assert len(set(names)) == len(names)
    blocks = [layer for layer, state in layers if state == "block"]
    assert blocks == [f"block {number}" for number in range(1, len(blocks) + 1)]
    ends = [layer for layer in layers if layer[1] != "block"]
    assert layers == [*ends[:1], *((block, "block") for block in blocks), *ends[1:]]
    assert ends in ([("embed", "embed")], [("embed", "embed"), ("final_norm", "final_norm")])


@layered_ones
def test_which_states_see_later_items(name):
    """Item t + 1 is changed: of which layers does a state up to t move?"""
    model = a_model(name)
    inputs, lengths = padded([1, 2, 3, 4, 5, 6], [9, 8, 7, 6])
    before = states(model, inputs, lengths)
    assert list(before) == [layer for layer, _, _ in model.layers()]
    for t in range(5):
        changed = inputs.clone()
        changed[0, t + 1] = 10
        moved = {layer: (state - before[layer]).abs() for layer, state in states(model, changed, lengths).items()}
        for layer, change in moved.items():
            assert change[0, t + 1].max() > 1e-2, "the item itself must be read"
            torch.testing.assert_close(change[1, :4], torch.zeros_like(change[1, :4]), **CLOSE)
            looked_ahead = float(change[0, : t + 1].max()) > 1e-2
            assert looked_ahead == (not model.is_causal and layer != "embed"), (layer, t)
            if not looked_ahead:
                assert change[0, : t + 1].max() < 1e-5


def windows_of(histories):
    """Samples of users with these training items."""
    log = Interactions.from_sequences([np.asarray(h) for h in histories], n_items=N_ITEMS)
    return Samples([np.asarray(h) for h in histories], np.arange(len(histories)), log.user_items)


@models(lambda model: model.traits.is_trained and model.traits.is_inner_product and model.supervision != "own")
def test_loss_bearing_states_know_nothing_of_later_items(name):
    """The state that a loss is taken of stays as it was when what follows changes."""
    model, is_blind = a_model(name), True
    windows = [np.array([1, 2, 3, 4, 5, 6]), np.array([9, 8, 7, 6, 5, 4, 3])]
    for n_read in range(1, 6):
        changed = [np.concatenate([w[:n_read], (w[n_read:] + 5) % N_ITEMS]) for w in windows]
        outputs = []
        for variant in (windows, changed):
            samples = windows_of(variant)
            if model.supervision == "prefix":
                samples = samples.drawn_prefixes(torch.Generator().manual_seed(n_read))
            batch = make_batch(samples, model.supervision, torch.device("cpu"))
            with torch.no_grad():
                full = model(batch.inputs, batch.lengths)
            outputs.append([full[row, t] for row, t in batch.counts.nonzero().tolist() if t < n_read])
        assert len(outputs[0]) == len(outputs[1]) > 1 or model.supervision == "prefix"
        is_blind &= all(torch.allclose(same, other, **CLOSE) for same, other in zip(*outputs, strict=True))
    assert is_blind == ("blind loss" not in model.traits.exceptions)


@trained_ones
def test_the_loss_is_a_sum_with_a_gradient_and_draws_from_its_generator_alone(name):
    model = a_model(name).train()
    samples = windows_of([[1, 2, 3, 4], [9, 8, 7, 6, 5, 4], [3, 0]])
    batch = make_batch(samples, model.supervision, torch.device("cpu"))
    model.eval()  # dropout draws from the global generator
    torch.manual_seed(1)
    expected = torch.rand(2)
    losses = []
    for seed in (0, 0):
        torch.manual_seed(1)
        loss, n_targets = model.training_loss(batch, torch.Generator().manual_seed(seed))
        assert torch.equal(torch.rand(2), expected)
        losses.append(loss.item())
    assert losses[0] == losses[1]
    assert n_targets == batch.n_targets or model.supervision == "own"
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)


@models(lambda model: not model.traits.is_trained)
def test_what_is_not_trained_says_so(name):
    model = build(name, RING)
    with pytest.raises(ConfigError, match="nothing to train"):
        train(model, RING)
    batch = make_batch(windows_of([[1, 2]]), "every", torch.device("cpu"))
    with pytest.raises(ConfigError, match="no loss"):
        model.training_loss(batch, torch.Generator())


@trained_ones
def test_the_same_seed_gives_the_same_weights_and_spares_the_global_generator(name):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand()  # noqa: NPY002
    revisions = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        model = build(name, RING, seed=0)
        briefly(model, RING, seed=seed)
        assert torch.equal(torch.rand(2), expected[0])
        assert np.random.rand() == expected[1]  # noqa: NPY002
        revisions.append(model.revision)
    assert revisions[0] == revisions[1] != revisions[2]
    assert build(name, RING, seed=1).revision != build(name, RING, seed=0).revision


@every_recommender
def test_the_newest_items_are_read(name, monkeypatch):
    """Histories of 14 items for a model that reads 7: training, validation and test see the last ones."""
    long = make_ring(n_users=6, n_items=20, length=14)
    windows = training_samples(long, MAX_LENGTH).windows
    assert [w.tolist() for w in windows] == [s[-(MAX_LENGTH + 1) :].tolist() for s in long.train.sequences()]
    model, histories = build(name, long), []
    check = type(model).check_inputs

    def spy(self, inputs, lengths):
        histories.extend(row[:length] for row, length in zip(inputs.tolist(), lengths.tolist(), strict=True))
        return check(self, inputs, lengths)

    monkeypatch.setattr(type(model), "check_inputs", spy)
    evaluate(model, long)
    assert histories == [s[:-1][-MAX_LENGTH:].tolist() for s in long.sequences]
    histories.clear()
    briefly(model, long, n_epochs=1, batch_size=3)
    if not model.traits.is_trained or model.supervision == "own":
        return
    n_training = len(histories) - len(long.sequences)  # the validation reads each user once
    read = [w[:-1].tolist() for w in windows]
    for history in histories[:n_training]:
        assert any(w[: len(history)] == history for w in read)
    if model.supervision == "every":
        assert sorted(histories[:n_training]) == sorted(read)


@every_recommender
def test_batches_that_break_the_contract_are_refused(name):
    model = MODELS[name]
    with pytest.raises(ShapeError, match=f"at most {MAX_LENGTH} items; got 8"):
        model.score(*padded(list(range(8))))
    with pytest.raises(ShapeError, match="Leave out empty"):
        model.score(torch.zeros(2, 3, dtype=torch.long), torch.tensor([0, 3]))
    with pytest.raises(ShapeError, match=r"lengths \(3,\)"):
        model.score(torch.zeros(2, 3, dtype=torch.long), torch.tensor([1, 2, 3]))
    with pytest.raises(DataError, match="seen 0…12"):
        model.score(*padded([0, 12]))


@trained_ones
def test_scoring_turns_training_off_and_gives_the_mode_back(name):
    model, batch = a_model(name), padded(*HISTORIES)
    expected = model.score(*batch)
    model.train()
    torch.testing.assert_close(model.score(*batch), expected, **CLOSE)
    assert model.training
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad and p.ndim > 1).mul_(1.5)
    # With a gradient nothing is cached between calls: neither the states nor the table may be those from before.
    changed = model.eval().score(*batch)
    assert not torch.allclose(changed, expected, **CLOSE)
    if model.traits.is_inner_product:
        last = model(*batch)[torch.arange(len(HISTORIES)), batch[1] - 1]
        torch.testing.assert_close(changed, (last @ model.item_embeddings().T).detach(), **CLOSE)


@every_recommender
def test_held_out_items_never_reach_the_weights(name):
    """Other validation and test items, the same weights after an epoch, before a validation can choose."""
    rng = np.random.default_rng(0)
    histories = [rng.permutation(N_ITEMS)[:6] for _ in range(12)]
    revisions = []
    for shift in (0, 1):
        changed = [np.concatenate([h[:-2], (h[-2:] + shift) % N_ITEMS]) for h in histories]
        dataset = Dataset.from_interactions(Interactions.from_sequences(changed, n_items=N_ITEMS))
        model = build(name, dataset)
        briefly(model, dataset, n_epochs=1)
        revisions.append(model.revision)
    assert revisions[0] == revisions[1]


@every_recommender
def test_what_is_declared_is_printed_with_every_result(name):
    model = MODELS[name]
    note = evaluate(model, RING, k=1).note
    assert set(model.traits.exceptions) <= set(CLAUSES)
    assert all(reason in note for reason in model.traits.exceptions.values())
