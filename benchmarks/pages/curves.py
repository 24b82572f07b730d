"""Collect finished runs of the instrument into ``figures/<dataset>/``: curves, settings and the figure.

``retention.csv`` holds, per model and component, the retention at the last block, that with random weights and the
paired difference. ``curves.csv`` holds what the results page and its figure show: the components of every model and of
the same model with random weights, the whole excess over each null, and the published curve. The full tables stay in
the runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_probe.comparison.comparison import with_distinct_names
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.paper_figures import curve_figures
from spectral_probe.runs.folder import RunFolder
from spectral_probe.storage.atomic import write_csv, write_text

#: Settings that contain a path on the machine of the run.
_PATH_SETTINGS = ("model",)
#: Models of the README's figure: a recommender trained from scratch, and a language model.
HEADLINE = ["sasrec", "smollm2"]
#: Columns that are one value per file, or not shown.
_LEFT_OUT = ("revision", "own_user", "band_low", "band_high", "energy", "rayleigh", "weights")


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Write ``curves.csv``, ``foreseen.csv``, ``settings.json`` and ``decay.png`` of finished runs on one data set."""
    profiles = [_named(DecayProfile.load(path)) for path in runs]
    profiles = with_distinct_names(profiles)
    tables = [profile.to_frame() for profile in profiles]
    write_csv(folder / "curves.csv", _shown(pd.concat(tables, ignore_index=True)), float_format="%.6g")
    foreseen = {_name(p): p.foreseen for p in profiles if p.foreseen is not None}
    write_csv(folder / "foreseen.csv", pd.concat(foreseen, names=["model", None]).reset_index(0), float_format="%.6g")
    settings = []
    for path, profile in zip(runs, profiles, strict=True):
        summary = profile.summary()
        summary["protocol"] = {k: v for k, v in summary["protocol"].items() if k not in _PATH_SETTINGS}
        summary.pop("foreseen")
        settings.append({"model": _name(profile), "versions": RunFolder.open(path).state()["versions"], **summary})
    write_text(folder / "settings.json", json.dumps(settings, indent=1))
    write_csv(folder / "retention.csv", _retentions(profiles), float_format="%.6g")
    draw(folder)


def draw(folder: Path) -> None:
    """Draw what all models carry, their excess over every null, and what those of the README's figure carry."""
    table, _ = load(folder)
    models = list(table["model"].unique())
    for name, part, shown in (
        ("decay", "decay", models),
        ("excess", "excess", models),
        ("headline", "decay", HEADLINE),
    ):
        if set(shown) <= set(models):
            curve_figures(table[table["model"].isin(shown)], {})[part].save(folder / name)
            (folder / f"{name}.csv").unlink()  # curves.csv has the data of the figures


def load(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return ``curves.csv`` and ``foreseen.csv`` of a data set."""
    table, foreseen = (
        pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""], dtype={"band": str})
        for name in ("curves", "foreseen")
    )
    return table, foreseen


def settings_of(folder: Path) -> list[dict[str, Any]]:
    """Return the summaries of a data set's runs."""
    entries: list[dict[str, Any]] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return entries


def _retentions(profiles: Sequence[DecayProfile]) -> pd.DataFrame:
    """Return one row per model and component."""
    rows = []
    for profile in profiles:
        for component, verdict in profile.verdicts.items():
            pair = profile.paired.get("random-weights", {}).get(component, {})
            values = {"retention": profile.retention.get(component), "random": pair.get("base")}
            row: dict[str, Any] = {"model": _name(profile), "component": component, "n_users": verdict.n_users}
            row |= {"verdict": verdict.label, "depends_on": ", ".join(verdict.depends_on)}
            for name, interval in (*values.items(), ("difference", pair.get("difference"))):
                if interval is not None:
                    row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _named(profile: DecayProfile) -> DecayProfile:
    """Return a profile whose name says what a language model reads, where that is more than the IDs."""
    inputs = str(profile.table["inputs"].iloc[0])
    if inputs in ("id", "own"):
        return profile
    name = f"{_name(profile)} {inputs}"
    controls = {
        key: replace(control, table=control.table.assign(model=name)) for key, control in profile.controls.items()
    }
    return replace(profile, table=profile.table.assign(model=name), controls=controls)


def _name(profile: DecayProfile) -> str:
    return str(profile.table["model"].iloc[0])


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the page: band ``low`` of the headline and of random weights, and the published curve."""
    is_low = (table["band"] == "low") & table["control"].isin(["none", "random-weights"])
    is_published = (table["control"] == "paper") & (table["band"] == "1")
    rows = table[is_low | is_published]
    return rows.drop(columns=list(_LEFT_OUT)).reset_index(drop=True)
