"""The table of the study as Markdown; every number is read from the table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.calibration import worlds
from benchmarks.calibration.probe import N_REFERENCES, NULLS, QUARTER, operator_name
from benchmarks.calibration.study import FIXED, REDRAWN, TAUS

#: What the issue asks for.
MAX_FALSE, COVERAGE, MIN_USERS, MIN_Z = 0.05, (0.93, 0.97), 200, 4.0
HEADLINE = operator_name(5.0)
OPERATORS = (*(operator_name(tau) for tau in TAUS), QUARTER)


def write_markdown(table: pd.DataFrame, path: Path) -> None:
    """Write the report of the table to ``path``."""
    path.write_text(markdown(table), encoding="utf-8")


def markdown(table: pd.DataFrame) -> str:
    """Return the report; the sections whose cells are not in the table yet are left out."""
    t = table.assign(false=table[["attenuated", "amplified", "preserved"]].sum(axis=1))
    sections = [_head(t), _summary(t), _independent(t), _constant(t), _coverage(t), _power(t), _popularity(t)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(" --- " for _ in header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _text(paragraphs: str) -> str:
    """Return the paragraphs with their lines filled anew; headings stay."""
    blocks = (" ".join(block.split()) for block in paragraphs.split("\n\n"))
    return "\n\n".join(textwrap.fill(b, 118, break_long_words=False, break_on_hyphens=False) for b in blocks)


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def _error(p: float, reps: float) -> float:
    """Return the Monte-Carlo standard error of a rate."""
    return float(np.sqrt(max(p * (1 - p), 0.0) / reps))


def _one(t: pd.DataFrame, **wanted: object) -> pd.Series:
    """Return the one row with these values."""
    found = _some(t, **wanted)
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows for {wanted}; the table must have one.")
    return found.iloc[0]


def _some(t: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    keep = np.ones(len(t), dtype=bool)
    for name, value in wanted.items():
        keep &= (t[name] == value).to_numpy()
    return t[keep]


def _sizes(t: pd.DataFrame) -> pd.Series:
    return t["n_users"].where(t["n_users"] > 0, t["all_users"]).astype(int)


def _head(t: pd.DataFrame) -> str:
    row = t.iloc[0]
    return _text(
        f"""# Calibration of the verdict

        <!-- Generated; do not edit. -->

        Regenerate with `python -m benchmarks.calibration --log LastFM.txt` (continues `docs/calibration.csv`; delete
        that file to start anew). Without `--log` only this page is written again from the CSV. Every result below is
        read from it.

        States are invented, graphs are real: the local graphs of LastFM (`--sequence valid`, at most 50 targets, own
        user dropped), {row["all_users"]} users with at least 4 targets and an edge. States have {worlds.WIDTH}
        dimensions; there is an `embed` layer and a last block whose noise correlates {worlds.SHARED_NOISE:g} with it,
        as in a residual stream. Intervals and verdicts are the instrument's: {row["n_bootstrap"]} paired resamples of
        users, `judge()`, τ = 5, at most {N_REFERENCES} references. Everything is seeded (seed {row["seed"]}; one stream
        per cell and repetition). "±" is one Monte-Carlo standard error. Rates are in per cent.

        *Headline* = first position dropped, centred, two-sided swap null. *One-sided* = the swap null of the user's own
        graph with other users' states, without the second difference. *Raw* = nothing dropped, nothing centred."""
    )


def _criterion_cells(t: pd.DataFrame, null: str) -> pd.DataFrame:
    """Return the coverage cells that the criterion is about."""
    c = t[t["study"].isin(["c", "d"]) & (t["operator"] == HEADLINE) & (t["null"] == null)]
    return c[(_sizes(c) >= MIN_USERS) & (c["embed_z"] >= MIN_Z)]


def _verdict_on(values: pd.Series, reps: pd.Series, low: float, high: float) -> str:
    """Return whether all rates lie in the range, and if not, whether chance explains it."""
    inside = (values >= low) & (values <= high)
    if inside.all():
        return "holds"
    error = np.sqrt(values * (1 - values) / reps)
    beyond = (values < low - 2 * error) | (values > high + 2 * error)
    return f"**fails** in {int(beyond.sum())}" if beyond.any() else "holds within 2 Monte-Carlo errors"


