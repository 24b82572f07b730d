"""JSON lines, one object per line; a few broken lines are counted and skipped, many are an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frellm4rec.data.parsing.text_files import open_unpacked
from spectral_probe.errors import DataError
from spectral_probe.storage.regular import check_regular

#: Largest share of lines that may be broken. The published files have none; a damaged copy has many.
MAX_BROKEN_SHARE = 0.01


class JsonLines:
    """The objects of a file, plain or packed, read line by line so that the file need not fit into memory.

    Iterate once, call :meth:`reject` for an object that lacks a required value, and :meth:`check` at the end.

    Attributes
    ----------
    n_lines : int
        Lines read that are not blank.
    n_broken : int
        Lines that are not a JSON object or were rejected with :meth:`reject`.
    """

    def __init__(self, path: Path, *, max_broken_share: float = MAX_BROKEN_SHARE) -> None:
        self.path = path
        self.max_broken_share = max_broken_share
        self.n_lines = 0
        self.n_broken = 0
        self.line_number = 0
        self._first_broken = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._lines():
            self.line_number += 1
            if not line.strip():
                continue
            self.n_lines += 1
            try:
                # Decoded here: json.loads would also accept UTF-16 and bytes that are not text.
                value = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError):
                self.reject(f"is not JSON: {line[:60]!r}")
                continue
            if isinstance(value, dict):
                yield value
            else:
                self.reject(f"is not a JSON object: {line[:60]!r}")

    def reject(self, reason: str) -> None:
        """Count the line just read as broken."""
        self.n_broken += 1
        self._first_broken = self._first_broken or f"line {self.line_number} {reason}"

    def check(self) -> None:
        """Refuse the file if it is empty or too many of its lines are broken.

        Raises
        ------
        DataError
            With the share of broken lines, the share allowed, and the first of them.
        """
        if not self.n_lines:
            raise DataError(f"{self.path} is empty; it must have one JSON object per line. Fetch it again.")
        if self.n_broken > self.max_broken_share * self.n_lines:
            raise DataError(
                f"{self.path} may have {self.max_broken_share:.1%} broken lines; {self.n_broken} of {self.n_lines} are "
                f"({self.n_broken / self.n_lines:.1%}), first: {self._first_broken}. {self._advice()}"
            )

    def _advice(self) -> str:
        """Return what to do about a file that is no JSON lines."""
        with open_unpacked(self.path) as file:
            start = file.read(1000)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "It is UTF-16. Convert it to UTF-8."
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            return "It looks like one JSON array. Write an object per line: jq -c '.[]' FILE > FILE.jsonl"
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b"}\n" not in start:
            return "It looks like one JSON object. Write an object per event and line."
        return "Fetch it again."

    def _lines(self) -> Iterator[bytes]:
        check_regular(self.path)
        try:
            with open_unpacked(self.path) as file:
                yield from file
        except DataError as error:
            raise DataError(
                f"{self.path} must be readable to its end; after line {self.line_number} reading it failed. {error}"
            ) from error
