"""Where results that depend on data and settings alone are stored between runs. Imports nothing heavy."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
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
    cache saves time, and a read-only home must not cost a result.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    return _usable(Path(folder).expanduser() if folder else Path(platformdirs.user_cache_dir("spectral-probe")))


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
            str(error).split(". Free some space")[0],
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
