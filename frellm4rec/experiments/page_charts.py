"""The charts of an experiment's page: means, a forest plot of the differences, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from frellm4rec.evaluation.contrasts import HIGHER, LEVEL, LOWER, NO_DIFFERENCE, TOO_FEW, effect_of
from frellm4rec.experiments.labels import ranking_label, setting_label
from frellm4rec.experiments.tables import NAMES, ExperimentTables, is_baseline
from spectral_probe.figure_style import PALETTE
from spectral_probe.report.columns import Data, columns_of
from spectral_probe.report.page import Chart, Choice, Panel

if TYPE_CHECKING:
    import altair as alt

#: Names of the data of the charts.
MEANS, DIFFERENCES, CURVES = "means", "differences", "curves"
_EFFECTS = (HIGHER, LOWER, NO_DIFFERENCE, TOO_FEW)
_COLORS = ("#009E73", "#D55E00", "#8A8A8A", "#8A8A8A")
_SHAPES = ("triangle-up", "triangle-down", "circle", "square")
_DASHES = ([1, 0], [6, 4], [2, 3])
_DASH_SIGNS = ("", " – –", " ···")
_ROW_STEP = 26


def result_panel(tables: ExperimentTables) -> tuple[Panel, Data] | None:
    """Return the panel of means and differences of one experiment, and its data; None without a mean."""
    if tables.means.empty:
        return None
    labels = dict(zip(tables.means["variant"], tables.means["label"], strict=True))
    means, differences = _means(tables.means), _differences(tables.differences, labels)
    settings = list(dict.fromkeys(means["setting"]))
    options = {
        "ranking": [(name, ranking_label(name)) for name in dict.fromkeys(means["ranking"])],
        "metric": [(name, f"{NAMES[name]}@{int(means['k'].iloc[0])}") for name in dict.fromkeys(means["metric"])],
        "setting": [(name, name or "all") for name in settings],
        "against": [(name, labels.get(name, name)) for name in dict.fromkeys(differences["against"])],
    }
    first = {name: values[0][0] if values else "" for name, values in options.items()}
    words = {"ranking": "Ranking", "metric": "Metric", "setting": "Setting", "against": "Compared with"}
    choices = [
        Choice(name, words[name], "menu", values, [first[name]])
        for name, values in options.items()
        if len(values) > 1 or name == "against"
        if values
    ]
    names = dict(options["metric"])
    order = list(dict.fromkeys(means["label"]))
    charts = [Chart(MEANS, _dots(order, first, names).to_dict(), "Mean of each variant with its 95 % interval.")]
    if not differences.empty:
        description = "Forest plot: difference of each variant from the chosen one, with its 95 % interval."
        charts.append(Chart(DIFFERENCES, _forest(order, first, names).to_dict(), description))
    note = (
        "Bars: 95 % intervals. ▲ higher and ▼ lower: the interval leaves out 0 and p, after Holm's correction, is at "
        f"most {LEVEL:g}. ● no detectable difference."
    )
    data = {MEANS: columns_of(means), DIFFERENCES: columns_of(differences)}
    return Panel("Results", charts, choices, note=note), data


def curve_panel(curves: pd.DataFrame) -> tuple[Panel, Data] | None:
    """Return the panel of the learning curves and its data; None if there are none.

    Parameters
    ----------
    curves : DataFrame
        Columns as of :func:`frellm4rec.experiments.curves.training_curves`.
    """
    if curves.empty:
        return None
    lines = list(dict.fromkeys(curves["line"]))
    shown = [line + _DASH_SIGNS[n // len(PALETTE) % len(_DASH_SIGNS)] for n, line in enumerate(lines)]
    quantities = [("ndcg", "validation NDCG@10")] * bool(curves["ndcg"].notna().any())
    quantities += [("loss", "training loss")] * bool(curves["loss"].notna().any())
    if not quantities:
        return None
    trials = [("chosen", "chosen trials"), ("all", "all trials")]
    choices = [
        Choice("quantity", "Quantity", "menu", quantities, [quantities[0][0]]),
        Choice("time", "Against", "menu", [("seconds", "seconds"), ("epoch", "epoch")], ["seconds"]),
        *([] if curves["is_chosen"].all() else [Choice("trials", "Trials", "menu", trials, ["chosen"])]),
        Choice(
            *(
                "lines",
                "Lines",
                "checks",
                list(zip(lines, shown, strict=True)),
                lines,
            ),
            is_legend=True,
        ),
    ]
    chart = Chart(CURVES, _learning(lines, quantities[0][0]).to_dict(), "Learning curves of the trainings.")
    return Panel("Learning curves", [chart], choices), {CURVES: columns_of(curves)}


def _means(means: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the dots; a baseline, which has no setting, is in every setting."""
    rows = means.assign(setting=[setting_label(row) for row in means.to_dict("records")])
    alone = is_baseline(rows)
    settings = list(dict.fromkeys(rows.loc[~alone, "setting"])) or [""]
    baselines = [rows[alone].assign(setting=setting) for setting in settings]
    columns = ["setting", "ranking", "metric", "k", "label", "value", "low", "high", "n_seeds", "n_users", "covers"]
    return pd.concat([rows[~alone], *baselines], ignore_index=True)[columns]


