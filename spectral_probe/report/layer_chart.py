"""The chart of a run over depth, and the rows behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from spectral_probe.profiles.drawing import relative_depth
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve
from spectral_probe.report.columns import Data, columns_of
from spectral_probe.report.page import Chart, Choice, Panel

if TYPE_CHECKING:
    import altair as alt

#: Names of the data of the chart: the values, and what they share at a layer.
LAYERS, POINTS = "layers", "points"
#: Quantities and components by their column or value, in the words of the menus.
QUANTITIES = {
    "retention": "retention: excess as a part of that at the input",
    "excess": "excess over the null",
    "share": "low-pass share of energy (whole)",
    "null_share": "low-pass share under the null (whole)",
}
COMPONENTS = {"taste": "taste", "popularity": "popularity", "lag": "lag profile", "whole": "whole excess"}
NODES_IN_WORDS = {"carried": "carried: items the rows read", "foreseen": "foreseen: items the rows predict"}
NULLS_IN_WORDS = {"swap": "swap —", "cyclic": "cyclic – –", "permutation": "permutation ···"}
_NULLS = tuple(NULLS_IN_WORDS)
_DASHES = ([1, 0], [6, 4], [2, 3])
_VALUES = ("share", "null_share", "excess", "retention")
_SPANS = ("share", "excess", "retention")
MARKS_NOTE = "◆ is the input of block 1, ● a block, ✚ the state after the final norm."
#: Ends of the axis of depth, and where on it the final norm stands; the input is at 0.
DEPTH_DOMAIN, NORM_AT = [0.0, 1.1], 1.08
#: On a logarithmic axis depth d is at log(1 + 31 d) / log 32: the first tenth of the blocks takes about two fifths.
_LOG_BASE = 32
_POINT = ["model", "control", "nodes", "layer"]
#: What is looked up of a point, and its name beside the values of the curve.
_OF_POINT = {
    **{name: name for name in (*_POINT, "layer_name", "state", "depth", "taste")},
    **{"share": "share_here", "null_share": "null_here"},
}
_COLUMNS = [
    *("component", "null", "n_users", "n_effective", *_VALUES),
    *(f"{value}_{end}" for value in _SPANS for end in ("low", "high")),
]


def layer_panel(
    profiles: Sequence[DecayProfile], names: Sequence[str], *, has_controls: bool = True
) -> tuple[Panel, Data, pd.DataFrame]:
    """Return the panel of the curves over depth, its data, and the points that the data of other charts name.

    Parameters
    ----------
    profiles : sequence of DecayProfile
    names : sequence of str
        Of their models, all different.
    has_controls : bool
        False leaves out the curves of the controls.
    """
    frames = [_rows(profile, name, has_controls) for profile, name in zip(profiles, names, strict=True)]
    rows = pd.concat(frames, ignore_index=True)
    controls = _control_options(rows)
    nodes = list(dict.fromkeys(rows["nodes"]))
    components = [name for name in COMPONENTS if name in set(rows["component"])]
    first = components[0]
    is_shown = (rows["control"] == "none") & (rows["component"] == first)
    quantity = "retention" if rows.loc[is_shown, "retention"].notna().any() else "excess"
    choices = [
        Choice("quantity", "Quantity", "menu", list(QUANTITIES.items()), [quantity], term="retention"),
        Choice(
            "component", "Component", "menu", [(name, COMPONENTS[name]) for name in components], [first], term="taste"
        ),
        Choice("nodes", "Nodes", "menu", [(n, NODES_IN_WORDS[n]) for n in nodes], nodes[:1]),
        Choice("control", "Beside it", "menu", [("none", "no control"), *controls], ["none"]),
        Choice("log_depth", "Logarithmic depth", "switch"),
        *model_choice(names),
        Choice("nulls", "Nulls of the whole", "checks", list(NULLS_IN_WORDS.items()), ["swap"], term="swap null"),
    ]
    description = f"Curves over the layers of {', '.join(names)}, with 95 % intervals."
    chart = Chart(LAYERS, _spec(list(names), first, quantity, nodes[0]).to_dict(), description)
    points = _points(rows)
    values = rows.merge(points[["point", *_POINT]], on=_POINT)[["point", *_COLUMNS]]
    values["n_effective"] = values["n_effective"].astype(float).round().astype("Int64")
    return (
        Panel("By layer", [chart], choices, note=f"Shaded and bars: 95 % intervals over users. {MARKS_NOTE}"),
        {LAYERS: columns_of(values), POINTS: columns_of(points)},
        points,
    )


def _control_options(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the controls for a menu, with the kind of nodes of those that have but one."""
    options = []
    for name, part in rows[rows["control"] != "none"].groupby("control", sort=False):
        nodes = list(dict.fromkeys(part["nodes"]))
        only = [*nodes] if len(nodes) == 1 else []
        only += ["share"] if part["excess"].isna().all() else []
        options.append((str(name), f"{name} ({', '.join(only)} only)" if only else str(name)))
    return options


