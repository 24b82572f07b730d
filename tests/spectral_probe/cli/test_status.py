"""The status of a command: a line on a terminal that leaves no trace, lines of text elsewhere."""

from __future__ import annotations

import io
import re
import sys

import pytest

from spectral_probe.cli import status
from spectral_probe.cli.status import Count, duration, working
from spectral_probe.progress import counted, stage


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch) -> Terminal:
    """Put a terminal in the place of stderr; pytest would take one from a fixture away again."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return stream


def screen_of(text: str) -> list[str]:
    """Return the lines that a terminal shows at the end: it obeys return, line up and wiping out."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??\d*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row -= int(part[2:-1] or 1)
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line for line in lines if line.strip()]


def test_a_terminal_shows_every_stage_and_count_and_keeps_nothing(monkeypatch) -> None:
    shown_on = terminal(monkeypatch)
    with working():
        assert "importing" in shown_on.getvalue()
        stage("item vectors")
        with counted("training sasrec", 3600, unit="steps") as advance:
            advance(600, "best NDCG 0.2")
        print("a warning", file=sys.stderr)
    text = shown_on.getvalue()
    assert "item vectors: training sasrec, 600 of 3,600 steps" in text
    assert screen_of(text) == ["a warning"]
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text[-40:]


def test_a_long_line_stays_one_line(monkeypatch) -> None:
    shown_on = terminal(monkeypatch)
    with working("x" * 200):
        pass
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown_on.getvalue())
    assert max(len(line) for line in re.split(r"[\r\n]", shown)) <= 60
    assert "…" in shown


def test_nothing_stays_after_an_error(monkeypatch) -> None:
    shown_on = terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), working(), counted("training", 10, unit="steps"):
        raise KeyboardInterrupt
    assert screen_of(shown_on.getvalue()) == []


def test_elsewhere_there_is_a_line_for_a_stage_and_a_few_for_counted_work(monkeypatch, capsys) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(status.time, "monotonic", lambda: float(next(clock)))
    with working():
        stage("data demo")
        stage("analysis: what is carried")
        stage("analysis: what is foreseen")
        with counted("training", 100, unit="steps") as advance:
            for done in range(1, 101):
                advance(done, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["data demo", "analysis: what is carried"]
    assert lines[2] == "analysis: what is foreseen: training, 0 of 100 steps"
    assert 10 < len(lines) < 70
    assert re.fullmatch(r"analysis: what is foreseen: training, \d+ of 100 steps, about \d+ (s|min) left", lines[4])


def test_a_quick_command_prints_no_line_where_there_is_no_terminal(capsys) -> None:
    with working(lines=False):
        stage("data demo")
    assert capsys.readouterr().err == ""


def test_the_time_that_is_left_is_told_after_some_seconds() -> None:
    count = Count("training", "steps", total=3600, before=0, done=600, began=0.0)
    assert count.words(now=2.0) == "training, 600 of 3,600 steps"
    assert count.words(now=24.0) == "training, 600 of 3,600 steps, about 2 min left"
    resumed = Count("training", "steps", total=3600, before=3000, done=3300, began=0.0)
    assert resumed.words(now=30.0) == "training, 3,300 of 3,600 steps, about 30 s left"
    assert [duration(s) for s in (0.2, 89, 300, 7200)] == ["1 s", "89 s", "5 min", "2.0 h"]


def test_without_a_status_counted_work_has_no_bar_unless_it_is_asked_for(capsys) -> None:
    stage("nobody shows it")
    with counted("training", 3, unit="steps") as advance:
        advance(3, "")
    assert capsys.readouterr().err == ""
    with counted("training", 3, unit="steps", bar=None) as advance:  # no terminal
        advance(3, "")
    assert capsys.readouterr().err == ""
