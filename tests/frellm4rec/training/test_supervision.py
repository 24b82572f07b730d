"""Where the loss is taken, what an epoch goes through, and models whose loss is their own."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from frellm4rec.evaluation import evaluate
from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.models.base import Recommender
from frellm4rec.models.bert4rec import BERT4Rec, BERT4RecConfig
from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.losses import softmax_loss, summed
from frellm4rec.models.sequential import SequentialRecommender, with_bias, with_ones
from frellm4rec.models.traits import Traits
from frellm4rec.training import TrainingConfig, train
from frellm4rec.training.batches import make_batch, training_samples
from frellm4rec.training.config import TrainingRecord
from spectral_probe.errors import ConfigError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import frellm4rec, padded

CPU = torch.device("cpu")
BRIEF = TrainingConfig(n_epochs=1, batch_size=16, k=1)


def small(n_items=12, **settings):
    return SASRec(SASRecConfig(n_items=n_items, max_length=8, n_features=16, n_inner=16, dropout=0.1, **settings))


def log_of(*histories, n_items=12):
    return Dataset.from_interactions(Interactions.from_sequences([np.array(h) for h in histories], n_items=n_items))


def test_all_prefixes_are_the_samples_of_an_epoch():
    dataset = log_of([1, 2, 3, 4, 5, 6], [7], [8, 9, 10, 11], [0, 1])
    samples = training_samples(dataset, 3, "all-prefixes")  # the training parts are 1 2 3 4, 7, 8 9 and 0 1
    assert [w.tolist() for w in samples.windows] == [[1, 2], [1, 2, 3], [1, 2, 3, 4], [8, 9], [0, 1]]
    assert samples.users.tolist() == [0, 0, 0, 2, 3]
    batch = make_batch(samples, "all-prefixes", CPU)
    assert batch.targets[batch.counts].tolist() == [2, 3, 4, 9, 1]
    assert batch.n_targets == len(samples) == 5
    assert [w.tolist() for w in training_samples(dataset, 2, "all-prefixes").windows[:2]] == [[2, 3], [2, 3, 4]]


@pytest.mark.parametrize(
    ("supervision", "n_samples", "n_tokens"), [("every", 4, 11), ("all-prefixes", 11, 27), ("prefix", 4, None)]
)
def test_the_record_names_the_supervision_and_counts_the_effort(supervision, n_samples, n_tokens):
    """Training parts of 2, 3, 4 and 6 items: 1 + 2 + 3 + 5 targets; as prefixes 1 + 3 + 6 + 15 read, and 2 of 11."""
    dataset = log_of(range(4), range(5), range(6), range(8))
    model = small()
    record = train(model, dataset, replace(BRIEF, n_epochs=2, batch_size=3, supervision=supervision))
    assert record.supervision == supervision
    effort = record.effort
    assert effort.n_samples == 2 * n_samples
    assert effort.n_steps == 2 * -(-n_samples // 3)
    if n_tokens is None:
        assert 2 * 4 <= effort.n_tokens <= 2 * 11
    else:
        assert effort.n_tokens == {"every": 2 * 11, "all-prefixes": 2 * (1 + 3 + 6 + 15)}[supervision]
    assert effort.seconds > 0
    assert effort.peak_memory > 1e7
    assert TrainingRecord.from_dict(record.to_dict()) == record
    assert TrainingRecord.from_dict(record.to_dict()).effort == effort


def test_with_own_supervision_whole_histories_count_as_read():
    """BERT4Rec reads training parts of 2, 3, 4 and 6 items with their last items, which it may hide."""
    dataset = log_of(range(4), range(5), range(6), range(8))
    model = BERT4Rec(BERT4RecConfig(n_items=12, max_length=8, n_features=16, n_inner=16, n_blocks=1))
    record = train(model, dataset, replace(BRIEF, n_epochs=2, batch_size=3))
    assert record.supervision == "own"
    assert record.effort.n_tokens == 2 * (2 + 3 + 4 + 6)


def test_in_expectation_a_drawn_prefix_is_every_prefix_with_users_weighted_equally():
    """The mean gradient over many draws of one prefix per user is that of all prefixes, each by 1 / (user's number)."""
    dataset = log_of(range(4), range(2, 9), n_items=12)
    model = small().eval()
    samples = training_samples(dataset, 8)

    def gradient(batch, weights):
        model.zero_grad()
        states = model(batch.inputs, batch.lengths)[batch.counts]
        scores = torch.log_softmax(states @ model.item_embeddings().T, dim=1)
        loss = -(scores.gather(1, batch.targets[batch.counts][:, None])[:, 0] * weights).sum()
        loss.backward()
        return model.items.weight.grad.clone()

    prefixes = training_samples(dataset, 8, "all-prefixes")
    n_of_user = np.bincount(prefixes.users)
    weights = torch.tensor([1.0 / n_of_user[user] for user in prefixes.users], dtype=torch.float32)
    expected = gradient(make_batch(prefixes, "all-prefixes", CPU), weights)
    generator, n_draws = torch.Generator().manual_seed(0), 400
    draws = [
        gradient(make_batch(samples.drawn_prefixes(generator), "prefix", CPU), torch.ones(2)) for _ in range(n_draws)
    ]
    error = torch.stack(draws).std(0) / n_draws**0.5
    mean = torch.stack(draws).mean(0)
    assert ((mean - expected).abs() <= 5 * error + 1e-6).all()
    assert float(expected.abs().max()) > 20 * float(error.max())


@pytest.mark.parametrize("supervision", ["prefix", "all-prefixes"])
def test_a_causal_model_can_be_trained_on_prefixes(supervision):
    ring, model = make_ring(), small()
    n_epochs = {"prefix": 60, "all-prefixes": 15}[supervision]
    config = TrainingConfig(n_epochs, 16, 1e-2, n_epochs, k=1, supervision=supervision)
    train(model, ring, config)
    assert evaluate(model, ring, k=1).ndcg.mean() > 0.95


def test_a_model_that_sees_later_items_is_never_trained_at_every_position():
    ring = make_ring()
    with pytest.raises(ConfigError, match="not causal"):
        train(frellm4rec(12, mode="prefix", inputs="id"), ring, replace(BRIEF, supervision="every"))
    leaky = frellm4rec(12, mode="two_sided_leaky", inputs="id")
    assert train(leaky, ring, BRIEF).supervision == "every"  # it declares so
    assert "later items in view" in leaky.note


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_how_a_softmax_is_taken_is_not_asked_of_another_loss(loss):
    with pytest.raises(ConfigError, match=f"training.loss={loss} says how a softmax"):
        train(small(loss="bce"), make_ring(), replace(BRIEF, loss=loss))


@pytest.mark.parametrize("loss", ["bce", "gbce"])
def test_a_large_catalogue_is_trained_with_the_negatives_of_the_loss_alone(loss, monkeypatch):
    n_items = 20_001
    rng = np.random.default_rng(0)
    dataset = log_of(*(rng.permutation(n_items)[:5] for _ in range(4)), n_items=n_items)
    drawn = []
    monkeypatch.setattr("torch.randperm", spy := lambda n, **options: drawn.append(n) or torch.arange(n))
    assert spy is torch.randperm
    train(small(n_items, loss=loss, n_negatives=3), dataset, BRIEF)
    assert drawn == [4]  # the order of the users; a sampled softmax would draw from the catalogue


# Models of our own


@dataclass(frozen=True)
class ClozeConfig(RecommenderConfig):
    max_length: int = 7


class Cloze(SequentialRecommender):
    """Hides one item of each history, reads the mean of the others, and predicts it; an item bias is folded in."""

    name: ClassVar[str] = "cloze"
    traits = Traits(is_causal=False, why_no_layers="a toy of one layer")
    config_class = ClozeConfig

    def __init__(self, config, *, seed=0):
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(config.n_items, 4, generator=generator))
        self.bias = nn.Parameter(torch.randn(config.n_items, generator=generator))
        self.seen: list = []

    @property
    def supervision(self):
        return "own"

    def item_embeddings(self):
        return with_bias(self.table, self.bias)

    def forward(self, inputs, lengths):
        self.check_inputs(inputs, lengths)
        is_valid = (torch.arange(inputs.shape[1]) < lengths[:, None])[..., None]
        return with_ones((self.table[inputs] * is_valid).cumsum(1) / lengths[:, None, None])

    def training_loss(self, batch, draws):
        hidden = (torch.rand(len(batch.lengths), generator=draws) * batch.lengths).long()
        is_hidden = torch.arange(batch.inputs.shape[1]) == hidden[:, None]
        self.seen.append((batch.inputs, batch.lengths, hidden))
        is_read = (batch.counts & ~is_hidden & (batch.lengths > 3)[:, None])[..., None]
        states = with_ones((self.table[batch.inputs] * is_read).sum(1))
        rows = batch.lengths > 3  # shorter histories have no target: the number of targets is not that of users
        if not rows.any():
            return self.bias.sum() * 0.0, 0
        loss = softmax_loss(states[rows], self.item_embeddings(), batch.inputs[is_hidden][rows])
        return summed(loss, int(rows.sum()))


