"""What was collected of one comparison, as this version or the first version wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_probe.comparison.comparison import ProfileComparison
from spectral_probe.comparison.paired import EXCESS, Change, Changes
from spectral_probe.comparison.published import PublishedChanges
from spectral_probe.comparison.words import LOSS, RESTORED, SMOOTHING_AND_LOSS, WITHOUT_SHARE
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.tables import PUBLISHED_SHARE

#: Labels of the first version, which called the whole excess collaboration, and the words for the same intervals now.
FIRST_VERSION_LABELS = {
    "preserved or restored collaboration (beyond smoothing)": RESTORED,
    "smoothing by construction, and collaboration lost": SMOOTHING_AND_LOSS,
    "more collaboration, without a higher share": WITHOUT_SHARE,
    "collaboration lost": LOSS,
}


def changes_at(comparison: ProfileComparison) -> dict[tuple[str, str], Change]:
    """Return all changes by quantity and site; ``retention`` is that of the whole excess over swap."""
    published = {(PUBLISHED_SHARE, site): change for site, change in comparison.published.at.items()}
    retention = comparison.changes.retentions.get(EXCESS["swap"])
    retentions = {} if retention is None else {("retention", "last block"): retention}
    return {**comparison.changes.at, **published, **retentions}


def is_of_first_version(entry: Mapping[str, Any]) -> bool:
    """Return whether the first version wrote an entry of ``comparison.json``; its measure was the whole excess."""
    return "measure" not in entry


def read_comparisons(folder: Path) -> list[ProfileComparison]:
    """Return the entries of ``comparison.json`` in a folder of collected files.

    The first version has no published share there; ``published.csv`` beside it has it.
    """
    entries = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    table = folder / "published.csv"
    published = pd.read_csv(table) if table.exists() else None
    return [_compared(entry, published) for entry in entries]


def change_of(quantity: str, site: Any, values: Mapping[str, Mapping[str, float]]) -> Change:
    """Return a change from its plain values."""
    parts = {part: Interval(**values[part]) for part in ("base", "other", "difference")}
    return Change(quantity, site, **parts)


def _compared(entry: Mapping[str, Any], table: pd.DataFrame | None) -> ProfileComparison:
    at = {
        (quantity, site): change_of(quantity, site, values)
        for quantity, sites in entry["changes"].items()
        for site, values in sites.items()
    }
    retentions = entry.get("retentions") or ({EXCESS["swap"]: entry["retention"]} if entry.get("retention") else {})
    changes = Changes(
        entry["n_users"],
        at,  # type: ignore[arg-type]
        {name: change_of(f"retention_{name}", "last block", values) for name, values in retentions.items()},
        entry.get("measure", EXCESS["swap"]),
    )
    label = FIRST_VERSION_LABELS.get(entry["label"], entry["label"])
    published = _published(entry, table)
    return ProfileComparison(entry["base"], entry["other"], label, entry["words"], changes, published)


def _published(entry: Mapping[str, Any], table: pd.DataFrame | None) -> PublishedChanges:
    if "published" in entry:
        stored = entry["published"]
        at = {site: change_of(PUBLISHED_SHARE, site, values) for site, values in stored["changes"].items()}
        return PublishedChanges(stored["n_users"], at, " ".join(stored["words"].values()))
    assert table is not None
    rows = table[table["other_model"] == entry["other"]].to_dict("records")
    at = {}
    for row in rows:
        values = {
            part: {"value": row[part], "low": row[f"{part}_low"], "high": row[f"{part}_high"]}
            for part in ("base", "other", "difference")
        }
        at[row["place"]] = change_of(PUBLISHED_SHARE, row["place"], values)
    return PublishedChanges(int(rows[0]["n_users"]) if rows else 0, at)
