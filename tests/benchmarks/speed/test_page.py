"""The page of benchmarks: a row for each case, and rows kept only where they were taken on the same machine."""

from pathlib import Path

import pytest

from benchmarks.speed import __main__ as command
from benchmarks.speed.__main__ import ALL_CASES, CASES, page
from benchmarks.speed.timing import paired_ratio, ratio_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"


def row(name: str, measured: str) -> dict[str, str]:
    return {"case": name, "measured": measured, "goal": "<= 1", "threads": "1", "detail": "a / b"}


def cells(text: str) -> dict[str, str]:
    """What was measured, by title."""
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    return {columns[0]: columns[1] for columns in table}


def test_rows_not_measured_anew_are_kept_in_the_order_of_the_cases() -> None:
    first, second, third = list(CASES)[:3]
    before = page([row(third, "3×"), row(first, "1×")])
    after = page([row(second, "2×"), row(first, "1.1×")], before)
    assert list(cells(after).items()) == [
        (CASES[first].title, "1.1×"),
        (CASES[second].title, "2×"),
        (CASES[third].title, "3×"),
    ]


def test_a_case_that_failed_leaves_its_row_as_it_was() -> None:
    name = next(iter(CASES))
    assert cells(page([row(name, "failed")], page([row(name, "1×")]))) == {CASES[name].title: "1×"}
    assert cells(page([row(name, "failed")])) == {CASES[name].title: "failed"}


def test_rows_of_another_machine_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = list(CASES)[:2]
    before = page([row(first, "1×")])
    monkeypatch.setattr(command.platform, "machine", lambda: "another")
    assert cells(page([row(second, "2×")], before)) == {CASES[second].title: "2×"}


def test_every_case_is_on_the_page() -> None:
    shown = cells(PAGE.read_text(encoding="utf-8"))
    assert list(shown) == [case.title for case in CASES.values()]
    assert "failed" not in shown.values()


def test_a_ratio_is_the_median_of_pairwise_ratios_of_one_call() -> None:
    assert ratio_of([(1.0, 2.0), (9.0, 3.0), (4.0, 4.0)]) == (1.0, 4.0, 3.0)
    now = [0.0]

    def takes(duration: float) -> None:
        now[0] += duration

    measured = paired_ratio(lambda: takes(1.0), lambda: takes(4.0), 3, calls=(8, 2), clock=lambda: now[0])
    assert measured == (0.25, 1.0, 4.0)


def test_a_row_of_a_page_is_found_by_its_title():
    titles = [case.title for case in ALL_CASES.values()]
    assert len(set(titles)) == len(titles)
