"""Seeded ways to damage a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

Damage = Callable[[Path, np.random.Generator], None]


def empty(path: Path, rng: np.random.Generator) -> None:
    """Leave no byte."""
    path.write_bytes(b"")


def cut(path: Path, rng: np.random.Generator) -> None:
    """Leave a part of the bytes, as a full disk or a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, max(2, len(content))))])


def junk(path: Path, rng: np.random.Generator) -> None:
    """Put random bytes into the file."""
    path.write_bytes(rng.bytes(int(rng.integers(1, 400))))


def flip(path: Path, rng: np.random.Generator) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(content))


def zeros(path: Path, rng: np.random.Generator) -> None:
    """Leave the length and no content, as a crash of the machine does."""
    path.write_bytes(bytes(path.stat().st_size))


def absent(path: Path, rng: np.random.Generator) -> None:
    """Delete the file."""
    path.unlink()


def directory(path: Path, rng: np.random.Generator) -> None:
    """Put a folder where the file was."""
    path.unlink()
    path.mkdir()


def fifo(path: Path, rng: np.random.Generator) -> None:
    """Put a pipe where the file was, which nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def loop(path: Path, rng: np.random.Generator) -> None:
    """Put a link to itself where the file was."""
    path.unlink()
    path.symlink_to(path)


def text(content: str) -> Damage:
    """Return a damage that writes a text."""

    def write(path: Path, rng: np.random.Generator) -> None:
        path.write_text(content)

    return write


def _parsed(path: Path) -> Any:
    content = path.read_text()
    return yaml.safe_load(content) if path.suffix == ".yaml" else json.loads(content)


def _write(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value) if path.suffix == ".yaml" else json.dumps(value))


def _inner(value: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Return one of the mappings inside a value, drawn."""
    mappings = [value]
    for mapping in mappings:
        mappings += [inner for inner in mapping.values() if isinstance(inner, dict) and inner]
    return mappings[int(rng.integers(len(mappings)))]


def without_key(path: Path, rng: np.random.Generator) -> None:
    """Delete one key, at any depth."""
    value = _parsed(path)
    inner = _inner(value, rng)
    del inner[sorted(inner)[int(rng.integers(len(inner)))]]
    _write(path, value)


def other_type(path: Path, rng: np.random.Generator) -> None:
    """Give one key, at any depth, a value of another type."""
    value = _parsed(path)
    inner = _inner(value, rng)
    key = sorted(inner)[int(rng.integers(len(inner)))]
    others: list[Any] = [None, -1, "x", [], {"a": 1}, [None], True, 1.5]
    kinds = [other for other in others if type(other) is not type(inner[key])]
    inner[key] = kinds[int(rng.integers(len(kinds)))]
    _write(path, value)


#: For every file.
ANY: dict[str, Damage] = {
    **{"empty": empty, "cut": cut, "junk": junk, "zeros": zeros, "absent": absent, "directory": directory},
    **{"pipe": fifo, "link to itself": loop},
}
#: For files that parse.
PARSED: dict[str, Damage] = {
    "null": text("null"),
    "a list": text("[]"),
    "a number": text("3"),
    "an empty mapping": text("{}"),
    "a format and nothing else": text('{"format": 1, "status": "running"}'),
    **{f"without a key {seed}": without_key for seed in range(6)},
    **{f"a value of another type {seed}": other_type for seed in range(8)},
}
#: For files whose bytes are checked by their format.
BINARY: dict[str, Damage] = {f"a byte flipped {seed}": flip for seed in range(4)}
