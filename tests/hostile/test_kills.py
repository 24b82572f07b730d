"""Commands killed at random moments: after the same command with ``--resume`` all results have the same bytes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.hostile.cases import SEED
from tests.hostile.harness import Call, run_forked, start_forked
from tests.hostile.world import World

#: Kills of each command.
N_SLOW = {"analyze": 14, "train": 13, "experiment": 13}
#: Files of the life of a run: they tell when it began and ended.
OF_THE_RUN = ("run.json", "log.txt")
#: What differs between two undisturbed runs, too: times, memory, and the names of the run folders.
MEASURED = re.compile(r"(cpu_)?seconds|peak_memory|time|run")
EXPERIMENT = {
    "title": "Two",
    "source": "Table 3",
    "reference": "full",
    "backbones": ["tiny-random:llama"],
    "base": {"architecture.inputs": "id"},
    "variants": [
        {"name": "full", "label": "Full"},
        {"name": "none", "label": "No TFM", "leaves_out": "TFM", "overrides": {"architecture.cutoff": None}},
    ],
}


def _analyze(world: World, folder: Path) -> list[str]:
    data = ["--dataset", str(world.data), "--embeddings", str(world.npy), "--n-pseudo", "5", "--batch-size", "2"]
    return ["spectral-probe", "analyze", "--model", str(world.decoder), *data, "--out", str(folder), "--resume"]


def _train(world: World, folder: Path) -> list[str]:
    recipe = ["--model", "sasrec", "--dataset", str(world.data), "--epochs", "6", "--set", "training.save_every=1"]
    return ["frellm4rec", "train", *recipe, "--set", "training.batch_size=16", "--out", str(folder), "--resume"]


def _experiment(world: World, folder: Path) -> list[str]:
    file = folder.parent / "two.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT))
    settings = ["--set", "training.n_epochs=2", "--set", "training.validate_every=1", "--seeds", "1"]
    data = ["--dataset", str(world.data), "--ranking", "20+1"]
    return ["frellm4rec", "experiment", "two", str(file), *data, *settings, "--out", str(folder)]


COMMANDS: dict[str, Callable[[World, Path], list[str]]] = {
    "analyze": _analyze,
    "train": _train,
    "experiment": _experiment,
}


def _results(folder: Path) -> dict[str, Any]:
    """Return every result by its path without the names of the runs: the bytes, or tables without what is measured."""
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        parts = [part for part in path.relative_to(folder).parts if not re.match(r"\d{8}T\d{6}Z", part)]
        if path.is_file() and path.name not in OF_THE_RUN:
            files["/".join(parts)] = _content(path)
    return files


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _unmeasured(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_unmeasured(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name == "cells.csv":
        rows = csv.DictReader(path.read_text().splitlines())
        return [_unmeasured(row) for row in rows]
    if path.name == "report.html":
        return re.sub(r"\d{8}T\d{6}Z\S*|\S*killed\S*|\S*straight\S*", "", path.read_text())
    return path.read_bytes()


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unmeasured(inner) for name, inner in value.items() if not MEASURED.fullmatch(name)}
    return [_unmeasured(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory) -> Callable[[str], tuple[dict[str, Any], float]]:
    """Return a function from a command to its results when nobody disturbs it, and its seconds."""

    @cache
    def run(name: str) -> tuple[dict[str, Any], float]:
        folder = tmp_path_factory.mktemp(name) / "straight"
        folder.mkdir()
        outcome = run_forked(Call(COMMANDS[name](world, folder), (0,)), folder.parent)
        assert outcome.code == 0, outcome.err
        return _results(folder), outcome.seconds

    return run


def _kill_and_resume(name: str, number: int, world: World, straight, root: Path) -> str:
    """Kill a command at a drawn moment, resume it, and return which results differ."""
    expected, seconds = straight(name)
    folder = root / f"{name}-{number}" / "killed"
    folder.mkdir(parents=True)
    call = Call(COMMANDS[name](world, folder), (0,))
    moment = np.random.default_rng([SEED, number, len(name)]).uniform(0.05, 0.95) * seconds
    child = start_forked(call, folder.parent)
    time.sleep(moment)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    outcome = run_forked(call, folder.parent)
    if outcome.code:
        return f"{name} {number}, killed after {moment:.2f} s: {outcome.err[-300:]}"
    results = _results(folder)
    different = sorted(
        {path for path in expected if results.get(path) != expected[path]} | (results.keys() - expected.keys())
    )
    shutil.rmtree(folder.parent)
    return f"{name} {number}, killed after {moment:.2f} s: {different}" if different else ""


@pytest.mark.parametrize("name", ["analyze", "train"])
def test_a_kill_and_a_resume_give_the_same_bytes(name, world, straight, tmp_path) -> None:
    assert not _kill_and_resume(name, 0, world, straight, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_forty_kills(name, world, straight, tmp_path) -> None:
    wrong = [_kill_and_resume(name, number, world, straight, tmp_path) for number in range(N_SLOW[name])]
    assert not any(wrong), "\n".join(filter(None, wrong))
