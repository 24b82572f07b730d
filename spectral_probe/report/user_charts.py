"""The charts of the users: how a quantity is distributed, and the curve and history of one user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.columns import Data, columns_of, grid_of
from spectral_probe.report.layer_chart import (
    DEPTH_DOMAIN,
    LAYERS,
    MARKS_NOTE,
    POINTS,
    depth_axis,
    depth_expression,
    model_choice,
)
from spectral_probe.report.page import Chart, Choice, Panel

if TYPE_CHECKING:
    import altair as alt

#: Names of the data: counts of all users, and those who are shown with their values, histories and items.
COUNTS, USERS, USER_VALUES, HISTORIES, ITEMS = "counts", "users", "user_values", "histories", "items"
#: At most so many users are shown.
MOST_SHOWN = 200
LAST_BLOCK = "last block"
_N_BINS = 40
#: Expression of whether a row is at the chosen layer.
_HERE = f"user_layer == '{LAST_BLOCK}' ? datum.is_last_block : datum.layer_name == user_layer"
#: Beginning of the expression of an edge of a bin, to be multiplied with the number of the bin.
_EDGE = f"extents[user_quantity][0] + (extents[user_quantity][1] - extents[user_quantity][0]) / {_N_BINS}"
_OF_POINT = ["model", "layer", "layer_name", "state", "depth", "is_last_block"]
_GROUPS = ("largest", "smallest", "drawn")
#: Of the users who are shown, this part is the largest and as many the smallest; the others are drawn.
_EXTREME_PART = 0.3
#: Columns of the per-user table, in the words of the menu, and the component of the curve that is their mean.
QUANTITIES = {
    "taste": ("taste", "taste"),
    "popularity": ("popularity", "popularity"),
    "excess_swap": ("whole excess over swap", "whole"),
    "excess_permutation": ("whole excess over permutation", ""),
    "excess_cyclic": ("whole excess over cyclic", ""),
}
_SHOWN_QUANTITIES = ("taste", "popularity", "excess_swap")


def user_panel(
    profiles: Sequence[DecayProfile],
    names: Sequence[str],
    points: pd.DataFrame,
    *,
    histories: Mapping[str, Sequence[str]],
    n_shown: int = MOST_SHOWN,
    seed: int = 0,
) -> tuple[Panel, Data] | None:
    """Return the panel of the users and its data; None if no profile has users with a quantity.

    Parameters
    ----------
    profiles : sequence of DecayProfile
        The first chooses the users who are shown, by the first quantity at the first layer.
    names : sequence of str
        Of their models.
    points : DataFrame
        See :func:`spectral_probe.report.layer_chart.layer_panel`.
    histories : {user: items}
        As far as they are known.
    n_shown : int
        Users who are shown: the largest, the smallest, and a draw of the others.
    seed : int
        Of the draw.
    """
    tables = [_carried(profile) for profile in profiles]
    quantities = [
        name for name in _SHOWN_QUANTITIES if all(name in table and table[name].notna().any() for table in tables)
    ]
    if not quantities or tables[0].empty:
        return None
    shown = _shown(tables[0], quantities[0], n_shown, seed)
    values = pd.concat(
        [_values(table, name, points, quantities) for table, name in zip(tables, names, strict=True)], ignore_index=True
    )
    counts, extents, peaks = _counts(values, quantities)
    numbered = shown.reset_index(names="user")
    is_shown = values.merge(numbered[["user", "label"]], on="label")
    data = {
        COUNTS: columns_of(counts),
        USERS: columns_of(numbered),
        USER_VALUES: grid_of(is_shown[["point", "user", *quantities]], ("point", "user"), decimals=5),
        **_history_data(shown, histories),
    }
    n_users = tables[0]["label"].nunique()
    panel = _panel(names, shown, quantities, points, extents, peaks, n_users)
    return panel, data


def _carried(profile: DecayProfile) -> pd.DataFrame:
    """Return the per-user table of the nodes that are carried, with the name of each user as ``label``."""
    table = profile.per_user
    if table.empty:
        return table.assign(label=[])
    table = table[table["nodes"] == table["nodes"].iloc[0]]
    if "measured" not in table:  # saved by the first version
        table = table.assign(measured=table["n_targets"])
    names = table["user_id"] if "user_id" in table else table["sequence"]
    return table.assign(label=names.astype(str))


def _shown(table: pd.DataFrame, quantity: str, n_shown: int, seed: int) -> pd.DataFrame:
    """Return the users who are shown: name, group and measured nodes, the largest first."""
    first = table[table["layer_name"] == table["layer_name"].iloc[0]]
    ranked = first.dropna(subset=[quantity]).sort_values(quantity, ascending=False, kind="stable")
    ranked = ranked.drop_duplicates("label")
    n = len(ranked)
    n_extreme = int(_EXTREME_PART * n_shown) if n > n_shown else 0
    middle = np.arange(n_extreme, n - n_extreme)
    n_drawn = min(len(middle), n_shown - 2 * n_extreme)
    drawn = np.sort(np.random.default_rng(seed).choice(middle, n_drawn, replace=False))
    rows = np.concatenate([np.arange(n_extreme), drawn, np.arange(n - n_extreme, n)])
    groups = [_GROUPS[0]] * n_extreme + [_GROUPS[2]] * n_drawn + [_GROUPS[1]] * n_extreme
    chosen = ranked.iloc[rows]
    return chosen[["label", "measured"]].assign(group=groups).reset_index(drop=True)


def _values(table: pd.DataFrame, model: str, points: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Return one row per user and layer, with the number of its point."""
    of_model = points[(points["model"] == model) & (points["control"] == "none")]
    of_model = of_model[of_model["nodes"] == table["nodes"].iloc[0]][["point", "layer_name"]]
    return table.merge(of_model, on="layer_name")[["point", "label", *quantities]]


