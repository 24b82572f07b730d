"""Write the output of an analysis into its run folder: tables, figures and report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spectral_probe.comparison.comparison import ProfileComparison, name_of, with_distinct_names
from spectral_probe.comparison.figure import comparison_figure, comparison_table
from spectral_probe.figure_style import save_figure
from spectral_probe.profiles.figures import decay_figure, heat_figure
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import frequency_table
from spectral_probe.report.html import write_report
from spectral_probe.report.words import verdict_in_short
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.references import COMPARISON
from spectral_probe.storage.atomic import disk_errors, write_csv, write_text


def write_results(run: AnalysisRun, profile: DecayProfile) -> None:
    """Write all output of one analysis and mark its run as finished."""
    with disk_errors(run.path):
        profile.save(run.path)
        write_figures(run.path, [profile])
        write_report(run.path, [profile], run.state().get("versions"))
    run.finish(result=verdict_in_short(profile), n_users=profile.n_users)


def write_overlay(
    out: Path,
    profiles: Sequence[DecayProfile],
    comparisons: Sequence[ProfileComparison] | None = None,
    *,
    runs: Sequence[Path] = (),
) -> AnalysisRun:
    """Write several profiles into a new run folder under ``out``: figures on one axis, a joint table and a report.

    With comparisons, their figure and ``comparison.json`` are written too. ``runs``, the folders of the profiles, are
    stored in ``run.json``, so that the settings and the model of each profile can be found.
    """
    profiles = with_distinct_names(profiles)
    names = "+".join(name_of(profile) for profile in profiles)
    config = {"compared": [profile.protocol for profile in profiles]}
    dataset = str(profiles[0].table["dataset"].iloc[0])
    run = AnalysisRun.create(out, kind=COMPARISON, model=names, dataset=dataset, config=config)
    with disk_errors(run.path):
        write_csv(run.path / "bands.csv", pd.concat([profile.to_frame() for profile in profiles]))
        write_figures(run.path, profiles)
        if comparisons is not None:
            _write_comparisons(run.path, profiles, comparisons)
        write_report(run.path, profiles, run.state().get("versions"), comparisons or ())
    if runs:
        run.write_state("running", compared_runs=[os.path.relpath(path, run.path) for path in runs])
    run.finish(result="; ".join(comparison.label for comparison in comparisons or ()))
    return run


def _write_comparisons(
    folder: Path, profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison]
) -> None:
    numbers = json.dumps([comparison.to_dict() for comparison in comparisons], indent=2)
    write_text(folder / "comparison.json", numbers)
    figure = comparison_figure(profiles, comparisons)
    save_figure(figure, folder / "figures" / "comparison", comparison_table(profiles, comparisons))


def write_figures(folder: Path, profiles: Sequence[DecayProfile]) -> None:
    """Write ``figures/decay`` and, for profiles with energies, ``figures/heatmap``: png, pdf and csv of each."""
    tables = [profile.to_frame() for profile in profiles]
    null = next((profile.null for profile in profiles if profile.null is not None), "swap")
    data = pd.concat(tables, ignore_index=True)
    foreseen = {name_of(profile): profile.foreseen for profile in profiles if profile.foreseen is not None}
    save_figure(decay_figure(tables, null=null, foreseen=foreseen), folder / "figures" / "decay", data)
    maps = {
        str(profile.table["model"].iloc[0]): frequency_table(profile.energy, null)
        for profile in profiles
        if profile.energy is not None and null in profile.energy.null_energy
    }
    if maps:
        data = pd.concat(maps, names=["model", "layer"]).reset_index()
        save_figure(heat_figure(maps, null=null), folder / "figures" / "heatmap", data)
