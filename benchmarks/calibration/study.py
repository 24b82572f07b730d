"""The cells of the study and their draws, one tidy table; an interrupted study is continued."""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.calibration.measures import FIRST, NODES, TASTE, Judged, Measures, ratio_of_means
from benchmarks.calibration.probes import Probe
from benchmarks.calibration.worlds import WORLDS, States, World, world
from spectral_probe.analysis.exchanged_items import TOLERATED_SD
from spectral_probe.profiles.verdict import NOT_MEASURABLE
from spectral_probe.storage.atomic import write_csv
from spectral_probe.types import FloatArray

DATASETS = ("LastFM", "ml-100k", "Luxury_Beauty")
#: Data set of the null worlds alone.
NULL_ONLY = "Luxury_Beauty"
WORDS = ("attenuated", "amplified", "preserved", "inconclusive", "none")
#: Draws whose Grams are held at once; a constant, so that rounding does not depend on how a study is split.
BATCH = 5
#: Samples of users drawn anew, and the most draws of the first version.
N_SAMPLES = 200
MAX_FIRST = 40
COLUMNS = (
    *("dataset", "world", "nodes", "measure", "draws", "users", "match_error", "mean_z", "sd_z", "last_z", "sd_last_z"),
    *("exchanged_sd", "false_verdicts", *WORDS, "retention", "truth", "ratio_of_means", "coverage", "coverage_anew"),
    *("seed", "threads", "seconds"),
)


@dataclass(frozen=True)
class Cell:
    """One world on one data set, and how often it is drawn."""

    dataset: str
    world: str
    draws: int


def cells(*, null_draws: int = 40, taste_draws: int = 40) -> list[Cell]:
    """Return the study: all worlds on LastFM and ml-100k, the null worlds on Luxury_Beauty."""
    return [
        Cell(dataset, w.name, taste_draws if w.has_taste else null_draws)
        for dataset in DATASETS
        for w in WORLDS
        if not (w.has_taste and dataset == NULL_ONLY)
    ]


