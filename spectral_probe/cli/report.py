"""``spectral-probe report``: the page of a finished run, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A finished run.")]) -> None:
    """Write the figures and report.html of a finished run anew, and print where it lies."""
    from spectral_probe.profiles.profile import DecayProfile
    from spectral_probe.report.folder import write_figures
    from spectral_probe.report.html import write_report
    from spectral_probe.runs.analysis_run import AnalysisRun
    from spectral_probe.storage.atomic import disk_errors

    opened = AnalysisRun.open(run)
    profile = DecayProfile.load(opened.path)
    with disk_errors(opened.path):
        write_figures(opened.path, [profile])
        typer.echo(write_report(opened.path, [profile], opened.state().get("versions")))
