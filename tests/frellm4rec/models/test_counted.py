"""The floors, against slow versions of their definitions."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from frellm4rec.evaluation import evaluate
from frellm4rec.models.itemknn import ItemKNN, ItemKNNConfig
from frellm4rec.models.markov import MarkovChain, MarkovConfig
from frellm4rec.models.popularity import Popularity, PopularityConfig
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.tiny_recommenders import padded

N_ITEMS = 15


@pytest.fixture
def dataset():
    """Histories with repeats, an item that nobody took in training, and a user with two items."""
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, N_ITEMS - 1, rng.integers(3, 9)) for _ in range(20)] + [np.array([3, 4])]
    return Dataset.from_interactions(Interactions.from_sequences(histories, n_items=N_ITEMS))


def users_of(dataset):
    """Return, for each item, the set of users who took it in training."""
    return [{u for u, s in enumerate(dataset.train.sequences()) if i in s} for i in range(N_ITEMS)]


def test_popularity_counts_users_in_training(dataset):
    model = Popularity.from_dataset(PopularityConfig(N_ITEMS), dataset)
    expected = [float(len(users)) for users in users_of(dataset)]
    scores = model.score(*padded([1, 2], [5]))
    assert scores.tolist() == [expected, expected]
    assert evaluate(model, dataset, k=3).is_tied.mean() > 0  # equal counts are ties, taken at their expected value


def test_markov_is_the_share_of_the_transitions(dataset):
    model = MarkovChain.from_dataset(MarkovConfig(N_ITEMS), dataset)
    pairs = [(int(a), int(b)) for s in dataset.train.sequences() for a, b in pairwise(s)]
    popularity = [len(users) for users in users_of(dataset)]
    for last in range(N_ITEMS):
        followers = [b for a, b in pairs if a == last]
        scores = model.score(*padded([7, last]))[0].tolist()
        share = [followers.count(j) / len(followers) if followers else 0.0 for j in range(N_ITEMS)]
        assert scores == pytest.approx(share, abs=1e-6)
        # What the transitions leave equal is ordered by popularity.
        order = sorted(range(N_ITEMS), key=lambda j: (-round(share[j], 9), -popularity[j]))
        assert [scores[j] for j in order] == sorted(scores, reverse=True)


@pytest.mark.parametrize(("n_last", "n_neighbours", "shrink"), [(1, 50, 0.0), (3, 50, 2.5), (3, 2, 0.0), (10, 4, 1.0)])
def test_itemknn_is_the_summed_cosine_of_the_nearest(dataset, n_last, n_neighbours, shrink):
    config = ItemKNNConfig(N_ITEMS, n_last=n_last, n_neighbours=n_neighbours, shrink=shrink)
    model, users = ItemKNN.from_dataset(config, dataset), users_of(dataset)

    def votes(i):
        """Return what item i says of each other item."""
        cosine = [
            len(users[i] & users[j]) / (math.sqrt(len(users[i]) * len(users[j])) + shrink) if users[i] & users[j] else 0
            for j in range(N_ITEMS)
        ]
        cosine[i] = 0
        nearest = sorted((j for j in range(N_ITEMS) if cosine[j]), key=lambda j: (-cosine[j], j))[:n_neighbours]
        return [cosine[j] if j in nearest else 0.0 for j in range(N_ITEMS)]

    for history in ([2], [1, 5, 9, 3], [4, 4, 8], [14, 0, 6, 2, 7]):
        expected = np.sum([votes(i) for i in set(history[-n_last:])], axis=0)
        assert model.score(*padded(history))[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "config"), [(Popularity, PopularityConfig), (MarkovChain, MarkovConfig), (ItemKNN, ItemKNNConfig)]
)
def test_a_saved_table_of_another_size_is_refused(kind, config, dataset, tmp_path):
    folder = kind.from_dataset(config(N_ITEMS), dataset).save_pretrained(tmp_path)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace(f'"n_items": {N_ITEMS}', '"n_items": 4'))
    with pytest.raises(ModelError, match="do not fit"):
        kind.from_pretrained(folder)


def test_a_saved_table_that_was_cut_is_refused(dataset, tmp_path):
    folder = ItemKNN.from_dataset(ItemKNNConfig(N_ITEMS), dataset).save_pretrained(tmp_path)
    _, weights = ItemKNN.read_saved(folder)
    for name in ("indices", "values", "popularity"):
        broken = {**weights, name: weights[name][:5].clone()}
        with pytest.raises(ModelError, match="the sizes are"):
            ItemKNN.fill(ItemKNN(ItemKNNConfig(N_ITEMS)), broken, folder)
    with pytest.raises(ModelError, match="names items 0…14"):
        ItemKNN.fill(ItemKNN(ItemKNNConfig(N_ITEMS)), {**weights, "indices": weights["indices"] + 10}, folder)


@pytest.mark.parametrize("settings", [{"n_last": 0}, {"n_neighbours": 1.5}, {"shrink": -1.0}, {"shrink": float("nan")}])
def test_itemknn_config_checks_itself(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ItemKNNConfig(N_ITEMS, **settings)


def test_without_a_transition_popularity_decides():
    data = Dataset.from_interactions(Interactions.from_sequences([[0], [1], [1]], n_items=3))
    scores = MarkovChain.from_dataset(MarkovConfig(3), data).score(*padded([2]))[0]
    assert torch.argsort(scores, descending=True).tolist() == [1, 0, 2]
