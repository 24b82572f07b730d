"""What the command line prints: the headline curve as a table, the verdict, and what a reader must know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from spectral_probe.cli.tables import console_for_output
from spectral_probe.cli.terminal import cell, say
from spectral_probe.comparison.comparison import ProfileComparison
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve
from spectral_probe.report.words import (
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
from spectral_probe.runs.analysis_run import AnalysisRun

if TYPE_CHECKING:
    from spectral_probe.analysis.pipeline import Analysis


def print_analyses(results: Sequence[Analysis], overlay: AnalysisRun | None) -> None:
    """Print every analysis, and where its figure and report lie."""
    for result in results:
        print_profile(result.profile)
        if result.run is not None:
            _print_paths(result.run)
    if overlay is not None:
        say("all models on one axis:")
        _print_paths(overlay)


def print_comparison(
    profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison], overlay: AnalysisRun
) -> None:
    """Print one line per profile, what changes from the first to each other, and where the figures lie."""
    for profile in profiles:
        say(verdict_in_words(profile))
    for comparison in comparisons:
        print_changes(comparison)
    say(f"comparison: {overlay.path / 'figures' / 'comparison.png'}")
    _print_paths(overlay)


def print_changes(comparison: ProfileComparison) -> None:
    """Print the changes at the last block as a table, and what they say."""
    console = console_for_output()
    if changes := comparison.in_short():
        table = Table(title=cell(f"{comparison.other} against {comparison.base}"))
        for column in ("quantity", "where", comparison.base, comparison.other, "change", "95 % CI"):
            table.add_column(cell(column), justify="left" if column in ("quantity", "where") else "right")
        for change in changes:
            difference = change.difference
            table.add_row(
                QUANTITIES_IN_WORDS[change.quantity],
                cell(change.site),
                f"{change.base.value:+.4f}",
                f"{change.other.value:+.4f}",
                f"{difference.value:+.4f}",
                cell(f"[{difference.low:+.4f}, {difference.high:+.4f}]"),
            )
        console.print(table)
    console.print(cell(comparison.words))
    for lead, sentence in comparison.published_words.items():
        console.print(cell(f"{lead} {sentence}"))


def _print_paths(run: AnalysisRun) -> None:
    say(f"run: {run.path}")
    say(f"figure: {run.path / 'figures' / 'decay.png'}")
    say(f"report: {run.path / 'report.html'}")


def print_profile(profile: DecayProfile) -> None:
    """Print the headline curve of a profile, its verdicts, and what a reader must know."""
    console = console_for_output()
    console.print(_curve_table(profile))
    lines = [
        *(f"verdict on {component}: {verdict}" for component, verdict in profile.verdicts.items()),
        verdict_in_words(profile),
        *paired_in_words(profile),
        nulls_in_words(profile),
        users_in_words(profile),
        changes_in_words(profile),
    ]
    for name, control in profile.controls.items():
        words = [
            f"{component} {verdict.label} {retention_in_words(control, component)}"
            for component, verdict in control.verdicts.items()
            if component in control.retention
        ]
        if words and name != "paper":
            lines.append(f"control {name}: {'; '.join(words)}")
    if profile.protocol.get("number_format"):
        lines.append(f"weights: {profile.protocol['number_format']}")
    lines += [f"note [{code}]: {caveat_in_words(profile, code)}" for code in profile.caveats]
    for line in lines:
        if line:
            console.print(cell(line))


def _curve_table(profile: DecayProfile) -> Table:
    """Return the curve of a profile as a table: its components, or the share of a profile without them."""
    first = profile.table.iloc[0]
    title = f"{first['model']} on {first['dataset']}, inputs {first['inputs']}"
    changes = changes_in_words(profile)
    title = f"{title}\n{changes.rstrip('.')}" if changes else title
    if profile.component == "whole" or "taste" not in set(profile.table["component"]):
        return _share_table(profile, title)
    nodes = profile.protocol.get("options", {}).get("nodes", "carried")
    verb = "carried" if nodes == "carried" else "foreseen"
    part = " and its part of the input's" if nodes == "carried" else ""
    table = Table(title=cell(f"{title}: what is {verb}, excess x 1000 [95 % CI]{part}"))
    components = [profile.component, *(name for name in ("taste", "popularity") if name != profile.component)]
    table.add_column("layer", no_wrap=True)
    for component in components:
        table.add_column(f"{component} {verb}", justify="right", no_wrap=True)
        if nodes == "carried":
            table.add_column("retention", justify="right", no_wrap=True)
    curves = {name: profile.curve(name, nodes=nodes).set_index("layer_name") for name in components}
    is_measurable = {name: profile.has_measurable_input(name) for name in components}
    for layer in curves[profile.component].index:
        cells = []
        for name, curve in curves.items():
            row = dict(curve.loc[layer].items())
            cells.append(f"{1000 * row['excess']:+.2f} {_interval(row, 'excess', 2, scale=1000)}")
            if nodes == "carried":
                cells.append(
                    f"{row['retention']:.2f} {_interval(row, 'retention', 2)}"
                    if is_measurable[name] and math.isfinite(row["retention"])
                    else NOT_AVAILABLE
                )
        table.add_row(cell(layer), *cells)
    return table


def _share_table(profile: DecayProfile, title: str) -> Table:
    """Return the low-pass share of a profile, its null and its excess."""
    curve = select_curve(profile.table, null=profile.null)
    null = str(curve["null"].iloc[0])
    is_measurable = profile.has_measurable_input("whole")
    table = Table(title=cell(f"{title}: low-pass share of energy"))
    for column in ("layer", "share", "95 % CI", f"{null} null", "excess", "95 % CI", "retention", "95 % CI"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for row in curve.to_dict("records"):
        table.add_row(
            cell(row["layer_name"]),
            f"{row['share']:.4f}",
            _interval(row, "share", 4),
            f"{row['null_share']:.4f}",
            f"{row['excess']:+.4f}",
            _interval(row, "excess", 4),
            *(
                (f"{row['retention']:.2f}", _interval(row, "retention", 2))
                if is_measurable and math.isfinite(row["retention"])
                else (NOT_AVAILABLE, NOT_AVAILABLE)
            ),
        )
    return table


def _interval(row: Mapping[Any, Any], name: str, digits: int, *, scale: float = 1.0) -> str:
    low, high = (scale * row[f"{name}_{end}"] for end in ("low", "high"))
    return f"[{low:.{digits}f}, {high:.{digits}f}]".replace("[", r"\[")
