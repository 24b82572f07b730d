"""What every recommender must do, whatever it is made of."""

import numpy as np
import pytest
import torch

from frellm4rec.evaluation import evaluate
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import draw_prefixes, make_batch, training_windows
from spectral_probe.backbones import LayeredModel
from spectral_probe.errors import DataError, ShapeError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import MAX_LENGTH, NAMES, build, load, padded, states

every_recommender = pytest.mark.parametrize("name", NAMES)
HISTORIES = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6], [11], [7, 7, 0]]
N_ITEMS = 12
#: Enough for a cycle of twelve items; a prefix per user and step gives far fewer targets than every position.
STEPS = {"every": (20, 1e-2), "prefix": (50, 1e-2)}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def fast(model, **changes):
    n_epochs, learning_rate = STEPS[model.supervision]
    values = {"n_epochs": n_epochs, "learning_rate": learning_rate, "batch_size": 16, "k": 1}
    return TrainingConfig(**{**values, "validate_every": n_epochs, **changes})


def briefly(model, dataset, seed=0, **changes):
    losses = []
    settings = {"n_epochs": 2, "validate_every": 1, **changes}
    train(model, dataset, fast(model, **settings), seed=seed, log=lambda entry: losses.append(entry["loss"]))
    return losses


def a_model(name, seed=0):
    """An untrained model whose scores differ clearly."""
    model = build(name, N_ITEMS, seed).eval()
    if name == "sasrec":
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(15)
    return model


