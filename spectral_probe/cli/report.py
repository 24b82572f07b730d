"""``spectral-probe report``: the page of a finished run, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import FigureWidth, examples
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say
from spectral_probe.progress import stage
from spectral_probe.runs.references import ANALYSIS, resolve_run

EXAMPLES = examples(
    "spectral-probe report @last", "spectral-probe report 20260501T1230", "spectral-probe report runs/my-run"
)


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A finished run.", autocompletion=complete_runs("analysis")),
    ],
    figure_width: FigureWidth = 178,
) -> None:
    """Write the figures and report.html of a finished run anew, and print where it lies."""
    run = resolve_run(run, (ANALYSIS,))
    with working(lines=False):
        from spectral_probe.analysis.origin import origin_of
        from spectral_probe.profiles.profile import DecayProfile
        from spectral_probe.report.folder import write_figures
        from spectral_probe.report.html import write_report
        from spectral_probe.runs.analysis_run import AnalysisRun
        from spectral_probe.storage.atomic import disk_errors
        from spectral_probe.storage.lock import only_process

        opened = AnalysisRun.open(run)
        profile = DecayProfile.load(opened.path)
        stage("figures and report")
        with disk_errors(opened.path), only_process(opened.path, "A report"):
            write_figures(opened.path, [profile], width=figure_width)
            versions = opened.state().get("versions")
            path = write_report(opened.path, [profile], versions, runs=[opened], origins=[origin_of(opened)])
    say(path)