def test_an_item_bias_is_folded_into_the_table():
    model = Cloze(ClozeConfig(12))
    inputs, lengths = padded([1, 2, 3], [4])
    last = model(inputs, lengths)[torch.arange(2), lengths - 1]
    expected = last[:, :4] @ model.table.T + model.bias
    torch.testing.assert_close(model.score(inputs, lengths), expected.detach())
    assert (model.width, last[:, 4].tolist()) == (5, [1.0, 1.0])


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_model_that_chooses_its_targets(accumulation):
    """It reads whole windows; the step is the mean over the targets that it chose, however the batch is split."""
    dataset = log_of(
        range(5), range(12), range(6), range(2, 11)
    )  # training parts of 3, 10, 4 and 7 items; windows of 8
    model, step = Cloze(ClozeConfig(12)), []
    config = replace(BRIEF, accumulation=accumulation)
    record = train(model, dataset, config, log=lambda entry: step.append(entry["loss"]))
    read = sorted(
        row[:n] for inputs, lengths, _ in model.seen for row, n in zip(inputs.tolist(), lengths.tolist(), strict=True)
    )
    assert read == sorted(s[-8:].tolist() for s in dataset.train.sequences())
    assert record.supervision == "own"
    start, total, n = Cloze(ClozeConfig(12)), torch.zeros(()), 0
    for inputs, lengths, hidden in model.seen:
        for row, length, position in zip(inputs, lengths, hidden, strict=True):
            if length > 3:
                others = [i for t, i in enumerate(row[:length].tolist()) if t != position]
                scores = start.table[others].sum(0) @ start.table.T + start.bias
                total, n = total - torch.log_softmax(scores, 0)[row[position]], n + 1
    assert n == 3
    assert step == [pytest.approx((total / n).item(), rel=1e-5)]
    (total / n).backward()
    torch.testing.assert_close(model.table.grad, start.table.grad, rtol=1e-4, atol=1e-6)


