"""A self-contained ``report.html``: the verdict in words, figures, controls, users, protocol, caveats."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from spectral_probe.comparison.comparison import ProfileComparison
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve
from spectral_probe.report.words import (
    CONTROLS_IN_WORDS,
    NOT_AVAILABLE,
    QUANTITIES_IN_WORDS,
    caveat_in_words,
    changes_in_words,
    nulls_in_words,
    paired_in_words,
    retention_in_words,
    users_in_words,
    verdict_in_words,
)
from spectral_probe.storage.atomic import write_text

#: Figures of the page in their order; the caption of each lies beside it.
FIGURES = ("comparison", "decay", "excess", "foreseen", "published", "heatmap")
N_USERS_SHOWN = 5


def write_report(
    folder: Path,
    profiles: Sequence[DecayProfile],
    versions: Mapping[str, str] | None = None,
    comparisons: Sequence[ProfileComparison] = (),
) -> Path:
    """Write ``report.html`` into the folder with the ``figures`` of these profiles; return its path."""
    environment = Environment(
        loader=PackageLoader("spectral_probe.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=", ".join(str(profile.table["model"].iloc[0]) for profile in profiles),
        dataset=str(profiles[0].table["dataset"].iloc[0]),
        figures=_figures(folder / "figures"),
        profiles=[_content(profile) for profile in profiles],
        comparisons=[_comparison(comparison) for comparison in comparisons],
        versions=dict(versions or {}),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _figures(folder: Path) -> list[tuple[str, str]]:
    """Return the caption and the base64 of every figure of a run."""
    figures = []
    for name in FIGURES:
        picture, caption = folder / f"{name}.png", folder / f"{name}.txt"
        if picture.is_file() and caption.is_file():
            words = " ".join(caption.read_text(encoding="utf-8").split())
            figures.append((words, base64.b64encode(picture.read_bytes()).decode()))
    return figures


def _content(profile: DecayProfile) -> dict[str, Any]:
    """Return the template's values for one profile; every number is formatted text."""
    return {
        "model": str(profile.table["model"].iloc[0]),
        "words": verdict_in_words(profile),
        "changes": changes_in_words(profile),
        "paired": paired_in_words(profile),
        "nulls": nulls_in_words(profile),
        "curves": _curves(profile),
        "controls": [
            {
                "name": name,
                "words": CONTROLS_IN_WORDS.get(name, ""),
                "verdict": "; ".join(f"{c}: {v.label}" for c, v in control.verdicts.items() if v.label != "none"),
                "retention": "; ".join(f"{c} {retention_in_words(control, c)}" for c in control.retention),
            }
            for name, control in profile.controls.items()
        ],
        "users": _extreme_users(profile),
        "in_words": users_in_words(profile),
        "caveats": [(code, caveat_in_words(profile, code)) for code in profile.caveats],
        "protocol": _flat(profile.protocol),
    }


def _curves(profile: DecayProfile) -> list[dict[str, Any]]:
    """Return the curves of a profile as tables: title and one row of texts per layer."""
    curves: list[dict[str, Any]] = []
    layers: list[tuple[str, ...]] = []
    head: tuple[str, ...]
    if "taste" in set(profile.table["component"]):
        for component in ("taste", "popularity"):
            rows = profile.curve(component).to_dict("records")
            if not profile.has_measurable_input(component):
                rows = [{**row, "retention": math.nan} for row in rows]
            layers = [(_text(row, "layer_name"), _span(row, "excess", 4), _span(row, "retention", 2)) for row in rows]
            head = ("layer", "excess", "retention")
            curves.append({"title": f"{component} carried", "head": head, "layers": layers})
        foreseen = profile.foreseen
        if foreseen is not None and len(foreseen):
            rows = foreseen[foreseen["component"] == "taste"].to_dict("records")
            is_measurable = profile.has_measurable_input("taste")
            rows = [
                {
                    "layer_name": row["layer_name"],
                    "value": row["value"] if is_measurable else math.nan,
                    "value_low": row["low"],
                    "value_high": row["high"],
                }
                for row in rows
            ]
            layers = [(_text(row, "layer_name"), _span(row, "value", 3)) for row in rows]
            head = ("layer", "in units of the taste carried at the input")
            curves.append({"title": "taste foreseen", "head": head, "layers": layers})
    whole = select_curve(profile.table, null=profile.null)
    layers = [
        (_text(r, "layer_name"), _span(r, "share", 4), _text(r, "null_share", 4), _span(r, "excess", 4))
        for r in whole.to_dict("records")
    ]
    null = str(whole["null"].iloc[0])
    head = ("layer", "low-pass share", f"{null} null", "excess")
    curves.append({"title": "whole: low-pass share of the energy (τ = 5)", "head": head, "layers": layers})
    return curves


def _text(row: Mapping[Any, Any], name: str, digits: int = 0) -> str:
    value = row[name]
    return value if isinstance(value, str) else "" if pd.isna(value) else f"{value:.{digits}f}"


def _span(row: Mapping[Any, Any], name: str, digits: int) -> str:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return NOT_AVAILABLE if pd.isna(value) else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _comparison(comparison: ProfileComparison) -> dict[str, Any]:
    """Return the template's values for one comparison."""
    return {
        "base": comparison.base,
        "other": comparison.other,
        "words": comparison.words,
        "published": list(comparison.published_words.items()),
        "changes": [
            {
                "quantity": QUANTITIES_IN_WORDS[change.quantity],
                "site": change.site,
                **{name: _interval_text(getattr(change, name)) for name in ("base", "other", "difference")},
            }
            for change in comparison.every()
        ],
    }


def _interval_text(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _extreme_users(profile: DecayProfile) -> list[dict[str, str]]:
    """Return the users with the largest and the smallest excess at the input, with their excess at the last block."""
    table = profile.per_user
    column = "taste" if "taste" in table else f"excess_{profile.null}"
    if profile.null is None or column not in table or not profile.retention_layer:
        return []
    table = table[table["nodes"] == table["nodes"].iloc[0]]
    if "measured" not in table:  # saved by the first version
        table = table.assign(measured=table["n_targets"])
    key = "user_id" if "user_id" in table else "sequence"
    wide = table.pivot(index=[key, "measured"], columns="layer_name", values=column).reset_index()
    first = str(profile.per_user["layer_name"].iloc[0])
    ranked = wide.dropna(subset=[first]).sort_values(first, ascending=False, kind="stable")
    if len(ranked) < 2 * N_USERS_SHOWN:
        rows = ranked
    else:
        rows = pd.concat([ranked.head(N_USERS_SHOWN), ranked.tail(N_USERS_SHOWN)])
    return [
        {
            "user": str(row[key]),
            "measured": str(row["measured"]),
            "first": f"{row[first]:+.4f}",
            "last": f"{row[profile.retention_layer]:+.4f}",
        }
        for row in rows.to_dict("records")
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, text) pairs."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return pairs
