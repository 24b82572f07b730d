"""Files that are read: only regular ones, because a pipe or a device has no end that can be relied on."""

from __future__ import annotations

import stat
from pathlib import Path

from spectral_probe.errors import DataError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


def check_regular(path: str | Path) -> None:
    """Refuse a path that is not a regular file, or a link to one. The file is not opened.

    Raises
    ------
    DataError
        If there is no such file, or it is a folder, a pipe, a device or a socket.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise DataError(f"{path} cannot be read: {error}. Check the path.") from None
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise DataError(f"{path} must be a regular file; it is {kind}. Write its content to a file, and name that.")
