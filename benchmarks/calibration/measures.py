"""Both measures of a batch of draws: the excess of every user, and z, interval and word of each draw."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.calibration.first_version import FirstVersion
from benchmarks.calibration.probes import Probe
from benchmarks.calibration.worlds import States
from spectral_probe.profiles.bootstrap import WeightedMeans
from spectral_probe.profiles.verdict import judge
from spectral_probe.spectrum.components import component_excess
from spectral_probe.types import FloatArray

#: This measure (carried taste of the treated states), and that of the first version.
TASTE, FIRST = "taste", "first version"
NODES = {TASTE: "carried", FIRST: "foreseen"}


@dataclass(frozen=True)
class Judged:
    """What a report says of one draw.

    Attributes
    ----------
    z, last_z : float
        Weighted mean excess divided by its standard error, at ``embed`` and at the block.
    retention, low, high : float
    label : str
    """

    z: float
    last_z: float
    retention: float
    low: float
    high: float
    label: str


class Measures:
    """The excess of draws on the histories of a probe."""

    def __init__(self, probe: Probe, *, n_bootstrap: int = 1000) -> None:
        self.probe, self.n_bootstrap = probe, n_bootstrap
        s = probe.sequences
        bases = probe.graph.local_bases(s.targets, s.lengths, users=s.users, own_user=probe.options.own_user)
        self.first = FirstVersion(bases, seed=probe.options.seed)
        self.weights = {TASTE: probe.weights, FIRST: self.first.is_valid.astype(float)}

    def excess(self, draws: list[States], *, with_first: bool) -> dict[str, FloatArray]:
        """Return the excess of each measure, (n_draws, n, 2), from states (n, 2, T, d).

        The layers of all draws are measured in one pass: the operators of the graphs are then formed once. Each layer
        has a pilot of its own, as each layer of a model.
        """
        layers = [states[:, layer] for states in draws for layer in range(2)]
        grams = self.probe.grams(layers, [f"layer {number}" for number in range(len(layers))])
        nodes = self.probe.nodes
        assert grams.treated is not None
        # The plain Grams are not needed any more: what is selected as plain is the treated ones.
        treated = nodes.select(replace(grams, grams=grams.treated, treated=None))
        result = {TASTE: component_excess(treated, nodes.operators, treatment="plain")[0]["taste"]}
        if with_first:
            result[FIRST] = self.first.excess(grams.grams)
        return {name: _by_draw(values) for name, values in result.items()}

    def judged(self, measure: str, excess: FloatArray, *, seed: int, embed_sd: float = 1.0) -> Judged:
        """Return z, retention and word of one draw, from its excess (n, 2)."""
        weights = self.weights[measure]
        means = WeightedMeans.of(excess, weights, n_bootstrap=self.n_bootstrap, seed=seed)
        z = mean_over_error(excess, weights)
        embed, retention = means[0].to_interval(), means[1].ratio_to(means[0]).to_interval()
        if embed_sd > 1:
            embed = replace(embed, low=embed.value - embed_sd * (embed.value - embed.low))
        n_users = int((np.isfinite(excess).all(axis=1) & (weights > 0)).sum())
        component = "taste" if measure == TASTE else "whole"
        label = judge(embed, retention, n_users, component=component).label
        return Judged(z[0], z[1], retention.value, retention.low, retention.high, label)

    def pooled_coverage(self, measure: str, excess: FloatArray, truth: float, *, n_samples: int, seed: int) -> float:
        """Return how often the interval of users drawn anew covers the truth.

        Each user of a sample is drawn with replacement and brings the excess of a random draw, from (n_draws, n, 2).
        """
        weights = self.weights[measure]
        users = np.flatnonzero(np.isfinite(excess).all(axis=(0, 2)) & (weights > 0))
        rng = np.random.default_rng(seed)
        covered = 0
        for _ in range(n_samples):
            drawn = users[rng.integers(len(users), size=len(users))]
            values = excess[rng.integers(len(excess), size=len(users)), drawn]
            means = WeightedMeans.of(values, weights[drawn], n_bootstrap=self.n_bootstrap, seed=seed)
            retention = means[1].ratio_to(means[0]).to_interval()
            covered += retention.low <= truth <= retention.high
        return covered / n_samples


def mean_over_error(excess: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted mean of each column of (n, k) divided by its standard error."""
    w = np.where(np.isfinite(excess).all(axis=1), weights, 0.0)
    known = np.where(w[:, None] > 0, excess, 0.0)
    mean = w @ known / w.sum()
    error = np.sqrt(np.square(w[:, None] * (known - mean)).sum(axis=0)) / w.sum()
    return np.asarray(mean / error)


def ratio_of_means(excess: FloatArray, weights: FloatArray) -> float:
    """Return the mean excess of the block over that of ``embed``, over all users and draws (n_draws, n, 2)."""
    w = np.where(np.isfinite(excess).all(axis=(0, 2)), weights, 0.0)
    mean = np.tensordot(w, np.where(w[:, None] > 0, excess, 0.0).mean(axis=0), axes=1)
    return float(mean[1] / mean[0])


def _by_draw(excess: FloatArray) -> FloatArray:
    n = len(excess)
    return np.ascontiguousarray(excess.reshape(n, -1, 2).swapaxes(0, 1))
