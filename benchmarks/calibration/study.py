"""The cells of the study, their repetitions, and one tidy table; an interrupted study can be continued."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.calibration import worlds
from benchmarks.calibration.probe import NULLS, Judge, LowPassProbe, Members
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.spectrum.energy import MIN_TARGETS
from spectral_probe.storage.atomic import write_csv
from spectral_probe.types import IntArray

FloatArray = npt.NDArray[np.floating]
TAUS = (1.0, 2.0, 5.0, 10.0, 20.0)
#: Number of seeds of the bootstrap, used in turn.
N_BOOTSTRAP_SEEDS = 8
RETAINED = (1.0, 0.75, 0.5)
#: Worlds whose name ends in this draw only users with so many targets.
LONG_HISTORY = 12
LONG = f", {LONG_HISTORY}+ targets"
#: Shortest histories compared in study "f".
SHORTEST = (4, 8, 12, 16)
VERDICTS = {
    "attenuated": "attenuated",
    "amplified": "amplified",
    "preserved": "preserved",
    "no measurable collaborative signal": "no_signal",
    "inconclusive": "inconclusive",
}
FIXED, REDRAWN = "graphs fixed", "users drawn anew"


@dataclass(frozen=True)
class Cell:
    """One setting to repeat. ``n_users`` 0 means all."""

    study: str
    world: str
    design: str
    n_users: int
    strength: float
    reps: int


KEY = ["study", "world", "design", "n_users", "strength", "reps"]


class Setting:
    """Real local graphs and everything that depends on them alone."""

    def __init__(self, dataset: Dataset, *, max_length: int = 50) -> None:
        probed = probe_sequences(dataset, part="valid", max_length=max_length)
        graph = ItemGraph.from_interactions(dataset.train.user_items)
        bases = graph.local_bases(probed.targets, probed.lengths, users=probed.users, own_user="drop")
        keep = (bases.lengths >= MIN_TARGETS) & bases.drop_first(1).has_edges
        self.bases = GraphBases(
            bases.eigenvalues[keep], bases.eigenvectors[keep], bases.adjacency[keep], bases.lengths[keep]
        )
        self.targets = probed.targets[keep]
        self.user_items = graph.user_items
        self.n_users, self.T = self.targets.shape

    @cached_property
    def headline(self) -> LowPassProbe:
        """The probe at its defaults."""
        return LowPassProbe(self.bases)

    @cached_property
    def raw(self) -> LowPassProbe:
        """The probe on the untouched Gram."""
        return LowPassProbe(self.bases, is_raw=True)

    @cached_property
    def all_operators(self) -> LowPassProbe:
        """The probe with every low-pass of the power table."""
        return LowPassProbe(self.bases, taus=TAUS, has_quarter=True)

    @cached_property
    def without_lowest(self) -> LowPassProbe:
        """The heat kernels with and without the eigenspace of λ = 0."""
        return LowPassProbe(self.bases, taus=TAUS[:3], has_quarter=True, has_lowest_removed=True)

    @cached_property
    def roots(self) -> FloatArray:
        """Square roots of the injected signal's covariance on each graph."""
        return worlds.signal_roots(self.bases)

    @cached_property
    def item_vectors(self) -> FloatArray:
        """Fixed item vectors that encode co-occurrence."""
        return worlds.factorised_item_vectors(self.user_items)

    @cached_property
    def popularity(self) -> FloatArray:
        """Standardised log count of every item."""
        return worlds.popularity(self.user_items)

    def pool(self, cell: Cell) -> IntArray:
        """Return the users that the cell may draw."""
        shortest = LONG_HISTORY if cell.world.endswith(LONG) else MIN_TARGETS
        return np.flatnonzero(self.bases.lengths >= shortest)

    def fixed_users(self, cell: Cell, seed: int) -> IntArray:
        """Return the users whose graphs are fixed: all, or n drawn once without replacement."""
        pool, n = self.pool(cell), cell.n_users
        if n in (0, len(pool)):
            return pool
        return np.sort(np.random.default_rng([seed, n]).choice(pool, n, replace=False))

    def states(self, cell: Cell, rng: np.random.Generator, users: IntArray) -> FloatArray:
        """Return fresh states of the cell's world, (n, n_layers, T, d)."""
        n, T = len(users), self.T
        name, strength = cell.world.removesuffix(LONG), cell.strength
        if cell.study == "a":
            if name == "white item vectors":
                H = worlds.white_item_vectors(rng, self.user_items.shape[1])[self.targets[users]]
                return np.stack([H, worlds.SHARED_NOISE * H + worlds.noise(rng, n, T, 0)[:, 0]], axis=1)
            names = worlds.CONFOUNDS if name == "all together" else () if name == "none" else (name,)
            return worlds.confound(rng, worlds.noise(rng, n, T), names)
        if cell.study == "b":
            S = worlds.smooth_signal(rng, self.roots[users])
            H = worlds.with_signal(S, worlds.noise(rng, n, T), strength, np.ones(1))
            # Here the mean vector is 0 at embed.
            names = ("mean vector", "first row") if name == "both" else (name,)
            H[:, 1] = worlds.confound(rng, H, names)[:, 1]
            return H
        if cell.study in ("e", "f"):
            return self._popularity_states(name, rng, users)
        S = self.item_vectors[self.targets[users]] if name == "item vectors" else None
        if S is None:
            S = worlds.smooth_signal(rng, self.roots[users])
        if name == "mixed users":
            return worlds.with_signal(S, worlds.noise(rng, n, T), strength, np.where(users % 2, 1.0, 0.5)[:, None])
        return worlds.with_signal(S, worlds.noise(rng, n, T, len(RETAINED)), strength, np.array(RETAINED))

    def _popularity_states(self, name: str, rng: np.random.Generator, users: IntArray) -> FloatArray:
        pop = self.popularity[self.targets[users]][:, None, :, None]
        H = worlds.noise(rng, len(users), self.T)
        if name == "one axis":
            return H + np.float32(np.sqrt(0.05)) * pop * rng.standard_normal(H.shape[-1], dtype=np.float32)
        if name == "own graph":
            return H + np.float32(np.sqrt(0.3)) * worlds.smooth_signal(rng, self.roots[users])[:, None]
        if name == "item vectors":
            return H + np.float32(np.sqrt(0.05)) * self.item_vectors[self.targets[users]][:, None]
        H = H * np.exp(np.float32(0.5 if "rises" in name else -0.5) * pop)
        return worlds.equal_row_norms(H) if "normalised" in name else H


