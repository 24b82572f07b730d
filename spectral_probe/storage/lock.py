"""One process at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spectral_probe.errors import ConfigError
from spectral_probe.storage.atomic import disk_errors

_LOCK, _OWNER = ".lock", ".lock-process"


@contextmanager
def only_process(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder alone for a while; the system lets go of it when the process ends, however it ends.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    what : str
        What this process does there, for the message of another one: ``A search``.

    Raises
    ------
    ConfigError
        If another process holds it; its number is named.
    ResourceError
        If the folder cannot be written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            owner = folder / _OWNER
            number = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "unknown"
            raise ConfigError(
                f"{what} has {folder} for itself, and process {number} is at work there. Wait for it, or use another "
                "folder (--out)."
            ) from error
        (folder / _OWNER).write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    finally:
        (folder / _OWNER).unlink(missing_ok=True)
        lock.release()