class Study:
    """Runs cells and stores the table.

    Parameters
    ----------
    probes : callable
        Returns the probe of a data set by its name.
    path : Path
        The CSV; a cell that has as many draws in it is not computed again.
    """

    def __init__(self, probes: Callable[[str], Probe], path: Path, *, seed: int = 0, n_bootstrap: int = 1000) -> None:
        self.probes, self.path, self.seed, self.n_bootstrap = probes, path, seed, n_bootstrap
        self.table = read_table(path) if path.exists() else pd.DataFrame()
        self._measures: dict[tuple[str, str], Measures] = {}

    def run(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """Run the cells that the table lacks, save after each, and return the table in the order of the study."""
        for cell in cells:
            known = self._rows(cell)
            if known.any() and self.table.loc[known, "draws"].max() >= cell.draws:
                continue
            start = time.perf_counter()
            new = pd.DataFrame(self._run(cell))
            seconds = time.perf_counter() - start
            new = new.assign(seed=self.seed, threads=int(os.environ.get("OMP_NUM_THREADS") or 0), seconds=seconds)
            others = self.table[~known] if len(self.table) else self.table
            table = pd.concat([others, new.reindex(columns=list(COLUMNS))], ignore_index=True)
            self.table = _ordered(table)
            write_csv(self.path, self.table, float_format="%.6g")
            print(f"{seconds:7.1f} s  {cell}", file=sys.stderr, flush=True)
        return self.table

    def _rows(self, cell: Cell) -> pd.Series:
        if self.table.empty:
            return pd.Series([], dtype=bool)
        return (self.table["dataset"] == cell.dataset) & (self.table["world"] == cell.world)

    def measures(self, dataset: str, variant: str = "") -> Measures:
        """Return the measures on the histories of a data set, or on a variant of its probe."""
        key = (dataset, variant)
        if key not in self._measures:
            self._measures[key] = Measures(self.probes(dataset).variant(variant), n_bootstrap=self.n_bootstrap)
        return self._measures[key]

    def _run(self, cell: Cell) -> list[dict[str, object]]:
        w = world(cell.world)
        measures = self.measures(cell.dataset, w.variant)
        parts: dict[str, list[FloatArray]] = {TASTE: [], FIRST: []}
        for start in range(0, cell.draws, BATCH):
            numbers = range(start, min(start + BATCH, cell.draws))
            states = [self._states(cell, w, measures.probe, draw) for draw in numbers]
            for name, values in measures.excess(states, with_first=start < MAX_FIRST).items():
                parts[name].append(values)
        embed_sd = measures.probe.exchanged_sd if w.shares_items else 1.0
        rows = []
        for name, batches in parts.items():
            excess, is_new = np.concatenate(batches), name == TASTE
            judged = [
                measures.judged(name, x, seed=self.seed + draw, embed_sd=_tolerated(embed_sd) if is_new else 1.0)
                for draw, x in enumerate(excess)
            ]
            row: dict[str, object] = {**asdict(cell), "nodes": NODES[name], "measure": name, "draws": len(excess)}
            row |= {"users": int((np.isfinite(excess).all(axis=(0, 2)) & (measures.weights[name] > 0)).sum())}
            row["match_error"] = measures.probe.nodes.operators.matched.match_error if is_new else np.nan
            row |= statistics(judged) | {"exchanged_sd": embed_sd if w.shares_items and is_new else np.nan}
            if w.has_taste and (is_new or np.isfinite(w.retention)):
                row |= self._retention(measures, name, excess, judged, w)
            rows.append(row | {"false_verdicts": false_verdicts(judged, w, row)})
        return rows

    def _states(self, cell: Cell, w: World, probe: Probe, draw: int) -> States:
        key = zlib.crc32(f"{cell.dataset}/{cell.world}".encode())
        return w.make(probe, np.random.default_rng([self.seed, key, draw]))

    def _retention(
        self, measures: Measures, name: str, excess: FloatArray, judged: list[Judged], w: World
    ) -> dict[str, object]:
        known = ratio_of_means(excess, measures.weights[name])
        truth = w.retention if np.isfinite(w.retention) else known
        covers = [j.low <= truth <= j.high for j in judged]
        anew = measures.pooled_coverage(name, excess, known, n_samples=N_SAMPLES, seed=self.seed)
        return {"truth": truth, "ratio_of_means": known, "coverage": float(np.mean(covers)), "coverage_anew": anew}


def _tolerated(sd: float) -> float:
    """Return what the test of ``embed`` divides by, as the control ``exchanged-items`` says."""
    return sd if sd > TOLERATED_SD else 1.0


def statistics(judged: list[Judged]) -> dict[str, float]:
    """Return z, retention and the rate of each word over the draws of a cell."""
    z, last = np.array([j.z for j in judged]), np.array([j.last_z for j in judged])
    words = ["none" if j.label.startswith(NOT_MEASURABLE) else j.label for j in judged]
    rates = {word: float(np.mean([w == word for w in words])) for word in WORDS}
    spread = {"sd_z": z.std(ddof=1), "last_z": last.mean(), "sd_last_z": last.std(ddof=1)}
    return {"mean_z": z.mean(), **spread, "retention": float(np.median([j.retention for j in judged])), **rates}


def false_verdicts(judged: list[Judged], w: World, row: dict[str, object]) -> float:
    """Return how often the word is false.

    Without taste every word but "no measurable" is false. With it the direction is, and "preserved" outside the range
    of that word; "inconclusive" never is.
    """
    if not w.has_taste:
        return 1.0 - float(str(row["none"]))
    truth = float(str(row.get("truth", np.nan)))
    false = {"attenuated": truth >= 1, "amplified": truth <= 1, "preserved": not 0.8 <= truth <= 1.25}
    return float(np.mean([false.get(j.label, False) for j in judged])) if np.isfinite(truth) else np.nan


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of the study, whatever order they were computed in."""
    names = [w.name for w in WORLDS]
    order = pd.DataFrame(
        {
            "dataset": table["dataset"].map(DATASETS.index),
            "world": table["world"].map(names.index),
            "measure": table["measure"] != TASTE,
        }
    )
    return table.loc[order.sort_values(["dataset", "world", "measure"]).index, list(COLUMNS)].reset_index(drop=True)


def read_table(path: Path) -> pd.DataFrame:
    """Read the cells of the study's worlds; numbers are those in the file, not rounded again."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""]).reindex(columns=list(COLUMNS))
    return table[table["world"].isin([w.name for w in WORLDS])].reset_index(drop=True)
