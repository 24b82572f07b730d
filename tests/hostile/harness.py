"""Run a command of the project on hostile input, in a process of its own, and say how it ended."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

#: Seconds after which a command hangs. The slowest case takes a few on an idle core.
TIMEOUT = 120.0
#: An error is a message to read: not the input, printed.
MOST_CHARACTERS = 6_000
#: Most bytes that a command may allocate: one that reads without end fails here, and not the machine.
MOST_MEMORY = 4 * 2**30
#: Characters that change a terminal instead of being shown on it.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Ending(StrEnum):
    """How a case ended; the first two are right."""

    ACCEPTED = "accepted"
    CLEAN = "clean error with the right code"
    WRONG_CODE = "wrong code"
    TRACEBACK = "traceback"
    WRONG_RESULT = "wrong result"
    HANG = "hang"
    LOST = "work lost"


RIGHT = (Ending.ACCEPTED, Ending.CLEAN)


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code (negative: the signal that ended it), and what it printed."""

    code: int
    out: str
    err: str
    seconds: float
    is_hung: bool = False


@dataclass(frozen=True)
class Call:
    """A command line, and what is right for it.

    Attributes
    ----------
    arguments : list of str
        The first is ``spectral-probe`` or ``frellm4rec``.
    codes : tuple of int
        Exit codes that are right.
    says : str
        A regular expression that an error must match.
    check : callable, optional
        Gets the outcome of an accepted input; returns what is wrong with the result, or an empty string.
    keeps : tuple of Path
        Files that must hold the same bytes afterwards.
    environment : mapping
        Variables that differ from those of the harness.
    """

    arguments: list[str]
    codes: tuple[int, ...]
    says: str = ""
    check: Callable[[Outcome], str] | None = None
    keeps: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def start_forked(call: Call, folder: Path) -> int:
    """Start the real ``main()`` in a fork of this process, with ``folder`` as its working directory; return its number.

    The fork has all imports of this process, so that a case costs what the command does and not what Python does. It
    leads a group of processes, and prints to ``stdout.txt`` and ``stderr.txt`` in the folder.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _run_as_child(call, folder)
    return child


def run_forked(call: Call, folder: Path) -> Outcome:
    """Start a command as :func:`start_forked` does, and wait for its end."""
    began = time.perf_counter()
    code, is_hung = _wait(start_forked(call, folder))
    texts = [(folder / name).read_text("utf-8", "backslashreplace") for name in ("stdout.txt", "stderr.txt")]
    return Outcome(code, texts[0], texts[1], time.perf_counter() - began, is_hung)


def _run_as_child(call: Call, folder: Path) -> None:
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
        for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.update(call.environment)
        os.chdir(folder)
        sys.argv = list(call.arguments)
        try:
            _main_of(call.arguments[0])()
        except SystemExit as stop:
            code = _exit_code(stop.code)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code(code: object) -> int:
    return code if isinstance(code, int) else 0 if code is None else 1


def _main_of(program: str) -> Callable[[], object]:
    from frellm4rec.cli.main import main as recommender
    from spectral_probe.cli.main import main as instrument

    return {"spectral-probe": instrument, "frellm4rec": recommender}[program]


def _wait(child: int) -> tuple[int, bool]:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), False
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL, True


def judge(call: Call, outcome: Outcome) -> tuple[Ending, str]:
    """Return how a command ended, and what is wrong with it."""
    text = f"{outcome.out}\n{outcome.err}"
    if outcome.is_hung:
        return Ending.HANG, f"no end in {TIMEOUT:.0f} s"
    if "Traceback (most recent call last)" in text or outcome.code < 0:
        return Ending.TRACEBACK, (text.strip().splitlines() or [f"signal {-outcome.code}"])[-1]
    if outcome.code not in call.codes:
        return Ending.WRONG_CODE, f"{outcome.code} instead of {call.codes}: {_last(outcome)}"
    if control := CONTROL.search(text):
        return Ending.WRONG_RESULT, f"control character {control[0]!r} on the terminal"
    if outcome.code == 0:
        wrong = call.check(outcome) if call.check is not None else ""
        return (Ending.WRONG_RESULT, wrong) if wrong else (Ending.ACCEPTED, "")
    if len(outcome.err) > MOST_CHARACTERS:
        return Ending.WRONG_RESULT, f"an error of {len(outcome.err)} characters"
    if not outcome.err.strip() or not re.search(call.says, " ".join(outcome.err.split()), re.IGNORECASE):
        return Ending.WRONG_RESULT, f"the error does not say {call.says!r}: {_last(outcome)}"
    return Ending.CLEAN, ""


def _last(outcome: Outcome) -> str:
    return (outcome.err.strip().splitlines() or outcome.out.strip().splitlines() or ["nothing was printed"])[-1][:300]


@contextmanager
def unchanged(paths: tuple[Path, ...]) -> Iterator[list[str]]:
    """Yield a list that holds, after the block, the files that changed or are gone."""
    before = {path: path.read_bytes() for path in paths}
    changed: list[str] = []
    yield changed
    changed += [path.name for path, content in before.items() if not path.is_file() or path.read_bytes() != content]


def run_case(call: Call, folder: Path) -> tuple[Ending, str]:
    """Run a case, and return how it ended and what is wrong."""
    with unchanged(call.keeps) as changed:
        outcome = run_forked(call, folder)
    ending, wrong = judge(call, outcome)
    if changed and ending in RIGHT:
        return Ending.LOST, f"changed or gone: {', '.join(changed)}"
    return ending, wrong
