"""Files of finished runs, damaged in every way: the run is refused by name, or what is printed is the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.hostile.cases.damage import ANY, BINARY, PARSED, Damage
from tests.hostile.harness import Call, Outcome
from tests.hostile.world import World, copy_of

CODES = (0, 2, 3, 4, 6)
ANALYSIS_FILES = {
    "run.json": PARSED,
    "config.yaml": PARSED,
    "graph.npz": BINARY,
    "grams/main/manifest.json": PARSED,
    "grams/main/shard-00000.npz": BINARY,
    "grams/main/sequences.npz": BINARY,
    "grams/main/pilot.safetensors": BINARY,
}
PROFILE_FILES = {"summary.json": PARSED, "bands.csv": {}, "per_user.csv.gz": BINARY}
TRAINING_FILES = {
    "run.json": PARSED,
    "config.yaml": PARSED,
    "model/config.json": PARSED,
    "model/model.safetensors": BINARY,
    "summary.json": PARSED,
    "metrics.jsonl": {},
    "evaluation/test-full.npz": BINARY,
    "checkpoints/step-000000002-end/state.json": PARSED,
    "checkpoints/step-000000002-end/state.safetensors": BINARY,
}


def _numbers(text: str) -> list[str]:
    """Return the lines of the tables, and the verdicts."""
    rows = re.compile(r"\S {2,}\S|verdict on")
    return [line for line in text.splitlines() if rows.search(line)]


def same_as(printed: str) -> Callable[[Outcome], str]:
    """Return a check that the tables and the verdicts are those that were printed before."""

    def check(outcome: Outcome) -> str:
        assert _numbers(printed)
        return "" if _numbers(outcome.out) == _numbers(printed) else "accepted, and something else is printed"

    return check


def _damaged(kind: str, file: str, damage: Damage, world: World, folder: Path, rng: np.random.Generator) -> Path:
    run = copy_of(getattr(world, kind), folder)
    damage(run / file, rng)
    return run


def _analyze_again(file: str, damage: Damage, world: World, folder: Path, rng: np.random.Generator) -> Call:
    run = _damaged("analysis", file, damage, world, folder, rng)
    arguments = ["spectral-probe", "analyze", str(run), "--out", str(folder / "again")]
    return Call(arguments, CODES, check=same_as(world.printed["report"]))


def _report(file: str, damage: Damage, world: World, folder: Path, rng: np.random.Generator) -> Call:
    run = _damaged("analysis", file, damage, world, folder, rng)
    return Call(["spectral-probe", "report", str(run)], CODES)


def _resume(file: str, damage: Damage, world: World, folder: Path, rng: np.random.Generator) -> Call:
    """Resume the same analysis beside a damaged run of it."""
    run = _damaged("analysis", file, damage, world, folder, rng)
    runs = folder / "runs"
    runs.mkdir()
    run.rename(runs / run.name)
    data = ["--dataset", str(world.data), "--embeddings", str(world.npy), "--n-pseudo", "5"]
    arguments = ["spectral-probe", "analyze", "--model", str(world.decoder), *data, "--out", str(runs), "--resume"]
    return Call(arguments, CODES)


def _recommend(file: str, damage: Damage, world: World, folder: Path, rng: np.random.Generator) -> Call:
    run = _damaged("training", file, damage, world, folder, rng)
    arguments = ["frellm4rec", "recommend", str(run), "--user", "u1"]
    return Call(arguments, CODES, check=same_as(world.printed["recommend"]))


def _train_on(file: str, damage: Damage, world: World, folder: Path, rng: np.random.Generator) -> Call:
    run = _damaged("training", file, damage, world, folder, rng)
    return Call(["frellm4rec", "train", str(run), "--resume"], CODES)


def _evaluate(file: str, damage: Damage, world: World, folder: Path, rng: np.random.Generator) -> Call:
    run = _damaged("training", file, damage, world, folder, rng)
    return Call(["frellm4rec", "evaluate", str(run), "--ranking", "full"], CODES)


def _cases() -> dict[str, Callable[[World, Path, np.random.Generator], Call]]:
    cases = {}
    for files, commands in (
        (ANALYSIS_FILES, {"analyze": _analyze_again}),
        (PROFILE_FILES, {"report": _report}),
        ({"run.json": PARSED, "config.yaml": PARSED}, {"analyze --resume": _resume}),
        (TRAINING_FILES, {"recommend": _recommend, "train --resume": _train_on}),
        ({"evaluation/test-full.npz": BINARY}, {"evaluate": _evaluate}),
    ):
        for file, more in files.items():
            for command, make in commands.items():
                for name, damage in {**ANY, **more}.items():
                    cases[f"{command}: {file}, {name}"] = partial(make, file, damage)
    return cases


CASES = _cases()
