"""SHA-256 of large files, computed once for each state of a file."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from spectral_probe.storage.atomic import write_text
from spectral_probe.storage.cache import cache_root
from spectral_probe.storage.hashing import file_hash, settings_hash


def known_file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file in hex, from the cache if the file's size and time of change are those of before.

    A cache that cannot be read or written costs time only: the file is hashed again.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    path = Path(path).resolve()
    facts = path.stat()
    state = {"path": str(path), "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    record = cache_root() / "hashes" / f"{settings_hash(str(path))[:16]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(record.read_text(encoding="utf-8"))
        if {name: stored[name] for name in state} == state:
            return str(stored["sha256"])
    sha256 = file_hash(path)
    with suppress(OSError):
        write_text(record, json.dumps({**state, "sha256": sha256}))
    return sha256
