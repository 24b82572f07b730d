"""Tiny generated logs and models."""

import numpy as np
import pytest

from frellm4rec.models import SASRec, SASRecConfig
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions


def make_ring(n_users=40, n_items=12, length=10):
    """Histories that walk around a ring of items: the next item is always the last one plus 1."""
    sequences = [(np.arange(length) + user) % n_items for user in range(n_users)]
    return Dataset.from_interactions(Interactions.from_sequences(sequences, n_items=n_items), name="ring")


def make_random(n_users=15, n_items=30, seed=0):
    """Histories of distinct items, 3 to 10 long, with nothing to learn."""
    generator = np.random.default_rng(seed)
    sequences = [generator.permutation(n_items)[: generator.integers(3, 11)] for _ in range(n_users)]
    return Dataset.from_interactions(Interactions.from_sequences(sequences, n_items=n_items), name="random")


@pytest.fixture
def ring():
    return make_ring()


@pytest.fixture
def random_log():
    return make_random()


@pytest.fixture
def sasrec():
    """An untrained model with weights large enough that its scores differ clearly."""
    model = SASRec(SASRecConfig(n_items=30, max_length=10, n_features=8, n_heads=2, n_inner=16), seed=3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 15
    return model.eval()
