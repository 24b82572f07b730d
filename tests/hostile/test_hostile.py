"""Hostile input through the real ``main()``: no traceback, no hang, no wrong result, nothing lost."""

from __future__ import annotations

import pytest

from tests.hostile.cases import CATEGORIES
from tests.hostile.page import PAGE

#: Cases of the default run, of all categories; all are run with ``-m slow``.
N_DEFAULT = 100


def test_there_are_at_least_300_cases() -> None:
    assert sum(map(len, CATEGORIES.values())) >= 300


def test_the_page_is_of_these_cases() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    counts = {row[0]: sum(map(int, row[1:])) for row in rows if row[0] in CATEGORIES}
    assert counts == {category: len(cases) for category, cases in CATEGORIES.items()}
    (total,) = (row for row in rows if row[0] == "all")
    assert [int(n) for n in total[3:]] == [0] * 5


def test_a_sample_of_all_cases(run) -> None:
    done = run("tests.hostile", "--sample", N_DEFAULT)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_case(category, run) -> None:
    done = run("tests.hostile", category)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
