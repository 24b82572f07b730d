"""What each cell must meet, from its row of the table, and which rows fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom, chi2

from benchmarks.calibration.worlds import world

MAX_MEAN_Z = 1.3
SD_Z = (0.85, 1.25)
MAX_FALSE = 0.05
COVERAGE = (0.93, 0.97)
#: Confidence of "within chance": a cell of so few draws can miss a limit that its expectation meets.
CHANCE = 0.95


@dataclass(frozen=True)
class Failure:
    """A limit that a cell misses.

    Attributes
    ----------
    text : str
        The number that misses it.
    is_chance : bool
        Whether the limit lies inside the 95 % interval of the number for so many draws.
    """

    text: str
    is_chance: bool


def failures(row: pd.Series) -> list[Failure]:
    """Return the limits that a row of the table misses.

    z has limits where there is no taste. One random vector for all users of an item makes the spread of z larger; its
    limit is then 1.25 times that of the control ``exchanged-items``.
    """
    w, missed = world(str(row["world"])), []
    if not w.has_taste:
        missed += _of_z(row)
    if row["false_verdicts"] > MAX_FALSE + 1e-9:
        times = round(row["false_verdicts"] * row["draws"])
        chance = binom.sf(times - 1, row["draws"], MAX_FALSE)
        missed.append(Failure(f"false verdicts {100 * row['false_verdicts']:.1f} %", chance > (1 - CHANCE) / 2))
    if w.has_taste:
        missed += _of_coverage(row)
    return missed


def _of_z(row: pd.Series) -> list[Failure]:
    missed, draws = [], row["draws"]
    if abs(row["mean_z"]) > MAX_MEAN_Z:
        margin = 1.96 * row["sd_z"] / np.sqrt(draws)
        missed.append(Failure(f"mean z {row['mean_z']:+.1f}", abs(row["mean_z"]) - margin <= MAX_MEAN_Z))
    scale = max(1.0, row["exchanged_sd"]) if np.isfinite(row["exchanged_sd"]) else 1.0
    low, high = SD_Z[0], SD_Z[1] * scale
    if not low <= row["sd_z"] <= high:
        # sd · sqrt((n − 1) / χ²) bounds the true deviation.
        ends = chi2.ppf([(1 + CHANCE) / 2, (1 - CHANCE) / 2], draws - 1)
        lowest, highest = row["sd_z"] * np.sqrt((draws - 1) / ends)
        missed.append(Failure(f"sd of z {row['sd_z']:.2f}", bool(lowest <= high and highest >= low)))
    return missed


def _of_coverage(row: pd.Series) -> list[Failure]:
    coverage, draws = row["coverage"], row["draws"]
    if not np.isfinite(coverage) or COVERAGE[0] - 1e-9 <= coverage <= COVERAGE[1] + 1e-9:
        return []
    covered, tail = round(coverage * draws), (1 - CHANCE) / 2
    if coverage < COVERAGE[0]:
        is_chance = binom.cdf(covered, draws, COVERAGE[0]) > tail
    else:
        is_chance = binom.sf(covered - 1, draws, COVERAGE[1]) > tail
    return [Failure(f"coverage {100 * coverage:.1f} %", bool(is_chance))]
