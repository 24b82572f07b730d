"""How a hub repository is read: which commit, and whether the hub may be asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HubAccess:
    """How a repository is read.

    Attributes
    ----------
    revision : str or None
        The commit if it is known, else the revision that the caller gave.
    local_files_only : bool
        True if only files downloaded earlier can be read.
    why : str
        Why the hub is not used; empty if it answers.
    commit : str or None
        The commit that the hub or the files downloaded earlier report.
    to_fetch : int
        Bytes of the weights that are not here yet.
    """

    revision: str | None = None
    local_files_only: bool = False
    why: str = ""
    commit: str | None = None
    to_fetch: int = field(default=0, compare=False)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Mute the libraries and, if the hub did not answer, do not ask it again for every file."""
        from huggingface_hub import constants

        before = constants.HF_HUB_OFFLINE
        # transformers requests some files even with local_files_only=True; each request takes half a minute.
        constants.HF_HUB_OFFLINE = before or self.local_files_only
        try:
            with quiet():
                yield
        finally:
            constants.HF_HUB_OFFLINE = before


@contextmanager
def quiet() -> Iterator[None]:
    """Mute the libraries that read models: their warnings and their progress bars.

    The caller checks what the warnings report (missing weights, failed requests) and reports it once.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as model_logging

    models: Any = model_logging
    hub: Any = hub_logging
    verbosities = models.get_verbosity(), hub.get_verbosity()
    has_bars = models.is_progress_bar_enabled()
    models.set_verbosity_error()
    hub.set_verbosity_error()
    if has_bars:
        models.disable_progress_bar()
    try:
        yield
    finally:
        models.set_verbosity(verbosities[0])
        hub.set_verbosity(verbosities[1])
        if has_bars:
            models.enable_progress_bar()
