"""The published curve of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import spectral_energy

RAW: dict[str, Any] = {"drop_first": 0, "center": False}


def published(grams: LayerGrams, graph: ItemGraph, options: AnalysisOptions, labels: Mapping[str, str]) -> DecayProfile:
    """Return the curve as published in the paper (Figs 1a, 1b, 8).

    The user's own interactions stay in the graph, no position is dropped, the Gram is raw, the share is per decile by
    the authors' rule; no null, no verdict. For a language model the states are ``output_hidden_states``: the last entry
    is after the final norm and replaces the last block. If the final norm was applied to every state, as the authors do
    for SASRec, it has no separate entry.
    """
    states = list(grams.layer_states)
    left_out = -1
    if "final_norm" in states:
        is_normed = grams.settings.get("state_norm") == "final"
        left_out = states.index("final_norm") if is_normed else len(states) - 1 - states[::-1].index("block")
    layers = [layer for layer in range(len(states)) if layer != left_out]
    selected = replace(
        grams,
        grams=grams.grams[:, layers],
        layer_names=tuple(grams.layer_names[layer] for layer in layers),
        layer_states=tuple(grams.layer_states[layer] for layer in layers),
    )
    energy = spectral_energy(
        selected, _bases(selected, graph, "keep"), nulls=(), whole_tau=options.whole_tau, seed=options.seed, **RAW
    )
    return DecayProfile.from_energy(
        energy,
        bands="deciles",
        null=None,
        n_bootstrap=options.n_bootstrap,
        seed=options.seed,
        labels={**labels, "own_user": "keep"},
        control="paper",
    )


def _bases(grams: LayerGrams, graph: ItemGraph, own_user: Any) -> GraphBases:
    assert grams.targets is not None
    return graph.local_bases(grams.targets, grams.lengths, users=grams.users, own_user=own_user)
