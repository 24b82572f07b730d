"""The winner of a tuned table once more with several times the seconds, apart from the trials of equal time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from frellm4rec.tuning.search import SETTINGS_FILE, Search
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
    if times is None:
        if not path.exists():
            return None
        try:
            seconds = float(read_json(path, {"seconds": float})["seconds"])
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}. Restore it, or delete the folder.") from error
    else:
        if isinstance(times, bool) or not isinstance(times, int) or not 2 <= times <= MOST_TIMES:
            raise ConfigError(f"--longer is a whole number from 2 to {MOST_TIMES}; got {times!r}. Try 4.")
        seconds = times * search.budget.seconds
    return Search.open(
        folder / FOLDER, budget=replace(search.budget, seconds=seconds), data=search.dataset, **search.request
    )


def longer_trial(
    rows: pd.DataFrame, systems: Sequence[System], *, n_trials: int, seed: int
) -> list[tuple[System, int, dict[str, Any]]]:
    """Return the chosen trial of the winner, the trained system with the highest validation NDCG; none without one.

    A counted system gains nothing from time.

    Parameters
    ----------
    rows : DataFrame
        As of :func:`~frellm4rec.experiments.system_tables.system_rows`.
    systems : sequence of System
    n_trials, seed : int
        Of the search.
    """
    trained = rows[rows["is_trained"].astype(bool) & rows["validation_ndcg"].notna()]
    if trained.empty:
        return []
    winner = trained.loc[trained["validation_ndcg"].astype(float).idxmax()]
    index = int(winner["trial"])
    system = next(system for system in systems if system.name == winner["variant"])
    return [(system, index, system.trials(n_trials, seed=seed)[index])]
