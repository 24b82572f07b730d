"""What does FreLLM4Rec change in the states? The section of ``docs/results.md`` from what was collected.

Every statement is computed from the label of each comparison and from paired intervals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.pages.reprobe_files import changes_at, is_of_first_version, read_comparisons
from benchmarks.pages.theory import HEADLINE, MEASURED
from frellm4rec.experiments.labels import MODES, mode_label
from spectral_probe.comparison.comparison import ProfileComparison
from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, SHARE, Change
from spectral_probe.comparison.published import gains
from spectral_probe.comparison.words import signed
from spectral_probe.profiles.tables import PUBLISHED_SHARE

#: Rows of the table: quantity, site, digits, name.
ROWS = (
    (SHARE, "last block", 4, "low-pass share"),
    (NULL_SHARE, "last block", 4, "share of other users' states (swap null)"),
    (EXCESS["swap"], "last block", 4, "excess over swap"),
    (EXCESS["permutation"], "last block", 4, "excess over permutation"),
    (EXCESS["cyclic"], "last block", 4, "excess over cyclic"),
    (EXCESS["swap"], "embed", 4, "excess over swap at `embed`"),
    ("retention", "last block", 2, "retention (excess over swap, last block by `embed`)"),
    (PUBLISHED_SHARE, "last block", 4, "published share, last layer"),
)


def section(folder: Path) -> list[str]:
    """Return the lines of the section; none if no comparison was collected.

    Parameters
    ----------
    folder : Path
        Contains one folder per comparison; its parent is ``figures/<dataset>/``.
    """
    folders = sorted((path.parent for path in folder.glob("*/comparison.json")), key=_order)
    if not folders:
        return []
    parts = [_Part(path) for path in folders]
    lines = [
        "## What does FreLLM4Rec change in the states?",
        "",
        "The paper's Fig. 4 shows the low band of base and FreLLM4Rec layer by layer: the base loses it, FreLLM4Rec "
        "keeps it. It has no null. A filter along time raises the low-pass share of anybody's states, so trained "
        "recommenders are probed again here, and what rises is set against other users' states on the same graph, "
        "which went through the same filter (`spectral-probe compare`; the swap null). What rises in their share is "
        "smoothing; what rises in the excess over it is a better fit of these states to these items.",
        "",
        *_of_first_version(parts),
        *_in_short(parts),
        *_on_rayleigh(folder.parent / "rayleigh.csv"),
        "",
    ]
    for part in parts:
        lines += part.lines(f"../figures/{folder.parent.name}/{folder.name}/{part.path.name}/comparison.png")
    return lines


class _Part:
    """The collected files of one comparison of a base with one or several models."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads((path / "settings.json").read_text(encoding="utf-8"))
        entries = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
        self.is_first_version = any(is_of_first_version(entry) for entry in entries)
        self.comparisons = read_comparisons(path)
        seed = f", seed {self.settings['seed']}" if self.settings["seed"] else ""
        self.title = f"{self.settings['backbone']}, {mode_label(self.settings['mode'])}{seed}"

    def lines(self, figure: str) -> list[str]:
        lines = [f"### {self.title}", "", f"![{self.title}]({figure})", ""]
        for comparison in self.comparisons:
            lines += [
                f"**{comparison.other} against {comparison.base}: {comparison.label}.**",
                "",
                *_table(comparison),
                "",
                *(f"- **{lead}** {typeset(sentence)}" for lead, sentence in comparison.published_words.items()),
                "",
            ]
            if not self.is_first_version:
                words_of_run = f"> {typeset(comparison.words)}"
                lines += ["In the words of `spectral-probe compare`:", "", words_of_run, ""]
        return [*lines, _protocol(self.settings, self.comparisons), ""]


def typeset(text: str) -> str:
    """Return a text with the minus sign of print in front of negative numbers."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def _of_first_version(parts: Sequence[_Part]) -> list[str]:
    """Say that comparisons are of the first version's measure, and what that was."""
    old = [part for part in parts if part.is_first_version]
    if not old:
        return []
    tau = old[0].settings["probed"]["tau"]
    return [
        "**These numbers are of the measure of the first version (0.1.0)**: the whole excess on the graph of the items "
        f"that the rows predict, heat kernel τ = {tau:g}, plain states, every user with equal weight. That excess is "
        "mostly popularity and lag profile, so it does not say whether taste is kept. Base and full have not been "
        "compared under the new measure. One FreLLM4Rec has been probed with it: see *Which architecture keeps taste*.",
        "",
    ]


