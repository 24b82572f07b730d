"""Names, orders and short texts that the tables, the statements and the figures of an experiment share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from frellm4rec.evaluation.contrasts import THESE_TRAININGS, effect_of
from frellm4rec.experiments.definitions import Experiment, Variant, baseline
from frellm4rec.experiments.tables import is_baseline

LEAKY = "two_sided_leaky"
MODES = ("prefix", "causal", LEAKY)


def mode_label(mode: str) -> str:
    """Return the name of a mode; the leaky mode is named as such."""
    return "two-sided (leaky)" if mode == LEAKY else mode


def modes_in_order(rows: pd.DataFrame) -> list[str]:
    """Return the modes of a table, the default first."""
    return sorted(set(rows["mode"]), key=lambda mode: MODES.index(mode) if mode in MODES else len(MODES))


def in_order(experiment: Experiment, names: Iterable[str]) -> list[Variant]:
    """Return the variants of these names in the order of the experiment, then the baselines as they come."""
    wanted = dict.fromkeys(names)
    variants = [variant for variant in experiment.variants if variant.name in wanted]
    known = {variant.name for variant in experiment.variants}
    return [*variants, *(baseline(name) for name in wanted if name not in known)]


def rows_of(means: pd.DataFrame, backbone: str, settings: str) -> pd.DataFrame:
    """Return the rows of a backbone with these settings, and of the baselines, which have neither."""
    is_selected = (means["backbone"] == backbone) & (means["settings"] == settings)
    return means[is_selected | is_baseline(means)]


def setting_label(row: Mapping[str, Any]) -> str:
    """Return backbone, mode and settings of a row of the tables, as far as it has any."""
    return ", ".join(part for part in (row["backbone"], mode_label(row["mode"]), row["settings"]) if part)


def ranking_label(ranking: str) -> str:
    """Return the name of a ranking in a sentence."""
    return "full ranking" if ranking == "full" else f"{ranking} candidates"


def difference_text(row: dict[str, Any]) -> str:
    """Return a difference with its interval, the p-value after Holm's correction, and the effect in words."""
    p = "p < 0.001" if row["p_holm"] < 0.001 else f"p = {row['p_holm']:.3f}"
    effect = effect_of(row["low"], row["high"], row["p_holm"], row["n_users"])
    return f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], {p}".replace("-", "−") + f": {effect}"


def of_these_trainings(row: dict[str, Any]) -> str:
    """Return a remark where too few seeds say nothing of other trainings."""
    return ", these trainings" if row["covers"] == THESE_TRAININGS else ""
