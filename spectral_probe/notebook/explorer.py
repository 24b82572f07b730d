"""Menus and sliders over the saved Grams of a run, redrawn at every change."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_probe.errors import ConfigError
from spectral_probe.figure_style import NULL_GREY, PALETTE
from spectral_probe.notebook.drawing import svg_source
from spectral_probe.notebook.page import mark_of
from spectral_probe.notebook.requirements import require
from spectral_probe.profiles.drawing import COMPONENT_TITLES, Look, curve_with_ribbon, relative_depth
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import known_name
from spectral_probe.profiles.verdict import COMPONENT_NAMES
from spectral_probe.report.words import NOT_AVAILABLE
from spectral_probe.spectrum.energy import NULLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spectral_probe.analysis.exploration import Exploration, Outcome, Setting
    from spectral_probe.analysis.options import AnalysisOptions

#: The quantities of the curve, by what the nodes are: relative to the input, or as it is.
QUANTITIES = {"carried": ("retention", "excess"), "foreseen": ("excess",)}


def explore(
    profile: DecayProfile,
    *,
    taus: Sequence[float] | None = None,
    nodes: str = "carried",
    progress: bool | None = None,
) -> Explorer:
    """Return the explorer of a profile.

    The first call for a run computes the components at every diffusion time, which takes about a minute on LastFM;
    they are cached. A change of a menu then takes a fraction of a second.

    Parameters
    ----------
    profile : DecayProfile
        Of :func:`spectral_probe.analyze`, or loaded from a run folder.
    taus : sequence of float, optional
        Diffusion times of the slider; default: 0.25 to 4, doubling.
    nodes : {"carried", "foreseen"}
        What is foreseen has neither verdict nor retention.
    progress : bool, optional
        Show a progress bar; default: in a notebook.

    Raises
    ------
    MissingDependencyError
        Without the extra ``notebook``.
    DataError, ConfigError
        See :func:`spectral_probe.analysis.exploration_files.explore_profile`.
    """
    widgets = require("ipywidgets", package="ipywidgets", extra="notebook", what="explore()")
    from spectral_probe.analysis.exploration import TAUS
    from spectral_probe.analysis.exploration_files import explore_profile
    from spectral_probe.spectrum.nodes import NODES

    known: Mapping[str, Any] = {name: name for name in NODES}
    exploration = explore_profile(
        profile, taus=TAUS if taus is None else taus, nodes=known_name("nodes", nodes, known), progress=progress
    )
    run = profile.source if isinstance(profile.source, Path) else None
    title = f"{profile.table['model'].iloc[0]} on {profile.table['dataset'].iloc[0]}"
    return Explorer(exploration, widgets, title=title, run=run, base=None if run is None else _base_options(run))


class Explorer:
    """Menus and sliders beside the curve that they choose.

    Attributes
    ----------
    exploration : Exploration
        Computes the curves; usable without a notebook.
    setting : Setting
        What the menus show.
    outcome : Outcome
        Curve, users and verdict of the setting.
    controls : {name: widget}
        By the names of the fields of a setting, ``nodes`` for the range of measured nodes, and ``quantity``.
    view : widget
        Menus and curve.
    """

    def __init__(
        self,
        exploration: Exploration,
        widgets: Any,
        *,
        title: str = "",
        run: Path | None = None,
        base: AnalysisOptions | None = None,
    ) -> None:
        self.exploration, self.title, self.run = exploration, title, run
        self._base = (base or exploration.options).to_dict()
        measured = exploration.energy.measured[exploration.energy.is_valid]
        self._range = int(measured.min()), int(measured.max())
        self.setting: Setting = exploration.default()
        self._analysed = exploration.outcome(self.setting)
        self.outcome: Outcome = self._analysed
        self.controls = self._make_controls(widgets)
        self._shown = widgets.HTML()
        menus = widgets.VBox(list(self.controls.values()), layout=widgets.Layout(min_width="24em"))
        self.view = widgets.HBox([menus, self._shown], layout=widgets.Layout(flex_flow="row wrap"))
        for control in self.controls.values():
            control.observe(self._on_change, names="value")
        self._is_changing = False
        self.redraw()

    def _make_controls(self, widgets: Any) -> dict[str, Any]:
        from spectral_probe.analysis.exploration import BANDS

        start, (low, high) = self.setting, self._range
        style: dict[str, Any] = {"style": {"description_width": "7em"}}
        components = [(COMPONENT_NAMES[name], name) for name in ("taste", "popularity", "lag", "whole")]
        bands = list(dict.fromkeys([start.bands, *BANDS]))
        return {
            "component": widgets.Dropdown(options=components, value=start.component, description="component", **style),
            "tau": widgets.SelectionSlider(
                **{"options": self._times(start.component), "value": start.tau, "description": "τ", **style},
                continuous_update=False,
            ),
            "null": widgets.Dropdown(options=list(NULLS), value=start.null, description="null", **style),
            "bands": widgets.Dropdown(options=bands, value=start.bands, description="bands", **style),
            "band": widgets.Dropdown(options=_band_menu(start.bands), value=start.band, description="band", **style),
            "weights": widgets.ToggleButtons(
                **{"options": ["graph", "equal"], "value": start.weights, "description": "weights", **style},
            ),
            "nodes": widgets.IntRangeSlider(
                **{"min": low, "max": max(high, low + 1), "value": (low, high), "description": "users' nodes", **style},
                continuous_update=False,
                disabled=low == high,
            ),
            "quantity": widgets.ToggleButtons(
                options=list(QUANTITIES[self.exploration.nodes]), description="quantity", **style
            ),
        }

    def _times(self, component: str) -> list[tuple[str, float]]:
        return [(f"{tau:g}", tau) for tau in self.exploration.taus(component)]

    def _on_change(self, change: Any) -> None:
        if self._is_changing:
            return
        self._is_changing = True  # menus that depend on this one change too; drawn once
        try:
            self._fit_menus(change["owner"])
        finally:
            self._is_changing = False
        self.redraw()

    def _fit_menus(self, changed: Any) -> None:
        """Give τ and the bands the choices of the component and of the rule, and switch off what has no effect."""
        controls = self.controls
        if changed is controls["component"]:
            times, tau = self._times(controls["component"].value), controls["tau"].value
            is_whole = controls["component"].value == "whole"
            analysed = self.exploration.default(controls["component"].value)
            # A diffusion time of the whole means another share, so the slider goes to that of the analysis.
            if is_whole or tau not in [value for _, value in times]:
                tau = analysed.tau
            controls["tau"].options = times
            controls["tau"].value = tau
            controls["null"].value = analysed.null
            if not is_whole:
                controls["band"].value = "low"
        if changed is controls["bands"]:
            controls["band"].options = _band_menu(controls["bands"].value)
            controls["band"].value = "low"

    def redraw(self) -> None:
        """Compute the curve of what the menus show, and draw it."""
        controls = self.controls
        is_whole = controls["component"].value == "whole"
        for name in ("null", "bands", "band"):
            controls[name].disabled = not is_whole
        controls["tau"].disabled = controls["band"].value != "low"
        least, most = controls["nodes"].value
        chosen = {name: controls[name].value for name in ("component", "tau", "null", "bands", "band", "weights")}
        is_all = least <= self._range[0] and most >= self._range[1]
        setting = replace(self.setting, **chosen, least=0 if is_all else least, most=None if is_all else most)
        try:
            self.outcome = self.exploration.outcome(setting)
        except ConfigError as error:  # nobody is in the range
            self._shown.value = f"<b>{html.escape(str(error))}</b>"
            return
        self.setting = setting
        self._shown.value = self.page()

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Return in what the setting differs from that of the analysis: {name: (analysis, setting)}."""
        default = self.exploration.default(self.setting.component)
        pairs = {
            field.name: (getattr(default, field.name), getattr(self.setting, field.name)) for field in fields(default)
        }
        without_effect = {"component"} if self.setting.component == "whole" else {"component", "bands", "band"}
        if self.setting.band == "low":
            without_effect.add("bands")
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and name not in without_effect}

    def changes_in_words(self) -> str:
        """Return :meth:`changes` as a part of a sentence."""
        names = {"tau": "τ", "null": "null", "bands": "bands", "band": "band", "weights": "weights"}
        changes = {names[name]: pair for name, pair in self.changes().items() if name in names}
        words = [f"{name} ({_plain(old)} → {_plain(new)})" for name, (old, new) in changes.items()]
        if self.setting.most is not None:
            words.append(f"users ({self.setting.least} to {self.setting.most} nodes)")
        return ", ".join(words)

    def command(self) -> str:
        """Return the command that analyses the saved Grams with this setting.

        Empty without a run folder, and where an option has no flag, such as the diffusion time of the whole. The range
        of the users' nodes is no option: it only chooses who is shown.
        """
        from spectral_probe.analysis.origin import WITHOUT_FLAG, flags_of

        setting, changes = self.setting, self.changes()
        if self.run is None or (setting.component == "whole" and "tau" in changes):
            return ""
        wanted = {**self.exploration.options.to_dict(), "nodes": self.exploration.nodes}
        wanted |= {name: changes[name][1] for name in ("tau", "null", "bands", "weights") if name in changes}
        # The command starts from the options of the run that has the Grams; controls change no curve that is drawn.
        fixed = ("component", "controls")
        differing = {name: value for name, value in wanted.items() if value != self._base[name] and name not in fixed}
        if any(name in WITHOUT_FLAG for name in differing):
            return ""
        flags = flags_of({"component": setting.component, **differing})
        return shlex.join(["spectral-probe", "analyze", str(self.run), *flags])

    def page(self) -> str:
        """Return verdict and curve of the setting as HTML; every text is escaped."""
        setting, curve = self.setting, self.outcome.curve
        nodes = self.exploration.nodes
        last = curve[curve["state"] == "block"].iloc[-1]
        amount = "; ".join(filter(None, (self._amount(last, name) for name in QUANTITIES[nodes])))
        differs = self.changes_in_words()
        lines = [
            f"<b>{html.escape(self.title)}</b>: {html.escape(COMPONENT_TITLES[setting.component])}, {nodes}, "
            f"{int(last['n_users']):,} users",
            *([self._badge()] if nodes == "carried" else []),
            html.escape(f"At {last['layer_name']}: {amount}"),
            f'<img alt="{html.escape(self._described(), quote=True)}" src="{svg_source(self.figure())}" '
            'style="max-width: 100%; background: #fff">',
        ]
        if differs:
            lines.append(
                f"<i>Differs from the analysis in {html.escape(differs)}.</i> The "
                f"{'verdict' if nodes == 'carried' else 'curve'} to report is that of the analysis: one that was "
                "chosen among many settings has too narrow an interval."
            )
        if command := self.command():
            lines.append(f"<code>{html.escape(command)}</code>")
        return '<div style="line-height: 1.6; max-width: 50em">' + "<br>".join(lines) + "</div>"

    def _badge(self) -> str:
        glyph, color = mark_of(self.outcome.verdict.label)
        style = f"background: {color}; color: #fff; padding: .1em .6em; border-radius: .3em"
        return f'<span style="{style}">{glyph} {html.escape(str(self.outcome.verdict))}</span>'

    def _amount(self, row: Any, name: str) -> str:
        if name == "retention" and not self.outcome.has_retention:
            return f"{name} {NOT_AVAILABLE}"
        digits = 2 if name == "retention" else 5
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{name} {row[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if row[name] == row[name] else ""

    def _described(self) -> str:
        if self.quantity == "retention" and not self.outcome.has_retention:
            return f"{self.quantity}: {NOT_AVAILABLE}"
        rows = self.outcome.curve[["layer_name", self.quantity]].to_dict("records")
        return f"{self.quantity} by layer: " + ", ".join(
            f"{row['layer_name']} {row[self.quantity]:.2g}" for row in rows
        )

    @property
    def quantity(self) -> str:
        """What the curve shows."""
        return str(self.controls["quantity"].value)

    def figure(self) -> Figure:
        """Return the figure: the curve, in grey that of the analysis, and the users at the last block."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.4, 3.1), layout="constrained")
        ax, beside = figure.subplots(1, 2, width_ratios=(2, 1))
        quantity, curve = self.quantity, self.outcome.curve
        ax.axhline(0.0, color=NULL_GREY, linewidth=1)
        of_same = self._analysed if self.setting.component == self._analysed.setting.component else None
        if self.changes() and of_same is not None and (quantity == "excess" or of_same.has_retention):
            before = self._analysed.curve
            blocks = before["state"] == "block"
            depth = relative_depth(before)[blocks]
            ax.plot(depth, before.loc[blocks, quantity], color=NULL_GREY, linestyle="--", label="as analysed")
            ax.legend(frameon=False, fontsize=8)
        if quantity == "excess" or self.outcome.has_retention:
            curve_with_ribbon(curve, Look("", PALETTE[0]), value=quantity, ax=ax)
        else:
            words = f"{NOT_AVAILABLE}: the input carries\nno measurable {COMPONENT_NAMES[self.setting.component]}"
            ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center")
        ax.set_xlabel("relative depth (block / number of blocks)")
        ax.set_ylabel(
            "carried / carried at the input" if quantity == "retention" else f"excess, {self.exploration.nodes}"
        )
        users = self.outcome.users
        beside.hist(users[abs(users) < float("inf")], bins=30, color=PALETTE[0], alpha=0.7)
        beside.axvline(0.0, color=NULL_GREY, linewidth=1)
        beside.set_xlabel("excess of a user, last block")
        beside.set_ylabel("users")
        return figure

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Return the menus and, for a page without a kernel, the curve as it stands."""
        bundle = self.view._repr_mimebundle_(include=include, exclude=exclude)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**data, "text/html": self.page(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        setting = ", ".join(f"{field.name}={getattr(self.setting, field.name)!r}" for field in fields(self.setting))
        return f"Explorer({setting}, nodes={self.exploration.nodes!r}): {self.outcome.verdict}"


def _band_menu(rule: str) -> list[tuple[str, str]]:
    from spectral_probe.spectrum.bands import Bands

    n_bands = Bands.parse(rule).n_bands
    names = {1: "1 (smoothest)", n_bands: f"{n_bands} (roughest)"}
    return [("heat kernel at τ", "low"), *((names.get(band, str(band)), str(band)) for band in range(1, n_bands + 1))]


def _base_options(run: Path) -> AnalysisOptions:
    """Return the options that a re-analysis of a run starts from: those of the run that has its Grams."""
    from spectral_probe.analysis.options import AnalysisOptions
    from spectral_probe.analysis.saved_options import saved_config
    from spectral_probe.runs.analysis_run import AnalysisRun

    return AnalysisOptions.from_saved(saved_config(AnalysisRun.open(run).grams_run())["options"])


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