def _seeded(seed: int, cell: Cell, rep: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(repr(astuple(cell)).encode()), rep])


def nominals(cell: Cell) -> tuple[float, ...]:
    """Return the nominal retention of each last block."""
    if cell.study in ("a", "e", "f"):
        return (np.nan,)
    if cell.study == "b":
        return (1.0,)
    return (0.75,) if cell.world == "mixed users" else RETAINED


class Study:
    """Runs cells and stores the table.

    Parameters
    ----------
    setting : Setting
    path : Path
        The CSV; cells already in it, with as many repetitions, are not run again.
    """

    def __init__(self, setting: Setting, path: Path, *, seed: int = 0, n_bootstrap: int = 1000) -> None:
        self.setting, self.path, self.seed = setting, path, seed
        self.judge = Judge(n_bootstrap=n_bootstrap)
        self.table = read_table(path) if path.exists() else pd.DataFrame()

    def run(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """Run the cells that are not in the table, save after each, and return the table."""
        for cell in cells:
            if self._find(cell).any():
                continue
            start = time.perf_counter()
            rows = {"truth": self._truth, "f": self._histories}.get(cell.study, self._repeat)(cell)
            new = pd.DataFrame(rows).assign(
                all_users=len(self.setting.pool(cell)), n_bootstrap=self.judge.n_bootstrap, seed=self.seed
            )
            self.table = pd.concat([self.table, new], ignore_index=True)
            write_table(self.table, self.path)
            print(f"{time.perf_counter() - start:7.1f} s  {astuple(cell)}", file=sys.stderr, flush=True)
        return self.table

    def _find(self, cell: Cell) -> npt.NDArray[np.bool_]:
        if self.table.empty:
            return np.zeros(0, dtype=bool)
        return np.logical_and.reduce([self.table[name] == value for name, value in asdict(cell).items()])

    def _probes(self, cell: Cell) -> dict[str, tuple[LowPassProbe, tuple[str, ...]]]:
        setting = self.setting
        if cell.study in ("a", "b"):
            return {"headline": (setting.headline, NULLS), "raw": (setting.raw, NULLS)}
        if cell.study == "c" or (cell.study == "truth" and cell.n_users):
            return {"headline": (setting.headline, NULLS[:2])}
        if cell.study in ("e", "f"):
            return {"headline": (setting.without_lowest, NULLS[:1])}
        return {"headline": (setting.all_operators, NULLS[:2])}

    def _draws(self, cell: Cell) -> Iterable[tuple[int, dict[tuple[str, str], FloatArray]]]:
        """Yield the excess of every gram and null, (n, n_layers, J), repetition by repetition."""
        setting, probes = self.setting, self._probes(cell)
        users, pool = setting.fixed_users(cell, self.seed), setting.pool(cell)
        grouped: dict[str, Members] = {}
        for rep in range(cell.reps):
            rng = _seeded(self.seed, cell, rep)
            if cell.design == REDRAWN:
                users = pool[rng.integers(0, len(pool), cell.n_users or len(pool))]
                grouped = {}
            G = worlds.grams(setting.states(cell, rng, users))
            result = {}
            for gram, (probe, nulls) in probes.items():
                if gram not in grouped:
                    grouped[gram] = probe.members(users)
                for null, values in probe.excess(grouped[gram], G, nulls).items():
                    result[gram, null] = values
            yield rep, result

    def _repeat(self, cell: Cell) -> list[dict[str, object]]:
        judged: dict[tuple[str, str], list[dict[str, npt.NDArray]]] = {}
        for rep, excess in self._draws(cell):
            for key, values in excess.items():
                judged.setdefault(key, []).append(self.judge(values, seed=rep % N_BOOTSTRAP_SEEDS))
        rows = []
        for (gram, null), reps in judged.items():
            stacked = {name: np.stack([r[name] for r in reps]) for name in reps[0]}
            operators = self._probes(cell)[gram][0].operators
            for (layer, nominal), (j, operator) in (
                (a, b) for a in enumerate(nominals(cell)) for b in enumerate(operators)
            ):
                s = {name: values[:, layer, j] for name, values in stacked.items()}
                labels = {**asdict(cell), "nominal": nominal, "gram": gram, "null": null, "operator": operator}
                rows.append(labels | _statistics(s) | self._coverage(cell, labels, s))
        return rows

    def _coverage(self, cell: Cell, labels: dict[str, object], s: dict[str, npt.NDArray]) -> dict[str, float]:
        truth, error = np.nan, np.nan
        if cell.study == "b":
            truth, error = 1.0, 0.0
        elif cell.study in ("c", "d"):
            n = cell.n_users if cell.design == FIXED else 0
            t = self.table
            same = (t["study"] == "truth") & (t["n_users"] == n)
            for name in ("world", "strength", "nominal", "null", "operator"):
                same &= t[name] == labels[name]
            if same.sum() != 1:
                raise LookupError(f"{same.sum()} truths for {labels}; run the cells of study 'truth' first.")
            truth, error = t.loc[same, ["truth", "truth_error"]].iloc[0]
        if np.isnan(truth):
            return {}
        below, above = (s["high"] < truth).mean(), (s["low"] > truth).mean()
        return {"truth": truth, "truth_error": error, "coverage": 1 - below - above, "below": below, "above": above}

    def _truth(self, cell: Cell) -> list[dict[str, object]]:
        """Return the ratio of expected excesses, over many fresh states on the same graphs."""
        means: dict[str, list[FloatArray]] = {}
        for _, excess in self._draws(cell):
            for (_, null), values in excess.items():
                means.setdefault(null, []).append(np.nanmean(values.astype(np.float64), axis=0))
        rows = []
        for null, values in means.items():
            m = np.stack(values)
            ratio = m[:, 1:].mean(axis=0) / m[:, 0].mean(axis=0)
            residual = m[:, 1:] - ratio * m[:, :1]
            error = residual.std(axis=0, ddof=1) / np.sqrt(len(m)) / m[:, 0].mean(axis=0)
            for layer, nominal in enumerate(nominals(cell)):
                for j, operator in enumerate(self._probes(cell)["headline"][0].operators):
                    labels = {**asdict(cell), "nominal": nominal, "gram": "headline", "null": null}
                    rows.append(
                        labels | {"operator": operator, "truth": ratio[layer, j], "truth_error": error[layer, j]}
                    )
        return rows

    def _histories(self, cell: Cell) -> list[dict[str, object]]:
        """Return the z of the embed excess and the users' parts of the retention's variance, by shortest history."""
        draws = [next(iter(excess.values())).astype(np.float64) for _, excess in self._draws(cell)]
        lengths = self.setting.bases.lengths[self.setting.pool(cell)]
        rows = []
        for shortest in SHORTEST:
            x = np.stack(draws)[:, lengths >= shortest]
            mean = x.mean(axis=1, keepdims=True)
            z = mean[:, 0, 0] / x[:, :, 0].std(axis=1, ddof=1) * np.sqrt(x.shape[1])
            residual = x[:, :, 1] - mean[:, :, 1] / mean[:, :, 0] * x[:, :, 0]
            by_user = np.sort((residual**2).mean(axis=0), axis=0)[::-1]
            share = by_user / by_user.sum(axis=0)
            for j, operator in enumerate(self._probes(cell)["headline"][0].operators):
                rows.append(
                    {**asdict(cell), "nominal": np.nan, "gram": "headline", "null": "two-sided", "operator": operator}
                    | {"shortest": shortest, "users": x.shape[1], "embed_z": z[:, j].mean()}
                    | {"effective_users": 1 / (share[:, j] ** 2).sum(), "top_10_share": share[:10, j].sum()}
                )
        return rows


def _statistics(s: dict[str, npt.NDArray]) -> dict[str, float]:
    """Return the statistics of the repetitions of one column that the tables show."""
    result = {
        "users": s["users"].mean(),
        "embed_excess": s["embed_mean"].mean(),
        "embed_z": s["embed_z"].mean(),
        "embed_z_sd": s["embed_z"].std(ddof=1),
        "embed_beyond": (np.abs(s["embed_z"]) > 1.96).mean(),
        "last_z": s["last_z"].mean(),
        "last_z_sd": s["last_z"].std(ddof=1),
        "last_beyond": (np.abs(s["last_z"]) > 1.96).mean(),
        "retention": np.median(s["retention"]),
        "retention_sd": s["retention"].std(ddof=1),
        "width": np.median(s["high"] - s["low"]),
    }
    return result | {name: (s["verdict"] == label).mean() for label, name in VERDICTS.items()}


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table whole or not at all."""
    write_csv(path, table, float_format="%.6g")


def read_table(path: Path) -> pd.DataFrame:
    """Read the table; numbers are those in the file, not rounded again."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def cells(scale: float = 1.0, all_users: int | None = None) -> list[Cell]:
    """Return the study; ``scale`` multiplies the repetitions. Sizes not below ``all_users`` are left out."""

    def sizes(*wanted: int) -> tuple[int, ...]:
        return tuple(n for n in wanted if all_users is None or n < all_users)

    def times(reps: int) -> int:
        return max(2, round(reps * scale))

    independent = ("none", *worlds.CONFOUNDS, "all together", "white item vectors")
    result = [Cell("a", world, FIXED, 0, 0.0, times(400)) for world in independent]
    fixed = [(n, strength) for n, strength in ((200, 1.0), (200, 3.0), (400, 0.3), (400, 1.0)) if n in sizes(n)]
    for n, strength in [*fixed, (0, 1.0), (0, 0.3)]:
        result += [
            Cell("truth", "own graph", FIXED, n, strength, times(1000 if n == 200 else 400)),
            Cell("c", "own graph", FIXED, n, strength, times(1000 if n else 400)),
        ]
    for world in ("own graph", "item vectors", f"own graph{LONG}", f"item vectors{LONG}"):
        if world != "own graph":
            result += [Cell("truth", world, FIXED, 0, 1.0, times(200))]
        result += [Cell("d", world, REDRAWN, n, 1.0, times(600)) for n in sizes(50, 100, 200, 400)]
        result += [Cell("d", world, REDRAWN, 0, 1.0, times(150))]
    result += [Cell("d", "own graph", REDRAWN, n, 0.3, times(400)) for n in sizes(200, 400)]
    result += [
        Cell("b", world, FIXED, n, 1.0, times(400))
        for n in sizes(400)
        for world in ("mean vector", "first row", "both")
    ]
    popularity = ("one axis", "own graph", "item vectors", "norm rises", "norm falls", "norm falls, rows normalised")
    result += [Cell("e", world, FIXED, 0, 0.0, times(30)) for world in popularity]
    result += [Cell("f", world, FIXED, 0, 0.0, times(50)) for world in ("own graph", "item vectors", "one axis")]
    result += [Cell("truth", "mixed users", FIXED, n, 1.0, times(400)) for n in (*sizes(200), 0)]
    for n in sizes(200):
        result += [Cell("c", "mixed users", design, n, 1.0, times(1000)) for design in (FIXED, REDRAWN)]
    result += [Cell("a", world, REDRAWN, n, 0.0, times(400)) for n in sizes(200) for world in independent]
    return result
