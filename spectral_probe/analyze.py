"""The one wiring point: model + data set → Grams → profile → run folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from platformdirs import user_cache_dir
from torch import nn
from tqdm import tqdm

from spectral_probe import plots
from spectral_probe.backbones import HFDecoder, LayeredModel
from spectral_probe.capture import capture
from spectral_probe.controls import random_weights, shuffle_history
from spectral_probe.errors import ConfigError, ResourceError
from spectral_probe.graph import ItemGraph
from spectral_probe.interactions import Dataset, ProbeSequences, probe_sequences
from spectral_probe.layer_grams import LayerGrams
from spectral_probe.options import AnalysisOptions
from spectral_probe.profile import DecayProfile
from spectral_probe.resolve import give_inputs, resolve_dataset, resolve_model, revision_of
from spectral_probe.runs import RunFolder, disk_errors
from spectral_probe.treatments import MAIN, measure

logger = logging.getLogger("spectral_probe")


def analyze(
    model: str | nn.Module | LayeredModel,
    dataset: str | Dataset | pd.DataFrame,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    from_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    **options: Any,
) -> DecayProfile:
    """Measure what the layers of a model keep of the collaborative signal in its inputs.

    Parameters
    ----------
    model : str, nn.Module or LayeredModel
        A plug-in (``"sasrec"``), an alias, a local folder or hub repository; a Hugging Face decoder; or any object
        that meets :class:`spectral_probe.backbones.LayeredModel`.
    dataset : str, Dataset or DataFrame
        See :func:`spectral_probe.resolve.resolve_dataset`.
    out : path, optional
        Folder in which a run folder is made. Without it nothing is written.
    resume : bool
        Go on with the newest unfinished run in ``out`` that has the same configuration, if there is one.
    from_dir : path, optional
        Where the raw files of a named data set lie.
    progress : bool
        Show progress bars on stderr.
    **options
        Fields of :class:`spectral_probe.options.AnalysisOptions`.

    Raises
    ------
    SpectralProbeError
        One of the family in :mod:`spectral_probe.errors`, with what failed, the value seen and the next step.
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
    """A profile and, if it was written, its run."""

    profile: DecayProfile
    run: RunFolder | None


def run_analysis(
    model: str | nn.Module | LayeredModel,
    dataset: str | Dataset | pd.DataFrame,
    options: AnalysisOptions,
    *,
    out: Path | None,
    resume: bool = False,
    from_dir: Path | None = None,
    progress: bool = False,
) -> Analysis:
    """Do the work of :func:`analyze` and say where the run lies."""
    data = resolve_dataset(dataset, from_dir)
    layered = resolve_model(model, data, options)
    inputs = give_inputs(layered, data, options)
    labels = {
        "model": layered.name,
        "revision": revision_of(layered),
        "dataset": data.name,
        "inputs": inputs,
        "own_user": options.own_user,
    }
    config = {
        "model": model if isinstance(model, str) else layered.name,
        **{name: labels[name] for name in ("revision", "inputs")},
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint(),
        "options": options.to_dict(),
    }
    run = _run_folder(out, layered.name, data.name, config, resume)
    with _log_to(run):
        logger.info("model %s (%s), data set %s, inputs %s", layered.name, labels["revision"], data.name, inputs)
        graph = ItemGraph.from_interactions(data.train.user_items)
        if run is not None:
            with disk_errors(run.path):
                run.save_graph(graph)
        captures = _capture_all(layered, data, options, run, resume=resume, progress=progress)
        profile = measure(captures, graph, options, labels, cache_dir=cache_dir() / "heat")
        profile = _with_users(profile, captures[MAIN], data)
        profile = replace(profile, protocol={**config, **profile.protocol})
        _write(run, profile)
        logger.info("verdict: %s", profile.verdict)
    return Analysis(profile, run)


