"""Fixtures shared by both packages' tests."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

#: What differs from run to run on a screen, and what stands for it; the width of the text stays.
CHANGING = (
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r"\d{8}T\d{6}Z", "20260101T000000Z"),
    (r"(?<=-)[0-9a-f]{8}(?=[/\s,.]|$)", "00000000"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-01-01 00:00"),
    (r"20\d\d-\d\d-\d\d(?=\s)", "2026-01-01"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-screens", action="store_true", help="Write the screens of the commands anew.")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of real data and weights beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the real data beside the project is not here")
    return folder


@pytest.fixture
def screen(request: pytest.FixtureRequest) -> Callable[[str, int, str], None]:
    """Return a function that compares what a command printed in a width with the stored screen of a name.

    Screens lie in ``screens/`` beside the test; ``pytest --write-screens`` writes them anew.
    """
    folder = request.path.parent / "screens"

    def check(name: str, width: int, text: str) -> None:
        for pattern, stands_for in CHANGING:
            text = re.sub(pattern, stands_for, text)
        lines = [line.rstrip() for line in text.strip("\n").splitlines()]
        # A path is not broken, so that it can be copied: alone, or behind a label, it may be longer.
        assert [line for line in lines if cell_len(line) > width and not re.fullmatch(r"(\w+: )?\S+", line)] == []
        path, content = folder / f"{name}-{width}.txt", "\n".join(lines) + "\n"
        if request.config.getoption("--write-screens"):
            folder.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; write it with pytest --write-screens, and look at it"
        assert content == path.read_text(encoding="utf-8")

    return check
