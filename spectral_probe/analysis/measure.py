"""Compute profiles from Grams and a graph: the headline, the raw states, the controls, the published curve.

Nothing here runs a model, so all of it can be repeated on saved Grams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spectral_probe.analysis.options import LONG_HISTORY, MAIN, AnalysisOptions
from spectral_probe.analysis.published import RAW, _bases, published
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import spectral_energy

FEW_USERS = 200


def measure(
    captures: Mapping[str, LayerGrams],
    graph: ItemGraph,
    options: AnalysisOptions,
    labels: Mapping[str, str],
    *,
    cache_dir: Path | None = None,
) -> DecayProfile:
    """Return the headline profile with all its controls.

    Parameters
    ----------
    captures : {name: LayerGrams}
        ``main``, and one for each control that runs the model again.
    graph : ItemGraph
        Graph of the training interactions.
    options, labels
        See :class:`AnalysisOptions` and :meth:`DecayProfile.from_energy`.
    cache_dir : Path, optional
        See :func:`spectral_energy`.
    """
    main = captures[MAIN]
    bases = _bases(main, graph, options.own_user)

    def profile(
        grams: LayerGrams, on: GraphBases, control: str, null: str | None = options.null, **treatment: Any
    ) -> DecayProfile:
        energy = spectral_energy(
            grams,
            on,
            tau=options.tau,
            n_references=options.n_references,
            seed=options.seed,
            cache_dir=cache_dir,
            **{"min_targets": options.min_targets, **treatment},
        )
        return DecayProfile.from_energy(
            energy,
            bands=options.bands,
            null=None if grams.settings.get("leaky") else null,
            n_bootstrap=options.n_bootstrap,
            seed=options.seed,
            labels=labels,
            control=control,
        )

    headline = profile(main, bases, "none")
    controls = {"raw": profile(main, bases, "raw", **RAW)}
    for name in options.controls:
        if name == "normalized-rows":
            controls[name] = profile(main, bases, name, normalize_rows=True)
        elif name == "long-histories":
            controls[name] = profile(main, bases, name, min_targets=max(LONG_HISTORY, options.min_targets))
        elif name == "path-graph":
            # A graph that is the same for all users has no excess over swap by construction.
            path = GraphBases.path(main.lengths, main.grams.shape[-1])
            controls[name] = profile(main, path, name, null=None, nulls=("permutation", "cyclic"))
        elif name in captures:
            controls[name] = profile(captures[name], _bases(captures[name], graph, options.own_user), name)
    if "paper" in captures:
        controls["paper"] = published(captures["paper"], graph, options, labels)
    protocol = {**headline.protocol, "prefix_by_prefix": bool(main.settings.get("prefixes", False))}
    caveats = _caveats(headline, controls["raw"], main)
    return replace(headline, controls=controls, caveats=caveats, protocol=protocol)


def _caveats(headline: DecayProfile, raw: DecayProfile, grams: LayerGrams) -> tuple[str, ...]:
    note = str(grams.settings.get("note", ""))
    swap = headline.table[headline.table["null"] == "swap"]
    codes = {
        "raw-verdict-differs": raw.verdict.label != headline.verdict.label,
        "encoder-run-causally": "encoder" in note,
        "rounded-weights": "number_format" in grams.settings,
        "no-final-norm": "final_norm" not in grams.layer_states,
        "leaky": bool(grams.settings.get("leaky")),
        "few-users": headline.n_users < FEW_USERS,
        "no-swap-null": bool(np.any(swap["n_users"] < headline.n_users)),
        "random-weights-model": str(grams.settings.get("model", "")).startswith("tiny-random"),
    }
    return tuple(code for code, applies in codes.items() if applies)
