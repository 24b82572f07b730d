"""The numbers that the paper prints in its Tables 2 to 5, for comparison with ours.

The first row of Table 4 is left out: in the copy read, its name and five of seven entries are missing. Figures 3, 5 and
6 have no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

#: Our names of the data sets and backbones → the paper's.
DATASETS = {
    "amazon:All_Beauty": "All Beauty",
    "amazon:Luxury_Beauty": "Luxury Beauty",
    "amazon:Movies_and_TV": "Movies and TV",
    "lastfm": "LastFM",
}
BACKBONES = {
    "qwen2.5-7b": "Qwen2.5-7B-Instruct",
    "llama3.1-8b": "Llama3.1-8B",
    "mistral-7b-v0.3": "Mistral-7B-v0.3",
}
DEFAULT_BACKBONE = "Qwen2.5-7B-Instruct"
METRICS = {"ndcg": "NDCG@10", "recall": "Recall@10"}


@cache
def paper_numbers() -> pd.DataFrame:
    """Return one row per printed number.

    Columns: table, model, variant (full, base, wo-glpf, wo-tfm, wo-id, wo-text; empty for other models), backbone,
    id_network, dataset, metric, value.
    """
    with (resources.files("frellm4rec.experiments") / "paper.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False).astype({"value": float})


def paper_dataset(name: str) -> str | None:
    """Return the paper's name of one of our data sets, whatever its options; None if the paper does not use it."""
    return DATASETS.get(name.partition(",")[0])


def is_paper_ranking(ranking: str) -> bool:
    """Whether a ranking has as many candidates as the paper's: 99 or 100 beside the target."""
    return ranking in ("99+1", "100+1")


def paper_value(selection: Mapping[str, Any], *, dataset: str, metric: str, backbone: str) -> float | None:
    """Return the paper's number of one row, or None if it prints none.

    Parameters
    ----------
    selection : mapping
        Columns of :func:`paper_numbers`, each with its value or list of values.
    dataset, metric, backbone : str
        Our names: ``lastfm``, ``ndcg``, ``minilm``. The backbone is used only if the selected rows differ in it.
    """
    printed = paper_dataset(dataset)
    if not selection or printed is None or metric not in METRICS:
        return None
    rows = paper_numbers()
    for column, value in selection.items():
        rows = rows[rows[column].isin(value if isinstance(value, list) else [value])]
    if rows["backbone"].nunique() > 1:
        rows = rows[rows["backbone"] == BACKBONES.get(backbone)]
    values = rows.loc[(rows["dataset"] == printed) & (rows["metric"] == METRICS[metric]), "value"].unique()
    return float(values[0]) if len(values) == 1 else None
