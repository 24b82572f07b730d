"""The chart library of a page: Vega, Vega-Lite and Vega-Embed in one script, from the packages of the extra report."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spectral_probe.storage.atomic import write_text
from spectral_probe.storage.cache import cache_root, only_a_cache

#: What the extra ``report`` installs.
PACKAGES = ("altair", "vl_convert")


def has_charts() -> bool:
    """Whether charts can be made: the packages of the extra ``report`` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


@cache
def chart_library() -> str | None:
    """Return the script that defines ``vegaEmbed``; None without the extra ``report``.

    Bundling takes a second, so the script is stored in the cache.
    """
    if not has_charts():
        return None
    path = cache_root() / "vega" / f"vl-convert-{version('vl-convert-python')}.js"
    script = _stored(path)
    if script is None:
        import vl_convert

        bundle: Any = vl_convert.javascript_bundle
        script = str(bundle()).strip()
        with only_a_cache(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, script)
    if re.search(r"</script|<!--", script, re.IGNORECASE):
        raise AssertionError("The chart library holds text that would end its script element.")
    return script


def _stored(path: Path) -> str | None:
    """Return the stored script; None if there is none, or it is damaged."""
    try:
        script = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return script if "window.vegaEmbed=" in script[-2000:] else None
