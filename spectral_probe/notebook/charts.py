"""The interactive chart of a profile, in Vega-Altair."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

import pandas as pd

from spectral_probe.errors import ConfigError
from spectral_probe.figure_style import NULL_GREY, PALETTE
from spectral_probe.notebook.requirements import require
from spectral_probe.profiles.drawing import COMPONENT_TITLES
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import known_name, null_of

_WIDTH, _HEIGHT = 300, 240
#: The menu of the chart: save as SVG or PNG; no link to a page outside.
_ACTIONS = {"export": True, "source": False, "compiled": False, "editor": False}


def profile_chart(profile: DecayProfile, components: Sequence[str]) -> Any:
    """Return the chart of some components of a profile; see :meth:`DecayProfile.chart`."""
    alt = require("altair", package="altair", extra="report", what="chart()")
    vl_convert = require("vl_convert", package="vl-convert-python", extra="report", what="chart()")
    rows = chart_rows(profile, components)
    quantity = alt.param(
        name="quantity",
        value="retention",
        bind=alt.binding_radio(options=["retention", "excess"], name="quantity: "),
    )
    panels = [
        _panel(alt, rows[rows["component"] == component], _title(profile, component))
        for component in dict.fromkeys(components)
    ]
    title = alt.Title(
        f"{_label(profile, 'model')} on {_label(profile, 'dataset')}",
        subtitle="Carried, layer by layer, with 95 % intervals. Retention: relative to the input.",
        anchor="start",
    )
    chart = _offline(alt, vl_convert)(hconcat=panels, title=title).add_params(quantity)
    return chart.configure_view(strokeOpacity=0).configure_axis(grid=False)


def chart_rows(profile: DecayProfile, components: Sequence[str]) -> pd.DataFrame:
    """Return the rows behind the chart: one per component, control and layer.

    Raises
    ------
    ConfigError
        If a component is unknown, or none was measured.
    """
    nulls = {name: null_of(name, profile.null or "swap") for name in reversed(COMPONENT_TITLES)}
    measured = {name: profile.curve(name, null=null) for name, null in nulls.items()}
    measured = {name: curve for name, curve in measured.items() if not curve.empty}
    frames = []
    for component in dict.fromkeys(components):
        curve = known_name("components", component, measured)
        if not profile.has_measurable_input(component):
            curve = curve.assign(retention=float("nan"), retention_low=float("nan"), retention_high=float("nan"))
        frames.append(curve.assign(states="the model"))
        random = profile.controls.get("random-weights")
        reference = None if random is None else random.curve(component, null=nulls[component])
        if reference is not None and not reference.empty:
            frames.append(reference.assign(states="random weights"))
    if not frames:
        raise ConfigError(f"components must name at least one of {list(measured)}; got none.")
    columns = ["component", "states", "layer", "layer_name", "state", "n_users"]
    columns += [f"{name}{end}" for name in ("excess", "retention") for end in ("", "_low", "_high")]
    return pd.concat(frames, ignore_index=True)[columns].astype({"component": str, "layer_name": str, "state": str})


def _title(profile: DecayProfile, component: str) -> str:
    title = f"{COMPONENT_TITLES[component]} carried"
    return title if profile.has_measurable_input(component) else f"{title}: none measurable at the input, see excess"


def _panel(alt: Any, rows: pd.DataFrame, title: str) -> Any:
    """Return the panel of one component: line and ribbon of the blocks, marks for input and final norm."""
    order = list(dict.fromkeys(rows.sort_values("layer")["layer_name"]))
    base = (
        alt.Chart(rows, width=max(_WIDTH, 16 * len(order)), height=_HEIGHT, title=title)
        .transform_calculate(
            value="quantity == 'retention' ? datum.retention : datum.excess",
            low="quantity == 'retention' ? datum.retention_low : datum.excess_low",
            high="quantity == 'retention' ? datum.retention_high : datum.excess_high",
        )
        .transform_filter("isValid(datum.value)")
        .encode(x=alt.X("layer_name:N", sort=order, title=None, axis=alt.Axis(labelAngle=-60, labelOverlap=True)))
    )
    states = ["the model", "random weights"]
    color = alt.Color(
        "states:N", title=None, scale=alt.Scale(domain=states, range=[PALETTE[0], NULL_GREY]), legend=_legend(alt, rows)
    )
    shape = alt.Shape(
        "state:N",
        scale=alt.Scale(domain=["embed", "block", "final_norm"], range=["diamond", "circle", "cross"]),
        legend=None,
    )
    tooltip = [
        alt.Tooltip("layer_name:N", title="layer"),
        alt.Tooltip("states:N", title="states of"),
        *(
            alt.Tooltip(f"{name}{end}:Q", title=f"{name} {end.strip('_')}".strip(), format=".3~g")
            for name in ("retention", "excess")
            for end in ("", "_low", "_high")
        ),
        alt.Tooltip("n_users:Q", title="users"),
    ]
    blocks = base.transform_filter("datum.state == 'block'").encode(color=color)
    y = alt.Y("value:Q", title="carried", scale=alt.Scale(zero=True))
    ribbon = blocks.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title="carried"), y2="high:Q")
    line = blocks.mark_line().encode(y=y)
    points = base.mark_point(filled=True, size=70, opacity=1).encode(y=y, color=color, shape=shape, tooltip=tooltip)
    zero = alt.Chart(pd.DataFrame({"y": [0.0]})).mark_rule(color=NULL_GREY).encode(y="y:Q")
    return alt.layer(zero, ribbon, line, points)


def _legend(alt: Any, rows: pd.DataFrame) -> Any:
    return alt.Legend(orient="bottom") if rows["states"].nunique() > 1 else None


def _label(profile: DecayProfile, column: str) -> str:
    return str(profile.table[column].iloc[0])


def _offline(alt: Any, vl_convert: Any) -> Any:
    """Return a class of charts that a notebook shows without network: the library for it is in the output."""

    class OfflineChart(alt.HConcatChart):  # type: ignore[misc]
        """Charts side by side; shown in a frame of their own, so that no script of the notebook meets theirs."""

        def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, str]:
            panels = self.to_dict()["hconcat"]
            width = sum(int(panel["layer"][-1].get("width", panel.get("width", _WIDTH))) + 90 for panel in panels)
            page = html.escape(self.to_html(inline=True, embed_options={"actions": _ACTIONS}), quote=True)
            style = f"border: 0; width: 100%; min-width: {width}px; height: {_HEIGHT + 190}px; background: #fff"
            picture = vl_convert.vegalite_to_png(self.to_dict(), scale=1.5)
            return {
                # For a page that shows no frame: the chart as it stands.
                "image/png": base64.b64encode(picture).decode(),
                "text/html": f'<iframe title="Interactive chart" srcdoc="{page}" style="{style}"></iframe>',
                "text/plain": repr(self),
            }

    return OfflineChart