def _in_short(parts: Sequence[_Part]) -> list[str]:
    """Return how often the paper's claim is seen, and the label and main changes of each comparison."""
    lines: list[str] = []
    n_all = n_published = n_more = n_less = 0
    for part in parts:
        for comparison in part.comparisons:
            at = changes_at(comparison)
            numbers = ""
            n_all += 1
            n_more += gains(comparison.label) > 0
            n_less += gains(comparison.label) < 0
            n_published += at[PUBLISHED_SHARE, "last block"].is_up
            if comparison.changes.at:
                shown = {
                    "published share": (PUBLISHED_SHARE, "last block"),
                    "excess over swap": (EXCESS["swap"], "last block"),
                }
                numbers = "; " + ", ".join(f"{name} {_signed(at[key])}" for name, key in shown.items())
            lines.append(
                f"- {part.title}, {comparison.other} against {comparison.base}: **{comparison.label}**{numbers}."
            )
    counts = (
        f"Comparisons with the base: {n_all}. At the last layer the published share is higher than the base's in "
        f"{n_published}; over the nulls there is more excess in {n_more}, and less in {n_less}."
    )
    return [counts, "", *lines]


def _table(comparison: ProfileComparison) -> list[str]:
    at = changes_at(comparison)
    lines = [f"| at the last block | {comparison.base} | {comparison.other} | change |", "|---|---|---|---|"]
    for quantity, site, digits, name in ROWS:
        change = at.get((quantity, site))
        if change is None:
            lines.append(f"| {name} | – | – | – |")
            continue
        before, after = (
            typeset(f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]")
            for value in (change.base, change.other)
        )
        lines.append(f"| {name} | {before} | {after} | {_signed(change, digits)} |")
    return lines


def _signed(change: Change, digits: int = 4) -> str:
    return typeset(signed(change.difference, digits))


def _protocol(settings: dict[str, Any], comparisons: Sequence[ProfileComparison]) -> str:
    probed, models = settings["probed"], settings["models"]
    users = " or ".join(str(n) for n in sorted({comparison.changes.n_users for comparison in comparisons}))
    on_published = " or ".join(str(n) for n in sorted({comparison.published.n_users for comparison in comparisons}))
    trained = "; ".join(
        f"{model['name']}: inputs {model['inputs']}, α = {model['alpha']:g}, "
        + ("no TFM" if model["cutoff"] is None else f"cutoff {model['cutoff']:g} (order {model['tfm_order']})")
        for model in models
    )
    ways = {True: "prefix by prefix", False: "in one pass"}
    passes = {name: [m["name"] for m in models if m["prefix_by_prefix"] is way] for way, name in ways.items()}
    passed = "; ".join(f"{' and '.join(names)} {way}" for way, names in passes.items() if names)
    return (
        f"Protocol: {settings['dataset']} {settings['trained_on'][:8]}; backbone {settings['backbone']}, mode "
        f"`{settings['mode']}`, one training each (seed {settings['seed']}): intervals are over users and say nothing "
        f"of other trainings. {trained}. Probed {passed}; {users} users with at least {probed['min_targets']} targets "
        f"({on_published} for the published share), histories `{probed['sequence']}` of at most "
        f"{probed['max_length']} items; heat kernel τ = {probed['tau']:g}, at most {probed['n_references']} other "
        f"users for the swap null, seed {probed['seed']}, {probed['n_bootstrap']} resamples of users, 95 % intervals, "
        "paired."
    )


def _on_rayleigh(path: Path) -> list[str]:
    """Return a paragraph about the table of the Rayleigh quotient, which measures the filter alone."""
    if not path.exists():
        return []
    table = pd.read_csv(path)
    table = table[(table["cutoff"] == MEASURED[0]) & (table["treatment"] == HEADLINE)]
    counts = []
    for mode, rows in table.groupby("mode", sort=False):
        larger, smaller = int((rows["excess_change_high"] < 0).sum()), int((rows["excess_change_low"] > 0).sum())
        counts.append(f"`{mode}`, larger in {larger} and smaller in {smaller} of {len(rows)}")
    models = ", ".join(dict.fromkeys(table["model"]))
    return [
        "",
        f"The filter alone, on states of models trained without it ({models}; cutoff {MEASURED[0]:g}), was asked the "
        "same of the Rayleigh quotient: the [table in docs/theory.md](theory.md) has a user's own graph against other "
        "users' graphs at every layer. The fall on the own graph against that on the others', where the interval "
        f"tells them apart: {'; '.join(counts)} places.",
    ]


def _order(path: Path) -> tuple[str, int, str]:
    """Sort by backbone, then mode, the default first."""
    settings = json.loads((path / "settings.json").read_text(encoding="utf-8"))
    mode = settings["mode"]
    return settings["backbone"], MODES.index(mode) if mode in MODES else len(MODES), path.name
