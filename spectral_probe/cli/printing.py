"""What the command line prints: the headline curve as a table, the verdict, and what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from spectral_probe.cli.tables import console_for_output
from spectral_probe.comparison.comparison import ProfileComparison
from spectral_probe.profiles.figures import select_curve
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.words import CAVEATS, QUANTITIES_IN_WORDS, verdict_in_words
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
        print("all models on one axis:")
        _print_paths(overlay)


def print_comparison(
    profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison], overlay: AnalysisRun
) -> None:
    """Print one line per profile, what changes from the first to each other, and where the figures lie."""
    for profile in profiles:
        print(verdict_in_words(profile))
    for comparison in comparisons:
        print_changes(comparison)
    print(f"comparison: {overlay.path / 'figures' / 'comparison.png'}")
    _print_paths(overlay)


def print_changes(comparison: ProfileComparison) -> None:
    """Print the changes at the last block as a table, and what they say."""
    console = console_for_output()
    if comparison.changes.at:
        table = Table(title=escape(f"{comparison.other} against {comparison.base}"))
        for column in ("quantity", "where", comparison.base, comparison.other, "change", "95 % CI"):
            table.add_column(escape(column), justify="left" if column in ("quantity", "where") else "right")
        for change in comparison.changes.in_short():
            difference = change.difference
            table.add_row(
                QUANTITIES_IN_WORDS[change.quantity],
                change.site,
                f"{change.base.value:+.4f}",
                f"{change.other.value:+.4f}",
                f"{difference.value:+.4f}",
                escape(f"[{difference.low:+.4f}, {difference.high:+.4f}]"),
            )
        console.print(table)
    console.print(comparison.words, highlight=False, markup=False)


def _print_paths(run: AnalysisRun) -> None:
    print(f"run: {run.path}")
    print(f"figure: {run.path / 'figures' / 'decay.png'}")
    print(f"report: {run.path / 'report.html'}")


def print_profile(profile: DecayProfile) -> None:
    """Print the headline curve of a profile."""
    curve = select_curve(profile.table, null=profile.null)
    first = curve.iloc[0]
    table = Table(title=f"{first['model']} on {first['dataset']}, inputs {first['inputs']}: low-pass share of energy")
    for column in ("layer", "share", "95 % CI", f"{first['null']} null", "excess", "95 % CI", "retention", "95 % CI"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for row in curve.to_dict("records"):
        table.add_row(
            str(row["layer_name"]),
            f"{row['share']:.4f}",
            _interval(row, "share", 4),
            f"{row['null_share']:.4f}",
            f"{row['excess']:+.4f}",
            _interval(row, "excess", 4),
            f"{row['retention']:.2f}",
            _interval(row, "retention", 2),
        )
    console = console_for_output()
    console.print(table)
    console.print(f"verdict: [bold]{profile.verdict}[/bold]", highlight=False)
    console.print(verdict_in_words(profile), highlight=False, markup=False)
    raw = profile.controls["raw"]
    console.print(
        f"users on the curve: {profile.n_users}; skipped: {profile.skipped}; verdict on raw states: {raw.verdict}",
        highlight=False,
        markup=False,
    )
    for name, control in profile.controls.items():
        if name not in ("raw", "paper") and control.retention is not None:
            console.print(
                f"control {name}: {control.verdict}, retention {control.retention}", highlight=False, markup=False
            )
    if "number_format" in profile.protocol:
        console.print(f"weights: {profile.protocol['number_format']}", highlight=False, markup=False)
    for code in profile.caveats:
        console.print(f"note [{code}]: {CAVEATS[code]}", highlight=False, markup=False)


def _interval(row: dict[Any, Any], name: str, digits: int) -> str:
    return f"[{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]".replace("[", r"\[")