def _differences(differences: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    records = differences.to_dict("records")
    rows = differences.assign(
        setting=[setting_label(row) for row in records],
        effect=[effect_of(row["low"], row["high"], row["p_holm"], row["n_users"]) for row in records],
        against_label=[labels.get(row["against"], row["against"]) for row in records],
    )
    columns = ["setting", "ranking", "metric", "label", "against", "against_label", "difference", "low", "high"]
    return rows[[*columns, "p_holm", "effect", "n_users", "n_seeds", "covers"]]


def _parameters(values: Mapping[str, Any]) -> list[alt.Parameter]:
    import altair as alt

    return [alt.param(name=name, value=value) for name, value in values.items()]


def _interval_text(value: str) -> str:
    parts = [f"format(datum.{name}, '.4f')" for name in (value, "low", "high")]
    return f"{parts[0]} + ' [' + {parts[1]} + ', ' + {parts[2]} + ']'"


def _dots(order: list[str], first: Mapping[str, str], names: Mapping[str, str]) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    base = (
        alt.Chart(alt.NamedData(name=MEANS))
        .transform_filter("datum.ranking == ranking && datum.metric == metric && datum.setting == setting")
        .transform_calculate(text=_interval_text("value"), words="datum.label + ': ' + datum.text")
        .encode(y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=180, grid=True)))
    )
    tooltip = [
        alt.Tooltip("label:N", title="variant"),
        alt.Tooltip("text:N", title="mean"),
        alt.Tooltip("n_seeds:Q", title="seeds"),
        alt.Tooltip("n_users:Q", title="users", format=",d"),
        alt.Tooltip("covers:N", title="interval over"),
    ]
    return (
        alt.layer(
            base.mark_rule(aria=False, strokeWidth=2).encode(
                x=alt.X("low:Q", title=None, axis=alt.Axis(tickCount=8)), x2="high:Q"
            ),
            base.mark_point(filled=True, size=80, opacity=1).encode(
                x=alt.X("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=8)),
                tooltip=tooltip,
                description=alt.Description("words:N"),
            ),
        )
        .add_params(*_parameters({**first, "names": names}))
        .properties(
            width="container", height=alt.Step(_ROW_STEP), title=alt.Title(alt.ExprRef("'Test ' + names[metric]"))
        )
    )


def _forest(order: list[str], first: Mapping[str, str], names: Mapping[str, str]) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    base = (
        alt.Chart(alt.NamedData(name=DIFFERENCES))
        .transform_filter("datum.ranking == ranking && datum.metric == metric && datum.setting == setting")
        .transform_filter("datum.against == against")
        .transform_calculate(
            text=_interval_text("difference"),
            p="datum.p_holm < 0.001 ? '< 0.001' : format(datum.p_holm, '.3f')",
            words="datum.label + ' minus ' + datum.against_label + ': ' + datum.text + ', ' + datum.effect",
        )
        .encode(
            y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=180, grid=True)),
            color=alt.Color("effect:N", scale=alt.Scale(domain=list(_EFFECTS), range=list(_COLORS)), legend=None),
        )
    )
    tooltip = [
        alt.Tooltip("label:N", title="variant"),
        alt.Tooltip("against_label:N", title="compared with"),
        alt.Tooltip("text:N", title="difference"),
        alt.Tooltip("p:N", title="p (Holm)"),
        alt.Tooltip("effect:N", title="effect"),
        alt.Tooltip("n_users:Q", title="users", format=",d"),
        alt.Tooltip("covers:N", title="interval over"),
    ]
    zero = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(aria=False, strokeDash=[2, 2]).encode(x="at:Q")
    return (
        alt.layer(
            zero,
            base.mark_rule(aria=False, strokeWidth=2).encode(
                x=alt.X("low:Q", title=None, axis=alt.Axis(tickCount=8)), x2="high:Q"
            ),
            base.mark_point(filled=True, size=90, opacity=1).encode(
                x=alt.X("difference:Q", title=None, axis=alt.Axis(tickCount=8)),
                shape=alt.Shape("effect:N", scale=alt.Scale(domain=list(_EFFECTS), range=list(_SHAPES)), legend=None),
                tooltip=tooltip,
                description=alt.Description("words:N"),
            ),
        )
        .add_params(*_parameters({**first, "names": names}))
        .properties(width="container", height=alt.Step(_ROW_STEP))
        .properties(title=alt.Title(alt.ExprRef("'Difference of ' + names[metric] + ' from the chosen one'")))
    )


