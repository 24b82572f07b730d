"""SHA-256 of settings, arrays, tensors and files. The exact bytes of each form are kept: saved hashes stay valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def digest(parts: Iterable[str | bytes | npt.NDArray[Any]]) -> str:
    """Return the SHA-256, in hex, of the parts one after another.

    Text counts as UTF-8, an array as its bytes in row-major order. Shapes and lengths are the caller's to add.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            total.update(part.encode())
        elif isinstance(part, bytes):
            total.update(part)
        else:
            total.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def settings_hash(settings: Any) -> str:
    """Return the SHA-256 of JSON-like settings, whatever the order of their keys; other values count as their text."""
    return digest([json.dumps(settings, sort_keys=True, default=str)])


def array_hash(array: npt.NDArray[Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of an array: its type, shape and bytes."""
    return digest([f"{array.dtype.str}{array.shape}", array])[:16]


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
