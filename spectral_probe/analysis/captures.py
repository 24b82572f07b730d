"""The captures of an analysis: one for the headline, and one for each control that runs the model again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from spectral_probe.analysis.controls import random_weights, redrawn_weights, shuffle_history
from spectral_probe.analysis.exchanged_items import item_vectors
from spectral_probe.analysis.measurable import probe_of
from spectral_probe.analysis.options import CAPTURED_CONTROLS, MAIN, AnalysisOptions
from spectral_probe.analysis.split_graph import capture_name, user_halves
from spectral_probe.backbones import HFDecoder, LayeredModel
from spectral_probe.errors import ConfigError, ResourceError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.sequences import ProbeSequences
from spectral_probe.progress import counted
from spectral_probe.recording.capture import capture, selected_layers
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.types import IntArray

#: Arrays of the size of one Gram per user, in float64, that are computed from the Grams, at most.
N_ARRAYS = 12


@dataclass(frozen=True)
class CaptureTask:
    """One run of a model over the users; ``model`` builds the model when the task runs."""

    name: str
    model: Callable[[], LayeredModel]
    sequences: ProbeSequences
    state_norm: Literal["final"] | None = None
    has_pilot: bool = True


def plan_captures(model: LayeredModel, dataset: Dataset, options: AnalysisOptions) -> list[CaptureTask]:
    """Return one task for the headline and one for each control that runs the model again.

    Their names: ``main``, and ``random-weights``, ``shuffled-history``, ``paper`` and, for a model with a graph of its
    own, ``split-graph-1`` and ``split-graph-2`` if the options ask for them.

    Raises
    ------
    ConfigError
        If a control cannot be run on this model, or it has no layer of a name.
    DataError
        If no user can be probed.
    ResourceError
        If the Grams do not fit into this machine's memory; raised before the model runs.
    """
    probe = probe_of(dataset, options)
    check_captures(model, probe, options)
    tasks = [CaptureTask(MAIN, lambda: model, probe)]
    if "random-weights" in options.controls:
        tasks.append(CaptureTask("random-weights", lambda: random_weights(model, seed=options.seed), probe))
    if "shuffled-history" in options.controls:
        tasks.append(CaptureTask("shuffled-history", lambda: model, shuffle_history(probe, seed=options.seed)))
    if options.preset == "paper":
        tasks.append(
            CaptureTask(
                "paper",
                lambda: model,
                probe_of(dataset, options, "full"),
                _published_state_norm(model),
                has_pilot=False,
            )
        )
    if "split-graph" in options.controls and getattr(model, "has_graph", False):
        on_graph: Callable[..., LayeredModel] = model.on_graph  # type: ignore[attr-defined]
        for half, other in enumerate(reversed(user_halves(dataset.train.user_items, options.seed))):
            tasks.append(CaptureTask(capture_name(half), partial(on_graph, other, dataset.train.user_items), probe))
    return tasks


def check_captures(model: LayeredModel, probe: ProbeSequences, options: AnalysisOptions) -> None:
    """Refuse layers that a model does not have, controls that it cannot be run for, and Grams that do not fit.

    Raises
    ------
    ConfigError, ResourceError
        See :func:`plan_captures`.
    """
    layers = model.layers()
    recorded = selected_layers(
        model.name, [name for name, _, _ in layers], [state for _, state, _ in layers], options.layers
    )
    if "random-weights" in options.controls:
        if getattr(model, "is_spread", False) or getattr(model, "quantization", None) is not None:
            raise ConfigError(
                f"random-weights copies the model, and {model.name!r} is spread over devices or quantised. Leave out "
                "the control, or load the model without device_map and quantize."
            )
        redrawn_weights(model)
    if "exchanged-items" in options.controls:
        item_vectors(model)
    names = capture_names(options, has_graph=getattr(model, "has_graph", False))
    check_memory(len(probe), probe.inputs.shape[1], len(recorded), len(names) + n_treated(names))


def capture_names(options: AnalysisOptions, *, has_graph: bool = False) -> list[str]:
    """Return the names of the captures that :func:`plan_captures` plans for a model with or without its own graph."""
    names = [MAIN, *(name for name in CAPTURED_CONTROLS if name in options.controls)]
    names += ["paper"] if options.preset == "paper" else []
    return names + ([capture_name(0), capture_name(1)] if has_graph and "split-graph" in options.controls else [])


def n_treated(names: Sequence[str]) -> int:
    """Return how many of these captures have Grams of treated states too."""
    return sum(name != "paper" for name in names)


def run_captures(
    tasks: Sequence[CaptureTask],
    options: AnalysisOptions,
    item_counts: IntArray,
    run: AnalysisRun | None,
    *,
    resume: bool,
    progress: bool | None,
) -> dict[str, LayerGrams]:
    """Run every task and return the Grams by name; shards are written if there is a run folder."""
    return {task.name: _capture(task, options, item_counts, run, resume=resume, progress=progress) for task in tasks}


def _capture(
    task: CaptureTask,
    options: AnalysisOptions,
    item_counts: IntArray,
    run: AnalysisRun | None,
    *,
    resume: bool,
    progress: bool | None,
) -> LayerGrams:
    model, sequences = task.model(), task.sequences
    folder = None if run is None else run.grams_path(task.name)
    name = model.name if task.name == MAIN else f"{model.name}, {task.name}"
    with counted(name, len(sequences), unit="users", bar=progress) as advance:
        return capture(
            model,
            sequences.inputs,
            sequences.lengths,
            targets=sequences.targets,
            users=sequences.users,
            item_counts=item_counts if task.has_pilot else None,
            seed=options.seed,
            batch_size=options.batch_size,
            state_norm=task.state_norm,
            prefixes=options.prefixes,
            layers=options.layers,
            out=folder,
            resume=resume and folder is not None and (folder / "manifest.json").exists(),
            progress=lambda done, _: advance(done, ""),
        )


def _published_state_norm(model: LayeredModel) -> Literal["final"] | None:
    """Return "final" for a recommender: the authors apply SASRec's final norm to every state, but no LLM's."""
    has_final_norm = any(state == "final_norm" for _, state, _ in model.layers())
    return "final" if has_final_norm and not isinstance(model, HFDecoder) else None


def check_memory(n: int, T: int, n_layers: int, n_kinds: int) -> None:
    """Raise ResourceError before the model runs if the Grams and the arrays computed from them do not fit."""
    needed = n * T * T * 4 * n_layers * n_kinds + analysis_bytes(n, T)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    if memory is not None and needed > 0.8 * memory:
        raise ResourceError(
            f"Grams of {n} users with up to {T} targets at {n_layers} layers need about {needed / 2**30:.0f} GiB; this "
            f"machine has {memory / 2**30:.0f} GiB. Use fewer users (--users) or a shorter --max-length."
        )


def analysis_bytes(n: int, T: int) -> int:
    """Return the bytes of the bases and energies of n users with T targets, at most."""
    return N_ARRAYS * 8 * n * T**2
