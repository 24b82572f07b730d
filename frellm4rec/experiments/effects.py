"""What each part of a model is worth, and a model beside its baselines: statements that follow from the intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from frellm4rec.evaluation.contrasts import HIGHER, LEVEL, LOWER, NO_DIFFERENCE, TOO_FEW, effect_of
from frellm4rec.experiments.definitions import Experiment, model_title
from frellm4rec.experiments.labels import (
    LEAKY,
    difference_text,
    mode_label,
    modes_in_order,
    of_these_trainings,
    ranking_label,
)
from frellm4rec.experiments.paper import DEFAULT_BACKBONE, is_paper_ranking, paper_dataset, paper_value
from frellm4rec.experiments.tables import NAMES, SETTING_COLUMNS, ExperimentTables

#: Effect of the variant without a part → effect of the part.
_OF_PART = {HIGHER: "hurts", LOWER: "helps", NO_DIFFERENCE: NO_DIFFERENCE, TOO_FEW: TOO_FEW}
PART_COLUMNS = [
    *SETTING_COLUMNS,
    *("variant", "part", "metric", "worth", "low", "high", "p_value", "p_holm", "effect", "covers", "family"),
]
_METRIC = "ndcg"


def part_effects(experiment: Experiment, tables: ExperimentTables) -> pd.DataFrame:
    """Return what each part of the reference is worth: its value minus that of the variant without the part.

    Parameters
    ----------
    experiment : Experiment
        Its variants name what they leave out.
    tables : ExperimentTables

    Returns
    -------
    DataFrame
        One row per part, setting and metric: the setting, variant, part, metric, worth with its 95 % interval, p_value,
        p_holm, effect (``helps``, ``hurts``, ``no detectable difference``), covers, family; empty if no variant leaves
        a part out.
    """
    parts = {variant.name: variant.leaves_out for variant in experiment.variants if variant.leaves_out}
    rows = tables.select(experiment=experiment.name).differences
    rows = rows[(rows["against"] == experiment.reference) & rows["variant"].isin(list(parts))]
    effects = [effect_of(row["low"], row["high"], row["p_holm"], row["n_users"]) for row in rows.to_dict("records")]
    return rows.assign(
        part=rows["variant"].map(parts),
        worth=-rows["difference"],
        low=-rows["high"],
        high=-rows["low"],
        effect=[_OF_PART[effect] for effect in effects],
    )[PART_COLUMNS].reset_index(drop=True)


def effect_lines(experiment: Experiment, tables: ExperimentTables) -> list[str]:
    """Return the Markdown lines about the parts of the reference, and about the reference beside the baselines."""
    tables = tables.select(experiment=experiment.name)
    parts = part_effects(experiment, tables)
    parts, settings_lines = _without_constant_settings(parts[parts["metric"] == _METRIC])
    lines = [*_part_lines(experiment, parts), *settings_lines] if len(parts) else []
    lines += _baseline_lines(experiment, tables.differences)
    return [*lines, ""] if lines else []


def _without_constant_settings(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without settings that are the same for all rows of a backbone, and the lines that name these."""
    used = rows[["backbone", "settings"]].drop_duplicates()
    alone = used[~used["backbone"].duplicated(keep=False) & (used["settings"] != "")]
    lines = [f"- `{row['backbone']}` was trained with {row['settings']}." for row in alone.to_dict("records")]
    is_implied = rows["backbone"].isin(alone["backbone"])
    return rows.assign(settings=rows["settings"].mask(is_implied, "")), lines


def _baseline_lines(experiment: Experiment, rows: pd.DataFrame) -> list[str]:
    names = {variant.name for variant in experiment.variants}
    rows = rows[(rows["metric"] == _METRIC) & (rows["variant"] == experiment.reference) & (rows["mode"] != LEAKY)]
    rows, _ = _without_constant_settings(rows[~rows["against"].isin(names)])
    label = experiment.variant(experiment.reference).label
    return [
        f"- **{label} beside {model_title(row['against'])}** "
        f"({', '.join(part for part in (_setting(row), ranking_label(row['ranking'])) if part)}): "
        f"NDCG@{row['k']} {difference_text(row)}."
        for row in rows.to_dict("records")
    ]


