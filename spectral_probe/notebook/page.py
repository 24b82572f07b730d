"""The page of a profile in a notebook: verdicts, chart and table, in one piece of HTML."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from spectral_probe.notebook.drawing import svg_source
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.figures import pair_of_curves
from spectral_probe.profiles.profile import JUDGED, DecayProfile
from spectral_probe.profiles.shown import thousandths
from spectral_probe.profiles.tables import null_of
from spectral_probe.profiles.verdict import NOT_MEASURABLE
from spectral_probe.report.words import (
    NOT_AVAILABLE,
    caveat_in_words,
    changes_in_words,
    nulls_in_words,
    paired_in_words,
    users_in_words,
    verdict_in_words,
)

#: Glyph and colour of each verdict; the colours have a contrast of 4.5 or more to white.
MARKS = {
    "attenuated": ("▼", "#a33c00"),
    "preserved": ("=", "#00663f"),
    "amplified": ("▲", "#005a94"),
    "inconclusive": ("?", "#5f5f5f"),
    NOT_MEASURABLE: ("∅", "#5f5f5f"),
    "none": ("–", "#5f5f5f"),
}


def profile_page(profile: DecayProfile) -> str:
    """Return verdicts, chart and table of a profile as HTML; every text is escaped and nothing is loaded."""
    components = [name for name in (*JUDGED, "whole") if name in profile.verdicts]
    return _template().render(
        model=_label(profile, "model"),
        dataset=_label(profile, "dataset"),
        inputs=_label(profile, "inputs"),
        verdicts=[_verdict(profile, name) for name in components],
        words=verdict_in_words(profile),
        image=_image(profile),
        head=components,
        rows=_rows(profile, components),
        notes=[text for text in (changes_in_words(profile), *paired_in_words(profile), nulls_in_words(profile)) if text]
        + [users_in_words(profile)],
        caveats=[(code, caveat_in_words(profile, code)) for code in profile.caveats],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("spectral_probe.notebook.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("profile.html.j2")


def mark_of(label: str) -> tuple[str, str]:
    """Return glyph and colour of the label of a verdict."""
    return next((mark for beginning, mark in MARKS.items() if label.startswith(beginning)), MARKS["none"])


def _label(profile: DecayProfile, column: str) -> str:
    return str(profile.table[column].iloc[0])


def _verdict(profile: DecayProfile, component: str) -> dict[str, str]:
    verdict = profile.verdicts[component]
    glyph, color = mark_of(verdict.label)
    amount = ""
    if component in profile.retention and profile.has_measurable_input(component):
        retention = profile.retention[component]
        if math.isfinite(retention.value):
            amount = f"{retention.value:.2f} [{retention.low:.2f}, {retention.high:.2f}] left"
    return {"component": component, "glyph": glyph, "color": color, "label": str(verdict), "amount": amount}


def _image(profile: DecayProfile) -> dict[str, str] | None:
    """Return the chart of taste and popularity with its text for screen readers; None without components."""
    from matplotlib.figure import Figure

    components = [name for name in JUDGED if profile.has_measurable_input(name) and not profile.curve(name).empty]
    if not components:
        return None
    figure = Figure(figsize=(4.2 * len(components), 3.3), layout="constrained")
    pair_of_curves(profile.to_frame(), components, figure=figure)
    described = "; ".join(
        f"{name} left at {profile.retention_layer}: {profile.retention[name].value:.2f}"
        for name in components
        if name in profile.retention
    )
    return {"source": svg_source(figure), "text": f"What is carried, by depth, relative to the input. {described}"}


def _rows(profile: DecayProfile, components: list[str]) -> list[dict[str, Any]]:
    """Return one row of texts per layer: excess and retention of each component."""
    layers: dict[str, list[str]] = {}
    for component in components:
        is_measurable = profile.has_measurable_input(component)
        null = null_of(component, profile.null or "swap")
        curve = profile.curve(component, null=null, nodes=_nodes(profile, component))
        for row in curve.to_dict("records"):
            interval = Interval(*(row[name] for name in ("excess", "excess_low", "excess_high")))
            excess = thousandths(interval).removesuffix(" × 10⁻³")
            retention = NOT_AVAILABLE
            if is_measurable and math.isfinite(row["retention"]):
                retention = f"{row['retention']:.2f} [{row['retention_low']:.2f}, {row['retention_high']:.2f}]"
            layers.setdefault(str(row["layer_name"]), []).extend([excess, retention])
    return [{"layer": name, "values": values} for name, values in layers.items()]


def _nodes(profile: DecayProfile, component: str) -> str:
    rows = profile.table[profile.table["component"] == component]
    return str(rows["nodes"].iloc[0]) if len(rows) else "carried"
