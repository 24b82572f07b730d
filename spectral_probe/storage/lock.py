"""One process at a time in a folder."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from spectral_probe.errors import ConfigError
from spectral_probe.storage.atomic import disk_errors
from spectral_probe.storage.reading import read_text

logger = logging.getLogger(__name__)
LOCK, OWNER = ".lock", ".lock-process"
#: Process, thread and folder of every lock that is open here.
_holders: set[tuple[int, int, Path]] = set()


@contextmanager
def only_process(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder alone for a while; the system lets go of it when the process ends, however it ends.

    Inside the block, the same thread may hold the folder again.

    Parameters
    ----------
    folder : Path
        Made if it is not there, and deleted again if nothing was written to it.
    what : str
        What this process does there, for the message of another one: ``A search``.

    Raises
    ------
    ConfigError
        If another process holds it; its number is named.
    ResourceError
        If the folder cannot be written.
    """
    holder = (os.getpid(), threading.get_ident(), folder.resolve())
    if holder in _holders:
        yield
        return
    is_new = not folder.exists()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(
                f"{what} has {folder} for itself, and process {_owner(folder)} is at work there. Wait for it, or use "
                "another folder (--out)."
            ) from error
        except NotImplementedError as error:
            logger.warning("%s cannot be locked (%s). Let no other process work there.", folder, error)
    _holders.add(holder)
    try:
        with suppress(OSError):  # it is for a message only
            (folder / OWNER).write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        _holders.discard(holder)
        # The lock is deleted while it is held; whoever has opened it meanwhile sees that its file is gone.
        for name in (OWNER, LOCK):
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # it holds a result
                folder.rmdir()
        lock.release()


def _owner(folder: Path) -> str:
    """Return the number of the process that holds a folder, as far as it can be read."""
    try:
        return read_text(folder / OWNER).strip()[:20] or "unknown"
    except (OSError, ValueError):
        return "unknown"
