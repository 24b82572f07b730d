"""Run an analysis: model + data set → Grams → profile → run folder."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from spectral_probe.analysis.captures import plan_captures, run_captures
from spectral_probe.analysis.exchanged_items import TOLERATED_SD, exchange_items, item_vectors
from spectral_probe.analysis.measurable import check_measurable, probe_of
from spectral_probe.analysis.measure import measure
from spectral_probe.analysis.model import give_inputs, resolve_model, revision_of
from spectral_probe.analysis.options import CAPTURE_OPTIONS, CAPTURED_CONTROLS, MAIN, VECTOR_CONTROLS, AnalysisOptions
from spectral_probe.analysis.origin import origin_of
from spectral_probe.analysis.requests import check_options
from spectral_probe.analysis.saved_options import saved_config
from spectral_probe.analysis.split_graph import capture_name
from spectral_probe.backbones import LayeredModel
from spectral_probe.backbones.protocol import check_has_layers
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.figure_style import DEFAULT_WIDTH
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.shown import Captured
from spectral_probe.progress import stage
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.report.folder import write_results
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.folder import try_root
from spectral_probe.runs.references import ANALYSIS
from spectral_probe.storage.atomic import disk_errors
from spectral_probe.storage.cache import cache_root

logger = logging.getLogger("spectral_probe")
#: Caveat of a run whose item vectors came without ids.
BY_POSITION = "vectors-by-position"


def analyze(
    model: str | nn.Module | LayeredModel,
    dataset: str | Dataset | pd.DataFrame,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    from_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> DecayProfile:
    """Measure how much of the taste, and of the popularity, in a model's inputs its layers carry.

    Parameters
    ----------
    model : str, nn.Module or LayeredModel
        The name of a plug-in (``"sasrec"``), an alias, a local folder (a Hugging Face model, a saved recommender or a
        training run) or a hub repository; a Hugging Face decoder; or any object with the interface of
        :class:`spectral_probe.backbones.LayeredModel`.
    dataset : str, Dataset or DataFrame
        See :func:`spectral_probe.plugins.datasets.resolve_dataset`.
    out : path, optional
        Folder for the new run folder. Without it nothing is written.
    resume : bool
        Resume the newest unfinished run in ``out`` with the same configuration. If there is none, the finished one is
        returned as it is; if there is neither, a new one is begun, with a warning.
    from_dir : path, optional
        Folder with the raw files of a named data set.
    progress : bool, optional
        Show progress bars; default: only in a notebook.
    **options
        Fields of :class:`spectral_probe.analysis.options.AnalysisOptions`.

    Raises
    ------
    SpectralProbeError
        A subclass in :mod:`spectral_probe.errors`; the message has the cause, the value received and the next step.
    """
    return run_analysis(
        model,
        dataset,
        AnalysisOptions.from_mapping(options),
        out=None if out is None else Path(out),
        resume=resume,
        from_dir=None if from_dir is None else Path(from_dir),
        progress=progress,
    ).profile


@dataclass(frozen=True)
class Analysis:
    """A profile, and its run if it was written."""

    profile: DecayProfile
    run: AnalysisRun | None


def run_analysis(
    model: str | nn.Module | LayeredModel,
    dataset: str | Dataset | pd.DataFrame,
    options: AnalysisOptions,
    *,
    out: Path | None,
    resume: bool = False,
    from_dir: Path | None = None,
    progress: bool | None = False,
    figure_width: int = DEFAULT_WIDTH,
    run_name: str = "",
) -> Analysis:
    """Do the work of :func:`analyze`; return the profile with its run, which gets a name if there is one."""
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    dataset = os.fspath(dataset) if isinstance(dataset, os.PathLike) else dataset
    if out is not None:
        try_root(out)
    stage(f"data {dataset}" if isinstance(dataset, str) else "data")
    data = resolve_dataset(dataset, from_dir)
    check_options(model, options)
    check_measurable(probe_of(data, options), data.train.user_items, options)
    stage(f"model {model}" if isinstance(model, str) else "model")
    layered = resolve_model(model, data, options)
    check_has_layers(layered)
    stage("item vectors")
    inputs = give_inputs(layered, data, options)
    labels, config = _identity(layered, data, options, inputs.name)
    tasks = plan_captures(layered, data, options)
    if resume and out is not None and (finished := _finished(out, config)) is not None:
        return finished
    run = _run_folder(out, layered.name, data.name, config, resume)
    facts = {**_request(model, dataset, from_dir), **({"name": run_name} if run_name else {})}
    with nullcontext() if run is None else run.at_work(logger, "An analysis", **facts):
        if run is not None and (left_over := getattr(layered, "left_over", ())):
            run.write_state("running", left_over=list(left_over))
        if run is not None and inputs.is_by_position:
            run.write_state("running", vectors_by_position=True)
        logger.info("model %s (%s), data set %s, inputs %s", layered.name, labels["revision"], data.name, inputs.name)
        stage("graph")
        graph = ItemGraph.from_interactions(data.train.user_items)
        if run is not None:
            with disk_errors(run.path):
                run.save_graph(graph, data.user_ids)
                run.save_items(data.item_ids, data.item_titles)
        # Asked for before the model runs: a model without them is refused at once.
        vectors = item_vectors(layered) if "exchanged-items" in options.controls else None
        captures = run_captures(tasks, options, graph.item_counts, run, resume=resume, progress=progress)
        cache_dir = cache_root() / "heat"
        exchanged = None
        if vectors is not None and captures[MAIN].is_causal:
            stage("analysis: exchanged-items")
            exchanged = exchange_items(vectors, captures[MAIN], graph, options, cache_dir=cache_dir)
        embed_sd = 1.0 if exchanged is None else exchanged.embed_sd
        stage("analysis")
        profile = measure(captures, graph, options, labels, cache_dir=cache_dir, embed_sd=embed_sd)
        profile = _with_users(profile, captures, data)
        if inputs.is_by_position:
            profile = replace(profile, caveats=(*profile.caveats, BY_POSITION))
        if exchanged is not None:
            config["exchanged_items"] = exchanged.to_dict()
        profile = replace(profile, protocol={**config, **profile.protocol})
        source = Captured(captures[MAIN], graph) if run is None else run.path
        profile = replace(profile, source=source)
        if run is not None:
            stage("figures and report")
            write_results(run, profile, origin_of(run), figure_width=figure_width)
        logger.info("verdict: %s", profile.verdict)
    return Analysis(profile, run)


def _identity(
    layered: LayeredModel, data: Dataset, options: AnalysisOptions, inputs: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the labels of the tables, and everything that the result depends on."""
    labels = {
        "model": layered.name,
        "revision": revision_of(layered),
        "dataset": data.name,
        "inputs": inputs,
        "own_user": options.own_user,
    }
    config = {
        **{name: labels[name] for name in ("model", "revision", "inputs", "dataset")},
        "dataset_fingerprint": data.fingerprint(),
        "hub_revision": getattr(layered, "hub_revision", None),
        "options": options.to_dict(),
    }
    if (number_format := getattr(layered, "number_format", None)) is not None:
        config["number_format"] = number_format  # named only where it applies: other configurations keep their hash
    return labels, config


