"""Where searches and experiments go when the request names no folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from spectral_probe.plugins.datasets import TABLE, split_columns


def default_folder(name: str, dataset: str) -> Path:
    """Return ``runs/NAME-DATASET`` with a data set's name, or that of its file, in lower case."""
    file = split_columns(dataset.removeprefix(f"{TABLE}:"))[0]
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", os.path.basename(file.rstrip("/"))).strip("-.").lower()
    return Path("runs") / f"{name}-{slug}"