def test_a_part_and_a_step_without_a_target_change_nothing():
    dataset = log_of(range(5), range(3, 12), range(5), range(5))  # of each part and step, at most one has a target
    model = Cloze(ClozeConfig(12))
    losses = []
    config = replace(BRIEF, n_epochs=2, batch_size=1)
    train(model, dataset, config, log=lambda entry: losses.append(entry["loss"]))
    assert all(np.isfinite(losses))
    short, start = log_of(range(5), range(5)), Cloze(ClozeConfig(12))
    train(start, short, replace(BRIEF, accumulation=2))
    assert start.revision == Cloze(ClozeConfig(12)).revision


def test_a_model_that_chooses_its_targets_takes_no_other_supervision():
    with pytest.raises(ConfigError, match="chooses itself"):
        train(Cloze(ClozeConfig(12)), make_ring(), replace(BRIEF, supervision="prefix"))


class Scorer(Recommender):
    """Rates given candidates only, by one number for each item that is trained."""

    name: ClassVar[str] = "scorer"
    traits = Traits(
        is_inner_product=False,
        can_rank_all=False,
        why_no_layers="a toy",
        exceptions={"order": "a toy", "learns": "a toy"},
    )
    config_class = ClozeConfig

    def __init__(self, config, *, seed=0):
        super().__init__()
        self.config, self.rates = config, nn.Parameter(torch.zeros(config.n_items))

    def score(self, inputs, lengths, items=None):
        assert items is not None, "it cannot rank all"
        return self.rates.detach()[items]

    def training_loss(self, batch, draws):
        targets = batch.targets[batch.counts]
        return summed(-torch.log_softmax(self.rates, 0)[targets].mean(), len(targets))


def test_a_model_that_cannot_rank_all_is_validated_on_candidates():
    rng = np.random.default_rng(0)
    dataset = log_of(*(rng.permutation(150)[:6] for _ in range(30)), n_items=150)
    model = Scorer(ClozeConfig(150))
    record = train(model, dataset, replace(BRIEF, n_epochs=3, validate_every=1, k=10))
    assert len(record.validation_ndcg) == 3
    with pytest.raises(ConfigError, match="rates given candidates only"):
        evaluate(model, dataset)


def test_what_traits_refuse():
    with pytest.raises(ConfigError, match="Did you mean 'order'"):
        Traits(exceptions={"ordre": "why"})
    with pytest.raises(ConfigError, match="needs a reason"):
        Traits(exceptions={"order": " "})
    with pytest.raises(ConfigError, match="reads ids, titles or both"):
        Traits(reads=frozenset({"pictures"}))
