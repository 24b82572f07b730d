"""The status line of a command: what it does at the moment, on stderr, from the first second on; it leaves no trace."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectral_probe.cli.terminal import say
from spectral_probe.progress import reported_by
from spectral_probe.storage.plain_text import plain

if TYPE_CHECKING:
    from rich.live import Live
    from rich.spinner import Spinner

#: Seconds of counted work before the time that is left is estimated.
SECONDS_BEFORE_ESTIMATE = 3.0
#: What stands before the text on a terminal: a sign that turns, and a blank.
SIGN = "⠋ "
#: Seconds between two lines on the same work, where stderr is not a terminal.
SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def working(first: str = "importing", *, lines: bool = True) -> Iterator[None]:
    """Show what is done inside: a line that changes on a terminal, lines of text elsewhere.

    Parameters
    ----------
    first : str
        The first stage, on a terminal alone.
    lines : bool
        False prints nothing where stderr is no terminal: for a command that takes a moment.
    """
    if not (lines or sys.stderr.isatty()):
        yield
        return
    reporter = StatusLine() if sys.stderr.isatty() else LogLines()
    with reporter.shown(), reported_by(reporter):
        if sys.stderr.isatty():
            reporter.stage(first)
        yield


@dataclass
class Count:
    """Counted work.

    Attributes
    ----------
    text, unit : str
    total, before, done : int
        How much there is, was done when it began, and is done.
    began : float
        Reading of the clock at its begin.
    note : str
    """

    text: str
    unit: str
    total: int
    before: int
    done: int
    began: float
    note: str = ""

    def words(self, now: float) -> str:
        """Return how far it is: ``training sasrec, 600 of 3,600 steps, about 2 min left``."""
        parts = [self.text, f"{self.done:,} of {self.total:,} {self.unit}", self._left(now), self.note]
        return ", ".join(part for part in parts if part)

    def _left(self, now: float) -> str:
        passed, n_done = now - self.began, self.done - self.before
        if passed < SECONDS_BEFORE_ESTIMATE or n_done <= 0 or self.done >= self.total:
            return ""
        return f"about {duration(passed / n_done * (self.total - self.done))} left"


def duration(seconds: float) -> str:
    """Return a time in its largest fitting unit: ``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class LogLines:
    """A line for every stage, that is the text before a colon; of counted work one at first and every half minute."""

    def __init__(self) -> None:
        self.name = ""
        self.count: Count | None = None
        self.last_line = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what is reported inside."""
        yield

    def stage(self, text: str) -> None:
        """Show a stage."""
        is_new = text.partition(":")[0] != self.name.partition(":")[0]
        self.name = text
        if is_new:
            self.show()

    def start(self, text: str, total: int, done: int, unit: str) -> None:
        """Begin counted work."""
        self.count = Count(text, unit, total, done, done, time.monotonic())
        self.show()

    def advance(self, done: int, note: str) -> None:
        """Show how much is done."""
        if self.count is not None:
            self.count.done, self.count.note = done, note or self.count.note
            self.refresh()

    def end(self) -> None:
        """End the counted work."""
        self.count = None

    def words(self) -> str:
        """Return what is done, in one line."""
        return ": ".join(part for part in (self.name, self.count.words(time.monotonic()) if self.count else "") if part)

    def refresh(self) -> None:
        """Show that something has advanced."""
        if time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.show()

    def show(self) -> None:
        """Print the line."""
        self.last_line = time.monotonic()
        say(self.words(), err=True)


class StatusLine(LogLines):
    """One line on a terminal that changes, with a sign that turns; it is wiped out at the end."""

    spinner: Spinner
    live: Live

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what is reported inside."""
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self.spinner = Spinner("dots", style="green")
        # Results on the standard output are no business of this line.
        self.live = Live(
            self.spinner,
            console=Console(file=sys.stderr),
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,
        )
        with self.live:
            yield

    def stage(self, text: str) -> None:
        """Show a stage."""
        self.name = text
        self.show()
        self.live.refresh()

    def refresh(self) -> None:
        """Show that something has advanced."""
        self.show()

    def show(self) -> None:
        """Change the line; of a long one the end is cut, so that it stays one line."""
        from rich.text import Text

        text = Text(plain(self.words()))
        text.truncate(self.live.console.width - len(SIGN), overflow="ellipsis")
        self.spinner.update(text=text)