def _part_lines(experiment: Experiment, rows: pd.DataFrame) -> list[str]:
    k = int(rows["k"].iloc[0])
    has_paper = any(_printed(experiment, row) is not None for row in rows.to_dict("records"))
    head = ["part", "backbone", "mode", "ranking", "with − without", "p"]
    head += [f"paper ({DEFAULT_BACKBONE})"] * has_paper + ["effect"]
    lines = [
        f"What a part of the model is worth on test {NAMES[_METRIC]}@{k}: the value with it minus the value without "
        f"it. A part helps or hurts where the 95 % interval leaves out 0 and p, after Holm's correction, is at most "
        f"{LEVEL:g}.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    claim_lines: list[str] = []
    for part in dict.fromkeys(variant.leaves_out for variant in experiment.variants if variant.leaves_out):
        part_rows = rows[rows["part"] == part]
        part_rows = [
            row for mode in modes_in_order(rows) for row in part_rows[part_rows["mode"] == mode].to_dict("records")
        ]
        for row in part_rows:
            entries = [part, _backbone(row), mode_label(row["mode"]), row["ranking"], _worth(row), _p(row)]
            if has_paper:
                printed = _printed(experiment, row)
                entries.append("–" if printed is None else f"{printed:+.4f}")
            lines.append(f"| {' | '.join(entries)} | **{row['effect']}**{of_these_trainings(row)} |")
        fair = [row for row in part_rows if row["mode"] != LEAKY]
        if fair:
            claim_lines.append(_claim(part, fair, experiment))
    return [line.replace("-0.", "−0.") for line in [*lines, "", *claim_lines]]


def _claim(part: str, rows: list[dict[str, Any]], experiment: Experiment) -> str:
    """Return one list item: the effect of a part under each ranking, and whether the paper's claim holds."""
    sentences = []
    for ranking in dict.fromkeys(row["ranking"] for row in rows):
        ranking_rows = [row for row in rows if row["ranking"] == ranking]
        settings: dict[str, list[str]] = {}
        for row in ranking_rows:
            settings.setdefault(row["effect"], []).append(_setting(row))
        effects = "; ".join(
            f"{what} ({' and '.join(where)})" if any(where) else what for what, where in settings.items()
        )
        printed = _printed(experiment, ranking_rows[0])
        verdict = "" if printed is None else f" {_verdict(settings, printed, len(ranking_rows))}"
        sentences.append(f"{ranking_label(ranking)}: {effects}.{verdict}")
    return f"- **{part}**, {' '.join(sentences)}"


def _verdict(settings: dict[str, list[str]], printed: float, n: int) -> str:
    """Return whether the paper's claim holds in all, some or none of the settings."""
    claimed, opposite = ("helps", "hurts") if printed > 0 else ("hurts", "helps")
    n_holds, n_opposite = len(settings.get(claimed, [])), len(settings.get(opposite, []))
    if n_holds == n:
        verdict = "holds here"
    elif n_holds:
        verdict = f"holds in {n_holds} of {n} settings here"
    else:
        verdict = "is not reproduced here"
    if n_opposite:
        verdict += f"; the opposite was found in {n_opposite} of {n}"
    return f"The paper's claim that it {claimed} ({printed:+.4f}) {verdict}."


def _printed(experiment: Experiment, row: dict[str, Any]) -> float | None:
    """Return the paper's value of the reference minus that of a variant."""
    if paper_dataset(row["dataset"]) is None or not is_paper_ranking(row["ranking"]):
        return None
    labels = {"dataset": row["dataset"], "metric": _METRIC, "backbone": row["backbone"]}
    full, without = (
        paper_value(experiment.variant(name).paper, **labels) for name in (experiment.reference, row["variant"])
    )
    return None if full is None or without is None else full - without


def _worth(row: dict[str, Any]) -> str:
    return f"{row['worth']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def _p(row: dict[str, Any]) -> str:
    return "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"


def _backbone(row: dict[str, Any]) -> str:
    settings = f"({row['settings']})" if row["settings"] else ""
    return " ".join(part for part in (row["backbone"], settings) if part) or "–"


def _setting(row: dict[str, Any]) -> str:
    """Return backbone, mode and settings of a row, as far as it has any."""
    parts = ("" if _backbone(row) == "–" else _backbone(row), mode_label(row["mode"]))
    return (" ".join(part for part in parts if part) + of_these_trainings(row)).removeprefix(", ")