@every_recommender
def test_learns_what_comes_next(name, ring):
    model = build(name, ring.n_items)
    before = evaluate(model, ring, k=1).ndcg.mean()
    losses = []
    train(model, ring, fast(model), log=lambda entry: losses.append(entry["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    after = evaluate(model, ring, k=1).ndcg.mean()
    if name != "two_sided_leaky":  # it learns to use later items, and the last position has none
        assert before < 0.6
        assert after > 0.95
    assert not model.training


@every_recommender
def test_save_and_load_give_the_same_scores(name, ring, tmp_path):
    model = build(name, ring.n_items)
    briefly(model, ring)
    loaded = load(name, model.save_pretrained(tmp_path / "model"))
    assert torch.equal(loaded.score(*padded(*HISTORIES)), model.score(*padded(*HISTORIES)))
    assert torch.equal(loaded.item_embeddings(), model.item_embeddings())
    assert loaded.revision == model.revision != build(name, ring.n_items).revision
    assert loaded.config == model.config
    assert not loaded.training


@every_recommender
def test_scores_ignore_padding_batch_mates_and_their_order(name):
    model = a_model(name)
    together = model.score(*padded(*HISTORIES))
    assert together.std() > 0.1, "scores that hardly differ would pass anything"
    for row, history in enumerate(HISTORIES):
        for width in (len(history), MAX_LENGTH):
            torch.testing.assert_close(model.score(*padded(history, width=width))[0], together[row], **CLOSE)
    torch.testing.assert_close(model.score(*padded(*HISTORIES[::-1])), together.flip(0), **CLOSE)
    filled, lengths = padded(*HISTORIES, fill=5)
    torch.testing.assert_close(model.score(filled, lengths), together, **CLOSE)


@every_recommender
def test_the_order_of_a_history_matters(name):
    scores = a_model(name).score(*padded([1, 2, 3], [2, 1, 3]))
    assert (scores[0] - scores[1]).abs().max() > 1e-3


@every_recommender
def test_scores_are_inner_products_with_the_item_table(name):
    model, (inputs, lengths) = a_model(name), padded(*HISTORIES)
    items = torch.tensor([[3, 5], [0, 1], [2, 2], [11, 0]])
    with torch.no_grad():
        last = model(inputs, lengths)[torch.arange(4), lengths - 1]
    table = model.item_embeddings().detach()
    some = model.score(inputs, lengths, items)
    torch.testing.assert_close(some, torch.einsum("bd,bcd->bc", last, table[items]), **CLOSE)
    torch.testing.assert_close(model.score(inputs, lengths).gather(1, items), some, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.item_vectors(items), model.item_embeddings()[items], **CLOSE)


@every_recommender
def test_which_states_see_later_items(name):
    """Item t + 1 is changed: of which layers does a state up to t move?"""
    model = a_model(name)
    assert isinstance(model, LayeredModel)
    inputs, lengths = padded([1, 2, 3, 4, 5, 6], [9, 8, 7, 6])
    before = states(model, inputs, lengths)
    assert list(before) == ["embed", *[n for n, s, _ in model.layers() if s == "block"], "final_norm"]
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


@pytest.mark.parametrize("name", [n for n in NAMES if n != "two_sided_leaky"])
def test_loss_bearing_states_and_scores_know_nothing_of_later_items(name):
    """The state that a loss is taken of, and the score of a prefix, stay as they were when what follows changes."""
    model = a_model(name)
    windows = [np.array([1, 2, 3, 4, 5, 6]), np.array([9, 8, 7, 6, 5, 4, 3])]
    for n_read in range(1, 6):
        changed = [np.concatenate([w[:n_read], (w[n_read:] + 5) % N_ITEMS]) for w in windows]
        outputs = []
        for variant in (windows, changed):
            cut = (
                draw_prefixes(variant, torch.Generator().manual_seed(n_read))
                if model.supervision == "prefix"
                else variant
            )
            batch = make_batch(cut, model.supervision, torch.device("cpu"))
            with torch.no_grad():
                full = model(batch.inputs, batch.lengths)
            outputs.append([full[row, t] for row, t in batch.counts.nonzero().tolist() if t < n_read])
            histories = [w[:n_read] for w in variant]
            outputs[-1].append(model.score(*padded(*histories)).flatten())
        assert len(outputs[0]) == len(outputs[1]) > 1 or model.supervision == "prefix"
        for same, other in zip(*outputs, strict=True):
            torch.testing.assert_close(same, other, **CLOSE)


def test_only_the_leaky_mode_shows_a_loss_what_follows():
    model = a_model("two_sided_leaky")
    assert (model.supervision, model.is_causal) == ("every", False)
    windows = [np.array([1, 2, 3, 4, 5, 6])]
    batch = make_batch(windows, model.supervision, torch.device("cpu"))
    before = model(batch.inputs, batch.lengths)
    batch.inputs[0, 3] = 10
    moved = (model(batch.inputs, batch.lengths) - before).abs()
    assert batch.counts[0, :3].all()
    assert moved[0, :3].amax(-1).min() > 1e-2


@every_recommender
def test_the_same_seed_gives_the_same_weights_and_spares_the_global_generator(name, ring):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand()  # noqa: NPY002
    revisions = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        model = build(name, ring.n_items, seed=0)
        briefly(model, ring, seed=seed)
        assert torch.equal(torch.rand(2), expected[0])
        assert np.random.rand() == expected[1]  # noqa: NPY002
        revisions.append(model.revision)
    assert revisions[0] == revisions[1] != revisions[2]
    assert build(name, ring.n_items, seed=1).revision != build(name, ring.n_items, seed=0).revision


@every_recommender
def test_the_newest_items_are_kept(name, monkeypatch):
    """Histories of 14 items for a model that reads 7: training, validation and test see the last ones."""
    long = make_ring(n_users=6, n_items=N_ITEMS, length=14)
    assert [w.tolist() for w in training_windows(long, MAX_LENGTH)] == [
        s[-(MAX_LENGTH + 1) :].tolist() for s in long.train.sequences()
    ]
    model, histories = build(name, N_ITEMS), []
    read = type(model).forward

    def spy(self, inputs, lengths):
        histories.extend(row[:length] for row, length in zip(inputs.tolist(), lengths.tolist(), strict=True))
        return read(self, inputs, lengths)

    monkeypatch.setattr(type(model), "forward", spy)
    evaluate(model, long)
    assert histories == [s[:-1][-MAX_LENGTH:].tolist() for s in long.sequences]
    histories.clear()
    briefly(model, long, n_epochs=1, batch_size=3)
    n_training = len(histories) - len(long.sequences)  # the validation reads each user once
    windows = {user: w[:-1].tolist() for user, w in enumerate(training_windows(long, MAX_LENGTH))}
    for history in histories[:n_training]:
        assert any(w[: len(history)] == history for w in windows.values())
    if model.supervision == "every":
        assert sorted(histories[:n_training]) == sorted(windows.values())


@every_recommender
def test_batches_that_break_the_contract_are_refused(name):
    model = a_model(name)
    with pytest.raises(ShapeError, match=f"at most {MAX_LENGTH} items; got 8"):
        model(*padded(list(range(8))))
    with pytest.raises(ShapeError, match="Leave out empty"):
        model(torch.zeros(2, 3, dtype=torch.long), torch.tensor([0, 3]))
    with pytest.raises(ShapeError, match=r"lengths \(3,\)"):
        model(torch.zeros(2, 3, dtype=torch.long), torch.tensor([1, 2, 3]))
    with pytest.raises(DataError, match="seen 0…12"):
        model(*padded([0, 12]))


@every_recommender
def test_scoring_turns_training_off_and_gives_the_mode_back(name):
    model, batch = a_model(name), padded(*HISTORIES)
    expected = model.score(*batch)
    model.train()
    torch.testing.assert_close(model.score(*batch), expected, **CLOSE)
    model.forward_sequences(*batch)
    assert model.training
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad and p.ndim > 1).mul_(1.5)
    # With a gradient nothing is kept between calls: neither the states nor the table may be those from before.
    states, table = model.eval()(*batch), model.item_embeddings()
    fresh = states[torch.arange(len(HISTORIES)), batch[1] - 1] @ table.T
    torch.testing.assert_close(model.score(*batch), fresh.detach(), **CLOSE)
    assert not torch.allclose(fresh, expected, **CLOSE)


@every_recommender
def test_held_out_items_never_reach_the_weights(name):
    """Other validation and test items, the same weights after an epoch, before a validation can choose."""
    rng = np.random.default_rng(0)
    histories = [rng.permutation(N_ITEMS)[:6] for _ in range(12)]
    revisions = []
    for shift in (0, 1):
        changed = [np.concatenate([h[:-2], (h[-2:] + shift) % N_ITEMS]) for h in histories]
        dataset = Dataset.from_interactions(Interactions.from_sequences(changed, n_items=N_ITEMS))
        model = build(name, N_ITEMS)
        briefly(model, dataset, n_epochs=1)
        revisions.append(model.revision)
    assert revisions[0] == revisions[1]
