"""The intact world that the cases start from."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.world import World

ROOT = Path(__file__).resolve().parents[2]


def run_module(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module of the harness in a process of its own, on one thread."""
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_module


@pytest.fixture(scope="package")
def world_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    done = run_module("tests.hostile.world", folder)
    assert done.returncode == 0, done.stderr
    return folder / "world.pickle"


@pytest.fixture(scope="package")
def world(world_file: Path) -> World:
    return pickle.loads(world_file.read_bytes())