def reanalyze(path: Path, changes: dict[str, Any], *, out: Path | None = None) -> Analysis:
    """Analyse the saved Grams of a run again with other options; no model and no data set needed.

    Parameters
    ----------
    path : Path
        A run folder.
    changes : dict
        Options that differ from the run's own. Those that the Grams depend on cannot change.
    out : Path, optional
        Folder in which the new run is made; it points to the old one for its Grams.

    Raises
    ------
    ConfigError
        If a change needs the model.
    DataError
        If the run or its Grams cannot be read.
    """
    source = RunFolder.open(path).grams_run()
    stored = source.config()
    before = AnalysisOptions.from_mapping(stored["options"])
    options = AnalysisOptions.from_mapping({**before.to_dict(), **changes})
    captures = source.load_captures()
    _refuse_new_captures(before, options, captures)
    graph = source.load_graph()
    config = {**stored, "options": options.to_dict(), "grams_from": source.path.name}
    labels = {
        "model": captures[MAIN].settings["model"],
        **{name: stored[name] for name in ("revision", "dataset", "inputs")},
        "own_user": options.own_user,
    }
    run = _run_folder(out, labels["model"], labels["dataset"], config, resume=False)
    with _log_to(run):
        profile = measure(captures, graph, options, labels, cache_dir=cache_dir() / "heat")
        profile = replace(profile, protocol={**config, **profile.protocol})
        if run is not None:
            run.write_state("running", grams_from=os.path.relpath(source.path, run.path))
        _write(run, profile)
    return Analysis(profile, run)


