"""How far a download from the hub is: its own bars are silent, so what lies in the cache is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spectral_probe.progress import counted

MEGABYTE = 10**6


@contextmanager
def counted_download(repository: str, n_bytes: int, cache: Path, *, seconds: float = 1.0) -> Iterator[None]:
    """Name the download of a repository inside, in megabytes.

    Parameters
    ----------
    repository : str
    n_bytes : int
        How much is to be fetched; nothing is named if nothing is.
    cache : Path
        The hub's cache.
    seconds : float
        Between two looks at the cache.
    """
    if n_bytes < MEGABYTE:
        yield
        return
    folder = cache / f"models--{repository.replace('/', '--')}" / "blobs"
    before, is_done = _size(folder), threading.Event()
    with counted(f"downloading {repository}", n_bytes // MEGABYTE, unit="MB") as advance:

        def watch() -> None:
            while not is_done.wait(seconds):
                advance(min(n_bytes, _size(folder) - before) // MEGABYTE, "")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_done.set()
            watcher.join()


def _size(folder: Path) -> int:
    """Return the bytes in a folder; a file that is renamed meanwhile counts the next time."""
    total = 0
    for path in folder.glob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total