def _counts(
    values: pd.DataFrame, quantities: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, list[float]], dict[str, dict[str, int]]]:
    """Return the users per bin of every point, the range of each quantity, and the largest count of each point."""
    frames: list[pd.DataFrame] = []
    extents: dict[str, list[float]] = {}
    peaks: dict[str, dict[str, int]] = {}
    for quantity in quantities:
        # To thousandths, so that a page written anew from rounded files has the same bins.
        low, high = np.floor(1000 * values[quantity].min()) / 1000, np.ceil(1000 * values[quantity].max()) / 1000
        high = max(high, low + 0.001)
        edges = np.linspace(low, high, _N_BINS + 1)
        extents[quantity] = [float(low), float(high)]
        peaks[quantity] = {}
        for point, part in values.groupby("point"):
            counts, _ = np.histogram(part[quantity].dropna(), bins=edges)
            peaks[quantity][str(point)] = int(counts.max(initial=1))
            filled = np.flatnonzero(counts)
            columns = {"point": int(point), "quantity": quantity, "bin": filled}
            frames.append(pd.DataFrame({**columns, "users": counts[filled]}))
    return pd.concat(frames, ignore_index=True), extents, peaks


def _history_data(shown: pd.DataFrame, histories: Mapping[str, Sequence[str]]) -> Data:
    """Return the items that each user who is shown has read, by the number of the item among those that are named."""
    rows = [(user, item) for user, label in enumerate(shown["label"]) for item in histories.get(label, ())]
    items = list(dict.fromkeys(item for _, item in rows))
    number = {item: n for n, item in enumerate(items)}
    return {
        HISTORIES: {"user": [user for user, _ in rows], "item": [number[i] for _, i in rows]},
        ITEMS: {"name": items},
    }


