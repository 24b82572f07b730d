"""Where downloads and trained weights are kept between runs. Imports nothing heavy."""

from __future__ import annotations

import atexit
import getpass
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import platformdirs

from spectral_probe.errors import ResourceError

logger = logging.getLogger("spectral_probe")

CACHE_VARIABLE = "SPECTRAL_PROBE_CACHE"


def cache_root() -> Path:
    """Return the cache folder: ``$SPECTRAL_PROBE_CACHE``, or the user's cache folder of the system.

    Where nothing can be written there, a temporary folder that is deleted when the process ends, with a warning: a
    cache saves time, and a read-only home must not cost a result. For a user without a home folder, such as in a
    container with another user id, see :func:`home_for_nobody`.

    Raises
    ------
    ResourceError
        If there is no folder that this user alone may write.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    try:
        wanted = Path(folder).expanduser() if folder else Path(platformdirs.user_cache_dir("spectral-probe"))
    except RuntimeError:  # there is no home folder
        wanted = home_for_nobody() / ".cache" / "spectral-probe"
    return _usable(wanted)


@cache
def _usable(folder: Path) -> Path:
    from spectral_probe.storage.atomic import try_to_write

    try:
        try_to_write(folder)
    except ResourceError as error:
        instead = Path(tempfile.mkdtemp(prefix="spectral-probe-"))
        atexit.register(shutil.rmtree, instead, ignore_errors=True)
        logger.warning(
            "The cache cannot be used: %s; what would be stored there is kept in %s until this process ends. Set %s to "
            "a folder that can be written.",
            error.__cause__ or error,
            instead,
            CACHE_VARIABLE,
        )
        return instead
    return folder


@contextmanager
def only_a_cache(path: Path) -> Iterator[None]:
    """Turn a failure to write into the cache into a warning: the result is there, and is computed again next time."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        logger.warning(
            "%s could not be stored in the cache (%s); the result is used, and is computed again next time. Free space "
            "there, or set %s to another folder.",
            *(path, reason, CACHE_VARIABLE),
        )


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
