"""The sections of ``docs/results.md`` on the probed models: one question, one screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.pages import curves
from spectral_probe.profiles.tables import select_curve
from spectral_probe.report.words import CAVEATS

#: Folder under ``figures/`` and title of each data set of the page.
DATASETS = {"lastfm": "LastFM", "ml-100k": "MovieLens-100K", "luxury-beauty": "Luxury_Beauty"}
COMPONENTS = ("taste", "popularity")


@dataclass(frozen=True)
class Probed:
    """The runs on one data set."""

    title: str
    folder: Path
    table: pd.DataFrame
    foreseen: pd.DataFrame
    settings: list[dict[str, Any]]

    @classmethod
    def load(cls, name: str, figures: Path) -> Probed:
        """Read the tables of a data set."""
        folder = figures / name
        return cls(DATASETS[name], folder, *curves.load(folder), curves.settings_of(folder))

    def rows(self, model: str) -> pd.DataFrame:
        """Return the curves of a model."""
        return self.table[self.table["model"] == model]

    def published(self, model: str) -> pd.DataFrame:
        """Return the published curve of a model in layer order."""
        rows = self.rows(model)
        return rows[rows["control"] == "paper"].sort_values("layer", kind="stable")

    def at_embed(self, model: str, component: str, *, nodes: str = "carried", treatment: str | None = None) -> Any:
        """Return the row of a component at the input, or None."""
        curve = select_curve(self.rows(model), component=component, nodes=nodes, treatment=treatment)
        curve = curve[curve["state"] == "embed"]
        return None if curve.empty else curve.iloc[0]


def sections(figures: Path) -> list[str]:
    """Return the lines of all questions."""
    probed = [Probed.load(name, figures) for name in DATASETS if (figures / name / "curves.csv").exists()]
    questions: tuple[Callable[[list[Probed]], list[str]], ...] = (
        *(_opening, _inputs, _taste, _popularity, _foreseen, _published, _nulls, _choices, _follows),
    )
    return [line for question in questions for line in question(probed)]


def notes(figures: Path) -> list[str]:
    """Return the caveats with the runs they are about, who was measured, and what the runs were made with."""
    lines = ["## Notes", ""]
    probed = [Probed.load(name, figures) for name in DATASETS if (figures / name / "curves.csv").exists()]
    for code in dict.fromkeys(code for data in probed for entry in data.settings for code in entry["caveats"]):
        runs = [f"{e['model']} on {data.title}" for data in probed for e in data.settings if code in e["caveats"]]
        n_runs = sum(len(data.settings) for data in probed)
        where = "every run" if len(runs) == n_runs else ", ".join(runs)
        lines.append(f"- `{code}` ({where}): {CAVEATS[code]}")
    for data in probed:
        users = data.settings[0]["users"]
        skipped = "; ".join(f"{reason}: {count}" for reason, count in users["skipped"].items() if count)
        protocol = data.settings[0]["protocol"]
        lines.append(
            f"- {data.title}: {users['probed']} users probed, {users['measured']} measured, {users['shortened']} on "
            f"fewer nodes than they have; left out: {skipped or 'nobody'}. Popularity match: mean absolute log count "
            f"ratio {protocol['match_error']:.3f}."
        )
    return lines


def _opening(probed: list[Probed]) -> list[str]:
    lines = [
        "*Carried*: how well the states fit the graph of the items that their rows read, beyond what other users'"
        " states fit it. *Foreseen*: the same for the items that the rows predict, as in the paper. *Popularity* "
        "is the part that a graph of other items of the same popularity gives as well; *taste* is which items go "
        "together beyond their popularity and beyond how alike near and far positions are. All are shares of the "
        "energy of the states: unrelated energy that grows makes them smaller. Retention is the carried excess at"
        " the last block over that at the input (`embed`). Intervals are 95 % bootstrap intervals over users; "
        "differences are paired. τ = 1; users are weighted by the noise of their graphs. The method is in "
        "[method.md](method.md), its tests in [calibration.md](calibration.md).",
        "",
    ]
    for data in probed:
        verdict = data.settings[0]["verdicts"]["taste"]
        lines += [
            f"![what the layers carry on {data.title}](../figures/{data.folder.name}/decay.png)",
            f"*{data.title}: {verdict['n_users']} users, effectively {verdict['n_effective']:.0f}.*",
            "",
        ]
    return lines


def _inputs(probed: list[Probed]) -> list[str]:
    lines = [
        "## What do the inputs carry?",
        "",
        "Excess × 1000 at the input, and its parts, on rows of unit norm. z of exchanged items: the taste of the input "
        "where item vectors are exchanged among equally popular items, mean and standard deviation of 50 exchanges; "
        "beside it the z of the real vectors.",
        "",
        "| data set | model | nodes | whole excess | popularity | lag profile | taste | z | exchanged |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for data in probed:
        for entry in data.settings:
            exchanged = entry["protocol"].get("exchanged_items")
            z = f"{exchanged['z']:.1f} | {exchanged['mean_z']:.1f} (sd {exchanged['sd_z']:.2f})" if exchanged else "|"
            for nodes in ("carried", "foreseen"):
                parts = {
                    name: data.at_embed(entry["model"], name, nodes=nodes, treatment="rows")
                    for name in ("whole", "popularity", "lag", "taste")
                }
                if any(part is None for part in parts.values()):
                    continue
                mean = {name: part["excess"] for name, part in parts.items()}
                shares = " | ".join(f"{mean[name] / mean['whole']:.0%}" for name in ("popularity", "lag", "taste"))
                lines.append(
                    f"| {data.title} | {entry['model']} | {nodes} | {1000 * mean['whole']:.2f} | {shares} | "
                    f"{z if nodes == 'carried' else '|'} |"
                )
    return [*lines, ""]


def _taste(probed: list[Probed]) -> list[str]:
    lines = [
        "## Does taste survive the layers?",
        "",
        "Retention of carried taste at the last block, of the same architecture with random weights, and the paired "
        "difference.",
        "",
    ]
    return [*lines, *_retention(probed, "taste"), ""]


def _popularity(probed: list[Probed]) -> list[str]:
    return ["## And popularity?", "", *_retention(probed, "popularity"), ""]


def _table(
    probed: list[Probed], columns: Sequence[str], cells: Callable[[Probed, dict[str, Any]], Sequence[str] | None]
) -> list[str]:
    """Return a table with one row per run; ``cells`` gives those after data set and model, or None for no row."""
    header = ("data set", "model", *columns)
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for data in probed:
        for entry in data.settings:
            row = cells(data, entry)
            if row is not None:
                lines.append(f"| {' | '.join((data.title, entry['model'], *row))} |")
    return lines


def _retention(probed: list[Probed], component: str) -> list[str]:
    def cells(_data: Probed, entry: dict[str, Any]) -> list[str]:
        verdict = entry["verdicts"][component]
        note = f" ({verdict['note']})" if verdict["note"] else ""
        depends = f"; depends on: {', '.join(verdict['depends_on'])}" if verdict["depends_on"] else ""
        pair = entry["paired"].get("random-weights", {}).get(component)
        texts = [_interval(entry["retention"].get(component))]
        texts += [_interval(pair["base"]), _interval(pair["difference"], signed=True)] if pair else ["", ""]
        return [*texts, f"**{verdict['label']}**{note}{depends}"]

    return _table(probed, ("retention", "random weights", "difference", "verdict"), cells)


def _foreseen(probed: list[Probed]) -> list[str]:
    lines = [
        "## What is foreseen of the next item?",
        "",
        "Excess of taste on the graph of the items that the rows predict, in units of the taste carried at the input. "
        "It has no retention: at the input nothing of the next item is known.",
        "",
        "A short history has a negative offset here. The lag profile is removed, so the operator of taste sums to 0 "
        "along every diagonal, and what a row carries of its own item counts against the item one step later: in "
        "random order the excess is below 0 by one to two parts in T − 1 of the carried taste, for histories of T "
        "nodes (`test_in_random_order_what_is_foreseen_is_below_zero`). Luxury_Beauty has short histories and no time "
        "stamps; its values are this offset.",
        "",
    ]

    def cells(data: Probed, entry: dict[str, Any]) -> list[str] | None:
        rows = data.foreseen[(data.foreseen["model"] == entry["model"]) & (data.foreseen["component"] == "taste")]
        blocks = rows[rows["state"] == "block"]
        if blocks.empty:
            return None
        largest = blocks.loc[blocks["value"].idxmax()]
        return [
            _interval(rows.iloc[0].to_dict(), digits=3),
            f"{_interval(largest.to_dict(), digits=3)} ({largest['layer_name']})",
            _interval(blocks.iloc[-1].to_dict(), digits=3),
        ]

    return [*lines, *_table(probed, ("input", "largest block", "last block"), cells), ""]


def _published(probed: list[Probed]) -> list[str]:
    lines = [
        "## What does the published curve show?",
        "",
        "The published quantity is the share of raw energy in the lowest tenth of the frequencies, own user kept, "
        "nothing dropped or centred, every user with equal weight (`--preset paper`). It has no null: its level says "
        "how alike a user's states are, whatever the graph.",
        "",
    ]

    def cells(data: Probed, entry: dict[str, Any]) -> list[str] | None:
        curve = data.published(entry["model"])
        if curve.empty:
            return None
        first, last = curve["share"].iloc[0], curve["share"].iloc[-1]
        way = "rises" if last > first else "falls"
        return [
            f"{way} from {first:.3f} to {last:.3f} ({last / first - 1:+.0%})",
            _interval(entry["retention"].get("taste")),
        ]

    columns = ("published share, first to last entry", "carried taste, last block over input")
    return [*lines, *_table(probed, columns, cells), ""]


def _nulls(probed: list[Probed]) -> list[str]:
    lines = [
        "## Does the answer depend on the null?",
        "",
        "What is left of the whole excess (popularity, lag profile and taste together; plain states, τ = 5) at the "
        "last block, under each null. Permutation and cyclic leave smoothness in time in the excess.",
        "",
    ]
    for data in probed:
        lines += [f"![excess over every null on {data.title}](../figures/{data.folder.name}/excess.png)", ""]
    nulls = ("swap", "cyclic", "permutation")

    def cells(_data: Probed, entry: dict[str, Any]) -> list[str]:
        left = entry["whole_retention"]
        return ["n/a" if left.get(null, 0.0) is None else f"{left[null]:.2f}" if null in left else "" for null in nulls]

    return [*lines, *_table(probed, nulls, cells), ""]


def _choices(probed: list[Probed]) -> list[str]:
    lines = [
        "## Does the word depend on a choice of ours?",
        "",
        "Retention of carried taste at the last block, and the word that it would give: with equal weights; on rows of "
        "unit norm without popularity residuals; on plain states; and on raw states (the whole excess, nothing "
        "dropped).",
        "",
    ]
    controls = {
        "equal weights": ("equal-weights", "taste"),
        "rows": ("normalized-rows", "taste"),
        "plain": ("plain", "taste"),
        "raw, whole excess": ("raw", "whole"),
    }

    def cells(_data: Probed, entry: dict[str, Any]) -> list[str]:
        texts = [f"{entry['verdicts']['taste']['label']} {_value(entry['retention'].get('taste'))}"]
        for name, component in controls.values():
            control = entry["control_verdicts"].get(name, {}).get(component)
            word = "" if control is None else control["verdict"].partition(" (")[0]
            texts.append("" if control is None else f"{word} {_value(control['retention'])}")
        return texts

    return [*lines, *_table(probed, ("headline", *controls), cells), ""]


def _follows(probed: list[Probed]) -> list[str]:
    """Say, from the intervals alone, what follows for the paper's claims."""
    lines = ["## What follows for the paper's claims?", ""]
    for data in probed:
        names: dict[str, list[str]] = {"attenuated": [], "preserved": [], "amplified": [], "other": []}
        for entry in data.settings:
            label = entry["verdicts"]["taste"]["label"]
            names[label if label in names else "other"].append(entry["model"])
        words_of = [f"{word} in {', '.join(models)}" for word, models in names.items() if models]
        lines.append(f"- {data.title}: the share of carried taste is {'; '.join(words_of)}.")
        lines += [f"  - {sentence}" for sentence in _pretraining(data)]
        lines += [f"  - {sentence}" for sentence in _direction(data)]
    return [*lines, "", "Claim by claim: [claims.md](claims.md).", ""]


