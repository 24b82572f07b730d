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
from spectral_probe.analysis.exchanged_items import ENTRY, embed_sd, exchange_items, item_vectors
from spectral_probe.analysis.measurable import check_measurable, n_drawable, probe_of, truncated
from spectral_probe.analysis.measure import measure
from spectral_probe.analysis.model import GivenInputs, give_inputs, resolve_model, revision_of
from spectral_probe.analysis.options import MAIN, AnalysisOptions
from spectral_probe.analysis.origin import origin_of
from spectral_probe.analysis.requests import check_options
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
from spectral_probe.report.origin import flat
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.runs.folder import try_root
from spectral_probe.runs.references import ANALYSIS
from spectral_probe.storage.atomic import disk_errors
from spectral_probe.storage.cache import cache_root
from spectral_probe.storage.hashing import settings_hash

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
    resume: bool | AnalysisRun = False,
    from_dir: Path | None = None,
    progress: bool | None = False,
    figure_width: int = DEFAULT_WIDTH,
    run_name: str = "",
) -> Analysis:
    """Do the work of :func:`analyze`; return the profile with its run, which gets a name if there is one.

    With a run as ``resume`` that one is finished, if it began with the same configuration; a finished one is measured
    again, and only its missing or damaged shards are captured anew.
    """
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
    begun = _begun(out, config, resume)
    if isinstance(begun, Analysis):
        return begun
    run = begun or run_folder(out, layered.name, data.name, config)
    facts = _request(model, dataset, from_dir) | _noted(layered, inputs) | ({"name": run_name} if run_name else {})
    facts |= {"n_drawable": n_drawable(data)}
    with nullcontext() if run is None else run.at_work(logger, "An analysis", **facts):
        logger.info("model %s (%s), data set %s, inputs %s", layered.name, labels["revision"], data.name, inputs.name)
        stage("graph")
        graph = ItemGraph.from_interactions(data.train.user_items)
        _save_data(run, data, graph)
        vectors = item_vectors(layered) if "exchanged-items" in options.controls else None
        captures = run_captures(tasks, options, graph.item_counts, run, resume=bool(resume), progress=progress)
        cache_dir = cache_root() / "heat"
        if vectors is not None and captures[MAIN].is_causal:
            stage("analysis: exchanged-items")
            exchanged = exchange_items(vectors, captures[MAIN], graph, options, cache_dir=cache_dir)
            config[ENTRY] = exchanged.to_dict()
        stage("analysis")
        profile = measure(captures, graph, options, labels, cache_dir=cache_dir, embed_sd=embed_sd(config))
        profile = _with_users(profile, captures, data, options)
        if inputs.is_by_position:
            profile = replace(profile, caveats=(*profile.caveats, BY_POSITION))
        source = Captured(captures[MAIN], graph) if run is None else run.path
        profile = replace(profile, protocol={**config, **profile.protocol}, source=source)
        if run is not None:
            stage("figures and report")
            write_results(run, profile, origin_of(run), figure_width=figure_width)
        logger.info("verdict: %s", profile.verdict)
    return Analysis(profile, run)


def _noted(layered: LayeredModel, inputs: GivenInputs) -> dict[str, Any]:
    """Return what ``run.json`` holds of weights that were left out, and of vectors without ids."""
    left_over = list(getattr(layered, "left_over", ()))
    noted: dict[str, Any] = {"left_over": left_over} if left_over else {}
    return noted | ({"vectors_by_position": True} if inputs.is_by_position else {})


def _save_data(run: AnalysisRun | None, data: Dataset, graph: ItemGraph) -> None:
    """Write the graph, the users and the items into a run folder, if there is one."""
    if run is not None:
        with disk_errors(run.path):
            run.save_graph(graph, data.user_ids)
            run.save_items(data.item_ids, data.item_titles)


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


def named_users(per_user: pd.DataFrame, names: pd.Series[Any]) -> pd.DataFrame:
    """Return a per-user table with the column ``user_id`` in front, from the names by sequence."""
    table = per_user.copy()
    table.insert(0, "user_id", table["sequence"].map(names).astype("string"))
    return table


def _begun(out: Path | None, config: dict[str, Any], resume: bool | AnalysisRun) -> AnalysisRun | Analysis | None:
    """Return the run to go on with, a finished one with its results, or None if a new one is to be made.

    Nothing is written: the status of a run changes once its work begins.
    """
    if isinstance(resume, AnalysisRun):
        _check_same(resume, config)
        return resume
    if not resume or out is None:
        return None
    if (run := AnalysisRun.newest_unfinished(out, config)) is not None:
        logger.info("resuming %s", run.path)
        return run
    if (run := AnalysisRun.newest_finished(out, config)) is not None:
        try:
            profile = DecayProfile.load(run.path)
        except DataError as error:
            text = "%s is finished, but its results cannot be read (%s); they are computed again."
            logger.warning(text, run.path, error)
            return run
        logger.warning("%s is finished already; nothing is computed again.", run.path)
        return Analysis(profile, run)
    logger.warning(
        "--resume: %s holds no unfinished run of %s on %s with these options; a new one is begun.",
        *(out, config["model"], config["dataset"]),
    )
    return None


def _check_same(run: AnalysisRun, config: dict[str, Any]) -> None:
    """Raise ConfigError unless a run began with this configuration."""
    if settings_hash(config) == run.state()["config_hash"]:
        return
    before, now = (dict(flat(settings)) for settings in (run.config(), config))
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    raise ConfigError(
        f"{run.path} is finished with what it began with; {', '.join(changed) or 'its configuration'} would change. "
        "Restore the model and the data set as they were, or begin a new run with --model and --dataset."
    )


def run_folder(out: Path | None, model: str, dataset: str, config: dict[str, Any]) -> AnalysisRun | None:
    """Return a new folder to write into; None without ``out``."""
    if out is None:
        return None
    return AnalysisRun.create(out, kind=ANALYSIS, model=model, dataset=dataset, config=config)


def with_published_users(
    profile: DecayProfile, captures: dict[str, LayerGrams], names: npt.NDArray[Any]
) -> DecayProfile:
    """Add the column ``user_id`` to the per-user table of the published curve, if there is one."""
    if "paper" not in profile.controls or (users := captures["paper"].users) is None:
        return profile
    paper = profile.controls["paper"]
    named = named_users(paper.per_user, pd.Series(names[users], index=np.arange(len(users))))
    return replace(profile, controls={**profile.controls, "paper": replace(paper, per_user=named)})


def _with_users(
    profile: DecayProfile, captures: dict[str, LayerGrams], dataset: Dataset, options: AnalysisOptions
) -> DecayProfile:
    """Add the column ``user_id`` to the per-user tables, and a caveat if only a draw of the users is probed."""
    grams = captures[MAIN]
    assert grams.users is not None
    labels = dataset.user_ids[grams.users[profile.per_user["sequence"].to_numpy()]]
    table = profile.per_user.copy()
    table.insert(0, "user_id", labels)
    caveats = profile.caveats + truncated(options, n_drawable(dataset))
    return with_published_users(replace(profile, per_user=table, caveats=caveats), captures, dataset.user_ids)
