"""The winner of a tuned table once more with several times the seconds, apart from the trials of equal time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from frellm4rec.experiments.system_tables import winner
from frellm4rec.tuning.search import MOST_SECONDS, SETTINGS_FILE, Search
from frellm4rec.tuning.trials import System
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.storage.reading import read_json

FOLDER = "longer"
#: Largest multiple of the seconds of a trial.
MOST_TIMES = 1000


def longer_search(search: Search, folder: Path, times: int | None) -> Search | None:
    """Return the search with a multiple of the seconds; None if none is asked for and the folder has none.

    Parameters
    ----------
    search : Search
        With the seconds of a trial.
    folder : Path
        Of the table.
    times : int or None
        Multiple of the seconds, at least 2; None: that of the folder.

    Raises
    ------
    ConfigError
        If ``times`` is out of range, or not that with which the folder began.
    DataError
        If the settings in the folder cannot be read.
    """
    path = folder / FOLDER / SETTINGS_FILE
    seconds, most = None, int(min(MOST_TIMES, MOST_SECONDS / search.budget.seconds))
    if path.exists():
        try:
            seconds = float(read_json(path, {"seconds": float})["seconds"])
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}. Restore it, or delete {path.parent}.") from error
    if times is not None:
        if isinstance(times, bool) or not isinstance(times, int) or not 2 <= times <= most:
            raise ConfigError(f"--longer is a whole number from 2 to {most}; got {times!r}. Try 4.")
        if seconds is not None and seconds != times * search.budget.seconds:
            raise ConfigError(
                f"The run with more time in {path.parent} has {seconds / search.budget.seconds:g} times the seconds; "
                f"got --longer {times}. Give the earlier number, or delete that folder."
            )
        seconds = times * search.budget.seconds
    if seconds is None:
        return None
    return Search.open(
        path.parent, budget=replace(search.budget, seconds=seconds), data=search.dataset, **search.request
    )


def longer_trial(
    rows: pd.DataFrame, systems: Sequence[System], *, seed: int
) -> list[tuple[System, int, dict[str, Any]]]:
    """Return the chosen trial of the winner; none without one. A counted system gains nothing from time.

    Parameters
    ----------
    rows : DataFrame
        As of :func:`~frellm4rec.experiments.system_tables.system_rows`.
    systems : sequence of System
    seed : int
        Of the search.
    """
    chosen = winner(rows)
    if chosen is None:
        return []
    system = next(system for system in systems if system.name == chosen["variant"])
    index = int(chosen["trial"])
    return [(system, index, system.trials(index + 1, seed=seed)[index])]  # a trial does not depend on their number
