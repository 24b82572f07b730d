"""What the command line prints: the headline curve as a table, the verdict, and what a reader must know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectral_probe.cli.layers import chosen_layers
from spectral_probe.cli.tables import Column, print_table
from spectral_probe.cli.terminal import say, say_wrapped
from spectral_probe.comparison.comparison import ProfileComparison
from spectral_probe.profiles.numbers import NOT_AVAILABLE, PER_MILLE, decimals_for, excess_decimals, fixed, interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve
from spectral_probe.report.words import (
    QUANTITIES_IN_WORDS,
    caveat_in_words,
    changes_in_words,
    nulls_in_words,
    paired_in_words,
    users_in_words,
    verdict_in_words,
)
from spectral_probe.runs.analysis_run import AnalysisRun

if TYPE_CHECKING:
    from spectral_probe.analysis.pipeline import Analysis

CI = "95 % CI"
UNIT = "in units of 10⁻³ of the energy of the states"
Rows = Sequence[dict[str, Any]]


def print_analyses(results: Sequence[Analysis], overlay: AnalysisRun | None, *, all_layers: bool = False) -> None:
    """Print every analysis, and where its figure and report lie."""
    for result in results:
        where = None if result.run is None else f"{result.run.path / 'bands.csv'} has all."
        print_profile(result.profile, all_layers=all_layers, where=where or "")
        if result.run is not None:
            _print_paths(result.run)
    if overlay is not None:
        say("all models on one axis:")
        _print_paths(overlay)


def print_comparison(
    profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison], overlay: AnalysisRun
) -> None:
    """Print one line per profile, what changes from the first to each other, and where the figures lie."""
    for profile in profiles:
        say_wrapped(verdict_in_words(profile))
    for comparison in comparisons:
        say("")
        print_changes(comparison, where=f"{overlay.path / 'comparison.json'} has all.")
    say("")
    say(f"comparison: {overlay.path / 'figures' / 'comparison.png'}")
    _print_paths(overlay)


def print_changes(comparison: ProfileComparison, *, where: str = "") -> None:
    """Print the changes at the last block as a table, and what they say."""
    changes = comparison.in_short()
    base, other, difference, intervals = [], [], [], []
    for change in changes:
        is_ratio = change.quantity.startswith("retention")
        scale = 1.0 if is_ratio else PER_MILLE
        low, high = scale * change.difference.low, scale * change.difference.high
        decimals = 2 if is_ratio else max(0, min(2, decimals_for([low, high])))
        base.append(fixed(scale * change.base.value, decimals))
        other.append(fixed(scale * change.other.value, decimals))
        difference.append(fixed(scale * change.difference.value, decimals, sign=True))
        intervals.append(interval(low, high, decimals, sign=True))
    if changes:
        quantities = [QUANTITIES_IN_WORDS[change.quantity] for change in changes]
        print_table(
            [
                Column("quantity", quantities, is_text=True),
                Column("where", [change.site for change in changes], is_text=True, rank=1),
                Column(comparison.base, base, rank=3),
                Column(comparison.other, other, rank=2),
                Column("change", difference),
                Column(CI, intervals),
            ],
            title=f"{comparison.other} against {comparison.base}; shares and excesses in units of 10⁻³",
            more=where,
        )
        say("")
    say_wrapped(comparison.words)
    for lead, sentence in comparison.published_words.items():
        say_wrapped(f"{lead} {sentence}")


def _print_paths(run: AnalysisRun) -> None:
    say(f"run: {run.path}")
    say(f"figure: {run.path / 'figures' / 'decay.png'}")
    say(f"report: {run.path / 'report.html'}")


def print_profile(profile: DecayProfile, *, all_layers: bool = False, where: str = "") -> None:
    """Print the headline curve of a profile, its verdicts, and what a reader must know.

    Parameters
    ----------
    profile : DecayProfile
    all_layers : bool
        Print every layer of a deep model.
    where : str
        Where all numbers are, as a sentence.
    """
    title, columns, n_layers = _curve(profile, all_layers)
    print_table(columns, title=title, more=where)
    n_shown = len(columns[0].cells)
    if n_shown < n_layers:
        say_wrapped(
            f"{n_shown} of {n_layers} layers are shown: first, last, largest changes, evenly spaced. --all-layers "
            f"prints every layer{f'; {where}' if where else '.'}"
        )
    say("")
    for component, verdict in profile.verdicts.items():
        say_wrapped(f"verdict on {component}: {verdict}")
    lines = [
        verdict_in_words(profile),
        *paired_in_words(profile),
        nulls_in_words(profile),
        users_in_words(profile),
    ]
    for line in filter(None, lines):
        say_wrapped(line)
    _print_controls(profile)
    if profile.protocol.get("number_format"):
        say_wrapped(f"weights: {profile.protocol['number_format']}")
    for code in profile.caveats:
        say_wrapped(f"note [{code}]: {caveat_in_words(profile, code)}")


def _print_controls(profile: DecayProfile) -> None:
    """Print what every control says, and what it leaves of the input's."""
    controls = {
        name: [part for part in control.verdicts if part in control.retention]
        for name, control in profile.controls.items()
        if name != "paper"
    }
    rows = [(name, part) for name, parts in controls.items() for part in parts]
    if not rows:
        return
    retention = [
        (profile.controls[name].retention[part], profile.controls[name].has_measurable_input(part))
        for name, part in rows
    ]
    say("")
    print_table(
        [
            Column("control", [name for name, _ in rows], is_text=True),
            Column("of", [part for _, part in rows], is_text=True),
            Column("verdict", [profile.controls[name].verdicts[part].label for name, part in rows], is_text=True),
            Column("retention", [fixed(r.value, 2) if has else NOT_AVAILABLE for r, has in retention]),
            Column(CI, [interval(r.low, r.high, 2) if has else NOT_AVAILABLE for r, has in retention], rank=1),
        ]
    )
    say("")


