"""Commands killed at random moments: after the same command with ``--resume`` all results have the same bytes."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.hostile.cases import SEED
from tests.hostile.harness import Call, run_forked, start_forked
from tests.hostile.world import World, set_up

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
        # The data of the charts of an experiment hold the seconds of its trainings.
        text = re.sub(r'(?s)<script type="application/json".*?</script>', "", path.read_text())
        return re.sub(r"\d{8}T\d{6}Z[\w-]*", "", text)
    return path.read_bytes()


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unmeasured(inner) for name, inner in value.items() if not MEASURED.fullmatch(name)}
    return [_unmeasured(inner) for inner in value] if isinstance(value, list) else value


def _straight(name: str, world: World, root: Path) -> tuple[dict[str, Any], float]:
    """Return the results of a command that nobody disturbs, and its seconds."""
    folder = root / name / "straight"
    folder.mkdir(parents=True)
    outcome = run_forked(Call(COMMANDS[name](world, folder), (0,)), folder.parent)
    assert outcome.code == 0, outcome.err
    return _results(folder), outcome.seconds


def _kill_and_resume(name: str, number: int, world: World, straight: tuple[dict[str, Any], float], root: Path) -> str:
    """Kill a command at a drawn moment, resume it, and return which results differ."""
    expected, seconds = straight
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


def main() -> int:
    """Kill a command so many times in a pickled world: ``python -m tests.hostile.kills WORLD COMMAND NUMBER``."""
    world_file, name, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    set_up(world_file.parent / "cache")
    world = pickle.loads(world_file.read_bytes())
    with tempfile.TemporaryDirectory() as root:
        straight = _straight(name, world, Path(root))
        wrong = [_kill_and_resume(name, turn, world, straight, Path(root)) for turn in range(number)]
    print("\n".join(filter(None, wrong)))
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
