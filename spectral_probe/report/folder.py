"""Write the output of an analysis into its run folder: tables, figures and report."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spectral_probe.comparison.comparison import ProfileComparison, name_of, with_distinct_names
from spectral_probe.figure_style import DEFAULT_WIDTH
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.heatmap_file import read_heatmap
from spectral_probe.report.html import write_report
from spectral_probe.report.origin import Origin
from spectral_probe.report.paper_figures import compared_figure, run_figures
from spectral_probe.report.words import verdict_in_short
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.references import COMPARISON
from spectral_probe.storage.atomic import disk_errors, write_csv, write_text

logger = logging.getLogger("spectral_probe")


def write_results(
    run: AnalysisRun, profile: DecayProfile, origin: Origin | None = None, *, figure_width: int = DEFAULT_WIDTH
) -> None:
    """Write all output of one analysis and mark its run as finished; the page says how it was made."""
    with disk_errors(run.path):
        profile.save(run.path)
        write_figures(run.path, [profile], width=figure_width)
        write_report(run.path, [profile], run.state().get("versions"), runs=[run], origins=[origin])
    run.finish(result=verdict_in_short(profile), n_users=profile.n_users)


def write_overlay(
    out: Path,
    profiles: Sequence[DecayProfile],
    comparisons: Sequence[ProfileComparison] | None = None,
    *,
    runs: Sequence[Path] = (),
    origins: Sequence[Origin | None] = (),
    figure_width: int = DEFAULT_WIDTH,
) -> AnalysisRun:
    """Write several profiles into a new run folder under ``out``: figures on one axis, a joint table and a report.

    With comparisons, their figure and ``comparison.json`` are written too. ``runs``, the folders of the profiles, are
    stored in ``run.json``, so that the settings and the model of each profile can be found. ``origins`` say how each
    profile was made. Figures are 85 or 178 mm wide.
    """
    profiles = with_distinct_names(profiles)
    names = "+".join(name_of(profile) for profile in profiles)
    config = {"compared": [profile.protocol for profile in profiles]}
    dataset = str(profiles[0].table["dataset"].iloc[0])
    run = AnalysisRun.create(out, kind=COMPARISON, model=names, dataset=dataset, config=config)
    compared = [AnalysisRun.open(path) for path in runs]
    facts = {"compared_runs": [os.path.relpath(path, run.path) for path in runs]} if runs else {}
    command = shlex.join(["spectral-probe", "compare", *(r.path.name for r in compared)])
    with run.at_work(logger, "A comparison", **facts), disk_errors(run.path):
        write_csv(run.path / "bands.csv", pd.concat([profile.to_frame() for profile in profiles]))
        write_figures(run.path, profiles, width=figure_width)
        if comparisons is not None:
            _write_comparisons(run.path, profiles, comparisons, figure_width)
        write_report(
            *(run.path, profiles, run.state().get("versions"), comparisons or ()),
            runs=compared,
            origins=origins,
            command=command if compared and comparisons is not None else "",
        )
        run.finish(result="; ".join(comparison.label for comparison in comparisons or ()))
    return run


def _write_comparisons(
    folder: Path, profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison], width: int
) -> None:
    numbers = json.dumps([comparison.to_dict() for comparison in comparisons], indent=2)
    write_text(folder / "comparison.json", numbers)
    compared_figure(profiles, comparisons, width=width).save(folder / "figures" / "comparison")


def write_figures(folder: Path, profiles: Sequence[DecayProfile], *, width: int = DEFAULT_WIDTH) -> None:
    """Write the figures of profiles into ``figures/``: png, pdf, svg, csv, caption (txt) and table (tex) of each.

    Profiles that were read back have no energies: their heat map is drawn from the numbers that lie beside it.
    """
    for name, figure in run_figures(
        profiles, width=width, maps=_saved_maps(folder / "figures" / "heatmap.csv")
    ).items():
        figure.save(folder / "figures" / name)


def _saved_maps(path: Path) -> dict[str, pd.DataFrame]:
    """Return the maps of a heat map that was written before, by model; none if it is not there or damaged."""
    table = read_heatmap(path)
    if table is None:
        return {}
    return {
        str(model): rows.drop(columns="model").set_index("layer") for model, rows in table.groupby("model", sort=False)
    }
