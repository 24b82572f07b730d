"""The measure under other settings, from the Grams of one capture: every curve in a fraction of a second.

The energies depend on no menu. The components depend on the diffusion time alone, so they are computed once for a few
times; nulls, bands, weights and the choice of users are sums over what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from spectral_probe.analysis.node_graphs import NodeGraphs
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.errors import ConfigError
from spectral_probe.graph.filters import heat_kernel
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.drawing import has_input
from spectral_probe.profiles.tables import excess_table, known_name, null_of
from spectral_probe.profiles.verdict import NOT_MEASURABLE, Verdict, judge
from spectral_probe.progress import progress_bar
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.components import COMPONENTS, ComponentOperators, Treatment, component_excess
from spectral_probe.spectrum.energy import NULLS, SpectralEnergy
from spectral_probe.spectrum.nodes import Nodes
from spectral_probe.types import FloatArray

#: Diffusion times that are computed; each is twice the one before, which makes them cheap.
TAUS = (0.25, 0.5, 1.0, 2.0, 4.0)
#: The band of the heat kernel.
LOW = "low"
#: Band rules of the menu.
BANDS = ("rank:4", "rank:8", "pooled:4", "deciles")


@dataclass(frozen=True)
class Setting:
    """One choice in every menu.

    Attributes
    ----------
    component : {"taste", "popularity", "lag", "whole"}
    tau : float
        Diffusion time of the component; of the whole, that of its low-pass share.
    null : {"swap", "permutation", "cyclic"}
        Of the whole; the other components have the swap null alone.
    bands : str
        See :meth:`Bands.parse`; of the whole.
    band : str
        ``"low"`` for the heat kernel, or the number of a band, from 1 on; of the whole.
    weights : {"graph", "equal"}
    least, most : int or None
        Users are shown who are measured on so many nodes; the references of the null stay all.
    """

    component: str = "taste"
    tau: float = 1.0
    null: str = "swap"
    bands: str = "rank:4"
    band: str = LOW
    weights: str = "graph"
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """The curve of a setting, with its verdict.

    Attributes
    ----------
    curve : DataFrame
        One row per layer: ``excess`` and ``retention`` with their 95 % intervals, ``n_users``, ``n_effective``. What
        is foreseen has no retention: NaN.
    users : (n_users,) float
        Excess of each user at the last block.
    verdict : Verdict
        Label ``none`` for what has no verdict: the lag profile, single bands, and what is foreseen.
    has_retention : bool
        Whether a retention has a denominator: the input measurably carries the component.
    """

    setting: Setting
    curve: pd.DataFrame
    users: FloatArray
    verdict: Verdict
    has_retention: bool


@dataclass(frozen=True, eq=False)
class Exploration:
    """What every curve is computed from.

    Attributes
    ----------
    energy : SpectralEnergy
        On the nodes of the exploration; its weights are those at the diffusion time of the analysis.
    excess : {component: {tau: (n, n_layers)}}
        Swap excess of each user, as the profile has it: the whole of plain states, taste without what popularity
        explains where there are such states, the others of rows of unit norm.
    weights : {tau: (n,)}
    options : AnalysisOptions
    embed_sd : float
        See :meth:`DecayProfile.from_energy`.
    nodes : {"carried", "foreseen"}
        What the nodes of the graphs are: the items that a row reads, or those that it should predict.
    """

    energy: SpectralEnergy
    excess: dict[str, dict[float, FloatArray]]
    weights: dict[float, FloatArray]
    options: AnalysisOptions
    embed_sd: float = 1.0
    nodes: Nodes = "carried"

    @classmethod
    def build(
        cls,
        grams: LayerGrams,
        graph: ItemGraph,
        options: AnalysisOptions,
        *,
        taus: Sequence[float] = TAUS,
        nodes: Nodes = "carried",
        embed_sd: float = 1.0,
        cache_dir: Path | None = None,
        progress: bool | None = None,
    ) -> Exploration:
        """Compute the energies and, at every diffusion time, the components.

        Parameters
        ----------
        grams, graph, options
            Of an analysis.
        taus : sequence of float
            Diffusion times; that of the analysis, and that of its whole, are added.
        nodes : {"carried", "foreseen"}
        embed_sd : float
        cache_dir : Path, optional
            See :func:`spectral_probe.spectrum.energy.spectral_energy`.
        progress : bool, optional
            See :func:`spectral_probe.progress.progress_bar`.

        Raises
        ------
        ConfigError
            If the rows have seen their answers, or a time is not a positive number.
        """
        if not grams.is_causal:
            raise ConfigError(
                "The rows of these Grams have seen the items that they should predict, so there is no excess to "
                "explore. Probe the model prefix by prefix (prefixes='auto')."
            )
        for tau in taus:
            heat_kernel(np.empty(0), tau)
        times = sorted({*map(float, taus), options.tau})
        whole_times = sorted({*times, options.whole_tau})
        with progress_bar(shown=progress, total=3 + len(times), desc="explore", unit=" steps") as bar:
            graphs = NodeGraphs.build(grams, graph, nodes, options, cache_dir)
            energy = graphs.energy(grams)
            bar.update()
            selected = graphs.select(grams)
            # That of the analysis is computed again with the others, because the times after it need it.
            operators = {**graphs.operators.at_taus(times), options.tau: graphs.operators}
            bar.update()
            excess: dict[str, dict[float, FloatArray]] = {name: {} for name in COMPONENTS}
            for tau in times:
                for component, values in _components(selected, operators[tau], energy).items():
                    excess[component][tau] = values
                bar.update()
            for tau in whole_times:
                if tau not in excess["whole"]:
                    excess["whole"][tau] = _whole(selected, graphs.operators, energy, tau)
            bar.update()
        weights = {tau: np.where(energy.is_valid, operators[tau].weights, 0.0) for tau in times}
        return cls(energy, excess, weights, options, embed_sd, nodes)

    def taus(self, component: str) -> list[float]:
        """Return the diffusion times of a component, in order."""
        return sorted(known_name("component", component, self.excess))

    def default(self, component: str | None = None) -> Setting:
        """Return the setting of the analysis, of a component; default: that of its headline."""
        options = self.options
        component = component or options.component
        return Setting(
            component=component,
            tau=options.whole_tau if component == "whole" else options.tau,
            null=null_of(component, options.null),
            bands=str(Bands.parse(options.bands)),
            weights=options.weights,
        )

    def outcome(self, setting: Setting) -> Outcome:
        """Return the curve and the verdict of a setting.

        Raises
        ------
        ConfigError
            If a choice is none of its menu, or no user is left.
        """
        values, w = self._excess(setting), self._weights(setting)
        if not (w > 0).any():
            wanted = f"at least {setting.least}" if setting.most is None else f"{setting.least} to {setting.most}"
            raise ConfigError(
                f"No user is measured on {wanted} nodes; the measured users have "
                f"{self.energy.measured[self.energy.is_valid].min()} to {self.energy.measured.max()}. Widen the range."
            )
        options = self.options
        curve = excess_table(self.energy, values, w, n_bootstrap=options.n_bootstrap, seed=options.seed)
        if self.nodes == "foreseen":
            curve = curve.assign(**dict.fromkeys(("retention", "retention_low", "retention_high"), np.nan))
        last = len(curve) - 1 - list(curve["state"])[::-1].index("block")
        verdict = self._verdict(setting, curve, last)
        has_retention = has_input(curve) and not verdict.label.startswith(NOT_MEASURABLE)
        return Outcome(setting, curve, values[w > 0, last], verdict, has_retention)

    def _excess(self, setting: Setting) -> FloatArray:
        """Return the excess of each user at each layer, (n, n_layers)."""
        of_component = known_name("component", setting.component, self.excess)
        is_whole = setting.component == "whole"
        known_name("null", setting.null, dict.fromkeys(NULLS if is_whole else ("swap",)))
        if is_whole and setting.band != LOW:
            return self._band_excess(setting)
        if is_whole and setting.null != "swap":
            return self._position_excess(setting)
        return _at(of_component, setting.tau)

    def _position_excess(self, setting: Setting) -> FloatArray:
        """Return the whole excess over a null of positions: its energies are all that it needs."""
        energy = self.energy
        response = heat_kernel(energy.eigenvalues, setting.tau)
        difference = energy.energy - energy.null_energy[setting.null]
        return np.asarray(np.einsum("nlk,nk->nl", difference, response) / energy.total)

    def _band_excess(self, setting: Setting) -> FloatArray:
        """Return the excess share of one band."""
        energy, rule = self.energy, Bands.parse(setting.bands)
        bands = {str(band + 1): band for band in range(rule.n_bands)}
        band = known_name("band", setting.band, {**bands, LOW: -1})
        valid = energy.is_valid
        weights = rule.weights(energy.eigenvalues[valid])[..., band]
        difference = energy.energy[valid] - energy.null_energy[setting.null][valid]
        excess = np.full(energy.total.shape, np.nan)
        excess[valid] = np.einsum("nlk,nk->nl", difference, weights) / energy.total[valid]
        return excess

    def _weights(self, setting: Setting) -> FloatArray:
        """Return the weight of each user, (n,); 0 outside the range of measured nodes."""
        known_name("weights", setting.weights, dict.fromkeys(("graph", "equal")))
        valid, measured = self.energy.is_valid, self.energy.measured
        # Of the whole the weights are those of the components of the analysis, at every diffusion time of its share.
        tau = self.options.tau if setting.component == "whole" else setting.tau
        w = _at(self.weights, tau) if setting.weights == "graph" else valid.astype(np.float64)
        most = measured.max() if setting.most is None else setting.most
        return np.where((measured >= setting.least) & (measured <= most), w, 0.0)

    def _verdict(self, setting: Setting, curve: pd.DataFrame, last: int) -> Verdict:
        first, end = curve.iloc[list(curve["state"]).index("embed")], curve.iloc[last]
        n_users = int(end["n_users"])
        if setting.component == "lag" or setting.band != LOW or self.nodes == "foreseen":
            return Verdict("none", n_users)
        embed = Interval(*(float(first[name]) for name in ("excess", "excess_low", "excess_high")))
        if setting.component == "taste" and self.embed_sd > 1:
            embed = replace(embed, low=embed.value - self.embed_sd * (embed.value - embed.low))
        retention = Interval(*(float(end[name]) for name in ("retention", "retention_low", "retention_high")))
        return judge(
            embed, retention, n_users, n_effective=float(end["n_effective"]) or None, component=setting.component
        )


def _components(grams: LayerGrams, operators: ComponentOperators, energy: SpectralEnergy) -> dict[str, FloatArray]:
    """Return the swap excess of every component, each on the states that the profile has it of, (n, n_layers)."""
    treatments: dict[Treatment, list[str]] = {"rows": [], "plain": ["whole"]}
    for name in ("popularity", "lag", "taste"):
        treatments.setdefault(energy.treatment_of(name), []).append(name)  # type: ignore[arg-type]
    values: dict[str, FloatArray] = {}
    for treatment, names in treatments.items():
        excess, _ = component_excess(grams, operators, treatment=treatment)
        values |= {name: np.where(energy.is_valid[:, None], excess[name], np.nan) for name in names}
    return values


def _whole(grams: LayerGrams, operators: ComponentOperators, energy: SpectralEnergy, tau: float) -> FloatArray:
    """Return the whole swap excess of plain states at a diffusion time; it needs no popularity-matched graphs."""
    if tau == operators.tau:
        return _components(grams, operators, energy)["whole"]
    at_tau = operators.whole_at(tau)
    excess, _ = component_excess(grams, at_tau, treatment="plain")
    return np.where(energy.is_valid[:, None], excess["whole"], np.nan)


def _at(by_tau: dict[float, FloatArray], tau: float) -> FloatArray:
    return known_name("tau", f"{tau:g}", {f"{time:g}": values for time, values in by_tau.items()})
