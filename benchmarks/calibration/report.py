"""The table of the study as Markdown; every number is read from the table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.calibration import worlds
from benchmarks.calibration.probe import N_REFERENCES, NULLS, QUARTER
from benchmarks.calibration.study import FIXED, REDRAWN
from benchmarks.calibration.summary import HEADLINE, MAX_FALSE, MIN_USERS, MIN_Z, OPERATORS, summary
from benchmarks.calibration.wording import filled, grid, only_row, percent, rows_with, sizes, standard_error
from spectral_probe.storage.atomic import write_text


def write_markdown(table: pd.DataFrame, path: Path) -> None:
    """Write the report of the table to ``path``."""
    write_text(path, markdown(table).removesuffix("\n"))


def markdown(table: pd.DataFrame) -> str:
    """Return the report; sections whose cells are not in the table are left out."""
    t = table.assign(false=table[["attenuated", "amplified", "preserved"]].sum(axis=1))
    sections = [
        _head(t),
        summary(t),
        _independent(t),
        _constant(t),
        _coverage(t),
        _power(t),
        _popularity(t),
        _histories(t),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(t: pd.DataFrame) -> str:
    row = t.iloc[0]
    return filled(
        f"""# Calibration of the verdict

        <!-- Generated; do not edit. -->

        Regenerate with `python -m benchmarks.calibration --log LastFM.txt` (continues `figures/calibration/cells.csv`;
        delete that file to start anew). Without `--log` only this page is written again from the CSV. Every result
        below is read from it.

        States are invented, graphs are real: the local graphs of LastFM (`--sequence valid`, at most 50 targets, own
        user dropped), {row["all_users"]} users with at least 4 targets and an edge. States have {worlds.WIDTH}
        dimensions; there is an `embed` layer and a last block whose noise correlates {worlds.SHARED_NOISE:g} with it,
        as in a residual stream. Intervals and verdicts are the instrument's: {row["n_bootstrap"]} paired resamples of
        users, `judge()`, τ = 5, at most {N_REFERENCES} references. Everything is seeded (seed {row["seed"]}; one stream
        per cell and repetition). "±" is one Monte-Carlo standard error. Rates are in per cent.

        *Headline* = first position dropped, centred, two-sided swap null. *One-sided* = the swap null of the user's own
        graph with other users' states, without the second difference. *Raw* = nothing dropped, nothing centred."""
    )


def _independent(t: pd.DataFrame) -> str:
    a = t[t["study"] == "a"]
    if a.empty:
        return ""
    text = [
        filled(
            f"""## (a) States independent of the graph

            Any of *attenuated*, *amplified*, *preserved* is false here. Each confound is mild at `embed` and strong at
            the last block: mean vector {worlds.MEAN_NORM[0]:g} → {worlds.MEAN_NORM[1]:g} times the noise, first row
            {worlds.FIRST_ROW[0]:g} → {worlds.FIRST_ROW[1]:g} times, norm growing along the sequence
            1 → {1 + worlds.NORM_GROWTH[0]:g} and 1 → {1 + worlds.NORM_GROWTH[1]:g} and {worlds.DEPTH_SCALE:g}-fold with
            depth, AR(1) with coefficient {worlds.AR_COEFFICIENT[0]:g} → {worlds.AR_COEFFICIENT[1]:g}, running mean with
            weight {worlds.RUNNING_SHARE[0]:g} → {worlds.RUNNING_SHARE[1]:g}. "White item vectors" is none of the
            confounds: one random vector per item, drawn anew in every repetition, so that users who share items share
            states."""
        )
    ]
    for (design, n), cells in a.groupby(["design", sizes(a)], sort=False):
        reps = int(cells["reps"].min())
        names = list(dict.fromkeys(cells["world"]))
        columns = [(gram, null) for gram in ("headline", "raw") for null in NULLS]
        header = ("world", *(f"{null}{', raw' if gram == 'raw' else ''}" for gram, null in columns))
        rows = []
        for world in names:
            cells_of_world = [only_row(cells, world=world, gram=gram, null=null) for gram, null in columns]
            rows.append([world, *(percent(r["false"]) for r in cells_of_world)])
        text.append(
            f"**False verdicts, n = {n}, {design}**, {reps} repetitions "
            f"(± {percent(standard_error(MAX_FALSE, reps))} at 5 %):\n\n{grid(header, rows)}"
        )
        rows = []
        for world in names:
            for gram, null in columns:
                r = only_row(cells, world=world, gram=gram, null=null)
                if (gram, null) == ("headline", "one-sided") or gram == "raw":
                    continue
                verdicts = " / ".join(percent(r[v]) for v in ("attenuated", "amplified", "preserved", "inconclusive"))
                z = [f"{r[f'{k}_z']:+.2f} ({r[f'{k}_z_sd']:.2f})" for k in ("embed", "last")]
                rows.append([world, null, *z, percent(r["embed_beyond"]), percent(r["last_beyond"]), verdicts])
        header = (
            *("world", "null", "z of embed (sd)", "z of last block (sd)", "embed beyond ±1.96", "last beyond ±1.96"),
            "attenuated / amplified / preserved / inconclusive",
        )
        text.append(f"Mean excess in standard errors; 0 (1) and 5 % are right:\n\n{grid(header, rows)}")
    return "\n\n".join(text)


