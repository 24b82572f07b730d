"""Summary of the study: which criteria hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.calibration.probe import QUARTER, operator_name
from benchmarks.calibration.study import FIXED, LONG, LONG_HISTORY, REDRAWN, SHORTEST, TAUS
from benchmarks.calibration.wording import filled, grid, only_row, percent, rows_with, sizes, standard_error

#: Criteria of the verdict.
MAX_FALSE, COVERAGE, MIN_USERS, MIN_Z = 0.05, (0.93, 0.97), 200, 4.0
HEADLINE = operator_name(5.0)
OPERATORS = (*(operator_name(tau) for tau in TAUS), QUARTER)


def _criterion_cells(t: pd.DataFrame, null: str, design: str, operator: str, *, is_long: bool) -> pd.DataFrame:
    """Return the coverage cells of one low-pass with enough users and signal."""
    c = rows_with(t[t["study"].isin(["c", "d"])], null=null, design=design, operator=operator)
    return c[(sizes(c) >= MIN_USERS) & (c["embed_z"] >= MIN_Z) & (c["world"].str.endswith(LONG) == is_long)]


def _verdict_on(values: pd.Series, reps: pd.Series, low: float, high: float) -> str:
    """Return whether all rates are in the range, and how many are outside it by more than 2 standard errors."""
    outside = (values < low) | (values > high)
    if not outside.any():
        return "holds"
    error = np.sqrt(values * (1 - values) / reps)
    beyond = (values < low - 2 * error) | (values > high + 2 * error)
    return f"**fails** in {outside.sum()} of {len(values)} cells, in {beyond.sum()} by more than 2 standard errors"


def summary(t: pd.DataFrame) -> str:
    rows = []
    a = rows_with(t, study="a", gram="headline", null="two-sided")
    required = a[a["world"] != "white item vectors"]
    for label, cells in (("confounds (7 worlds)", required), ("item vectors shared by users", a.drop(required.index))):
        if len(cells):
            worst = cells.loc[cells["false"].idxmax()]
            rows.append(
                [
                    f"(a) false verdicts ≤ 5 %, {label}",
                    f"at most {percent(worst['false'])} ± {percent(standard_error(worst['false'], worst['reps']))} "
                    f"({worst['world']}) in {len(cells)} cells",
                    _verdict_on(cells["false"], cells["reps"], 0.0, MAX_FALSE),
                ]
            )
    b = rows_with(t, study="b", gram="headline", null="two-sided")
    if len(b):
        rows.append(
            [
                "(b) constant signal: the CI of the retention covers 1",
                f"{percent(b['coverage'].min())}–{percent(b['coverage'].max())} in {len(b)} cells",
                _verdict_on(b["coverage"], b["reps"], COVERAGE[0], 1.0),
            ]
        )
    wanted = [(null, design, HEADLINE, False) for null in ("two-sided", "one-sided") for design in (FIXED, REDRAWN)]
    others = (operator_name(1.0), operator_name(2.0), QUARTER)
    wanted += [("two-sided", REDRAWN, operator, False) for operator in others]
    wanted += [("two-sided", REDRAWN, operator, True) for operator in (HEADLINE, *others)]
    for null, design, operator, is_long in wanted:
        cells = _criterion_cells(t, null, design, operator, is_long=is_long)
        if len(cells):
            label = f"(c) coverage 93–97 %, {null}, {operator}, {design}"
            low, high, mean = (percent(cells["coverage"].agg(name)) for name in ("min", "max", "mean"))
            rows.append(
                [
                    f"{label}{LONG if is_long else ''}",
                    f"{low}–{high}, mean {mean} in {len(cells)} cells",
                    _verdict_on(cells["coverage"], cells["reps"], *COVERAGE),
                ]
            )
    text = (
        f"## What holds and what does not\n\nFor (c), cells with n ≥ {MIN_USERS} and mean embed z ≥ {MIN_Z:g} count. "
        "The criterion is the two-sided headline with graphs fixed; the rest is there for comparison.\n\n"
        + grid(("criterion", "result", ""), rows)
    )
    return "\n\n".join(
        part
        for part in (text, _forms_summary(t), _power_summary(t), _popularity_summary(t), _histories_summary(t))
        if part
    )


def _forms_summary(t: pd.DataFrame) -> str:
    """Return a paragraph: does the one-sided form cover better?"""
    counts = []
    for null in ("two-sided", "one-sided"):
        cells = _criterion_cells(t, null, FIXED, HEADLINE, is_long=False)
        if cells.empty:
            return ""
        inside = cells["coverage"].between(*COVERAGE)
        counts.append(f"{null} {inside.sum()} of {len(inside)} cells inside, mean {percent(cells['coverage'].mean())}")
    return filled(
        f"""(c) Would the one-sided form repair the coverage? With graphs fixed: {"; ".join(counts)}. The
        standard error of a cell is {percent(standard_error(0.95, 1000))} with 1000 repetitions and
        {percent(standard_error(0.95, 400))} with 400."""
    )


def _power_summary(t: pd.DataFrame) -> str:
    """Return a paragraph: the power of τ = 5 against the other low-passes."""
    d = t[(t["study"] == "d") & (t["null"] == "two-sided") & (t["nominal"] == 1.0) & (t["n_users"] == 0)]
    parts, is_best = [], True
    for label, cells in (
        ("all users", d[~d["world"].str.endswith(LONG)]),
        (f"users with {LONG_HISTORY} or more targets", d[d["world"].str.endswith(LONG)]),
    ):
        z = cells.pivot_table(index=["world", "strength"], columns="operator", values="embed_z")
        if len(z):
            ratio = z.div(z[HEADLINE], axis=0) ** 2
            is_best &= bool((ratio <= 1).all(axis=None))
            ranges = (
                f"{name}: {ratio[name].min():.1f}–{ratio[name].max():.1f}" for name in OPERATORS if name != HEADLINE
            )
            parts.append(f"{label}: {', '.join(ranges)}")
    if not parts:
        return ""
    return filled(
        f"""(d) {HEADLINE} {"is" if is_best else "is **not**"} the most powerful of the low-passes on these graphs. How
        many times fewer users than {HEADLINE} the others need to see the injected signals (below 1: more users), over
        the signals of section (d), for {"; for ".join(parts)}."""
    )


def _popularity_summary(t: pd.DataFrame) -> str:
    """Return a paragraph: the headline on states that encode popularity alone."""
    e = t[(t["study"] == "e") & (t["operator"] == HEADLINE)].set_index("world")["embed_z"]
    if e.empty:
        return ""
    blind = e.loc[[world for world in e.index if world in ("one axis", "norm rises", "norm falls")]]
    n_significant = int((blind.abs() > 1.96).sum())
    z = ", ".join(f"{world}: {value:+.1f}" for world, value in blind.items())
    return filled(
        f"""(e) Of {len(blind)} worlds whose states know the popularity of items and nothing of co-occurrence, the
        headline sees {n_significant} as signal (mean z of the embed excess at {HEADLINE}: {z}). Section (e) shows
        what helps."""
    )


def _histories_summary(t: pd.DataFrame) -> str:
    """Return a paragraph: the effect of leaving out short histories."""
    f = t[(t["study"] == "f") & (t["operator"] == HEADLINE)]
    if f.empty:
        return ""
    before, after = f[f["shortest"] == SHORTEST[0]], f[f["shortest"] == LONG_HISTORY]
    z = "; ".join(
        f"{world}: {only_row(before, world=world)['embed_z']:.1f} → {only_row(after, world=world)['embed_z']:.1f}"
        for world in before["world"]
    )
    return filled(
        f"""(f) At {HEADLINE} ten of {before["users"].iloc[0]:.0f} users carry up to
        {percent(before["top_10_share"].max())} % of the variance of the retention. Leaving out histories of fewer than
        {LONG_HISTORY} targets leaves {after["users"].iloc[0]:.0f} users and changes the mean z of the embed excess:
        {z}."""
    )