def _summary(t: pd.DataFrame) -> str:
    rows = []
    a = _some(t, study="a", gram="headline", null="two-sided")
    required = a[a["world"] != "white item vectors"]
    for label, cells in (("confounds (7 worlds)", required), ("item vectors shared by users", a.drop(required.index))):
        if len(cells):
            worst = cells.loc[cells["false"].idxmax()]
            rows.append(
                [
                    f"(a) false verdicts ≤ 5 %, {label}",
                    f"at most {_percent(worst['false'])} ± {_percent(_error(worst['false'], worst['reps']))} "
                    f"({worst['world']}) in {len(cells)} cells",
                    _verdict_on(cells["false"], cells["reps"], 0.0, MAX_FALSE),
                ]
            )
    b = _some(t, study="b", gram="headline", null="two-sided")
    if len(b):
        rows.append(
            [
                "(b) constant signal: the CI of the retention covers 1",
                f"{_percent(b['coverage'].min())}–{_percent(b['coverage'].max())} in {len(b)} cells",
                _verdict_on(b["coverage"], b["reps"], COVERAGE[0], 1.0),
            ]
        )
    for null in ("two-sided", "one-sided"):
        c = _criterion_cells(t, null)
        for design in (FIXED, REDRAWN):
            cells = c[c["design"] == design]
            if len(cells):
                inside = cells["coverage"].between(*COVERAGE).sum()
                rows.append(
                    [
                        f"(c) coverage 93–97 %, {null}, {design} (n ≥ {MIN_USERS}, z ≥ {MIN_Z:g})",
                        f"{_percent(cells['coverage'].min())}–{_percent(cells['coverage'].max())}, mean "
                        f"{_percent(cells['coverage'].mean())}; {inside} of {len(cells)} cells inside",
                        _verdict_on(cells["coverage"], cells["reps"], *COVERAGE),
                    ]
                )
    text = "## What holds and what does not\n\n" + _grid(("criterion", "result", ""), rows)
    return "\n\n".join(part for part in (text, _power_summary(t), _popularity_summary(t)) if part)


def _power_summary(t: pd.DataFrame) -> str:
    """Return how τ = 5 does beside the other low-passes, in words."""
    d = t[(t["study"] == "d") & (t["null"] == "two-sided") & (t["nominal"] == 1.0)]
    if d.empty:
        return ""
    d = d[_sizes(d) == _sizes(d).max()]
    ratios: dict[str, list[float]] = {operator: [] for operator in OPERATORS}
    for _, cells in d.groupby(["world", "strength"], sort=False):
        reference = _one(cells, operator=HEADLINE)["embed_z"]
        for operator in OPERATORS:
            ratios[operator].append(float((_one(cells, operator=operator)["embed_z"] / reference) ** 2))
    others = ", ".join(
        f"{operator}: {min(values):.1f}–{max(values):.1f}"
        for operator, values in ratios.items()
        if operator != HEADLINE
    )
    best = all(max(values) <= 1 for values in ratios.values())
    return _text(
        f"""(d) τ = 5 {"is" if best else "is **not**"} the most powerful of the low-passes on these graphs. How many
        times fewer users than τ = 5 the others need to see the injected signals (section (d); below 1: more users):
        {others}.
        """
    )


def _popularity_summary(t: pd.DataFrame) -> str:
    """Return what states that know popularity alone do to the headline, in words."""
    e = t[(t["study"] == "e") & (t["operator"] == HEADLINE)].set_index("world")["embed_z"]
    if e.empty:
        return ""
    blind = e.loc[[world for world in e.index if world in ("one axis", "norm rises", "norm falls")]]
    found = int((blind.abs() > 1.96).sum())
    z = ", ".join(f"{world}: {value:+.1f}" for world, value in blind.items())
    return _text(
        f"""(e) Of {len(blind)} worlds whose states know the popularity of items and nothing of co-occurrence, the
        headline sees {found} as signal (mean z of the embed excess at τ = 5: {z}). Section (e) shows what helps."""
    )


