"""How a repository of the hub is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HubAccess:
    """How a repository is going to be read.

    Attributes
    ----------
    revision : str or None
        The commit, where it is known; else what the caller gave.
    local_files_only : bool
        True if only files that were fetched earlier can be read.
    why : str
        Why only those; empty if the hub answers.
    commit : str or None
        The commit, as the hub or the files fetched earlier say.
    """

    revision: str | None = None
    local_files_only: bool = False
    why: str = ""
    commit: str | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read files quietly and, where the hub does not answer, without asking it again for every file."""
        from huggingface_hub import constants

        before = constants.HF_HUB_OFFLINE
        # transformers asks for some files whatever local_files_only says, each time for half a minute.
        constants.HF_HUB_OFFLINE = before or self.local_files_only
        try:
            with quiet():
                yield
        finally:
            constants.HF_HUB_OFFLINE = before


@contextmanager
def quiet() -> Iterator[None]:
    """Mute warnings of the libraries that read models, and their progress bars where nobody watches them.

    What matters in the warnings (missing weights, failing requests) is checked, and said once, by the caller.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as model_logging

    models: Any = model_logging
    hub: Any = hub_logging
    verbosities = models.get_verbosity(), hub.get_verbosity()
    is_watched = sys.stderr is not None and sys.stderr.isatty()
    has_bars = models.is_progress_bar_enabled()
    models.set_verbosity_error()
    hub.set_verbosity_error()
    if has_bars and not is_watched:
        models.disable_progress_bar()
    try:
        yield
    finally:
        models.set_verbosity(verbosities[0])
        hub.set_verbosity(verbosities[1])
        if has_bars and not is_watched:
            models.enable_progress_bar()
