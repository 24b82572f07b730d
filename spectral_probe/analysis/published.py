"""The published curve of the paper, and the raw states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import published_user_table
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from spectral_probe.spectrum.nodes import measured_lengths
from spectral_probe.types import IntArray

RAW: dict[str, Any] = {"drop_first": 0, "center": False}


def published(
    grams: LayerGrams,
    main: LayerGrams,
    graph: ItemGraph,
    options: AnalysisOptions,
    labels: Mapping[str, str],
    headline: SpectralEnergy | None,
) -> DecayProfile:
    """Return the curve as published in the paper (Figs 1a, 1b, 8).

    The user's own interactions stay in the graph, no position is dropped, the Gram is raw, users have equal weight, the
    share is per decile by the authors' rule; no null, no verdict. For a language model the states are
    ``output_hidden_states``: the last entry is after the final norm and replaces the last block. If the final norm was
    applied to every state, as the authors do for SASRec, it has no separate entry. The users are those of the headline.
    The column ``sequence`` of its per-user table is the row of ``grams``.
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
        treated=None,
        layer_names=tuple(grams.layer_names[layer] for layer in layers),
        layer_states=tuple(grams.layer_states[layer] for layer in layers),
    )
    rows = np.arange(len(grams))
    if headline is not None and headline.split:
        assert grams.users is not None
        assert main.users is not None
        rows = np.flatnonzero(np.isin(grams.users, main.users[headline.is_valid]))
        selected = leading_block(selected, main.users, headline)
    energy = raw_energy(selected, graph, options, own_user="keep", nulls=())
    profile = DecayProfile.from_energy(
        energy,
        nodes="foreseen",
        component="whole",
        bands="deciles",
        null=None,
        n_bootstrap=options.n_bootstrap,
        seed=options.seed,
        labels={**labels, "own_user": "keep"},
        control="paper",
    )
    per_user = published_user_table(energy)
    return replace(profile, per_user=per_user.assign(sequence=rows[per_user["sequence"]]))


def raw_energy(
    grams: LayerGrams,
    graph: ItemGraph,
    options: AnalysisOptions,
    *,
    own_user: Any = None,
    cache_dir: Path | None = None,
    **changes: Any,
) -> SpectralEnergy:
    """Return the energies of the states as they are, on the graphs of the items they predict."""
    assert grams.targets is not None
    bases = graph.local_bases(
        grams.targets, grams.lengths, users=grams.users, own_user=options.own_user if own_user is None else own_user
    )
    settings = {
        "whole_tau": options.whole_tau,
        "n_references": options.n_references,
        "min_targets": options.min_targets,
        "seed": options.seed,
        "cache_dir": cache_dir,
    }
    return spectral_energy(grams, bases, **{**settings, **RAW, **changes})


def leading_block(grams: LayerGrams, users: IntArray | None, headline: SpectralEnergy) -> LayerGrams:
    """Return the Grams of the users of the headline, each cut to as many targets as at least 20 of them have.

    Parameters
    ----------
    grams : LayerGrams
    users : (n,) int
        Users of the headline's rows.
    headline : SpectralEnergy
    """
    assert users is not None
    assert grams.users is not None
    rows = np.flatnonzero(np.isin(grams.users, users[headline.is_valid]))
    chosen = replace(
        grams,
        grams=grams.grams[rows],
        lengths=grams.lengths[rows],
        users=grams.users[rows],
        targets=None if grams.targets is None else grams.targets[rows],
        inputs=None,
        treated=None,
    )
    return replace(chosen, lengths=measured_lengths(chosen.lengths)) if chosen.is_causal else chosen
