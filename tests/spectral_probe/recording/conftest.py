"""Sequences that are captured."""

from __future__ import annotations

import numpy as np
import pytest

from tests.spectral_probe.tiny_models import N_ITEMS, WIDTH

T = 9


@pytest.fixture
def sequences() -> tuple[np.ndarray, np.ndarray]:
    """Forty sequences of mixed length; what stands in the padding is a valid item, to be ignored."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, T + 1, size=40)
    lengths[:2] = T, 4
    return rng.integers(0, N_ITEMS, size=(40, T)), lengths


def item_table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
