"""The numbers beside the heat map of a run, read back."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def read_heatmap(path: Path) -> pd.DataFrame | None:
    """Return ``heatmap.csv``: the columns ``model`` and ``layer``, and the excess in each band; None if it is damaged.

    The maps are drawn from these numbers where a run has no energies; without them they are left out.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"model": "string", "layer": "string"})
        bands = table.columns.drop(["model", "layer"])
        is_whole = len(table) > 0 and len(bands) > 0 and not table[["model", "layer"]].isna().any(axis=None)
        return table.astype(dict.fromkeys(bands, float)) if is_whole else None
    except (OSError, ValueError, KeyError):
        return None
