"""``spectral-probe compare``: what changes from one run to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import RUN, FigureWidth, examples
from spectral_probe.cli.json_output import AsJson, Fields, check_fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.errors import ConfigError
from spectral_probe.progress import stage
from spectral_probe.runs.references import ANALYSIS, ROOT, resolve_run

EXAMPLES = examples(
    "spectral-probe compare @-2 @last",
    "spectral-probe compare base full",
    "spectral-probe compare @-2 @last --fields comparisons",
)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN…",
            help="Finished runs on one data set; the first is the base.",
            autocompletion=complete_runs("analysis"),
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder in which the comparison is made.", rich_help_panel=RUN)
    ] = ROOT,
    figure_width: FigureWidth = 178,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Draw finished runs on one axis, and say what changes from the first to each other.

    A higher low-pass share may be more taste carried, or smoothing by construction: the report says which.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"A comparison needs two runs or more; got one: {runs[0]}. Name another beside it, or see it alone with "
            f"`spectral-probe report {runs[0]}`."
        )
    check_fields(fields, ("run", "summaries", "comparisons"))
    runs = [resolve_run(run, (ANALYSIS,)) for run in runs]
    with working(lines=False):
        from spectral_probe.analysis.origin import origin_of
        from spectral_probe.comparison.comparison import compare as compare_profiles
        from spectral_probe.comparison.comparison import with_distinct_names
        from spectral_probe.profiles.profile import DecayProfile
        from spectral_probe.report.folder import write_overlay
        from spectral_probe.runs.analysis_run import AnalysisRun

        stage("comparison")
        opened = [AnalysisRun.open(path) for path in runs]
        profiles = with_distinct_names([DecayProfile.load(run.path) for run in opened])
        comparisons = compare_profiles(profiles)
        stage("figures and report")
        origins = [origin_of(run) for run in opened]
        overlay = write_overlay(out, profiles, comparisons, runs=runs, origins=origins, figure_width=figure_width)
    if not (as_json or fields):
        from spectral_probe.cli.printing import print_comparison

        print_comparison(profiles, comparisons, overlay)
        return
    content = {
        "run": str(overlay.path),
        "summaries": [profile.summary() for profile in profiles],
        "comparisons": [comparison.to_dict() for comparison in comparisons],
    }
    print_json(content, fields, finished=[overlay.path])
