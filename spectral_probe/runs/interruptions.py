"""Signals that ask a process to end: each is handled like Ctrl-C, so that a run says that it was interrupted."""

from __future__ import annotations

import signal
import threading
from types import FrameType

#: SIGHUP is not on every system.
_SIGNALS = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


class Terminated(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asked this process to end.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


#: The signal that :class:`Terminated` was raised for, in this process; 0 if there was none.
received = 0


def end_like_ctrl_c() -> None:
    """Raise :class:`Terminated` in the main thread on SIGTERM and SIGHUP; a signal that is ignored stays ignored."""
    global received
    received = 0
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        return
    for number in _SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _raise)


def words_of(error: BaseException) -> str:
    """Return what ended a process, in the words of a log."""
    return f"interrupted by {error}" if isinstance(error, Terminated) else "interrupted by Ctrl-C (SIGINT)"


def _raise(number: int, _frame: FrameType | None) -> None:
    global received
    received = number
    # A second signal ends the process at once.
    signal.signal(number, signal.SIG_DFL)
    raise Terminated(number)
