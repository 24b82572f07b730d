"""``spectral-probe compare``: what changes from one run to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spectral_probe.cli.flags import FigureWidth
from spectral_probe.errors import ConfigError


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Finished runs on one data set; the first is the base of the comparison.")
    ],
    out: Annotated[Path, typer.Option(help="Folder in which the comparison is made.")] = Path("runs"),
    figure_width: FigureWidth = 178,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON.")] = False,
) -> None:
    """Draw finished runs on one axis, and say what changes from the first to each other.

    A higher low-pass share may be more taste carried, or smoothing by construction: the report says which.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"A comparison needs at least two runs; got {runs[0]}. Give another one, or see it alone with "
            f"`spectral-probe report {runs[0]}`."
        )
    from spectral_probe.analysis.origin import origin_of
    from spectral_probe.cli.printing import print_comparison
    from spectral_probe.comparison.comparison import compare as compare_profiles
    from spectral_probe.comparison.comparison import with_distinct_names
    from spectral_probe.profiles.profile import DecayProfile
    from spectral_probe.report.folder import write_overlay
    from spectral_probe.runs.analysis_run import AnalysisRun

    opened = [AnalysisRun.open(path) for path in runs]
    profiles = with_distinct_names([DecayProfile.load(run.path) for run in opened])
    comparisons = compare_profiles(profiles)
    origins = [origin_of(run) for run in opened]
    overlay = write_overlay(out, profiles, comparisons, runs=runs, origins=origins, figure_width=figure_width)
    if not as_json:
        print_comparison(profiles, comparisons, overlay)
        return
    content = {
        "run": str(overlay.path),
        "summaries": [profile.summary() for profile in profiles],
        "comparisons": [comparison.to_dict() for comparison in comparisons],
    }
    typer.echo(json.dumps(content, indent=2))
