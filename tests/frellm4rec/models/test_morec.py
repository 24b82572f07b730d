"""MoRec: slow checks of its text encoder and losses, what it saves, and what it refuses."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from frellm4rec.evaluation import evaluate
from frellm4rec.items.item_table import ItemTable
from frellm4rec.models import MoRec, MoRecConfig
from frellm4rec.models.losses import in_batch_loss
from frellm4rec.models.morec.titles import TrainedTitles
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import Samples, make_batch
from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import ConfigError, DataError, ModelError
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import letters, morec, padded, reader

TITLES = ["Abba", "Low", "Bis", "Can", "The Fall", "Can", "Air", "ESG", "Suicide", "Wire", "Gas", "X"]
MODES = pytest.mark.parametrize("mode", ["frozen", "end_to_end"])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))


def titled(titles=TITLES, **settings):
    return replace(make_ring(**settings), item_titles=list(titles))


def from_titles(titles=TITLES, decoder=None, **settings):
    config = MoRecConfig(n_items=len(titles), max_length=7, n_features=16, n_inner=16, **settings)
    return MoRec.from_dataset(config, titled(titles, n_items=len(titles)), backbone=decoder or reader())


def batch_of(*histories, n_items=12):
    log = Interactions.from_sequences([np.asarray(h) for h in histories], n_items=n_items)
    samples = Samples([np.asarray(h) for h in histories], np.arange(len(histories)), log.user_items)
    return make_batch(samples, "every", torch.device("cpu"))


def masked_means(decoder, titles):
    """The mean of the last states of each title, one title at a time."""
    means = []
    for title in titles:
        ids = torch.tensor([letters(title)["input_ids"]])
        states = decoder.encode_tokens(ids, torch.ones_like(ids))[0]
        means.append(sum(states[t] for t in range(len(states))) / len(states))
    return torch.stack(means)


# Vectors of items


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_table_of_both_modes_is_the_masked_mean_of_each_title(family):
    decoder = reader(family)
    means = masked_means(decoder, list(dict.fromkeys(TITLES)))
    expected = means - means.mean(0)
    expected = expected / expected.square().mean().sqrt()
    rows = {title: row for row, title in enumerate(dict.fromkeys(TITLES))}
    for mode in ("frozen", "end_to_end"):
        model = from_titles(decoder=reader(family), mode=mode).eval()
        torch.testing.assert_close(model.titles(model.title_of), expected[[rows[t] for t in TITLES]], **CLOSE)


@MODES
@pytest.mark.parametrize("is_training", [False, True])
def test_encoding_distinct_items_and_gathering_is_encoding_every_position(mode, is_training):
    model = from_titles(mode=mode, dropout=0.0).train(is_training)
    items = torch.tensor([[4, 0, 4], [9, 3, 0]])
    together = model.item_vectors(items)
    for row, column in np.ndindex(2, 3):
        alone = model.item_vectors(items[row, column].view(1))[0]
        torch.testing.assert_close(together[row, column], alone, **CLOSE)
    torch.testing.assert_close(model.item_embeddings()[items], together, **CLOSE)


@MODES
def test_items_of_one_title_tie_to_the_bit(mode):
    model = from_titles(mode=mode).eval()
    table = model.item_embeddings()
    assert torch.equal(table[3], table[5])
    assert len(torch.unique(table, dim=0)) == len(set(TITLES))


@MODES
def test_an_item_without_a_title_has_the_mean_vector_and_is_counted(mode, caplog):
    with caplog.at_level(logging.WARNING, logger="frellm4rec"):
        model = from_titles(["", *TITLES[1:4], " "], mode=mode).eval()
    assert "2 of 5 items have no title; they get the mean vector" in caplog.text
    assert "read as" not in caplog.text
    vectors = model.titles(model.title_of)
    torch.testing.assert_close(vectors[[0, 4]], torch.zeros(2, vectors.shape[1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors[1:4].mean(0), torch.zeros(vectors.shape[1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("titles", [None, [""] * 12])
def test_a_data_set_without_titles_is_refused_with_the_reason(titles):
    dataset = replace(make_ring(), item_titles=titles)
    with pytest.raises(DataError, match=r"'ring' has no item titles, so there is no text to read\. Use a model"):
        MoRec.from_dataset(MoRecConfig(n_items=12), dataset, backbone=reader())


def test_titles_are_cut_only_end_to_end():
    long = [f"{title} {'x' * 40}" for title in TITLES]
    assert from_titles(long, mode="end_to_end").titles.tokens.shape[1] == 30
    assert from_titles(long, mode="end_to_end", max_tokens=5).titles.tokens.shape[1] == 5


# End to end


@pytest.mark.parametrize("n_trained", [1, 2, 3])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_gradient_reaches_exactly_the_last_layers(family, n_trained):
    model = from_titles(decoder=reader(family), mode="end_to_end", n_trained_layers=n_trained)
    loss, n = model.training_loss(batch_of([1, 2, 3, 4], [9, 8, 7]), torch.Generator().manual_seed(0))
    (loss / n).backward()
    blocks = [module for _, state, module in model.backbone.layers() if state == "block"]
    reached = {name for name, p in model.backbone.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    names = {id(p): name for name, p in model.backbone.named_parameters()}
    last = [blocks[-n_trained:], [m for _, state, m in model.backbone.layers() if state == "final_norm"]]
    expected = {names[id(p)] for part in last for module in part for p in module.parameters()}
    assert reached == expected
    assert len(expected) < len(names)


def test_training_moves_only_the_last_layer_and_the_rest_of_the_model():
    model = morec(12, mode="end_to_end", n_trained_layers=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, make_ring(), TrainingConfig(n_epochs=1, batch_size=16, k=1))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    of_encoder = {name for name in moved if ".backbone." in name}
    assert of_encoder
    assert all(".layer.2." in name for name in of_encoder)
    assert {"positions.weight", "perceptron.maps.0.weight"} <= moved
    assert not {"titles.tokens", "titles.centre", "titles.scale", "title_of"} & moved


def test_saved_are_the_trained_layers_and_tokens_and_never_the_table(tmp_path):
    model = morec(12, mode="end_to_end", n_trained_layers=1)
    train(model, make_ring(), TrainingConfig(n_epochs=1, batch_size=16, k=1))
    saved = model.saved_state()
    of_encoder = {name for name in saved if ".backbone." in name}
    assert of_encoder
    assert all(".layer.2." in name for name in of_encoder)
    others = {n: tuple(t.shape) for n, t in saved.items() if n.startswith("titles.") and n not in of_encoder}
    width = model.backbone.width
    assert others == {"titles.tokens": (12, 2), "titles.lengths": (12,), "titles.centre": (width,), "titles.scale": ()}
    folder = model.save_pretrained(tmp_path / "model")
    loaded = MoRec.from_pretrained(folder, backbone=reader())
    assert torch.equal(loaded.item_embeddings(), model.item_embeddings())
    with torch.no_grad():
        next((other := reader()).model.parameters()).mul_(1.1)
    with pytest.raises(ModelError, match="was trained on backbone"):
        MoRec.from_pretrained(folder, backbone=other)


def test_a_frozen_model_is_loaded_without_its_encoder(tmp_path, monkeypatch):
    model = from_titles().eval()
    folder = model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("frellm4rec.models.morec.model.load_backbone", None)
    loaded = MoRec.from_pretrained(folder)
    assert torch.equal(loaded.score(*padded([1, 2])), model.score(*padded([1, 2])))
    assert loaded.config.backbone_weights == model.config.backbone_weights is not None
    assert loaded.backbone is None


def test_titles_are_read_once_in_an_evaluation_and_again_after_a_step(monkeypatch):
    model, read, calls = morec(12, mode="end_to_end").eval(), HFDecoder.read_tokens, []
    monkeypatch.setattr(HFDecoder, "read_tokens", lambda *args: calls.append(1) or read(*args))
    ring = make_ring()
    evaluate(model, ring, k=1)
    evaluate(model, ring, k=1, part="valid")
    assert len(calls) == 1
    with torch.no_grad():
        next(iter(model.titles.trained.values())).mul_(1.01)
    evaluate(model, ring, k=1)
    assert len(calls) == 2


def test_the_dropout_of_the_encoder_is_off_in_evaluation():
    model = morec(12, mode="end_to_end", decoder=reader(hidden_dropout_prob=0.5), dropout=0.0)
    items = torch.arange(4)
    assert not torch.equal(model.item_vectors(items), model.item_vectors(items))
    model.eval()
    assert torch.equal(model.item_vectors(items), model.item_vectors(items))
    expected = model.score(*padded([1, 2]))
    model.train()
    torch.testing.assert_close(model.score(*padded([1, 2])), expected)


class StoppedError(Exception):
    """What a kill looks like from inside."""


def test_a_stopped_training_end_to_end_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    config = TrainingConfig(n_epochs=3, batch_size=16, learning_rate=1e-2, validate_every=1, k=1, save_every=2)

    def make(seed=0):
        decoder = reader(hidden_dropout_prob=0.2)
        return morec(12, mode="end_to_end", loss="in-batch", n_negatives=3, decoder=decoder, seed=seed)

    straight = make()
    record = train(straight, make_ring(), config, seed=3)
    calls, loss = [], MoRec.training_loss

    def limited(self, batch, draws):
        calls.append(1)
        if len(calls) > 5:
            raise StoppedError
        return loss(self, batch, draws)

    with monkeypatch.context() as patch:
        patch.setattr(MoRec, "training_loss", limited)
        with pytest.raises(StoppedError):
            train(make(), make_ring(), config, seed=3, checkpoints=tmp_path)
    other = make(seed=7)
    assert train(other, make_ring(), config, seed=3, checkpoints=tmp_path, resume=True) == record
    assert other.revision == straight.revision


# Losses


def scores_by_loop(model, batch):
    states, table = model(batch.inputs, batch.lengths).tolist(), model.item_embeddings().tolist()
    rows = batch.counts.nonzero().tolist()
    return [[sum(a * b for a, b in zip(states[r][t], x, strict=True)) for x in table] for r, t in rows], rows


@pytest.mark.parametrize("n_negatives", [1, 3])
def test_bce_against_a_loop(n_negatives):
    model = morec(12, n_negatives=n_negatives).eval()
    batch = batch_of([4, 9, 2, 7], [0, 1, 2, 3, 4, 5])
    total, n = model.training_loss(batch, torch.Generator().manual_seed(3))
    negatives = draw_unseen(batch, n_negatives, torch.Generator().manual_seed(3)).tolist()
    scores, _ = scores_by_loop(model, batch)
    expected = 0.0
    for number, target in enumerate(batch.targets[batch.counts].tolist()):
        expected += math.log1p(math.exp(-scores[number][target]))
        expected += sum(math.log1p(math.exp(scores[number][item])) for item in negatives[number])
    assert n == 8
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n_drawn", [None, 4])
@pytest.mark.parametrize("supervision", ["every", "prefix"])
def test_in_batch_loss_against_a_loop(n_drawn, supervision):
    """Candidates count as often as they are in the batch; items of the user, and the target again, are no negatives."""
    model = morec(12, loss="in-batch", n_negatives=n_drawn).eval()
    with torch.no_grad():
        model.perceptron.maps[0].weight.mul_(20)
    histories = [[4, 9, 2, 7], [0, 1, 2, 3, 4, 5], [2, 11, 2]]
    log = Interactions.from_sequences([np.asarray(h) for h in [*histories, [6, 2]]], n_items=12)
    samples = Samples([np.asarray(h) for h in histories], np.arange(3), log.user_items)
    batch = make_batch(samples, supervision, torch.device("cpu"))
    total, n = model.training_loss(batch, torch.Generator().manual_seed(3))
    drawn = torch.randperm(12, generator=torch.Generator().manual_seed(3))[: n_drawn or 0].tolist()
    occurrences = [item for history in histories for item in history]
    popularity = np.asarray(log.user_items.sum(axis=0)).ravel() / log.user_items.nnz
    m = len(occurrences) + len(drawn)
    q = (len(occurrences) * popularity + len(drawn) / 12) / m
    scores, rows = scores_by_loop(model, batch)
    expected = 0.0
    for number, (row, t) in enumerate(rows):
        target = histories[row][t + 1]
        wanted = math.exp(scores[number][target]) / q[target]
        others = sum(math.exp(scores[number][j]) / q[j] for j in occurrences + drawn if j not in histories[row])
        expected -= math.log(wanted / (wanted + others))
    assert n == batch.n_targets
    assert total.item() == pytest.approx(expected, rel=1e-4)


def test_the_correction_takes_the_popularity_of_candidates_back():
    """Summed over batches, the corrected sum over the drawn candidates is that over the catalogue."""
    generator = torch.Generator().manual_seed(0)
    states, table = torch.randn(1, 4, generator=generator), torch.randn(6, 4, generator=generator)
    q = torch.tensor([0.4, 0.2, 0.15, 0.1, 0.1, 0.05])
    n_draws = 200_000
    drawn = torch.multinomial(q, n_draws, replacement=True, generator=generator)
    counts = torch.bincount(drawn, minlength=6)
    hidden = torch.zeros(1, 6, dtype=torch.bool)
    loss = in_batch_loss(states, table, torch.tensor([0]), counts, q, hidden)
    scores = (states @ table.T)[0].double().exp()
    wanted = float(scores[0] / q[0])
    expected = -math.log(wanted / (wanted + n_draws * float(scores[1:].sum())))
    assert loss.item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["bce", "in-batch", "softmax"])
def test_every_loss_encodes_the_titles_of_a_step_once(loss, monkeypatch):
    model = morec(12, mode="end_to_end", loss=loss)
    calls, forward = [], TrainedTitles.forward
    monkeypatch.setattr(
        TrainedTitles, "forward", lambda self, titles: calls.append(titles.tolist()) or forward(self, titles)
    )
    batch = batch_of([4, 9, 2, 7], [0, 1, 2])
    model.training_loss(batch, torch.Generator().manual_seed(0))
    negatives = draw_unseen(batch, 1, torch.Generator().manual_seed(0)).flatten().tolist()
    read = {"bce": {0, 1, 2, 4, 7, 9, *negatives}, "in-batch": {0, 1, 2, 4, 7, 9}, "softmax": set(range(12))}
    assert calls == [sorted(read[loss])]


def test_the_softmax_may_be_sampled():
    model = morec(12, loss="softmax").eval()
    batch = replace(batch_of([4, 9, 2, 7], [0, 1, 2]), negatives=torch.randperm(12)[:12])
    full, _ = model.training_loss(replace(batch, negatives=None), torch.Generator())
    sampled, _ = model.training_loss(batch, torch.Generator())
    assert sampled.item() == pytest.approx(full.item(), rel=1e-5)


# The config


@pytest.mark.parametrize(("n_layers", "perceptron"), [(1, 19_250), (2, 21_800)])
def test_the_number_of_parameters(n_layers, perceptron):
    """Beside the perceptron: positions 2,500, input norm 100, two blocks of 30,650."""
    config = MoRecConfig(n_items=3646, n_perceptron_layers=n_layers)
    table = ItemTable.filtered(torch.randn(3646, 384, generator=torch.Generator().manual_seed(0)), None)
    model = MoRec(config, table, torch.arange(3646))
    assert sum(p.numel() for p in model.parameters()) == perceptron + 2_500 + 100 + 2 * 30_650


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "end-to-end"}, "mode must be one of .*Did you mean 'end_to_end'"),
        ({"loss": "bpr"}, "loss must be one of"),
        ({"n_perceptron_layers": 3}, "must be 1 or 2; got 3"),
        ({"n_heads": 4}, "n_heads must divide n_features"),
        ({"n_inner": 0}, "n_inner must be"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"n_negatives": 0}, "n_negatives must be"),
        ({"n_negatives": 5, "loss": "softmax"}, "training.loss=sampled"),
        ({"n_trained_layers": 1}, "n_trained_layers is of the mode end_to_end; got 1 with frozen"),
        ({"max_tokens": 9}, "max_tokens is of the mode end_to_end"),
        ({"n_trained_layers": 0, "mode": "end_to_end"}, "n_trained_layers must be"),
    ],
)
def test_config_checks_itself(settings, says):
    with pytest.raises(ConfigError, match=says):
        MoRecConfig.from_dict({"n_items": 12, **settings})


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ConfigError, match="at most the 3 layers of 'tiny bert'; got 4"):
        morec(12, mode="end_to_end", n_trained_layers=4)
    with pytest.raises(ConfigError, match="got ItemTable and 3"):
        MoRec(MoRecConfig(n_items=12), ItemTable.filtered(torch.eye(3), None), torch.arange(3))
    with pytest.raises(DataError, match="All titles have the same vector"):
        morec(12, mode="end_to_end", titles=["A"] * 12)