def model_choice(names: Sequence[str]) -> list[Choice]:
    """Return the boxes that choose the models, with their colours; none for a single model."""
    options = [(name, name) for name in names]
    return [Choice("models", "Models", "checks", options, list(names), is_legend=True)] if len(names) > 1 else []


def _rows(profile: DecayProfile, name: str, has_controls: bool) -> pd.DataFrame:
    """Return the curves of a profile and of its controls: one row per layer, component, null and kind of nodes."""
    frames = []
    parts = {"none": profile, **(profile.controls if has_controls else {})}
    for control, part in parts.items():
        table = part.table
        if control == "paper":
            frames.append(select_curve(table, band="1", null=None, control=control).assign(null="none"))
            continue
        for nodes in dict.fromkeys(table["nodes"]):
            for component in COMPONENTS:
                nulls = _NULLS if component == "whole" else ("swap",)
                curves = [
                    select_curve(
                        table, component=component, null=null, nodes=nodes, control=str(table["control"].iloc[0])
                    )
                    for null in nulls
                ]
                frames += [_known(curve, part, component).assign(control=control) for curve in curves if len(curve)]
    rows = pd.concat(frames, ignore_index=True)
    depth = pd.concat([relative_depth(frame) for frame in frames], ignore_index=True)
    rows["depth"] = depth.clip(0.0, NORM_AT)
    return rows.assign(model=name)


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model, control, kind of nodes and layer: its depth, share and taste."""
    whole = rows[(rows["component"] == "whole") & rows["null"].isin(["swap", "none"])]
    points = rows.drop_duplicates(_POINT)[[*_POINT, "layer_name", "state", "depth"]]
    blocks = points[points["state"] == "block"]
    last = blocks.sort_values("layer").drop_duplicates(_POINT[:-1], keep="last").index
    points = points.assign(is_last_block=points.index.isin(last))
    points = points.merge(whole[[*_POINT, "share", "null_share"]], on=_POINT, how="left")
    taste = rows.loc[rows["component"] == "taste", [*_POINT, "excess"]].rename(columns={"excess": "taste"})
    return points.merge(taste, on=_POINT, how="left").reset_index(names="point")


def _known(curve: pd.DataFrame, profile: DecayProfile, component: str) -> pd.DataFrame:
    """Return a curve without its retention where the input has no measurable signal.

    Nothing of the next item is known at the input, so what is foreseen is a part of what the input carries.
    """
    unknown = curve.assign(**{f"retention{end}": float("nan") for end in ("", "_low", "_high")})
    if not profile.has_measurable_input(component):
        return unknown
    if curve["nodes"].iloc[0] != "foreseen":
        return curve
    table = profile.foreseen
    if table is None or table.empty or curve["control"].iloc[0] != "none":
        return unknown
    known = table[table["component"] == component].set_index("layer")
    ends = {"retention": "value", "retention_low": "low", "retention_high": "high"}
    return curve.assign(**{name: curve["layer"].map(known[end]).astype(float) for name, end in ends.items()})


#: Expressions of the title: what is drawn now, and its unit.
_TITLE = (
    "quantity == 'share' ? 'low-pass share' : quantity == 'null_share' ? 'low-pass share under the null' : "
    "component + (nodes == 'foreseen' ? ' foreseen' : ' carried')"
)
_SUBTITLE = (
    "indexof(quantity, 'share') >= 0 ? 'of the energy of the states' : quantity == 'excess' ? 'excess over the null' : "
    "'as a part of what the input carries'"
)


#: Expression of what a screen reader says of a point.
_WORDS = (
    "datum.model + ', layer: ' + datum.layer_name + ', ' + datum.component + ' ' + datum.nodes + ', null: ' + "
    "datum.null + ', excess: ' + datum.excess_text + ', retention: ' + datum.retention_text + "
    "', users: ' + datum.n_users"
)


def _base(models: list[str]) -> alt.Chart:
    """Return the chart of the chosen rows, with the value that is shown, its interval and its depth."""
    import altair as alt

    points = alt.LookupData(alt.NamedData(name=POINTS), "point", list(_OF_POINT))
    return (
        alt.Chart(alt.NamedData(name=LAYERS))
        .transform_lookup("point", points, as_=list(_OF_POINT.values()))
        .transform_filter(
            "indexof(models, datum.model) >= 0 && datum.nodes == nodes"
            " && datum.component == (indexof(quantity, 'share') >= 0 ? 'whole' : component)"
            " && (datum.control == 'none' || datum.control == control)"
            " && (datum.component != 'whole' || datum.null == 'none' || indexof(nulls, datum.null) >= 0)"
        )
        .transform_calculate(
            value="datum[quantity]",
            low="datum[quantity + '_low']",
            high="datum[quantity + '_high']",
            x=depth_expression(),
            curve="datum.model + '|' + datum.control + '|' + datum.null",
            look="datum.control == 'none' ? 1 : 0.45",
            excess_text=_span("excess", 4),
            retention_text=_span("retention", 2),
        )
        .transform_filter("isValid(datum.value)")
        .encode(
            x=alt.X("x:Q", axis=depth_axis(), scale=alt.Scale(domain=DEPTH_DOMAIN, nice=False)),
            color=alt.Color("model:N", scale=alt.Scale(domain=models), legend=None),
            detail="curve:N",
            opacity=alt.Opacity("look:Q", scale=None, legend=None),
        )
    )


def _spec(models: list[str], component: str, quantity: str, nodes: str) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    parameters: dict[str, Any] = {"quantity": quantity, "component": component, "nodes": nodes, "control": "none"}
    parameters |= {"log_depth": False, "models": models, "nulls": ["swap"]}
    base = _base(models)
    title = alt.Title(alt.ExprRef(f"[{_TITLE}, {_SUBTITLE}]"))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))
    dash = alt.StrokeDash("null:N", scale=alt.Scale(domain=[*_NULLS, "none"], range=[*_DASHES, [1, 0]]), legend=None)
    shapes = alt.Scale(domain=["embed", "block", "final_norm"], range=["diamond", "circle", "cross"])
    blocks = base.transform_filter("datum.state == 'block'")
    lines = alt.Chart(alt.InlineData([{"at": 0}, {"at": 1}])).transform_filter(
        "datum.at == 0 || quantity == 'retention'"
    )
    return (
        alt.layer(
            lines.mark_rule(aria=False, strokeWidth=1, strokeDash=[2, 2]).encode(y="at:Q"),
            blocks.mark_area(aria=False, fillOpacity=0.15, strokeWidth=0).encode(y="low:Q", y2="high:Q"),
            blocks.mark_line(aria=False, strokeWidth=2).encode(y=y, strokeDash=dash),
            base.transform_filter("datum.state != 'block'").mark_rule(aria=False).encode(y="low:Q", y2="high:Q"),
            base.transform_calculate(words=_WORDS)
            .mark_point(filled=True, size=60, opacity=1)
            .encode(
                y=y,
                shape=alt.Shape("state:N", scale=shapes, legend=None),
                tooltip=_tooltip(),
                description=alt.Description("words:N"),
            ),
        )
        .add_params(*(alt.param(name=name, value=value) for name, value in parameters.items()))
        .properties(width="container", height=340, title=title)
    )


def depth_expression() -> str:
    """Return the expression of x from the depth of a row and the parameter ``log_depth``."""
    return f"log_depth ? log(1 + {_LOG_BASE - 1} * datum.depth) / log({_LOG_BASE}) : datum.depth"


def depth_axis() -> alt.Axis:
    """Return the axis of depth, which names relative depths whether or not it is logarithmic."""
    import altair as alt

    linear, logarithmic = [0, 0.2, 0.4, 0.6, 0.8, 1], [0, 0.05, 0.1, 0.2, 0.5, 1]
    placed = [math.log(1 + (_LOG_BASE - 1) * depth) / math.log(_LOG_BASE) for depth in logarithmic]
    inverse = f"(pow({_LOG_BASE}, datum.value) - 1) / {_LOG_BASE - 1}"
    return alt.Axis(
        title="relative depth (block / number of blocks)",
        values=alt.ExprRef(f"log_depth ? {placed} : {linear}"),
        labelExpr=f"format(log_depth ? {inverse} : datum.value, '.2~f')",
        grid=False,
    )


def _span(value: str, digits: int) -> str:
    """Return the expression of a value with its interval as text."""
    number, low, high = (f"format(datum.{value}{end}, '.{digits}f')" for end in ("", "_low", "_high"))
    return f"isValid(datum.{value}) ? {number} + ' [' + {low} + ', ' + {high} + ']' : 'n/a'"


def _tooltip() -> list[alt.Tooltip]:
    import altair as alt

    texts = {
        "model": "model",
        "layer_name": "layer",
        "component": "component",
        "nodes": "nodes",
        "null": "null",
        "control": "control",
        "excess_text": "excess",
        "retention_text": "retention",
    }
    return [
        *(alt.Tooltip(f"{column}:N", title=title) for column, title in texts.items()),
        alt.Tooltip("share_here:Q", title="low-pass share", format=".4f"),
        alt.Tooltip("null_here:Q", title="share under the null", format=".4f"),
        alt.Tooltip("taste:Q", title="taste here", format=".4f"),
        alt.Tooltip("n_users:Q", title="users", format=",d"),
        alt.Tooltip("n_effective:Q", title="effectively", format=",.0f"),
    ]
