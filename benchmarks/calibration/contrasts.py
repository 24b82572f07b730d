"""How often the 95 % interval of a difference between two models holds the true difference, in made-up worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.calibration.wording import filled, grid, rate
from frellm4rec.evaluation.contrasts import ModelValues, contrasts
from frellm4rec.evaluation.significance import resampled_means
from spectral_probe.profiles.bootstrap import percentile_interval
from spectral_probe.storage.atomic import write_csv
from spectral_probe.types import FloatArray

#: Standard deviations over users of the true difference, and of the noise of one training on one user.
USER_SD, NOISE_SD = 0.3, 0.2
N_USERS, N_BOOTSTRAP, N_DRAWS = 60, 1000, 2000
#: What trainings add to the difference, over the standard error that the users give it.
RATIOS = (0.0, 1.0, 5.0)
N_SEEDS = (3, 5)
METHODS = {
    "users": "users alone",
    "resampled_seeds": "users and seeds resampled",
    "ours": "users resampled, Student's t over seeds",
}


@dataclass(frozen=True)
class ContrastCell:
    """A made-up world of two models whose true difference is 0."""

    ratio: float
    n_seeds: int
    is_paired: bool


def contrast_cells() -> list[ContrastCell]:
    """Return the grid: spread of the trainings × number of seeds × whether both models have the same seeds."""
    return [ContrastCell(ratio, n, paired) for ratio in RATIOS for n in N_SEEDS for paired in (True, False)]


def measure_contrasts(
    cells: list[ContrastCell], *, n_draws: int = N_DRAWS, seed: int = 0, report: Callable[[str], None] = print
) -> pd.DataFrame:
    """Return one row per cell and method: its coverage, and the width of its interval over that of users alone."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        covered, width = np.zeros(len(METHODS)), np.zeros(len(METHODS))
        for draw in range(n_draws):
            key = [seed, int(cell.ratio * 10), cell.n_seeds, int(cell.is_paired), draw]
            for number, (low, high) in enumerate(_intervals(*_world(cell, np.random.default_rng(key)), draw)):
                covered[number] += low <= 0.0 <= high
                width[number] += high - low
        labels = {"ratio": cell.ratio, "n_seeds": cell.n_seeds, "is_paired": cell.is_paired}
        for method, n, w in zip(METHODS, covered / n_draws, width / width[0], strict=True):
            rows.append({**labels, "method": method, "coverage": n, "width": w, "draws": n_draws, "seed": seed})
        shares = ", ".join(f"{name} {share:.3f}" for name, share in zip(METHODS, covered / n_draws, strict=True))
        report(f"{cell}: {shares}")
    return pd.DataFrame(rows)


def write_contrasts(path: Path) -> None:
    """Measure the grid and write the table."""
    write_csv(path, measure_contrasts(contrast_cells()), float_format="%.6g")


def read_contrasts(path: Path) -> pd.DataFrame:
    """Read the table."""
    return pd.read_csv(path)


def contrasts_section(t: pd.DataFrame) -> str:
    """Return the section of the page."""
    rows = []
    for (ratio, n_seeds, is_paired), part in t.groupby(["ratio", "n_seeds", "is_paired"], sort=False):
        of = part.set_index("method")
        cells = [f"{rate(of.loc[m, 'coverage'])} ({of.loc[m, 'width']:.1f})" for m in METHODS]
        rows.append([f"{ratio:g}", str(n_seeds), "the same" if is_paired else "different", *cells])
    ours = t.loc[t["method"] == "ours", "coverage"]
    text = filled(
        f"""## Differences between models

        The interval with which `frellm4rec compare` and `frellm4rec experiment` report a difference, where the true
        difference is 0: two models, {N_USERS} users, {int(t["draws"].iloc[0])} worlds a cell, {N_BOOTSTRAP} resamples.
        Users differ with standard deviation {USER_SD:g}, a training adds noise of {NOISE_SD:g} to every user, and
        moves the mean of its model. *Trainings*: the standard deviation which that gives the difference of the means
        over seeds, over the standard error that users and noise give it. Coverage of the 95 % interval in per cent,
        and in brackets its mean width over that of users alone. Intervals over users alone miss the truth where
        trainings differ. Resampling three or five seeds is too narrow. With Student's t
        the interval holds the truth in {100 * ours.min():.1f} to {100 * ours.max():.1f} per cent of the worlds: it is
        wider than needed where trainings do not differ or the seeds are not the same.
        `python -m benchmarks.calibration --contrasts` measures `figures/calibration/contrasts.csv` again."""
    )
    return text + "\n\n" + grid(["trainings", "seeds", "seeds of both", *METHODS.values()], rows)


def _world(cell: ContrastCell, rng: np.random.Generator) -> tuple[ModelValues, ModelValues]:
    """Return the values of two models with the same true mean."""
    shape = (2, cell.n_seeds, N_USERS)
    error = np.sqrt((USER_SD**2 + 2 * NOISE_SD**2 / cell.n_seeds) / N_USERS)
    by_training = rng.normal(0.0, cell.ratio * error * np.sqrt(cell.n_seeds / 2), (2, cell.n_seeds, 1))
    if cell.is_paired:  # what a seed does to both models alike
        by_training = by_training + rng.normal(0.0, 3 * cell.ratio * error + 0.01, (1, cell.n_seeds, 1))
    values = rng.normal(0.0, NOISE_SD, shape) + by_training
    values[0] += rng.normal(0.0, USER_SD, N_USERS)
    seeds = tuple(range(cell.n_seeds))
    other = seeds if cell.is_paired else tuple(s + cell.n_seeds for s in seeds)
    return ModelValues("model", values[0], seeds), ModelValues("reference", values[1], other)


def _intervals(model: ModelValues, reference: ModelValues, seed: int) -> Iterator[tuple[float, float]]:
    """Yield the interval of every method."""
    difference = model.values.mean(axis=0) - reference.values.mean(axis=0)
    yield tuple(percentile_interval(resampled_means(difference, N_BOOTSTRAP, seed)))
    yield tuple(percentile_interval(_resampled_both_ways(model, reference, seed)))
    ours = contrasts([(model, reference)], "NDCG@10", n_bootstrap=N_BOOTSTRAP, seed=seed)[0]
    yield ours.low, ours.high


def _resampled_both_ways(model: ModelValues, reference: ModelValues, seed: int) -> FloatArray:
    """Return the difference of resampled users and resampled seeds; equal seeds are drawn together."""
    rng = np.random.default_rng(seed)
    n_seeds, n_users = model.values.shape

    def drawn(n: int) -> FloatArray:
        return rng.multinomial(n, np.full(n, 1 / n), size=N_BOOTSTRAP) / n

    users, seeds = drawn(n_users), drawn(n_seeds)
    other = seeds if model.seeds == reference.seeds else drawn(n_seeds)
    return ((seeds @ model.values - other @ reference.values) * users).sum(axis=1)
