"""Compute profiles from Grams and a graph: the headline, its controls and the published curve.

Nothing here runs a model, so all of it can be repeated on saved Grams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spectral_probe.analysis.node_graphs import N_DROPPED, NodeGraphs
from spectral_probe.analysis.options import LONG_HISTORY, MAIN, AnalysisOptions
from spectral_probe.analysis.published import leading_block, published, raw_energy
from spectral_probe.analysis.split_graph import split_graph_energy
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.retention import foreseen_curves, paired_retention
from spectral_probe.progress import stage
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.components import component_excess
from spectral_probe.spectrum.energy import SpectralEnergy

FEW_USERS = 200
#: Mean absolute log count ratio above which the popularity match is called poor.
POOR_MATCH = 0.2
#: A position is massive if its norm is more than this many times the median of its layer.
MASSIVE = 10.0


class Measurement:
    """All profiles of one analysis, built from its captures and its graph."""

    def __init__(
        self,
        captures: Mapping[str, LayerGrams],
        graph: ItemGraph,
        options: AnalysisOptions,
        labels: Mapping[str, str],
        cache_dir: Path | None,
        embed_sd: float = 1.0,
    ) -> None:
        self.captures, self.graph, self.options, self.labels = captures, graph, options, labels
        self.cache_dir, self.embed_sd = cache_dir, embed_sd
        self.main = captures[MAIN]

    def profile(self, energy: SpectralEnergy, control: str, **changes: Any) -> DecayProfile:
        """Return the profile of some energies with the settings of the analysis."""
        options = self.options
        settings: dict[str, Any] = {
            "component": options.component if energy.split else "whole",
            "weights": options.weights,
            "bands": options.bands,
            # Captures of a control have the swap null alone, which is that of all components.
            "null": options.null if options.null in energy.null_low else "swap",
            "n_bootstrap": options.n_bootstrap,
            "seed": options.seed,
            "labels": self.labels,
            "control": control,
            # Of every curve alike: a word that changes with a choice must come from that choice.
            "embed_sd": self.embed_sd,
        }
        return DecayProfile.from_energy(energy, **{**settings, **changes})

    def with_components(self) -> DecayProfile:
        """Return the headline of states whose rows know no later item, with all controls."""
        stage("analysis: what is carried")
        graphs = self.graphs_of(self.main, "carried")
        carried = graphs.energy(self.main)
        stage("analysis: what is foreseen")
        foreseen = self.graphs_of(self.main, "foreseen").energy(self.main)
        headline = self.profile(carried, "none")
        beside = self.profile(foreseen, "none", nodes="foreseen", null=self.options.null)
        stage("analysis: controls")
        energies, controls = self._controls(graphs, carried)
        stage("analysis: intervals")
        draws: dict[str, Any] = {name: getattr(self.options, name) for name in ("n_bootstrap", "seed", "weights")}
        headline = replace(
            headline,
            table=_joined(headline.table, beside.table),
            per_user=_joined(headline.per_user, beside.per_user),
            foreseen=foreseen_curves(carried, foreseen, **draws),
            controls=controls,
            paired={name: paired_retention(energy, carried, **draws) for name, energy in energies.items()},
            protocol={**headline.protocol, "foreseen_users": beside.user_counts},
        )
        if self.main.treated is None:
            return headline.without_verdict()
        return replace(headline, verdicts={name: self._dependence(headline, name) for name in headline.verdicts})

    def graphs_of(self, grams: LayerGrams, nodes: Any) -> NodeGraphs:
        """Return the graphs of the nodes of some Grams."""
        return NodeGraphs.build(grams, self.graph, nodes, self.options, self.cache_dir)

    def _controls(
        self, graphs: NodeGraphs, carried: SpectralEnergy
    ) -> tuple[dict[str, SpectralEnergy], dict[str, DecayProfile]]:
        """Return the energies of other captures, by control, and the profiles of all controls."""
        options, main = self.options, self.main
        controls = {
            "raw": self.raw(carried),
            "plain": self.profile(self._plain(graphs, carried), "plain"),
            "normalized-rows": self.profile(_only(carried, "rows"), "normalized-rows"),
            "equal-weights": self.profile(carried, "equal-weights", weights="equal"),
        }
        energies: dict[str, SpectralEnergy] = {}
        for name in options.controls:
            stage(f"analysis: {name}")
            if name == "long-histories":
                least = max(LONG_HISTORY, options.min_targets)
                if (graphs.measured.measured >= least - N_DROPPED).any():
                    controls[name] = self.profile(graphs.energy(main, min_targets=least, nulls=("swap",)), name)
            elif name == "path-graph":
                # A graph that is the same for all users has no excess over swap by construction.
                controls[name] = self.profile(graphs.path_energy(main), name, null=None)
            elif name == "split-graph":
                controls[name] = self._split_graph(name)
            elif name in self.captures:
                grams = self.captures[name]
                of_control = graphs if name == "random-weights" else self.graphs_of(grams, "carried")
                energies[name] = of_control.energy(grams, nulls=("swap",))
                controls[name] = self.profile(energies[name], name)
        return energies, controls

    def _plain(self, graphs: NodeGraphs, carried: SpectralEnergy) -> SpectralEnergy:
        """Return the components of the states as they are, without unit norm and residuals."""
        excess, is_usable = component_excess(graphs.select(self.main), graphs.operators, treatment="plain")
        for values in excess.values():
            values[~(is_usable & carried.is_valid)] = np.nan
        return replace(carried, split={"plain": excess})

    def _split_graph(self, name: str) -> DecayProfile:
        energy = split_graph_energy(self.captures, self.graph, self.options, self.cache_dir)
        profile = self.profile(energy, name)
        table = profile.table
        is_component = table["treatment"] != "plain"  # the shares are of one half, the components of both
        return replace(profile, table=table[is_component].reset_index(drop=True))

    def raw(self, headline: SpectralEnergy | None) -> DecayProfile:
        """Return the profile of the raw states: nothing dropped, nothing centred."""
        grams = self.main if headline is None else leading_block(self.main, self.main.users, headline)
        null = None if self.main.settings.get("leaky") else self.options.null
        energy = raw_energy(grams, self.graph, self.options, cache_dir=self.cache_dir)
        return self.profile(energy, "raw", component="whole", nodes="foreseen", weights="equal", null=null)

    def without_components(self) -> DecayProfile:
        """Return the curve of rows that have seen their answers: shares alone, no verdict."""
        grams, options = self.main, self.options
        energy = raw_energy(grams, self.graph, options, cache_dir=self.cache_dir, drop_first=1, center=True)
        headline = self.profile(energy, "none", component="whole", nodes="foreseen", null=None)
        return replace(headline, controls={"raw": self.raw(None)})

    def _dependence(self, headline: DecayProfile, component: str) -> Any:
        """Return the verdict on a component with the choices under which its word would be another one."""
        verdict = headline.verdicts[component]
        choices = {
            "weights": ("equal-weights",),
            "treatment": ("normalized-rows", "plain") if component == "taste" else ("plain",),
            "length": ("long-histories",),
            "graph": ("split-graph",),
        }
        labels = {
            choice: [headline.controls[name].verdicts[component].label for name in names if name in headline.controls]
            for choice, names in choices.items()
        }
        differing = [choice for choice, words in labels.items() if any(word != verdict.label for word in words)]
        return replace(verdict, depends_on=tuple(differing))


def measure(
    captures: Mapping[str, LayerGrams],
    graph: ItemGraph,
    options: AnalysisOptions,
    labels: Mapping[str, str],
    *,
    cache_dir: Path | None = None,
    embed_sd: float = 1.0,
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
    embed_sd : float
        See :meth:`DecayProfile.from_energy`; from the control ``exchanged-items``.
    """
    main = captures[MAIN]
    measurement = Measurement(captures, graph, options, labels, cache_dir, embed_sd)
    headline = measurement.with_components() if main.is_causal else measurement.without_components()
    controls = dict(headline.controls)
    if "paper" in captures:
        controls["paper"] = published(captures["paper"], main, graph, options, labels, headline.energy)
    massive, n_positions = massive_positions(main)
    protocol = {
        **headline.protocol,
        "prefix_by_prefix": bool(main.settings.get("prefixes", False)),
        "dtype": main.settings.get("dtype"),
        **{name: main.settings[name] for name in ("number_format",) if name in main.settings},
        "massive_positions": massive,
        "positions": n_positions,
        **({"embed_sd": round(embed_sd, 4)} if embed_sd > 1 else {}),
        **_pilot_protocol(main),
    }
    caveats = _caveats(headline, controls["raw"], main, massive, options)
    return replace(headline, controls=controls, caveats=caveats, protocol=protocol)


