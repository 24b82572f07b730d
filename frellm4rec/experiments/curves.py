"""Learning curves of an experiment: what every finished training wrote after each epoch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from frellm4rec.experiments.labels import setting_label
from frellm4rec.experiments.tables import FINISHED, is_baseline
from frellm4rec.runs.records import SUMMARY_FILE, TrainingSummary
from spectral_probe.errors import DataError

CURVE_COLUMNS = ["line", "run", "is_chosen", "epoch", "seconds", "loss", "ndcg"]


def training_curves(folder: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finished training and epoch; trainings whose log cannot be read are left out.

    Columns: ``line`` (variant, with its setting where there are several), ``run`` (the seed, in words), ``is_chosen``,
    ``epoch``, ``seconds``, ``loss`` and ``ndcg``, which is missing where nothing was validated.
    """
    finished = cells[cells["status"] == FINISHED].drop_duplicates("run")
    settings = finished.loc[~is_baseline(finished), ["backbone", "mode", "settings"]].drop_duplicates()
    frames = []
    for row in finished.to_dict("records"):
        path = folder / row["run"]
        if not (path / SUMMARY_FILE).is_file():  # a baseline from the cache
            continue
        try:
            log = pd.DataFrame(TrainingSummary.read(path).log)
        except DataError:
            continue
        setting = setting_label(row) if len(settings) > 1 else ""
        line = f"{row['label']} ({setting})" if setting else row["label"]
        frames.append(log.assign(line=line, run=f"seed {row['seed']}", is_chosen=True).reindex(columns=CURVE_COLUMNS))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=CURVE_COLUMNS)
