"""The cases by category: each a function of the intact world, a folder of its own and a seeded generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.hostile.cases import finished_runs, logs, numbers, texts, vectors, weights
from tests.hostile.harness import Call
from tests.hostile.world import World

#: Of all draws of the harness.
SEED = 20261126
Builder = Callable[[World, Path, np.random.Generator], Call]

CATEGORIES: Mapping[str, Mapping[str, Builder]] = {
    "logs": logs.CASES,
    "vectors": vectors.CASES,
    "weights": weights.CASES,
    "finished runs": finished_runs.CASES,
    "numbers and options": numbers.CASES,
    "texts": texts.CASES,
}