def massive_positions(grams: LayerGrams) -> tuple[dict[str, int], int]:
    """Return, by layer, how many positions beyond the first have a norm over 10 × the median; and the positions."""
    counts = {}
    T = grams.grams.shape[-1]
    at = np.arange(T)
    is_later = (at >= 1) & (at < grams.lengths[:, None])
    for layer, name in enumerate(grams.layer_names):
        norms = np.sqrt(np.diagonal(grams.grams[:, layer], axis1=1, axis2=2)[is_later])
        count = int((norms > MASSIVE * np.median(norms)).sum()) if norms.size else 0
        if count:
            counts[name] = count
    return counts, int(is_later.sum())


def _pilot_protocol(grams: LayerGrams) -> dict[str, Any]:
    """Return what a reader must know of the pilot, and how many treated rows were too small to keep."""
    if grams.pilot is None or grams.treated is None:
        return {}
    at = np.arange(grams.grams.shape[-1])
    is_treated = (at >= 1) & (at < grams.lengths[:, None])
    zero = {}
    for layer, name in enumerate(grams.layer_names):
        diagonal = np.diagonal(grams.treated[:, layer], axis1=1, axis2=2)
        n_zero = int((diagonal[is_treated] == 0).sum())
        if n_zero:
            zero[name] = n_zero
    pilot = grams.pilot
    content = {"users": len(pilot.rows), "positions": pilot.n_positions, "bins": pilot.n_bins, "hash": pilot.hash[:16]}
    return {"pilot": {**content, "zero_rows": zero}}


