"""Where downloads and trained weights are kept between runs. Imports nothing heavy."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path

import platformdirs

from spectral_probe.errors import ResourceError

CACHE_VARIABLE = "SPECTRAL_PROBE_CACHE"


def cache_root() -> Path:
    """Return the cache folder: ``$SPECTRAL_PROBE_CACHE``, or the user's cache folder of the system.

    For a user without a home folder, such as in a container with another user id, see :func:`home_for_nobody`.

    Raises
    ------
    ResourceError
        If there is no folder that this user alone may write.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    try:
        return Path(folder).expanduser() if folder else Path(platformdirs.user_cache_dir("spectral-probe"))
    except RuntimeError:  # there is no home folder
        return home_for_nobody() / ".cache" / "spectral-probe"


def give_home() -> None:
    """Set ``HOME`` and ``USER`` where this user has none, because libraries look their folders up there.

    Raises
    ------
    ResourceError
        See :func:`home_for_nobody`.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(home_for_nobody())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"user-{os.getuid()}"


def home_for_nobody() -> Path:
    """Return a folder for a user without a home folder: in that for temporary files, with the user id in its name.

    Raises
    ------
    ResourceError
        If it cannot be made, or others may write there.
    """
    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"spectral-probe-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        is_safe = stat.S_ISDIR(facts.st_mode) and facts.st_uid == user and not facts.st_mode & 0o022
    except OSError as error:
        raise ResourceError(
            f"This user has no home folder, and {folder} cannot be made: {error.strerror}. Set {CACHE_VARIABLE} to a "
            "folder that can be written."
        ) from error
    if not is_safe:
        raise ResourceError(
            f"This user has no home folder, and {folder} belongs to somebody else. Set {CACHE_VARIABLE} to a folder of "
            "this user."
        )
    return folder