def _learning(lines: Sequence[str], quantity: str) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    dashes = [_DASHES[n // len(PALETTE) % len(_DASHES)] for n in range(len(lines))]
    base = (
        alt.Chart(alt.NamedData(name=CURVES))
        .transform_filter("indexof(lines, datum.line) >= 0 && (trials == 'all' || datum.is_chosen)")
        .transform_calculate(
            value="datum[quantity]",
            at="datum[time]",
            training="datum.line + '|' + datum.run",
            words="datum.line + ', ' + datum.run + ', epoch ' + datum.epoch + ': ' + format(datum[quantity], '.4f')",
        )
        .transform_filter("isValid(datum.value)")
        .encode(
            x=alt.X("at:Q", title=None, axis=alt.Axis(tickCount=10)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color("line:N", scale=alt.Scale(domain=list(lines)), legend=None),
            detail="training:N",
        )
    )
    dash = alt.StrokeDash("line:N", scale=alt.Scale(domain=list(lines), range=dashes), legend=None)
    tooltip = [
        alt.Tooltip("line:N", title="line"),
        alt.Tooltip("run:N", title="training"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("seconds:Q", format=",.0f"),
        alt.Tooltip("loss:Q", format=".4f"),
        alt.Tooltip("ndcg:Q", title="validation NDCG@10", format=".4f"),
    ]
    title = "(quantity == 'ndcg' ? 'Validation NDCG@10' : 'Training loss') + ' against ' + time"
    return (
        alt.layer(
            base.mark_line(aria=False, strokeWidth=1.5).encode(strokeDash=dash),
            base.mark_point(filled=True, size=25, opacity=1).encode(
                tooltip=tooltip, description=alt.Description("words:N")
            ),
        )
        .add_params(*_parameters({"quantity": quantity, "time": "seconds", "trials": "chosen", "lines": list(lines)}))
        .properties(width="container", height=320, title=alt.Title(alt.ExprRef(title)))
    )
