"""Where downloads and trained weights are kept between runs. Imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "SPECTRAL_PROBE_CACHE"


def cache_root() -> Path:
    """Return the cache folder: ``$SPECTRAL_PROBE_CACHE``, or the user's cache folder of the system."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder).expanduser() if folder else Path(platformdirs.user_cache_dir("spectral-probe"))