def _independent(t: pd.DataFrame) -> str:
    a = t[t["study"] == "a"]
    if a.empty:
        return ""
    text = [
        _text(
            f"""## (a) States independent of the graph

            Any of *attenuated*, *amplified*, *preserved* is false here. Each confound is mild at `embed` and strong at
            the last block: mean vector {worlds.MEAN_NORM[0]:g} → {worlds.MEAN_NORM[1]:g} times the noise, first row
            {worlds.FIRST_ROW[0]:g} → {worlds.FIRST_ROW[1]:g} times, norm growing along the sequence
            1 → {1 + worlds.NORM_GROWTH[0]:g} and 1 → {1 + worlds.NORM_GROWTH[1]:g} and {worlds.DEPTH_SCALE:g}-fold with
            depth, AR(1) with coefficient {worlds.AR_COEFFICIENT[0]:g} → {worlds.AR_COEFFICIENT[1]:g}, running mean with
            weight {worlds.RUNNING_SHARE[0]:g} → {worlds.RUNNING_SHARE[1]:g}. "White item vectors" is not in the list of
            the issue: one random vector per item, drawn anew in every repetition, so that users who share items share
            states."""
        )
    ]
    for (design, n), cells in a.groupby(["design", _sizes(a)], sort=False):
        reps = int(cells["reps"].min())
        names = list(dict.fromkeys(cells["world"]))
        columns = [(gram, null) for gram in ("headline", "raw") for null in NULLS]
        header = ("world", *(f"{null}{', raw' if gram == 'raw' else ''}" for gram, null in columns))
        rows = []
        for world in names:
            found = [_one(cells, world=world, gram=gram, null=null) for gram, null in columns]
            rows.append([world, *(_percent(r["false"]) for r in found)])
        text.append(
            f"**False verdicts, n = {n}, {design}**, {reps} repetitions (± {_percent(_error(MAX_FALSE, reps))} at 5 %):"
            f"\n\n{_grid(header, rows)}"
        )
        rows = []
        for world in names:
            for gram, null in columns:
                r = _one(cells, world=world, gram=gram, null=null)
                if (gram, null) == ("headline", "one-sided") or gram == "raw":
                    continue
                verdicts = " / ".join(_percent(r[v]) for v in ("attenuated", "amplified", "preserved", "inconclusive"))
                z = [f"{r[f'{k}_z']:+.2f} ({r[f'{k}_z_sd']:.2f})" for k in ("embed", "last")]
                rows.append([world, null, *z, _percent(r["embed_beyond"]), _percent(r["last_beyond"]), verdicts])
        header = (
            *("world", "null", "z of embed (sd)", "z of last block (sd)", "embed beyond ±1.96", "last beyond ±1.96"),
            "attenuated / amplified / preserved / inconclusive",
        )
        text.append(f"Mean excess in standard errors; 0 (1) and 5 % are right:\n\n{_grid(header, rows)}")
    return "\n\n".join(text)


def _constant(t: pd.DataFrame) -> str:
    b = t[t["study"] == "b"]
    if b.empty:
        return ""
    rows = []
    for _, r in b.iterrows():
        gram = "" if r["gram"] == "headline" else ", raw"
        coverage = f"{_percent(r['coverage'])} ± {_percent(_error(r['coverage'], r['reps']))}"
        verdicts = " / ".join(_percent(r[v]) for v in ("attenuated", "amplified", "preserved", "inconclusive"))
        rows.append([r["world"], r["null"] + gram, f"{r['embed_z']:.1f}", f"{r['retention']:.2f}", coverage, verdicts])
    header = ("grows", "null", "embed z", "median retention", "CI covers 1")
    n, first = int(_sizes(b).iloc[0]), b.iloc[0]
    text = _text(
        f"""## (b) A constant signal while something else grows

        The injected signal and the noise are the same at both layers; a mean vector ({worlds.MEAN_NORM[1]:g} times the
        noise), a first row ({worlds.FIRST_ROW[1]:g} times) or both are added at the last block only. The true retention
        is 1. n = {n}, signal {first["strength"]:g} times the energy of the noise, {first["reps"]} repetitions."""
    )
    return f"{text}\n\n{_grid((*header, 'attenuated / amplified / preserved / inconclusive'), rows)}"


def _coverage(t: pd.DataFrame) -> str:
    c = t[t["study"].isin(["c", "d"]) & (t["operator"] == HEADLINE)]
    if c.empty:
        return ""
    rows = []
    two, one = (_some(c, null=null) for null in ("two-sided", "one-sided"))
    two = two.assign(size=_sizes(two))
    two = two.sort_values(
        ["design", "world", "strength", "size", "nominal"], ascending=[True, False, False, True, False]
    )
    for _, r in two.iterrows():
        same = {k: r[k] for k in ("study", "world", "design", "n_users", "strength", "nominal")}
        other = _one(one, **same)
        is_required = r["size"] >= MIN_USERS and r["embed_z"] >= MIN_Z
        rows.append(
            [
                f"{r['world']}, {r['strength']:g}",
                r["design"],
                f"{r['size']}" if r["users"] > 0.995 * r["size"] else f"{r['size']} ({r['users']:.0f} with a null)",
                f"{r['embed_z']:.1f}",
                f"{r['truth']:.3f} ± {r['truth_error']:.3f}",
                f"{r['retention']:.2f}",
                ("**{}** ± {}" if is_required else "{} ± {}").format(
                    _percent(r["coverage"]), _percent(_error(r["coverage"], r["reps"]))
                ),
                f"{_percent(r['below'])} / {_percent(r['above'])}",
                _percent(other["coverage"]),
                f"{other['truth']:.3f}",
                f"{r['reps']}",
            ]
        )
    header = (
        *("signal, strength", "design", "n", "embed z", "truth", "median estimate", "coverage"),
        *("CI below / above truth", "coverage, one-sided", "truth, one-sided", "repetitions"),
    )
    text = _text(
        f"""## (c) Coverage of the retention's interval

        Signals: *own graph*: Gaussian states with covariance (I + {worlds.SMOOTHNESS:g} L)⁻¹ on the user's own graph,
        drawn anew for every user and repetition; *item vectors*: one fixed table from a truncated SVD of the training
        interactions, popularity divided out, noise drawn anew; *mixed users*: as own graph, half of the users keep all
        of the signal and half keep 50 %. Strength = energy of the signal over that of the noise at `embed`. At the last
        block a part of the signal's energy is kept and noise fills up the total; `embed` and all last blocks of one
        cell share their draws.

        Designs: *{FIXED}* (the issue's): one set of users per n, drawn once, states redrawn; the truth is the ratio of
        the mean excesses over many fresh states on the same graphs. *{REDRAWN}*: users drawn with replacement in every
        repetition as well, which is the randomness that a bootstrap over users imitates; the truth is that of all
        users. With the graphs fixed, an interval over users also pays for differences between graphs that are not
        redrawn, and may cover too often. **Bold** = the cells of the criterion, n ≥ {MIN_USERS} and mean embed z ≥
        {MIN_Z:g}. At n = 50 and 100 long histories have fewer than 20 references and drop out of the null."""
    )
    return f"{text}\n\n{_grid(header, rows)}"


