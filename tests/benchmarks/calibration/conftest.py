"""A small log with two communities of items, and a probe of it."""

import numpy as np
import pytest

from benchmarks.calibration.probes import Probe
from spectral_probe import Dataset, Interactions


@pytest.fixture(scope="session")
def small_log() -> Dataset:
    """90 users with 6 to 16 of 60 items, the first of each community the most popular."""
    rng = np.random.default_rng(0)
    sequences = []
    for user in range(90):
        weight = np.where((np.arange(60) < 30) == (user % 2 == 0), 4.0, 1.0) / (1 + np.arange(60) % 30)
        sequences.append(rng.choice(60, rng.integers(6, 17), replace=False, p=weight / weight.sum()))
    return Dataset.from_interactions(Interactions.from_sequences(sequences), name="small")


@pytest.fixture(scope="session")
def small_probe(small_log, tmp_path_factory) -> Probe:
    cache = tmp_path_factory.mktemp("cache")
    return Probe.of(small_log, max_length=12, cache_dir=cache, n_pseudo=4)
