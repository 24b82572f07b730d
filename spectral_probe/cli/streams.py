"""Standard output and standard error that may be closed, full, or a pipe whose reader has left."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast


def open_closed_streams() -> None:
    """Open the null device in place of a standard stream that is closed, such as after ``2>&-``.

    Otherwise the next file that is opened would get its number, and what is printed would end up in that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open to the end


class LossyStream:
    """A text stream on which writing never fails: a message that nobody can read must not end a training.

    Parameters
    ----------
    stream : text stream
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text as far as that is possible."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as far as that is possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def lossy(stream: TextIO) -> TextIO:
    """Return a stream like this one on which writing never fails."""
    return cast(TextIO, LossyStream(stream))


def drop_output() -> None:
    """Send what is left of the standard output nowhere, so that nothing fails when the process ends."""
    _drop(sys.stdout)


def flush_or_drop(stream: TextIO) -> None:
    """Flush a stream; what cannot be written goes nowhere, or Python would try again at its end, and end with 120."""
    try:
        stream.flush()
    except (OSError, ValueError):
        _drop(stream)


def _drop(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
