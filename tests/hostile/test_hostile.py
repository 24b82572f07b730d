"""Hostile input through the real ``main()``: no traceback, no hang, no wrong result, nothing lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.cases import CATEGORIES, SEED
from tests.hostile.harness import RIGHT, Ending, run_case
from tests.hostile.page import PAGE
from tests.hostile.world import World

#: Cases of the default run, of all categories; all are run with ``-m slow``.
N_DEFAULT = 100
ALL = [(category, name) for category, cases in CATEGORIES.items() for name in cases]


def _drawn() -> list[tuple[str, str]]:
    order = np.random.default_rng(SEED).permutation(len(ALL))
    return [ALL[row] for row in sorted(order[:N_DEFAULT])]


def _run(chosen: list[tuple[str, str]], world: World, folder: Path) -> None:
    endings, wrong = Counter(), []
    for category, name in chosen:
        own_folder = folder / str(len(list(folder.iterdir())))
        own_folder.mkdir()
        number = list(CATEGORIES[category]).index(name)
        call = CATEGORIES[category][name](world, own_folder, np.random.default_rng([SEED, number]))
        ending, what = run_case(call, own_folder)
        endings[ending] += 1
        if ending not in RIGHT:
            wrong.append(f"{category} / {name}: {ending}: {what}")
    print(" / ".join(f"{ending}: {endings[ending]}" for ending in Ending))
    assert not wrong, "\n".join(wrong)


def test_there_are_at_least_300_cases() -> None:
    assert len(ALL) >= 300


def test_the_page_is_of_these_cases() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    counts = {row[0]: sum(map(int, row[1:])) for row in rows if row[0] in CATEGORIES}
    assert counts == {category: len(cases) for category, cases in CATEGORIES.items()}
    (total,) = (row for row in rows if row[0] == "all")
    assert [int(n) for n in total[3:]] == [0] * 5


def test_a_sample_of_all_cases(world, tmp_path) -> None:
    _run(_drawn(), world, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_case(category, world, tmp_path) -> None:
    _run([pair for pair in ALL if pair[0] == category], world, tmp_path)