def cache_dir() -> Path:
    """Return where results that depend on data alone are kept: ``SPECTRAL_PROBE_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("SPECTRAL_PROBE_CACHE") or user_cache_dir("spectral-probe"))


def write_overlay(out: Path, profiles: Sequence[DecayProfile]) -> Path:
    """Draw several profiles on one axis, with the table of all, in a new folder under ``out``; return the folder."""
    names = "+".join(str(profile.table["model"].iloc[0]) for profile in profiles)
    config = {"compared": [profile.protocol for profile in profiles]}
    run = RunFolder.create(out, model=names, dataset=str(profiles[0].table["dataset"].iloc[0]), config=config)
    with disk_errors(run.path):
        pd.concat([profile.to_frame() for profile in profiles]).to_csv(run.path / "bands.csv", index=False)
    write_figure(run.path, profiles)
    run.finish()
    return run.path


def write_figure(folder: Path, profiles: Sequence[DecayProfile]) -> None:
    """Write ``figures/decay.{png,pdf,csv}`` of one or several profiles under ``folder``."""
    tables = [profile.to_frame() for profile in profiles]
    null = next((profile.null for profile in profiles if profile.null is not None), "swap")
    figure = plots.decay_figure(tables, null=null)
    with disk_errors(folder):
        plots.save_figure(figure, folder / "figures" / "decay", pd.concat(tables, ignore_index=True))


def _run_folder(out: Path | None, model: str, dataset: str, config: dict[str, Any], resume: bool) -> RunFolder | None:
    if out is None:
        return None
    if resume:
        found = RunFolder.newest_unfinished(out, config)
        if found is not None:
            logger.info("going on with %s", found.path)
            return found
    return RunFolder.create(out, model=model, dataset=dataset, config=config)


def _write(run: RunFolder | None, profile: DecayProfile) -> None:
    if run is None:
        return
    run.save_profile(profile)
    write_figure(run.path, [profile])
    run.finish()


def _capture_all(
    model: LayeredModel,
    dataset: Dataset,
    options: AnalysisOptions,
    run: RunFolder | None,
    *,
    resume: bool,
    progress: bool,
) -> dict[str, LayerGrams]:
    """Run the model once for the headline and once more for each control that needs it."""
    probe = probe_sequences(
        dataset, part=options.sequence, max_length=options.max_length, max_users=options.users, seed=options.seed
    )
    tasks: list[tuple[str, Callable[[], LayeredModel], ProbeSequences, Any]] = [(MAIN, lambda: model, probe, None)]
    if "random-weights" in options.controls:
        tasks.append(("random-weights", lambda: random_weights(model, seed=options.seed), probe, None))
    if "shuffled-history" in options.controls:
        tasks.append(("shuffled-history", lambda: model, shuffle_history(probe, seed=options.seed), None))
    if options.preset == "paper":
        whole = probe_sequences(
            dataset, part="full", max_length=options.max_length, max_users=options.users, seed=options.seed
        )
        tasks.append(("paper", lambda: model, whole, _published_state_norm(model)))
    _check_memory(len(probe), probe.inputs.shape[1], len(model.layers()), len(tasks))
    captures = {}
    for name, make, sequences, state_norm in tasks:
        with tqdm(
            total=len(sequences), desc=f"{model.name}: {name}", unit=" users", disable=not progress, delay=2
        ) as bar:

            def advance(done: int, _total: int, bar: Any = bar) -> None:
                bar.update(done - bar.n)

            captures[name] = capture(
                make(),
                sequences.inputs,
                sequences.lengths,
                targets=sequences.targets,
                users=sequences.users,
                batch_size=options.batch_size,
                state_norm=state_norm,
                prefixes=options.prefixes,
                layers=options.layers,
                out=None if run is None else run.grams_path(name),
                resume=resume and run is not None and run.grams_path(name).exists(),
                progress=advance,
            )
    return captures


def _published_state_norm(model: LayeredModel) -> str | None:
    """The authors apply SASRec's final norm to every state, and take a language model's as they come."""
    has_final_norm = any(state == "final_norm" for _, state, _ in model.layers())
    return "final" if has_final_norm and not isinstance(model, HFDecoder) else None


def _refuse_new_captures(before: AnalysisOptions, after: AnalysisOptions, captures: dict[str, LayerGrams]) -> None:
    fixed = ("inputs", "embeddings", "sequence", "max_length", "users", "layers", "batch_size", "device", "dtype")
    for name in fixed:
        if getattr(before, name) != getattr(after, name):
            raise ConfigError(
                f"{name} is {getattr(before, name)!r} in the saved Grams and cannot become {getattr(after, name)!r} "
                "without the model. Run the analysis again with --model and --dataset."
            )
    wanted = {"paper"} if after.preset == "paper" else set()
    wanted |= {name for name in after.controls if name in ("random-weights", "shuffled-history")}
    missing = sorted(wanted - captures.keys())
    if missing:
        raise ConfigError(
            f"{missing} need the model again; the run holds Grams of {sorted(captures)} only. "
            "Run the analysis again with --model and --dataset."
        )


def _check_memory(n: int, T: int, n_layers: int, n_captures: int) -> None:
    """Refuse before the model runs, not after, if the Grams and what is made of them cannot fit."""
    needed = n * T * T * 4 * n_layers * n_captures + 6 * n * T * T * 8
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    if memory is not None and needed > 0.8 * memory:
        raise ResourceError(
            f"{n} users of up to {T} targets at {n_layers} layers need about {needed / 2**30:.0f} GiB for their Grams; "
            f"this machine has {memory / 2**30:.0f} GiB. Draw fewer users (--users), or a shorter --max-length."
        )


def _with_users(profile: DecayProfile, grams: LayerGrams, dataset: Dataset) -> DecayProfile:
    """Name the users in the per-user table, and say so if they are a draw."""
    assert grams.users is not None
    labels = dataset.user_ids[grams.users[profile.per_user["sequence"].to_numpy()]]
    table = profile.per_user.copy()
    table.insert(0, "user_id", labels)
    n_probeable = sum(len(sequence) >= 3 for sequence in dataset.sequences)
    caveats = profile.caveats + (("truncated-users",) if len(grams) < n_probeable else ())
    return replace(profile, per_user=table, caveats=caveats)


@contextmanager
def _log_to(run: RunFolder | None) -> Iterator[None]:
    """Write the log of this analysis to ``log.txt`` in its run folder."""
    if run is None:
        yield
        return
    handler = logging.FileHandler(run.path / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