def _constant(t: pd.DataFrame) -> str:
    b = t[t["study"] == "b"]
    if b.empty:
        return ""
    rows = []
    for _, r in b.iterrows():
        gram = "" if r["gram"] == "headline" else ", raw"
        coverage = f"{percent(r['coverage'])} ± {percent(standard_error(r['coverage'], r['reps']))}"
        verdicts = " / ".join(percent(r[v]) for v in ("attenuated", "amplified", "preserved", "inconclusive"))
        rows.append([r["world"], r["null"] + gram, f"{r['embed_z']:.1f}", f"{r['retention']:.2f}", coverage, verdicts])
    header = ("grows", "null", "embed z", "median retention", "CI covers 1")
    n, first = int(sizes(b).iloc[0]), b.iloc[0]
    text = filled(
        f"""## (b) A constant signal while something else grows

        The injected signal and the noise are the same at both layers; a mean vector ({worlds.MEAN_NORM[1]:g} times the
        noise), a first row ({worlds.FIRST_ROW[1]:g} times) or both are added at the last block only. The true retention
        is 1. n = {n}, signal {first["strength"]:g} times the energy of the noise, {first["reps"]} repetitions."""
    )
    return f"{text}\n\n{grid((*header, 'attenuated / amplified / preserved / inconclusive'), rows)}"


def _coverage(t: pd.DataFrame) -> str:
    c = t[t["study"].isin(["c", "d"]) & (t["operator"] == HEADLINE)]
    if c.empty:
        return ""
    rows = []
    two_sided, one_sided = (rows_with(c, null=null) for null in ("two-sided", "one-sided"))
    two_sided = two_sided.assign(size=sizes(two_sided))
    two_sided = two_sided.sort_values(
        ["design", "world", "strength", "size", "nominal"], ascending=[True, False, False, True, False]
    )
    for _, r in two_sided.iterrows():
        same = {k: r[k] for k in ("study", "world", "design", "n_users", "strength", "nominal")}
        other = only_row(one_sided, **same)
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
                    percent(r["coverage"]), percent(standard_error(r["coverage"], r["reps"]))
                ),
                f"{percent(r['below'])} / {percent(r['above'])}",
                percent(other["coverage"]),
                f"{other['truth']:.3f}",
                f"{r['reps']}",
            ]
        )
    header = (
        *("signal, strength", "design", "n", "embed z", "truth", "median estimate", "coverage"),
        *("CI below / above truth", "coverage, one-sided", "truth, one-sided", "repetitions"),
    )
    text = filled(
        f"""## (c) Coverage of the retention's interval

        Signals: *own graph*: Gaussian states with covariance (I + {worlds.SMOOTHNESS:g} L)⁻¹ on the user's own graph,
        drawn anew for every user and repetition; *item vectors*: one fixed table from a truncated SVD of the training
        interactions, popularity divided out, noise drawn anew; *mixed users*: as own graph, half of the users keep all
        of the signal and half keep 50 %. Strength = energy of the signal over that of the noise at `embed`. At the last
        block a part of the signal's energy is kept and noise fills up the total; `embed` and all last blocks of one
        cell share their draws.

        Designs: *{FIXED}*: one set of users per n, drawn once, states redrawn; the truth is the ratio of
        the mean excesses over many fresh states on the same graphs. *{REDRAWN}*: users drawn with replacement in every
        repetition as well, which is the randomness that a bootstrap over users imitates; the truth is that of all
        users. With the graphs fixed, an interval over users also pays for differences between graphs that are not
        redrawn, and may cover too often. **Bold** = the cells of the criterion, n ≥ {MIN_USERS} and mean embed z ≥
        {MIN_Z:g}. At n = 50 and 100 long histories have fewer than 20 references and drop out of the null."""
    )
    return f"{text}\n\n{grid(header, rows)}\n\n{_coverage_of_operators(t)}".rstrip()


