"""Decay profiles: weighted means over users as curves over layers, with confidence intervals and verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectral_probe.errors import ConfigError, check_choice
from spectral_probe.profiles.bootstrap import ROUNDING, Interval
from spectral_probe.profiles.drawing import share_curve
from spectral_probe.profiles.figures import pair_of_curves
from spectral_probe.profiles.files import load_profile, save_profile
from spectral_probe.profiles.shown import Captured, Shown
from spectral_probe.profiles.tables import (
    curve_table,
    known_name,
    null_of,
    select_curve,
    user_counts,
    user_table,
    wide_users,
)
from spectral_probe.profiles.verdict import NOT_MEASURABLE, Verdict, judge
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.components import COMPONENTS
from spectral_probe.spectrum.energy import SpectralEnergy
from spectral_probe.spectrum.nodes import NODES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Components with a verdict.
JUDGED = ("taste", "popularity")
#: The keys of :meth:`DecayProfile.summary`.
SUMMARY_FIELDS = (
    *("format", "verdict", "verdicts", "raw_verdict", "component", "retention", "embed_excess", "foreseen"),
    *("whole_retention", "n_users", "users", "control_verdicts", "paired", "protocol", "caveats"),
)


@dataclass(frozen=True, eq=False, repr=False)
class DecayProfile(Shown):
    """Curves over layers, with 95 % intervals and verdicts.

    Attributes
    ----------
    table : DataFrame
        Columns :data:`~spectral_probe.profiles.tables.COLUMNS`: one row per layer × component × treatment, and per
        layer × band × null of the whole, for each kind of nodes.
    verdicts : {component: Verdict}
        Of taste and popularity; of the whole alone for a curve without components.
    embed_excess, retention : {component: Interval}
        Excess at ``embed``, and what is left of it at the last block. Of taste and popularity; of the whole alone for a
        curve without components.
    retention_layer : str
    component : str
        The component of the headline.
    null : str or None
        The null of the whole that is displayed, and that judges it; None for a curve without verdict.
    n_users : int
        Users on the curve.
    user_counts : dict
        ``probed``, ``measured``, ``shortened`` and ``skipped`` {reason: count}.
    per_user : DataFrame
        Shares, excess and components of each user at each layer, with weight and measured length.
    protocol : dict
        All settings that the numbers depend on.
    caveats : tuple of str
        Codes of :data:`spectral_probe.report.words.CAVEATS`.
    controls : {name: DecayProfile}
        Profiles of the same users under other treatments, such as ``raw``.
    paired : {control: {component: {"base", "other", "difference": Interval}}}
        Retention of a control (``base``), of this profile (``other``), and the paired difference.
    foreseen : DataFrame or None
        What is foreseen, per layer and component, in units of the excess carried at ``embed``.
    energy : SpectralEnergy or None
        The energies that the curves are means of; None for a loaded profile.
    source : Path or Captured or None
        Where the Grams are that the profile was computed from: a run folder, or memory. None for one without them.
    """

    table: pd.DataFrame
    verdicts: dict[str, Verdict]
    embed_excess: dict[str, Interval]
    retention: dict[str, Interval]
    retention_layer: str
    component: str
    null: str | None
    n_users: int
    user_counts: dict[str, Any]
    per_user: pd.DataFrame
    protocol: dict[str, Any] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    controls: dict[str, DecayProfile] = field(default_factory=dict)
    paired: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    foreseen: pd.DataFrame | None = None
    energy: SpectralEnergy | None = None
    source: Path | Captured | None = None

    @classmethod
    def from_energy(
        cls,
        energy: SpectralEnergy,
        *,
        nodes: str = "carried",
        component: str = "taste",
        weights: str = "graph",
        bands: int | str | Bands = 4,
        null: str | None = "swap",
        n_bootstrap: int = 1000,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        control: str = "none",
        embed_sd: float = 1.0,
    ) -> DecayProfile:
        """Aggregate energies over users.

        Parameters
        ----------
        energy : SpectralEnergy
        nodes : {"carried", "foreseen"}
            What the nodes of the graphs are; goes into the column ``nodes``.
        component : {"taste", "popularity", "lag", "whole"}
            The component of the headline. All but ``whole`` need popularity-matched graphs.
        weights : {"graph", "equal"}
            Weights of the users: the inverse of the noise of their graphs, or equal.
        bands : int or str
            Bands for display: ``B``, ``"rank:B"``, ``"pooled:B"`` or ``"deciles"``.
        null : str or None
            The null that is displayed of the whole; None for no verdict. All nulls in ``energy`` get rows.
        n_bootstrap, seed : int
            One seeded set of resamples of users gives all intervals; bands, nulls and weights are held fixed.
        labels : mapping, optional
            Values of the columns ``model``, ``revision``, ``dataset``, ``inputs``, ``own_user``.
        control : str
            Value of the column ``control``.
        embed_sd : float
            Standard deviation of the z of taste at ``embed`` where items are exchanged; above 1 the test of ``embed``
            is as much stricter.

        Raises
        ------
        ConfigError
            If ``null`` is not among the nulls of ``energy``, a component was not computed, or an option is unknown.
        """
        _check(energy, nodes, component, weights, null)
        rule = Bands.parse(bands)
        table = curve_table(
            *(energy, rule),
            labels=labels or {},
            control=control,
            n_bootstrap=n_bootstrap,
            seed=seed,
            nodes=nodes,
            weights=weights,
        )
        n_users = int(energy.is_valid.sum())
        protocol = {
            **energy.settings,
            "nodes": nodes,
            "component": component,
            "weights": weights if energy.split else "equal",
            "bands": str(rule),
            "null": null,
            "n_bootstrap": n_bootstrap,
            "bootstrap_seed": seed,
        }
        if energy.split:
            protocol |= {"match_error": round(energy.match_error, 6), "treatment": energy.treatment_of("taste")}
        measured = JUDGED if energy.split else ("whole",)
        profile = cls(
            table=table,
            verdicts=dict.fromkeys(measured, Verdict("none", n_users)),
            embed_excess={},
            retention={},
            retention_layer="",
            component=component,
            null=null,
            n_users=n_users,
            user_counts=user_counts(energy, weights),
            per_user=user_table(energy, nodes, weights=weights),
            protocol=protocol,
            energy=energy,
        )
        return profile if null is None else profile.judged(embed_sd=embed_sd)

    def judged(self, *, embed_sd: float = 1.0) -> DecayProfile:
        """Return the profile with its verdicts, computed from the table."""
        embed_excess, retention, verdicts = {}, {}, {}
        last_layer = ""
        for component in self.verdicts:
            curve = self._curve_of_verdict(component)
            embed, blocks = curve[curve["state"] == "embed"], curve[curve["state"] == "block"]
            if embed.empty or blocks.empty:
                return self
            first, last = embed.iloc[0], blocks.iloc[-1]
            last_layer = str(last["layer_name"])
            embed_excess[component] = Interval(*(float(first[c]) for c in ("excess", "excess_low", "excess_high")))
            retention[component] = Interval(*(float(last[c]) for c in ("retention", "retention_low", "retention_high")))
            tested = embed_excess[component]
            if component == "taste" and embed_sd > 1:
                tested = replace(tested, low=tested.value - embed_sd * (tested.value - tested.low))
            verdicts[component] = judge(
                # Without references nobody has an excess, and the verdict is on the users of the curve.
                *(tested, retention[component], int(last["n_users"]) or self.n_users),
                n_effective=float(last["n_effective"]) or None,
                component=component,
            )
        return replace(
            self, verdicts=verdicts, embed_excess=embed_excess, retention=retention, retention_layer=last_layer
        )

    def without_verdict(self) -> DecayProfile:
        """Return the profile with all its curves and no verdict."""
        return replace(self, verdicts={name: Verdict("none", v.n_users) for name, v in self.verdicts.items()})

    @property
    def _control(self) -> str:
        return str(self.table["control"].iloc[0])

    @property
    def verdict(self) -> Verdict:
        """The verdict on the headline's component; label ``none`` where it has none."""
        return self.verdicts.get(self.component, Verdict("none", self.n_users))

    def curve(self, component: str | None = None, *, nodes: str = "carried", null: str = "swap") -> pd.DataFrame:
        """Return the rows of one component in layer order; default: the component of the headline."""
        return select_curve(
            self.table, component=component or self.component, nodes=nodes, null=null, control=self._control
        )

    def _curve_of_verdict(self, component: str) -> pd.DataFrame:
        null = null_of(component, self.null or "swap")
        return select_curve(self.table, component=component, null=null, control=self._control)

    def to_frame(self, control: str | None = None) -> pd.DataFrame:
        """Return the tidy table: the rows of this profile, then those of every control; of one control if it is named.

        Parameters
        ----------
        control : str, optional
            A name in ``controls``, or ``"none"`` for the rows of this profile alone.

        Raises
        ------
        ConfigError
            If the profile has no such control.
        """
        tables = {self._control: self.table, **{name: profile.table for name, profile in self.controls.items()}}
        if control is not None:
            return known_name("control", control, tables).reset_index(drop=True)
        return pd.concat(list(tables.values()), ignore_index=True)

    def users(self, component: str | None = None, *, nodes: str = "carried") -> pd.DataFrame:
        """Return one row per user on the curve: ``measured`` nodes, ``weight``, and the excess at every layer.

        Parameters
        ----------
        component : {"taste", "popularity", "lag", "whole"}, optional
            Default: the component of the headline. The whole is over the swap null.
        nodes : {"carried", "foreseen"}

        Returns
        -------
        DataFrame
            Indexed by ``user_id``, or by ``sequence`` where the users have no names. The weighted mean of a column
            is the excess of that layer in :meth:`curve`.

        Raises
        ------
        ConfigError
            If the component was not measured, or not of these nodes.
        """
        return wide_users(self.per_user, component or self.component, nodes)

    def summary(self) -> dict[str, Any]:
        """Return the verdicts, their numbers and the protocol, ready for JSON."""
        raw = self.controls.get("raw")
        return {
            "format": 2,
            "verdict": str(self.verdict),
            "verdicts": {name: asdict(verdict) for name, verdict in self.verdicts.items()},
            "raw_verdict": str(raw.verdict) if raw is not None else None,
            "component": self.component,
            "retention": {name: {**asdict(x), "layer": self.retention_layer} for name, x in self.retention.items()},
            "embed_excess": {name: asdict(x) for name, x in self.embed_excess.items()},
            "foreseen": [] if self.foreseen is None else self.foreseen.to_dict("records"),
            "whole_retention": self.whole_retention(),
            "n_users": self.n_users,
            "users": self.user_counts,
            "control_verdicts": {
                name: {
                    component: {
                        "verdict": str(verdict),
                        "retention": asdict(control.retention[component]) if component in control.retention else None,
                    }
                    for component, verdict in control.verdicts.items()
                }
                for name, control in self.controls.items()
            },
            "paired": {
                control: {
                    component: {name: asdict(x) for name, x in values.items()} for component, values in parts.items()
                }
                for control, parts in self.paired.items()
            },
            "protocol": self.protocol,
            "caveats": list(self.caveats),
        }

    def has_measurable_input(self, component: str) -> bool:
        """Whether the excess at ``embed`` is measurably above 0; a retention has no denominator without it."""
        verdict = self.verdicts.get(component)
        if verdict is not None and verdict.label.startswith(NOT_MEASURABLE):
            return False
        if component in self.embed_excess:
            return self.embed_excess[component].low > ROUNDING
        curve = self._curve_of_verdict(component)
        embed = curve.loc[curve["state"] == "embed", "excess_low"]
        return bool(len(embed) and embed.iloc[0] > ROUNDING)

    def whole_retention(self) -> dict[str, float | None]:
        """Return what is left of the whole excess at the last block, under each null; None without measurable input."""
        left: dict[str, float | None] = {}
        whole = self.table[(self.table["component"] == "whole") & (self.table["treatment"] == "plain")]
        for null in whole["null"].unique():
            curve = select_curve(whole, null=str(null), control=self._control)
            embed, blocks = curve[curve["state"] == "embed"], curve[curve["state"] == "block"]
            if len(embed) and len(blocks) and np.isfinite(embed["excess"].iloc[0]):
                is_measurable = embed["excess_low"].iloc[0] > ROUNDING
                left[str(null)] = float(blocks["retention"].iloc[-1]) if is_measurable else None
        return left

    def plot(self, ax: Axes | None = None, *, component: str | None = None) -> Axes:
        """Draw what is carried of a component over the layers, relative to the input; return the Axes.

        Parameters
        ----------
        ax : Axes, optional
            Default: a new figure. Without ``component`` too it has a panel each for taste and popularity, without
            one of which the input carries nothing measurable; the Axes of the first are returned.
        component : {"taste", "popularity", "lag", "whole"}, optional
            Default: that of the headline.

        Raises
        ------
        ConfigError
            If ``ax`` is no Axes, or the component was not measured.
        """
        if ax is not None and not hasattr(ax, "axhline"):
            raise ConfigError(f"ax must be Axes of matplotlib; got {ax!r}. Save it with .plot().figure.savefig(…).")
        if component is not None:
            known_name("component", component, dict.fromkeys(self.table["component"], True))
        if ax is None and component is None and self.component in JUDGED:
            measurable = [name for name in JUDGED if self.has_measurable_input(name)]
            return pair_of_curves(self.to_frame(), measurable or JUDGED)
        return share_curve(self.to_frame(), component=component or self.component, null=self.null, ax=ax)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``bands.csv``, ``summary.json``, ``per_user.csv.gz`` and ``spectrum.npz``."""
        save_profile(self, directory)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> DecayProfile:
        """Read a saved profile, without its energies (analyse the saved Grams again for those).

        Raises
        ------
        DataError
            If a file is missing or damaged.
        """
        return replace(load_profile(cls, directory), source=Path(directory))


def _check(energy: SpectralEnergy, nodes: str, component: str, weights: str, null: str | None) -> None:
    check_choice("nodes", nodes, NODES)
    check_choice("component", component, COMPONENTS)
    check_choice("weights", weights, ("graph", "equal"))
    if component != "whole" and not energy.split:
        raise ConfigError(
            f"{component!r} needs popularity-matched graphs: give matched= to spectral_energy, or component='whole'."
        )
    if null is not None:
        check_choice("null", null, sorted(energy.null_low), "The others were not computed.")