def _pretraining(data: Probed) -> list[str]:
    more, less, same = [], [], []
    for entry in data.settings:
        pair = entry["paired"].get("random-weights", {}).get("taste")
        if pair is None or any(not _known(pair["difference"][end]) for end in ("low", "high")):
            continue
        difference = pair["difference"]
        group = more if difference["low"] > 0 else less if difference["high"] < 0 else same
        group.append(f"{entry['model']} ({_interval(difference, signed=True)})")
    sentences = []
    for models, words in (
        *((more, "keep more of it than with random weights"), (less, "keep less of it than with random weights")),
        (same, "keep neither measurably more nor less of it than with random weights"),
    ):
        if models:
            sentences.append(f"Trained weights that {words}: {', '.join(models)}.")
    return sentences


def _direction(data: Probed) -> list[str]:
    opposite = []
    for entry in data.settings:
        curve = data.published(entry["model"])
        retention = entry["retention"].get("taste")
        if curve.empty or retention is None or not _known(retention["high"]):
            continue
        if curve["share"].iloc[-1] > curve["share"].iloc[0] and retention["high"] < 1:
            opposite.append(entry["model"])
    if not opposite:
        return []
    return [f"The published share rises while the share of carried taste falls: {', '.join(opposite)}."]


def _interval(value: dict[str, Any] | None, *, digits: int = 2, signed: bool = False) -> str:
    if value is None or not _known(value["value"]):
        return ""
    sign = "+" if signed else ""
    return f"{value['value']:{sign}.{digits}f} [{value['low']:{sign}.{digits}f}, {value['high']:{sign}.{digits}f}]"


def _value(value: dict[str, Any] | None) -> str:
    return "" if value is None or not _known(value["value"]) else f"{value['value']:.2f}"


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)
