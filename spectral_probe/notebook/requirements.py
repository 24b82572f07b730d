"""Optional packages, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from spectral_probe.errors import MissingDependencyError


def require(module: str, *, package: str, extra: str, what: str) -> Any:
    """Return an optional module.

    Parameters
    ----------
    module, package : str
        Its name in an import, and in ``pip install``.
    extra : str
        The extra of this distribution that brings it.
    what : str
        What needs it; the subject of the message.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs the package {package}, which cannot be imported here ({error}). "
            f"Install it with: pip install 'spectral-probe[{extra}]'"
        ) from error
