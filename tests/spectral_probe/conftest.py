from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

from tests.spectral_probe.worlds import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    """Sixty users of unequal length with a real signal, a sink, repeats, edgeless graphs; read only."""
    return make_world(seed=7)