def _power(t: pd.DataFrame) -> str:
    d = t[t["study"] == "d"]
    if d.empty:
        return ""
    text = [
        _text(
            """## (d) Power

            How often the verdict is *attenuated* when the signal's energy falls by 25 % and by 50 %, and (0 %) when it
            does not fall. Users drawn anew in every repetition. Two-sided swap null for every operator; the last column
            is the lowest quarter of the frequencies by rank under the one-sided null, as the display shows band 1 of
            4."""
        )
    ]
    for (world, strength), cells in d.groupby(["world", "strength"], sort=False):
        rows = []
        for loss, nominal in ((25, 0.75), (50, 0.5), (0, 1.0)):
            at = cells[cells["nominal"] == nominal]
            for n_users in dict.fromkeys(at["n_users"]):
                here = at[at["n_users"] == n_users]
                found = [_one(here, null="two-sided", operator=operator) for operator in OPERATORS]
                found.append(_one(here, null="one-sided", operator=QUARTER))
                row = [f"{loss} %", str(_sizes(here).iloc[0]), *(_percent(r["attenuated"]) for r in found)]
                rows.append([*row, str(here["reps"].iloc[0])])
        header = ("loss", "n", *OPERATORS, f"{QUARTER}, one-sided", "repetitions")
        text.append(f"**Signal: {world}, strength {strength:g}**\n\n{_grid(header, rows)}")
    largest = d[(d["nominal"] == 1.0) & (d["null"] == "two-sided") & (_sizes(d) == _sizes(d).max())]
    rows = []
    for (world, strength), cells in largest.groupby(["world", "strength"], sort=False):
        z = [float(_one(cells, operator=operator)["embed_z"]) for operator in OPERATORS]
        reference = z[OPERATORS.index(HEADLINE)]
        rows.append([f"{world}, {strength:g}", *(f"{v:.1f} ({(v / reference) ** 2:.2f})" for v in z)])
    text.append(
        f"z of the embed excess with {_sizes(d).max()} users, and in brackets its square relative to τ = 5: how many "
        f"times fewer users are needed to see the signal.\n\n{_grid(('signal, strength', *OPERATORS), rows)}"
    )
    return "\n\n".join(text)


def _popularity(t: pd.DataFrame) -> str:
    e = _some(t, study="e", null="two-sided")
    if e.empty:
        return ""
    labels = {
        "one axis": "5 % of the energy: log popularity along one random axis",
        "own graph": "23 % of the energy: smooth on the own graph",
        "item vectors": "5 % of the energy: item vectors from the SVD, popularity divided out",
        "norm rises": "noise whose norm rises with popularity",
        "norm falls": "noise whose norm falls with popularity",
        "norm falls, rows normalised": "the same, rows normalised",
    }
    operators = list(dict.fromkeys(e["operator"]))
    rows = []
    for world, cells in e.groupby("world", sort=False):
        found = [_one(cells, operator=operator) for operator in operators]
        rows.append([labels[str(world)], *(f"{r['embed_z']:+.1f}" for r in found)])
    first = e.iloc[0]
    text = _text(
        f"""## (e) Beyond the list: what popularity alone does

        The local degree of an item goes with its popularity, and the eigenvector of λ = 0 is the square root of the
        degree. States that know popularity and nothing of co-occurrence are therefore not independent of the graph, and
        swap does not remove them. "Without λ = 0": the response is 0 in that eigenspace and as before elsewhere. Two
        rows carry co-occurrence for comparison. Mean z of the embed excess (two-sided, headline Gram), n =
        {int(_sizes(e).iloc[0])}, {first["reps"]} repetitions:"""
    )
    return f"{text}\n\n{_grid(('states', *operators), rows)}"