def _coverage_of_operators(t: pd.DataFrame) -> str:
    """Return the coverage of every low-pass, with users drawn anew."""
    d = t[(t["study"] == "d") & (t["null"] == "two-sided") & (sizes(t) >= MIN_USERS)]
    if d.empty:
        return ""
    rows = []
    for (world, strength, _, nominal), cells in d.groupby(["world", "strength", "n_users", "nominal"], sort=False):
        by_operator = [only_row(cells, operator=operator) for operator in OPERATORS]
        n, reps = str(sizes(cells).iloc[0]), cells["reps"].iloc[0]
        row = [
            f"{world}, {strength:g}",
            n,
            f"{100 * (1 - nominal):g} %",
            *(percent(r["coverage"]) for r in by_operator),
        ]
        rows.append([*row, percent(standard_error(0.95, reps))])
    means = [percent(d[d["operator"] == operator]["coverage"].mean()) for operator in OPERATORS]
    rows.append(["mean", "", "", *means, ""])
    return "Coverage with each low-pass, two-sided, users drawn anew:\n\n" + grid(
        ("signal, strength", "n", "loss", *OPERATORS, "±"), rows
    )


def _power(t: pd.DataFrame) -> str:
    d = t[t["study"] == "d"]
    if d.empty:
        return ""
    text = [
        filled(
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
                same_n = at[at["n_users"] == n_users]
                by_operator = [only_row(same_n, null="two-sided", operator=operator) for operator in OPERATORS]
                by_operator.append(only_row(same_n, null="one-sided", operator=QUARTER))
                row = [f"{loss} %", str(sizes(same_n).iloc[0]), *(percent(r["attenuated"]) for r in by_operator)]
                rows.append([*row, str(same_n["reps"].iloc[0])])
        header = ("loss", "n", *OPERATORS, f"{QUARTER}, one-sided", "repetitions")
        text.append(f"**Signal: {world}, strength {strength:g}**\n\n{grid(header, rows)}")
    largest = d[(d["nominal"] == 1.0) & (d["null"] == "two-sided") & (d["n_users"] == 0)]
    rows = []
    for (world, strength), cells in largest.groupby(["world", "strength"], sort=False):
        z = [float(only_row(cells, operator=operator)["embed_z"]) for operator in OPERATORS]
        reference = z[OPERATORS.index(HEADLINE)]
        n = str(cells["all_users"].iloc[0])
        rows.append([f"{world}, {strength:g}", n, *(f"{v:.1f} ({(v / reference) ** 2:.2f})" for v in z)])
    text.append(
        "z of the embed excess with all users, and in brackets its square relative to τ = 5: how many times fewer "
        f"users are needed to see the signal.\n\n{grid(('signal, strength', 'n', *OPERATORS), rows)}"
    )
    return "\n\n".join(text)


def _popularity(t: pd.DataFrame) -> str:
    e = rows_with(t, study="e", null="two-sided")
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
        by_operator = [only_row(cells, operator=operator) for operator in operators]
        rows.append([labels[str(world)], *(f"{r['embed_z']:+.1f}" for r in by_operator)])
    first = e.iloc[0]
    text = filled(
        f"""## (e) Beyond the list: what popularity alone does

        The local degree of an item goes with its popularity, and the eigenvector of λ = 0 is the square root of the
        degree. States that know popularity and nothing of co-occurrence are therefore not independent of the graph, and
        swap does not remove them. "Without λ = 0": the response is 0 in that eigenspace and as before elsewhere. Two
        rows carry co-occurrence for comparison. Mean z of the embed excess (two-sided, headline Gram), n =
        {int(sizes(e).iloc[0])}, {first["reps"]} repetitions:"""
    )
    return f"{text}\n\n{grid(('states', *operators), rows)}"


def _histories(t: pd.DataFrame) -> str:
    f = t[t["study"] == "f"]
    if f.empty:
        return ""
    rows = []
    names = [operator for operator in OPERATORS if operator in set(f["operator"])]
    for (world, shortest), cells in f.groupby(["world", "shortest"], sort=False):
        by_operator = [only_row(cells, operator=operator) for operator in names]
        columns = (
            f"{r['embed_z']:.1f} · {r['effective_users']:.0f} · {percent(r['top_10_share'])}" for r in by_operator
        )
        rows.append([str(world), f"{shortest:.0f}", f"{cells['users'].iloc[0]:.0f}", *columns])
    text = filled(
        f"""## (f) Beyond the list: short histories

        The same states as in section (e), but users with fewer targets than stated left out of the means. Each entry:
        mean z of the embed excess · effective number of users · per cent of the variance that the ten heaviest users
        carry. The last two are of the residual of the retention (excess at the last block − ρ · excess at `embed`),
        with the variance v of each user over {int(f["reps"].iloc[0])} repetitions: (Σ v)² / Σ v². The local graphs of
        short histories have few nodes and often several parts, so that their operators differ most from the average."""
    )
    return f"{text}\n\n{grid(('states', 'shortest history', 'n', *names), rows)}"