def _curve(profile: DecayProfile, all_layers: bool) -> tuple[str, list[Column], int]:
    """Return title, columns and number of layers of the curve: its components, or the share of one without them."""
    first = profile.table.iloc[0]
    title = f"{first['model']} on {first['dataset']}, inputs {first['inputs']}"
    if changes := changes_in_words(profile):
        title = f"{title}\n{changes}"
    if profile.component == "whole" or "taste" not in set(profile.table["component"]):
        kinds = set(profile.table["nodes"]) if "nodes" in profile.table else set()
        nodes = profile.protocol.get("options", {}).get("nodes", "carried")
        chosen = nodes if nodes in kinds else None
        rows = select_curve(profile.table, null=profile.null, nodes=chosen).to_dict("records")
        shown = _shown(rows, "share", all_layers)
        null = str(rows[0]["null"])
        columns = _share_columns([rows[i] for i in shown], null, profile.has_measurable_input("whole"))
        of = f", nodes that are {chosen}" if chosen is not None and len(kinds) > 1 else ""
        return f"{title}\nLow-pass share of the energy{of}; excess {UNIT}", columns, len(rows)
    nodes = profile.protocol.get("options", {}).get("nodes", "carried")
    components = [profile.component, *(name for name in ("taste", "popularity") if name != profile.component)]
    curves: dict[str, Rows] = {name: profile.curve(name, nodes=nodes).to_dict("records") for name in components}
    shown = _shown(curves[components[0]], "excess", all_layers)
    columns = [_layers(curves[components[0]], shown)]
    for position, name in enumerate(components):
        rows = [curves[name][i] for i in shown]
        columns += _excess_columns(name, rows, rank=2 * position)
        if nodes == "carried":
            columns += _retention_columns(name, rows, profile.has_measurable_input(name), rank=2 * position)
    # Without a title of its own a retention is that of the component on its left.
    verb = "Carried" if nodes == "carried" else "Foreseen"
    rest = "; retention: the part of the input's" if nodes == "carried" else ""
    return f"{title}\n{verb}, {UNIT}{rest}", columns, len(curves[components[0]])


def _shown(rows: Rows, quantity: str, all_layers: bool) -> list[int]:
    return list(range(len(rows))) if all_layers else chosen_layers([float(row[quantity]) for row in rows])


def _layers(rows: Rows, shown: Sequence[int]) -> Column:
    names = [str(rows[i]["layer_name"]) for i in shown]
    return Column("layer", names, is_text=True)


def _excess_columns(name: str, rows: Rows, rank: int) -> list[Column]:
    decimals = excess_decimals(rows)
    values = [fixed(PER_MILLE * row["excess"], decimals) for row in rows]
    intervals = [interval(PER_MILLE * row["excess_low"], PER_MILLE * row["excess_high"], decimals) for row in rows]
    return [Column(name, values, rank=rank), Column(CI, intervals, rank=rank + 2, name=f"{CI} of {name}")]


def _retention_columns(name: str, rows: Rows, is_measurable: bool, rank: int) -> list[Column]:
    is_known = [is_measurable and math.isfinite(row["retention"]) for row in rows]
    values = [fixed(row["retention"], 2) if known else NOT_AVAILABLE for row, known in zip(rows, is_known, strict=True)]
    intervals = [
        interval(row["retention_low"], row["retention_high"], 2) if known else NOT_AVAILABLE
        for row, known in zip(rows, is_known, strict=True)
    ]
    name = f"retention of {name}"
    return [
        Column("retention", values, rank=rank, name=name),
        Column(CI, intervals, rank=rank + 1, name=f"{CI} of {name}"),
    ]


def _share_columns(rows: Rows, null: str, is_measurable: bool) -> list[Column]:
    """Return the low-pass share of a profile, that of its null, its excess and its retention."""
    return [
        Column("layer", [str(row["layer_name"]) for row in rows], is_text=True),
        Column("share", [fixed(row["share"], 3) for row in rows]),
        Column(CI, [interval(row["share_low"], row["share_high"], 3) for row in rows], rank=4, name=f"{CI} of share"),
        Column(f"{null} null", [fixed(row["null_share"], 3) for row in rows], rank=2),
        *_excess_columns("excess", rows, rank=0),
        *_retention_columns("the excess", rows, is_measurable, rank=0),
    ]
