"""The table of the study as Markdown; every number is read from the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.calibration import worlds
from benchmarks.calibration.acceptance import COVERAGE, MAX_FALSE, MAX_MEAN_Z, SD_Z, failures
from benchmarks.calibration.contrasts import contrasts_section
from benchmarks.calibration.measures import FIRST, TASTE
from benchmarks.calibration.probes import MAX_LENGTH, REPEATED, REWIRED, WIDTH
from benchmarks.calibration.study import DATASETS, N_SAMPLES, WORDS
from benchmarks.calibration.wording import filled, grid, number, rate
from benchmarks.calibration.worlds import WORLDS, world
from spectral_probe.storage.atomic import write_text


def write_markdown(table: pd.DataFrame, contrasts: pd.DataFrame, path: Path) -> None:
    """Write the report of both tables to ``path``."""
    write_text(path, markdown(table, contrasts).removesuffix("\n"))


def markdown(table: pd.DataFrame, contrasts: pd.DataFrame) -> str:
    """Return the report; worlds that are not in the table are left out."""
    has_taste = table["world"].map(lambda name: world(name).has_taste)
    null, taste = table[~has_taste], table[has_taste]
    sections = [_head(table), _summary(table), _null(null), _taste(taste), _worlds(), contrasts_section(contrasts)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(t: pd.DataFrame) -> str:
    users = ", ".join(
        f"{name} ({_users(t, name)} users measured, at most {MAX_LENGTH[name]} targets)"
        for name in DATASETS
        if (t["dataset"] == name).any()
    )
    cells = t[t["measure"] == TASTE]
    threads = sorted({int(n) for n in cells["threads"]})
    return filled(
        f"""# Calibration of the verdict

        <!-- Generated; do not edit. -->

        How often is the verdict wrong? The states here are made up, so that the truth is known; histories and
        graphs are real: {users}. Regenerate with `python -m benchmarks.calibration --data FOLDER`, which continues
        `figures/calibration/cells.csv`; without `--data` only this page is written again. Every number up to
        the last section is read from that file. Its {len(cells)} cells took {cells["seconds"].sum() / 60:.0f} minutes
        in one process (OMP_NUM_THREADS={"/".join(map(str, threads))}) on a processor shared with other work, without
        the graphs,
        which are computed once and stored. Draws are seeded by cell and number, so the order of the cells does not
        matter.

        *This measure*: carried taste; nodes are the items read, states are treated, τ = 1, weights from the graphs.
        *First version*: whole excess; nodes are the items predicted, plain states, τ = 5, equal weights. *z* is the
        mean excess at `embed` over its standard error; its mean should be 0 and its standard deviation 1 where
        there is no taste. The states follow the item that a row **reads**; the first version looks at the item
        that it predicts and sees popularity only as far as neighbours in a history are alike. One world follows the
        item predicted instead."""
    )


def _users(t: pd.DataFrame, dataset: str) -> int:
    return int(t.loc[(t["dataset"] == dataset) & (t["measure"] == TASTE), "users"].max())


def _summary(t: pd.DataFrame) -> str:
    rows = []
    for measure, title in ((TASTE, "this measure"), (FIRST, "first version")):
        part = t[t["measure"] == measure]
        has_taste = part["world"].map(lambda name: world(name).has_taste)
        null, taste = part[~has_taste], part[has_taste & part["coverage"].notna()]
        if null.empty and taste.empty:
            continue
        rows.append(
            [
                title,
                _count((null["mean_z"].abs() <= MAX_MEAN_Z).to_numpy()),
                _count([not any("sd" in f.text for f in failures(row)) for _, row in null.iterrows()]),
                _count((null["false_verdicts"] <= MAX_FALSE + 1e-9).to_numpy()),
                _count(taste["coverage"].between(COVERAGE[0] - 1e-9, COVERAGE[1] + 1e-9).to_numpy()),
                _count((part.loc[has_taste, "false_verdicts"].dropna() <= MAX_FALSE + 1e-9).to_numpy()),
            ]
        )
    header = [
        "cells that meet",
        f"mean z within ±{MAX_MEAN_Z:g}",
        f"sd of z {SD_Z[0]:g}–{SD_Z[1]:g}",
        f"no taste: false verdicts ≤ {100 * MAX_FALSE:.0f} %",
        f"coverage {100 * COVERAGE[0]:.0f}–{100 * COVERAGE[1]:.0f} %",
        f"taste: false verdicts ≤ {100 * MAX_FALSE:.0f} %",
    ]
    text = ["## What holds and what does not", grid(header, rows), _failures(t[t["measure"] == TASTE])]
    return "\n\n".join(text)


def _failures(t: pd.DataFrame) -> str:
    beyond, chance = [], []
    for _, row in t.iterrows():
        missed = failures(row)
        if not missed:
            continue
        name, is_beyond = f"{row['dataset']}, {row['world']}", any(not f.is_chance for f in missed)
        texts = [f.text + (" (within chance)" if f.is_chance and is_beyond else "") for f in missed]
        (beyond if is_beyond else chance).append(f"{name}: {', '.join(texts)}")
    if not beyond and not chance:
        return "Every cell of this measure meets all its limits."
    intro = filled(
        f"""Cells of this measure that miss a limit, {len(beyond) + len(chance)} of {len(t)}. "Within chance": the limit
        lies inside the 95 % interval of the number for so many draws, which is so for {len(chance)} of them."""
    )
    parts = [intro, "\n".join(f"- {line}" for line in beyond)]
    if chance:
        parts.append(filled(f"Within chance: {'; '.join(chance)}."))
    return "\n\n".join(part for part in parts if part)


def _null(t: pd.DataFrame) -> str:
    if t.empty:
        return ""
    present = [name for name in DATASETS if (t["dataset"] == name).any()]
    rows = []
    for name in dict.fromkeys(t["world"]):
        row = [name]
        for dataset in present:
            for measure in (TASTE, FIRST):
                row.append(_z_of(t[(t["world"] == name) & (t["dataset"] == dataset) & (t["measure"] == measure)]))
        rows.append(row)
    header = ["states", *(f"{d}, {title}" for d in present for title in ("this measure", "first version"))]
    draws = sorted(set(t.loc[t["measure"] == TASTE, "draws"].astype(int)))
    control = t.loc[t["exchanged_sd"].notna(), ["dataset", "world", "exchanged_sd"]]
    listed = "; ".join(f"{r.dataset}, {r.world} {r.exchanged_sd:.2f}" for r in control.itertuples()) or "none here"
    text = filled(
        f"""## States without taste

        Mean z ± its standard deviation over the draws ({_span(draws)} a cell), and false verdicts in per cent:
        every word but "no measurable". For random item vectors the test of `embed` divides by the standard
        deviation of z of the control `exchanged-items` where that exceeds 1.2, as in an analysis ({listed});
        the first version knows no such control."""
    )
    return "\n\n".join([text, grid(header, rows), _remarks(t[t["measure"] == TASTE])])


def _remarks(t: pd.DataFrame) -> str:
    """Return why z spreads less than 1, and what the axis per user shows."""

    def of(name: str) -> str:
        part = t[t["world"] == name]
        return ", ".join(f"{z:+.1f} on {dataset}" for z, dataset in zip(part["mean_z"], part["dataset"], strict=True))

    return filled(
        f"""Histories and graphs are the same in every draw. Where the graphs decide an excess more than the noise does,
        users differ in it, which widens the standard error, but draws do not: z then spreads less than 1.

        An axis of popularity that every user has alone is no function of popularity that residuals could remove: only
        the matching keeps it out of taste. Mean z of *{worlds.AXIS_PER_USER}*: {of(worlds.AXIS_PER_USER) or "–"};
        the same on a log that keeps only the counts of users and items, in which there is no taste:
        {of(f"{worlds.AXIS_PER_USER}, {REWIRED}") or "–"}. What differs from 0 there is bias of the matching. Match
        errors (mean |log count ratio|): {_match_errors(t)}."""
    )


def _match_errors(t: pd.DataFrame) -> str:
    part = t[(t["world"] == "noise") & t["match_error"].notna()]
    return ", ".join(f"{e:.3f} on {d}" for e, d in zip(part["match_error"], part["dataset"], strict=True)) or "–"


def _z_of(part: pd.DataFrame) -> str:
    if part.empty:
        return "–"
    row = part.iloc[0]
    return f"{row['mean_z']:+.1f} ± {row['sd_z']:.2f}; {100 * row['false_verdicts']:.0f}"


def _taste(t: pd.DataFrame) -> str:
    if t.empty:
        return ""
    rows = []
    for _, row in t[t["measure"] == TASTE].iterrows():
        first = t[(t["dataset"] == row["dataset"]) & (t["world"] == row["world"]) & (t["measure"] == FIRST)]
        rows.append(
            [
                *(row["dataset"], row["world"], f"{row['mean_z']:.1f}", number(row["truth"])),
                *(number(row["ratio_of_means"]), rate(row["coverage"]), rate(row["coverage_anew"]), _words(row)),
                *(f"{number(f['retention'])}; {_words(f)}" for _, f in first.iterrows()),
            ]
        )
    draws = sorted(set(t.loc[t["measure"] == TASTE, "draws"].astype(int)))
    text = filled(
        f"""## States with taste

        Retention ρ of taste at the block ({_span(draws)} draws a cell). *Truth*: 1 where taste and noise keep their
        ratio, else the ratio of the mean excess over all users and draws, which *ratio* is everywhere. *Coverage*:
        how often the 95 % interval holds the truth, users fixed; *anew*: how often that of users drawn with
        replacement, each with a draw of its own, holds the ratio ({N_SAMPLES} samples). Words in per cent of the
        draws. The last column is the median ρ and the words of the first version."""
    )
    header = ["data", "states", "z", "truth", "ratio", "coverage", "anew", "words", "first version"]
    return text + "\n\n" + grid(header, rows)


def _words(row: pd.Series) -> str:
    """Return the words of a cell and how often each is used, in per cent."""
    listed = {"no measurable" if word == "none" else word: row[word] for word in WORDS}
    return ", ".join(f"{word} {100 * share:.0f}" for word, share in listed.items() if share > 0)


def _worlds() -> str:
    w = worlds
    return filled(
        f"""## The {len(WORLDS)} worlds

        States have {WIDTH} dimensions, a layer `embed` and one block. White noise of amplitude 1 is in both and
        correlates {w.SHARED_NOISE:g}. Popularity is the standardised log training count of the item read (in one
        world predicted); its axes have amplitude {w.FADES[0]:g} at `embed` and {w.FADES[1]:g} at the block (strong:
        × {w.STRONG:g}; gained: {w.GROWS[0]:g} and {w.GROWS[1]:g}). Bins: {w.N_BINS} quantiles of popularity. Norms:
        noise times the exponential of ±0.5 popularity at `embed`, ±0.15 at the block. Artefacts, `embed` → block:
        mean vector {w.MEAN_NORM[0]:g} → {w.MEAN_NORM[1]:g} times the noise; first row {w.FIRST_ROW[0]:g} →
        {w.FIRST_ROW[1]:g} times; norm growing along the history to {1 + w.NORM_GROWTH[0]:g} → {
            1 + w.NORM_GROWTH[1]:g} times, and {w.DEPTH_SCALE:g} times with depth; AR(1) {w.AR_COEFFICIENT[0]:g} →
        {w.AR_COEFFICIENT[1]:g}; running mean with weight {w.RUNNING_SHARE[0]:g} → {w.RUNNING_SHARE[1]:g}. AR(1) by
        density or locality: the coefficient rises from 0 to {w.AR_COEFFICIENT[1]:g} with the user's rank. Repeats:
        {100 * REPEATED:.0f} % of the positions repeat an earlier item (Luxury_Beauty's own histories repeat items
        too). Item vectors: SVD of the training log with popularity divided out, amplitude {w.POWER:g} (weak) or
        {w.TASTE:g}; halved: half the energy at the block. Popularity share × 10: from 6 % to 60 % of the energy
        while taste and noise keep their ratio. Unrelated noise grows: twice its energy at the block; the share of
        taste falls by definition. Popularity replaces noise: taste keeps 10 % of all energy, popularity rises from
        5 % to 50 % and noise falls from 85 % to 40 %; taste is measured without popularity, so its share rises by
        definition."""
    )


def _count(holds: Sequence[bool] | np.ndarray) -> str:
    return f"{int(np.sum(holds))} of {len(holds)}" if len(holds) else "–"


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}" if values else "no"