def _panel(
    names: Sequence[str],
    shown: pd.DataFrame,
    quantities: Sequence[str],
    points: pd.DataFrame,
    extents: dict[str, list[float]],
    peaks: dict[str, dict[str, int]],
    n_users: int,
) -> Panel:
    points = points[points["control"] == "none"]
    layers = list(dict.fromkeys(points["layer_name"]))
    ends = [(LAST_BLOCK, LAST_BLOCK)] if points["is_last_block"].any() else []
    options = [*ends, *((layer, layer) for layer in layers)]
    shown_layer = options[0][0]
    users = [
        (str(n), f"{row['label']} ({row['group']}, {row['measured']} nodes)")
        for n, row in enumerate(shown.to_dict("records"))
    ]
    choices = [
        Choice("user_quantity", "Quantity", "menu", [(q, QUANTITIES[q][0]) for q in quantities], [quantities[0]]),
        Choice("user_layer", "Layer", "menu", options, [shown_layer]),
        Choice("log_depth", "Logarithmic depth", "switch"),
        *model_choice(names),
        Choice("user", "User", "menu", users, ["0"]),
    ]
    is_all = len(shown) == n_users
    note = (
        "Bars: all users, by the quantity at the layer. Dots: "
        + (f"the {len(shown)} users, " if is_all else f"{len(shown)} of {n_users:,} users (the largest, the smallest, ")
        + ("" if is_all else "and a seeded draw of the others; all are in per_user.csv.gz), ")
        + "each with its curve and history at a click, or from the menu. "
        + MARKS_NOTE
    )
    charts = [
        Chart(
            "distribution",
            _distribution(names, quantities[0], shown_layer, extents, peaks).to_dict(),
            "Histogram of the users by the chosen quantity at the chosen layer, with a dot for each user who is shown.",
        ),
        Chart(
            "user",
            _user_curve(names, quantities[0]).to_dict(),
            "Curve of the chosen user over the layers, with the mean of all users dashed.",
        ),
    ]
    return Panel("Users", charts, choices, note=note, picks="user")


def _with_points(data: str) -> alt.Chart:
    """Return a chart of these data with model, layer and depth of each row looked up, for the chosen models."""
    import altair as alt

    lookup = alt.LookupData(alt.NamedData(name=POINTS), "point", _OF_POINT)
    return (
        alt.Chart(alt.NamedData(name=data))
        .transform_lookup("point", lookup)
        .transform_filter("indexof(models, datum.model) >= 0")
    )


def _distribution(
    names: Sequence[str],
    quantity: str,
    layer: str,
    extents: dict[str, list[float]],
    peaks: dict[str, dict[str, int]],
) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    color = alt.Color("model:N", scale=alt.Scale(domain=list(names)), legend=None)
    ends = [alt.ExprRef(f"extents[user_quantity][{end}]") for end in (0, 1)]
    x = alt.Scale(domain=ends, nice=False)
    parameters: dict[str, Any] = {"user_quantity": quantity, "user_layer": layer, "user": "0", "models": list(names)}
    parameters |= {"extents": extents, "peaks": peaks, "titles": {name: QUANTITIES[name][0] for name in peaks}}
    return (
        alt.layer(_bars(x, color), _dots(x, color))
        .add_params(*(alt.param(name=name, value=value) for name, value in parameters.items()))
        .properties(width="container", height=220)
        .properties(title=alt.Title(alt.ExprRef("titles[user_quantity] + ' at ' + user_layer")))
    )


def _bars(x: alt.Scale, color: alt.Color) -> Any:
    """Return the users per bin of the chosen quantity at the chosen layer."""
    import altair as alt

    return (
        _with_points(COUNTS)
        .transform_filter(f"({_HERE}) && datum.quantity == user_quantity")
        .transform_calculate(base="0", low=f"{_EDGE} * datum.bin", high=f"{_EDGE} * (datum.bin + 1)")
        .mark_rect(opacity=0.55)
        .encode(
            x=alt.X("low:Q", title=None, scale=x, axis=alt.Axis(tickCount=6, grid=False, labelOverlap=True)),
            x2="high:Q",
            y=alt.Y("users:Q", title="users", axis=alt.Axis(labelExpr="datum.value < 0 ? '' : datum.label")),
            y2="base:Q",
            color=color,
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("low:Q", title="from", format=".4f"),
                alt.Tooltip("high:Q", title="to", format=".4f"),
                alt.Tooltip("users:Q"),
            ],
        )
    )


