"""The graph side of an analysis: local graphs, popularity-matched graphs and weights of one kind of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.components import ComponentOperators
from spectral_probe.spectrum.energy import NULLS, SpectralEnergy, spectral_energy
from spectral_probe.spectrum.nodes import MeasuredNodes, Nodes, row_items

#: Leading positions that the measure drops.
N_DROPPED = 1


@dataclass(frozen=True, eq=False)
class NodeGraphs:
    """Graphs of the measured nodes of a probe; they depend on the data set only."""

    nodes: Nodes
    measured: MeasuredNodes
    bases: GraphBases
    operators: ComponentOperators
    options: AnalysisOptions
    cache_dir: Path | None

    @classmethod
    def build(
        cls, grams: LayerGrams, graph: ItemGraph, nodes: Nodes, options: AnalysisOptions, cache_dir: Path | None
    ) -> NodeGraphs:
        """Build the graphs of the nodes of some Grams; only their items, lengths and users count."""
        assert grams.users is not None
        measured = MeasuredNodes.of(
            row_items(grams, nodes), grams.lengths, drop_first=N_DROPPED, min_nodes=options.min_targets - N_DROPPED
        )
        bases = graph.local_bases(
            measured.items[:, : measured.width], measured.lengths, users=grams.users, own_user=options.own_user
        )
        matched = PopularityMatch.draw(
            *(graph, measured.items, measured.n_nodes, grams.users),
            own_user=options.own_user,
            n_pseudo=options.n_pseudo,
            seed=options.seed,
            cache_dir=cache_dir,
        )
        operators = ComponentOperators.build(
            *(bases, matched),
            tau=options.tau,
            n_references=options.n_references,
            seed=options.seed,
            cache_dir=cache_dir,
        )
        return cls(nodes, measured, bases, operators, options, cache_dir)

    def select(self, grams: LayerGrams) -> LayerGrams:
        """Return the Grams of the measured nodes."""
        return self.measured.select(grams)

    def energy(
        self, grams: LayerGrams, *, min_targets: int | None = None, nulls: Sequence[str] = NULLS
    ) -> SpectralEnergy:
        """Return the energies and components of captured states on these graphs."""
        options = self.options
        energy = spectral_energy(
            self.select(grams),
            self.bases,
            matched=self.operators,
            drop_first=N_DROPPED,
            nulls=nulls,
            tau=options.tau,
            whole_tau=options.whole_tau,
            n_references=options.n_references,
            min_targets=options.min_targets if min_targets is None else min_targets,
            seed=options.seed,
            cache_dir=self.cache_dir,
        )
        return replace(energy, n_nodes=self.measured.n_nodes)

    def path_energy(self, grams: LayerGrams) -> SpectralEnergy:
        """Return the energies on path graphs: smoothness in time alone, without components and without swap."""
        path = GraphBases.path(self.measured.lengths, self.measured.width)
        options = self.options
        return spectral_energy(
            self.select(grams),
            path,
            drop_first=0,
            nulls=("permutation", "cyclic"),
            whole_tau=options.whole_tau,
            n_references=options.n_references,
            min_targets=options.min_targets,
            seed=options.seed,
        )