def _request(model: Any, dataset: Any, from_dir: Path | None) -> dict[str, Any]:
    """Return what ``run.json`` holds of what was asked for by name."""
    if not isinstance(model, str) or not isinstance(dataset, str):
        return {}
    return {"request": {"model": model, "dataset": dataset, "from_dir": None if from_dir is None else str(from_dir)}}


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
    graph = source.load_graph()
    _check_users(source, captures, graph)
    config = {**stored, "options": options.to_dict(), "grams_from": source.path.name}
    labels = {
        **{name: stored[name] for name in ("model", "revision", "dataset", "inputs")},
        "own_user": options.own_user,
    }
    run = _run_folder(out, labels["model"], labels["dataset"], config, resume=False)
    facts = {} if run is None else {"grams_from": os.path.relpath(source.path, run.path)}
    facts |= {"name": run_name} if run_name else {}
    with nullcontext() if run is None else run.at_work(logger, "An analysis", **facts):
        stage("analysis")
        profile = measure(
            *(captures, graph, options, labels),
            cache_dir=cache_root() / "heat",
            embed_sd=_embed_sd(source) if "exchanged-items" in before.controls else 1.0,
        )
        profile = _like_source(profile, source, captures, graph.user_items.shape[0], before, options)
        unsaved = Captured(captures[MAIN], graph) if run is None else run.path
        profile = replace(profile, protocol={**config, **profile.protocol}, source=unsaved)
        if run is not None:
            stage("figures and report")
            write_results(run, profile, origin_of(run), figure_width=figure_width)
    return Analysis(profile, run)


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
        per_user = _named(per_user, pd.Series(names[users], index=np.arange(len(users))))
        profile = _with_published_users(profile, captures, names)
    if not (source.path / "summary.json").is_file():
        # The source was never measured: only the number of users that it asked for tells.
        n_known = 0 if names is None else len(names)
        caveats += ("truncated-users",) if before.users is not None and len(captures[MAIN]) < n_known else ()
    else:
        known = DecayProfile.load(source.path)
        # Of the caveats, only this one is about the probe and not about the measure.
        caveats += tuple(code for code in known.caveats if code == "truncated-users")
        if names is None and "user_id" in known.per_user:
            # An older run names the users on its own curve only.
            per_user = _named(per_user, known.per_user.drop_duplicates("sequence").set_index("sequence")["user_id"])
    return replace(profile, protocol=protocol, caveats=caveats, per_user=per_user)