def _dots(x: alt.Scale, color: alt.Color) -> Any:
    """Return a dot for each user who is shown, scattered below the bars."""
    import altair as alt

    return (
        _with_points(USER_VALUES)
        .transform_filter(_HERE)
        .transform_lookup("user", alt.LookupData(alt.NamedData(name=USERS), "user", ["label", "group", "measured"]))
        .transform_calculate(
            value="datum[user_quantity]",
            below="-(0.08 + 0.3 * ((datum.user * 0.618034) % 1)) * peaks[user_quantity][datum.point + '']",
            is_chosen="datum.user == toNumber(user)",
            words="datum.label + ', ' + datum.group + ': ' + format(datum.value, '.4f')",
        )
        .transform_filter("isValid(datum.value)")
        .mark_point(filled=True, size=36, cursor="pointer")
        .encode(
            x=alt.X("value:Q", scale=x),
            y="below:Q",
            color=color,
            opacity=alt.condition("datum.is_chosen", alt.value(1), alt.value(0.6)),
            size=alt.condition("datum.is_chosen", alt.value(220), alt.value(36)),
            description=alt.Description("words:N"),
            tooltip=[
                alt.Tooltip("label:N", title="user"),
                alt.Tooltip("group:N"),
                alt.Tooltip("model:N"),
                alt.Tooltip("measured:Q", title="measured nodes"),
                alt.Tooltip("value:Q", title="here", format=".4f"),
            ],
        )
    )


def _user_curve(names: Sequence[str], quantity: str) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    color = alt.Color("model:N", scale=alt.Scale(domain=list(names)), legend=None)
    x = alt.X("x:Q", axis=depth_axis(), scale=alt.Scale(domain=DEPTH_DOMAIN, nice=False))
    y = alt.Y("value:Q", title=None)
    of_user = (
        _with_points(USER_VALUES)
        .transform_filter("datum.user == toNumber(user)")
        .transform_calculate(value="datum[user_quantity]", x=depth_expression())
        .transform_filter("isValid(datum.value)")
        .encode(x=x, color=color)
    )
    components = {name: QUANTITIES[name][1] for name in _SHOWN_QUANTITIES}
    mean = (
        _with_points(LAYERS)
        .transform_filter("datum.component == components[user_quantity] && datum.null == 'swap'")
        .transform_lookup("point", alt.LookupData(alt.NamedData(name=POINTS), "point", ["control", "nodes"]))
        .transform_filter("datum.control == 'none' && datum.nodes == 'carried' && datum.state == 'block'")
        .transform_calculate(value="datum.excess", x=depth_expression())
        .mark_line(aria=False, strokeDash=[5, 4], opacity=0.7)
        .encode(x=x, y=y, color=color)
    )
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("layer_name:N", title="layer"),
        alt.Tooltip("value:Q", title="this user", format=".4f"),
    ]
    words = "datum.layer_name + ': ' + format(datum.value, '.4f')"
    parameters: dict[str, Any] = {"user_quantity": quantity, "user": "0", "models": list(names), "log_depth": False}
    parameters |= {"components": components}
    rule = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(aria=False, strokeWidth=1, strokeDash=[2, 2])
    return (
        alt.layer(
            rule.encode(y="at:Q"),
            mean,
            of_user.transform_filter("datum.state == 'block'").mark_line(aria=False).encode(y=y),
            of_user.transform_calculate(words=words)
            .mark_point(filled=True, size=50, opacity=1)
            .encode(y=y, tooltip=tooltip, description=alt.Description("words:N")),
        )
        .add_params(*(alt.param(name=name, value=value) for name, value in parameters.items()))
        .properties(
            width="container", height=200, title=["The chosen user over the layers", "dashed: the mean of all users"]
        )
    )
