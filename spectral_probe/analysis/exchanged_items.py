"""Control ``exchanged-items``: the taste of the inputs where item vectors are exchanged among equally popular items.

Random item vectors hold no taste, and their mean z is 0. Still, one item has one vector for all of its users, so users
are not independent and the z of many exchanges spreads more than 1. Where its standard deviation exceeds
:data:`TOLERATED_SD`, the test of ``embed`` uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spectral_probe.analysis.node_graphs import NodeGraphs
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.backbones import LayeredModel
from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.recording.pilot import popularity_bins
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.components import component_excess
from spectral_probe.types import FloatArray, IntArray

N_EXCHANGES = 50
TOLERATED_SD = 1.2
#: Where the protocol of a profile has the numbers of :meth:`ExchangedItems.to_dict`.
ENTRY = "exchanged_items"
#: Exchanges whose Grams are held at once.
_BATCH = 5


@dataclass(frozen=True)
class ExchangedItems:
    """z of the taste at ``embed``, of the real vectors and of each exchange."""

    real: float
    exchanged: FloatArray

    @property
    def sd(self) -> float:
        """Standard deviation of z over the exchanges."""
        return float(self.exchanged.std(ddof=1))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for the protocol."""
        numbers = {"z": self.real, "mean_z": float(self.exchanged.mean()), "sd_z": self.sd}
        return {**{name: round(value, 4) for name, value in numbers.items()}, "n_exchanges": len(self.exchanged)}


def entry_of(run: AnalysisRun) -> dict[str, Any]:
    """Return what the protocol of a run has of the control, ``{ENTRY: numbers}``.

    Empty for a run without the control, and for a run that was never measured.

    Raises
    ------
    DataError
        If the profile of the run cannot be read.
    """
    if not (run.path / "summary.json").is_file():
        return {}
    protocol = DecayProfile.load(run.path).protocol
    return {ENTRY: protocol[ENTRY]} if ENTRY in protocol else {}


def embed_sd(protocol: Mapping[str, Any]) -> float:
    """Return what the test of ``embed`` divides by: the standard deviation of z where it exceeds 1.2, else 1."""
    sd = float(protocol.get(ENTRY, {}).get("sd_z", 1.0))
    return sd if sd > TOLERATED_SD else 1.0


def item_vectors(model: LayeredModel) -> npt.NDArray[np.float32]:
    """Return the vectors (n_items, d) that a model reads for its items, without positions.

    Raises
    ------
    ConfigError
        If the model offers none.
    """
    vectors: Any = getattr(model, "item_embeddings", None)
    with torch.no_grad():
        vectors = vectors() if isinstance(vectors, Callable) and not isinstance(vectors, torch.Tensor) else vectors  # type: ignore[arg-type]
    if not isinstance(vectors, torch.Tensor):
        raise ConfigError(
            f"exchanged-items needs the vectors of the items; {model.name!r} has no item_embeddings. Leave out this "
            "control."
        )
    return vectors.detach().float().cpu().numpy()


def exchange_items(
    vectors: npt.NDArray[np.float32],
    grams: LayerGrams,
    graph: ItemGraph,
    options: AnalysisOptions,
    *,
    cache_dir: Path | None,
    n_exchanges: int = N_EXCHANGES,
) -> ExchangedItems:
    """Return the z of carried taste at ``embed`` for real and exchanged item vectors; no model is run.

    Parameters
    ----------
    vectors : (n_items, d)
    grams : LayerGrams
        Main capture: its items, lengths and users count.
    """
    graphs = NodeGraphs.build(grams, graph, "carried", options, cache_dir)
    assert grams.inputs is not None
    assert grams.targets is not None
    valid = np.arange(grams.inputs.shape[1]) < grams.lengths[:, None]
    read = grams.inputs[valid]
    vectors = _in_their_span(vectors)
    bins = popularity_bins(graph.item_counts, read, n_pilot_positions=len(read))
    generator = np.random.default_rng([options.seed, n_exchanges])
    orders = [np.arange(len(vectors)), *(_within(bins, generator) for _ in range(n_exchanges))]
    z: list[float] = []
    for start in range(0, len(orders), _BATCH):
        states = [vectors[order][grams.inputs] for order in orders[start : start + _BATCH]]
        made = LayerGrams.from_states(
            states,
            grams.lengths,
            [f"exchange {start + k}" for k in range(len(states))],
            users=grams.users,
            targets=grams.targets,
            inputs=grams.inputs,
            item_counts=graph.item_counts,
            seed=options.seed,
        )
        excess, _ = component_excess(graphs.select(made), graphs.operators, treatment="residual")
        z += _z(excess["taste"], graphs.operators.weights).tolist()
    return ExchangedItems(z[0], np.array(z[1:]))


def _in_their_span(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return vectors with the same inner products in as few dimensions as they span."""
    _, values, directions = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    return np.asarray(vectors @ directions[values > 1e-6 * values[0]].T, dtype=np.float32)


def _within(bins: IntArray, generator: np.random.Generator) -> IntArray:
    """Return a random order of the items that moves each within its bin."""
    order = np.arange(len(bins))
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        order[members] = generator.permutation(members)
    return order


def _z(excess: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted mean of each column divided by its standard error, (k,)."""
    w = np.where(np.isfinite(excess).all(axis=1), weights, 0.0)
    known = np.where(w[:, None] > 0, excess, 0.0)
    mean = w @ known / w.sum()
    error = np.sqrt((np.square(w[:, None] * (known - mean))).sum(axis=0)) / w.sum()
    return np.asarray(mean / error)