def _named(per_user: pd.DataFrame, names: pd.Series[Any]) -> pd.DataFrame:
    """Return a per-user table with the column ``user_id`` in front, from the names by sequence."""
    table = per_user.copy()
    table.insert(0, "user_id", table["sequence"].map(names).astype("string"))
    return table


def _embed_sd(source: AnalysisRun) -> float:
    """Return what the test of ``embed`` divides by, from the control ``exchanged-items`` of a run."""
    stored = DecayProfile.load(source.path).protocol.get("exchanged_items", {})
    sd = float(stored.get("sd_z", 1.0))
    return sd if sd > TOLERATED_SD else 1.0


def _finished(out: Path, config: dict[str, Any]) -> Analysis | None:
    """Return the finished run of a configuration if there is no unfinished one; None if its results are damaged."""
    if AnalysisRun.newest_unfinished(out, config) is not None:
        return None
    run = AnalysisRun.newest_finished(out, config)
    if run is None:
        return None
    try:
        profile = DecayProfile.load(run.path)
    except DataError as error:
        logger.warning("%s is finished, but its results cannot be read (%s); they are computed again.", run.path, error)
        run.write_state("running")
        return None
    logger.warning("%s is finished already; nothing is computed again.", run.path)
    return Analysis(profile, run)


def _run_folder(out: Path | None, model: str, dataset: str, config: dict[str, Any], resume: bool) -> AnalysisRun | None:
    if out is None:
        return None
    if resume:
        run = AnalysisRun.newest_unfinished(out, config)
        if run is not None:
            logger.info("resuming %s", run.path)
            return run
        logger.warning(
            "--resume: %s holds no unfinished run of %s on %s with these options; a new one is begun.",
            *(out, model, dataset),
        )
    return AnalysisRun.create(out, kind=ANALYSIS, model=model, dataset=dataset, config=config)


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


def _with_published_users(
    profile: DecayProfile, captures: dict[str, LayerGrams], names: npt.NDArray[Any]
) -> DecayProfile:
    """Add the column ``user_id`` to the per-user table of the published curve, if there is one."""
    if "paper" not in profile.controls or (users := captures["paper"].users) is None:
        return profile
    paper = profile.controls["paper"]
    named = _named(paper.per_user, pd.Series(names[users], index=np.arange(len(users))))
    return replace(profile, controls={**profile.controls, "paper": replace(paper, per_user=named)})


def _with_users(profile: DecayProfile, captures: dict[str, LayerGrams], dataset: Dataset) -> DecayProfile:
    """Add the column ``user_id`` to the per-user tables, and a caveat if not all users are probed."""
    grams = captures[MAIN]
    assert grams.users is not None
    labels = dataset.user_ids[grams.users[profile.per_user["sequence"].to_numpy()]]
    table = profile.per_user.copy()
    table.insert(0, "user_id", labels)
    n_probeable = sum(len(sequence) >= 3 for sequence in dataset.sequences)
    caveats = profile.caveats + (("truncated-users",) if len(grams) < n_probeable else ())
    return _with_published_users(replace(profile, per_user=table, caveats=caveats), captures, dataset.user_ids)
