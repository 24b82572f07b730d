"""The intact world that the cases start from."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.hostile.world import World, make_world, set_up


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    before = dict(os.environ)
    set_up(tmp_path_factory.mktemp("cache"))
    yield make_world(tmp_path_factory.mktemp("world"))
    os.environ.clear()
    os.environ.update(before)
