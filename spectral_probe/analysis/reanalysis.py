"""Analyse the saved Grams of a run again with other options, without model and data set."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spectral_probe.analysis.exchanged_items import embed_sd, entry_of
from spectral_probe.analysis.measurable import truncated
from spectral_probe.analysis.measure import measure
from spectral_probe.analysis.options import CAPTURE_OPTIONS, CAPTURED_CONTROLS, MAIN, VECTOR_CONTROLS, AnalysisOptions
from spectral_probe.analysis.origin import origin_of
from spectral_probe.analysis.pipeline import BY_POSITION, Analysis, named_users, run_folder, with_published_users
from spectral_probe.analysis.saved_options import saved_config
from spectral_probe.analysis.split_graph import capture_name
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.figure_style import DEFAULT_WIDTH
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.shown import Captured
from spectral_probe.progress import stage
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.report.folder import write_results
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.folder import try_root
from spectral_probe.storage.cache import cache_root

logger = logging.getLogger("spectral_probe")


def reanalyze(
    path: Path,
    changes: dict[str, Any],
    *,
    out: Path | None = None,
    figure_width: int = DEFAULT_WIDTH,
    run_name: str = "",
) -> Analysis:
    """Analyse the saved Grams of a run again with other options, without model and data set.

    Parameters
    ----------
    path : Path
        A run folder.
    changes : dict
        Options that differ from those of the run. :data:`CAPTURE_OPTIONS` cannot change.
    out : Path, optional
        Folder for the new run folder; its ``run.json`` names the old run, which has the Grams.
    figure_width : int
        85 or 178, in mm.
    run_name : str
        Name of the new run; without one it has none.

    Raises
    ------
    ConfigError
        If a change needs the model.
    DataError
        If the run or its Grams cannot be read.
    """
    source = AnalysisRun.open(path).grams_run()
    if out is not None:
        try_root(out)
    stored = saved_config(source)
    before = AnalysisOptions.from_saved(stored["options"])
    # The vectors of the items are not saved: this control is taken over from the source.
    controls = tuple(name for name in before.controls if name not in VECTOR_CONTROLS)
    options = AnalysisOptions.from_mapping({**before.to_dict(), "controls": controls, **changes})
    stage("saved Grams")
    captures = source.load_captures()
    _refuse_new_captures(before, options, captures)
    graph, exchanged = source.load_graph(), _exchanged(source, before, captures)
    _check_users(source, captures, graph)
    config = {**stored, "options": options.to_dict(), "grams_from": source.path.name}
    labels = {
        **{name: stored[name] for name in ("model", "revision", "dataset", "inputs")},
        "own_user": options.own_user,
    }
    run = run_folder(out, labels["model"], labels["dataset"], config)
    facts = {} if run is None else {"grams_from": os.path.relpath(source.path, run.path)}
    facts |= {"name": run_name} if run_name else {}
    with nullcontext() if run is None else run.at_work(logger, "An analysis", **facts):
        stage("analysis")
        profile = measure(
            *(captures, graph, options, labels),
            cache_dir=cache_root() / "heat",
            embed_sd=embed_sd(exchanged),
        )
        profile = _like_source(profile, source, captures, graph.user_items.shape[0], before, options)
        unsaved = Captured(captures[MAIN], graph) if run is None else run.path
        profile = replace(profile, protocol={**config, **exchanged, **profile.protocol}, source=unsaved)
        if run is not None:
            stage("figures and report")
            write_results(run, profile, origin_of(run), figure_width=figure_width)
    return Analysis(profile, run)


def _exchanged(source: AnalysisRun, before: AnalysisOptions, captures: dict[str, LayerGrams]) -> dict[str, Any]:
    """Return the entry of the control ``exchanged-items``; a line of the log says where it was never computed."""
    entry = entry_of(source)
    if not entry and "exchanged-items" in before.controls and MAIN in captures and captures[MAIN].is_causal:
        logger.warning(
            "%s was stopped before exchanged-items was computed, so the test of the input is not made stricter. "
            "Finish it first (spectral-probe analyze %s --resume), or read the verdict without this control.",
            *(source.path.name, source.path),
        )
    return entry


def _check_users(source: AnalysisRun, captures: dict[str, LayerGrams], graph: ItemGraph) -> None:
    """Raise DataError unless the users and items of saved Grams are those of the saved graph."""
    if MAIN not in captures:
        raise DataError(f"{source.path / 'grams'} has no folder {MAIN!r}. Run the analysis again from the model.")
    for name, grams in captures.items():
        for rows, n, what in (
            (grams.users, graph.user_items.shape[0], "users"),
            (grams.targets, graph.n_items, "items"),
            (grams.inputs, graph.n_items, "items"),
        ):
            if rows is None and what == "users":
                raise DataError(f"{source.path / 'grams' / name} does not name its users. Run the analysis again.")
            if rows is not None and (rows.max() >= n or (what == "users" and rows.min() < 0)):
                raise DataError(
                    f"{source.path / 'grams' / name} has {what} number {rows.min()}…{rows.max()}, and graph.npz of "
                    f"the same run has {n}. One of the two was exchanged; run the analysis again from the model."
                )


def _like_source(
    profile: DecayProfile,
    source: AnalysisRun,
    captures: dict[str, LayerGrams],
    n_users: int,
    before: AnalysisOptions,
    after: AnalysisOptions,
) -> DecayProfile:
    """Return a re-analysis with the user names and the caveats of its source, saying how it differs from it."""
    differing = {
        name: f"{old} → {new}"
        for name, new in after.to_dict().items()
        if (old := before.to_dict()[name]) != new and name != "controls"
    }
    protocol = {**profile.protocol, "differs_from_source": differing}
    by_position = (BY_POSITION,) if source.state().get("vectors_by_position") else ()
    caveats, per_user = (*profile.caveats, *by_position), profile.per_user
    users = captures[MAIN].users
    names = source.load_user_ids(n_users)
    if names is not None and users is not None:
        per_user = named_users(per_user, pd.Series(names[users], index=np.arange(len(users))))
        profile = with_published_users(profile, captures, names)
    # Of the caveats, only this one is about the probe and not about the measure. Older runs name no number: all users.
    caveats += truncated(before, source.state().get("n_drawable") or n_users)
    if names is None and (source.path / "summary.json").is_file():
        known = DecayProfile.load(source.path)
        if "user_id" in known.per_user:
            # An older run names the users on its own curve only.
            per_user = named_users(
                per_user, known.per_user.drop_duplicates("sequence").set_index("sequence")["user_id"]
            )
    return replace(profile, protocol=protocol, caveats=caveats, per_user=per_user)


def _refuse_new_captures(before: AnalysisOptions, after: AnalysisOptions, captures: dict[str, LayerGrams]) -> None:
    for name in CAPTURE_OPTIONS:
        if getattr(before, name) != getattr(after, name):
            raise ConfigError(
                f"{name} is {getattr(before, name)!r} in the saved Grams and cannot become {getattr(after, name)!r} "
                "without the model. Run the analysis again with --model and --dataset."
            )
    wanted = {"paper"} if after.preset == "paper" else set()
    wanted |= {name for name in after.controls if name in CAPTURED_CONTROLS}
    wanted |= {name for name in after.controls if name in VECTOR_CONTROLS}
    if "split-graph" in after.controls and captures[MAIN].settings.get("has_graph"):
        # The saved states went through the model's own graph, of all users.
        wanted |= {capture_name(half) for half in (0, 1)}
    missing = sorted(wanted - captures.keys())
    if missing:
        raise ConfigError(
            f"{missing} must run the model again; the run has Grams of {sorted(captures)} only. "
            "Run the analysis again with --model and --dataset."
        )