def _caveats(
    headline: DecayProfile,
    raw: DecayProfile,
    grams: LayerGrams,
    massive: Mapping[str, int],
    options: AnalysisOptions,
) -> tuple[str, ...]:
    note = str(grams.settings.get("note", ""))
    is_asked = "long-histories" in options.controls and grams.is_causal
    swap = headline.curve("whole", nodes=str(headline.table["nodes"].iloc[0]))
    match_error = headline.protocol.get("match_error", 0.0)
    codes = {
        "raw-verdict-differs": raw.verdict.label != headline.verdict.label and headline.verdict.label != "none",
        "encoder-run-causally": "encoder" in note,
        "rounded-weights": "number_format" in grams.settings,
        "no-final-norm": "final_norm" not in grams.layer_states,
        "leaky": bool(grams.settings.get("leaky")),
        "untreated-states": grams.is_causal and grams.treated is None,
        "popularity-match-poor": match_error > POOR_MATCH,
        "massive-positions": bool(massive),
        "few-users": headline.n_users < FEW_USERS,
        "no-long-histories": is_asked and "long-histories" not in headline.controls,
        "no-swap-null": bool(np.any(swap["n_users"] < headline.n_users)),
        "random-weights-model": str(grams.settings.get("model", "")).startswith("tiny-random"),
    }
    return tuple(code for code, applies in codes.items() if applies)


def _only(energy: SpectralEnergy, treatment: str) -> SpectralEnergy:
    return replace(energy, split={treatment: energy.split[treatment]})


def _joined(first: Any, second: Any) -> Any:
    return pd.concat([first, second], ignore_index=True)
