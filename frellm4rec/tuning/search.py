"""Run the trials of a search: equal time for each, finished ones are skipped, interrupted ones go on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from frellm4rec.models.config import LARGEST
from frellm4rec.runs.recipe import Recipe
from frellm4rec.runs.records import TrainingSummary
from frellm4rec.runs.train import build_model, identity, train_recipe
from frellm4rec.training.config import check_seed, check_threads
from frellm4rec.training.pace import measure_pace
from frellm4rec.tuning.processes import check_jobs, side_by_side
from frellm4rec.tuning.tables import SearchTables, trial_row, varied_settings
from frellm4rec.tuning.trials import System
from spectral_probe.backbones.devices import parse_device
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.folder import RunFolder
from spectral_probe.storage.atomic import disk_errors, write_text
from spectral_probe.storage.hashing import settings_hash
from spectral_probe.storage.lock import only_process
from spectral_probe.storage.reading import read_json, read_yaml

logger = logging.getLogger(__name__)
#: Name of a trial's recipe: model, column, number.
_TRIAL = re.compile(r"(.+)-(own|same)-(\d{2,})")
NEXT_STEP = "Choose another --out, or free some space; the same command then goes on."
_DECAY = "training.decay_every"
RUNS_FOLDER, TRIALS_FOLDER, SETTINGS_FILE = "runs", "trials", "search.json"

#: Longest time of a trial, 11 days: its epochs of a millisecond can still be counted.
MOST_SECONDS = 1_000_000


@dataclass(frozen=True)
class Budget:
    """What every trial of a search is given.

    Attributes
    ----------
    seconds : float
        Of training and validating: of computing on the CPU, else by the clock. The epochs that fit are measured before
        a trial begins, so that a trial can be repeated to the bit.
    n_validations : int
        Validations in this time.
    patience : int
        Validations without a better NDCG after which a trial ends early.
    seed : int
        Of the draws from the grid, and of every trial.
    threads : int
        Of a trial, on the CPU.
    """

    seconds: float = 600.0
    n_validations: int = 20
    patience: int = 10
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        is_number = isinstance(self.seconds, (int, float)) and not isinstance(self.seconds, bool)
        if not is_number or not 0.0 < self.seconds <= MOST_SECONDS:
            raise ConfigError(f"--seconds must be above 0, and at most {MOST_SECONDS}; got {self.seconds!r}. Try 600.")
        for name, option in (("n_validations", "--validations"), ("patience", "--patience")):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{option} must be a whole number of at least 1; got {value!r}. Leave it out.")
            if value > LARGEST:
                raise ConfigError(f"{option} must be at most {LARGEST}; got {value!r}. Leave it out.")
        check_seed(self.seed)
        check_threads(self.threads)


@dataclass(frozen=True)
class Search:
    """Trials of some systems on one data set, in one folder.

    Attributes
    ----------
    folder : Path
        Holds ``search.json``, ``trials/`` with the recipe of every trial, ``runs/``, and the tables.
    dataset : Dataset
    request : dict
        Settings of a recipe that name the data and the device: dataset, from_dir, device.
    budget : Budget
    """

    folder: Path
    dataset: Dataset
    request: dict[str, Any]
    budget: Budget

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        dataset: str,
        from_dir: str | None = None,
        device: str = "cpu",
        budget: Budget | None = None,
        data: Dataset | None = None,
    ) -> Self:
        """Return a search with its data loaded.

        Raises
        ------
        ConfigError
            If the folder holds trials with another budget or of other data: these could not be compared.
        DataError
            If the data cannot be read.
        """
        budget = budget or Budget()
        loaded = data or resolve_dataset(dataset, None if from_dir is None else Path(from_dir))
        search = cls(folder, loaded, {"dataset": dataset, "from_dir": from_dir, "device": device}, budget)
        search._check_same()
        return search

    def _content(self) -> dict[str, Any]:
        return {
            **asdict(self.budget),
            "dataset": self.dataset.name,
            "fingerprint": self.dataset.fingerprint(titles=False),
            "device": parse_device(str(self.request["device"])).type,
        }

    def _check_same(self) -> None:
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            return
        try:
            earlier = read_json(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}. Restore it, or search in another folder.") from error
        earlier.setdefault("device", "cpu")  # searches of before do not name it
        differing = [name for name, value in self._content().items() if earlier.get(name) != value]
        if differing:
            was = ", ".join(f"{name}={earlier.get(name)}" for name in differing)
            now = ", ".join(f"{name}={self._content()[name]}" for name in differing)
            raise ConfigError(
                f"All trials of a search have the same data and budget. {self.folder} began with {was}; got {now}. "
                "Use the earlier values, or another folder (--out)."
            )

    def run(
        self,
        systems: Sequence[System],
        *,
        n_trials: int,
        jobs: int = 1,
        progress: bool = False,
        report: Callable[[str], None] = logger.info,
    ) -> SearchTables:
        """Run the trials that are not finished, write the tables after each, and return them.

        A trial that fails is recorded and does not stop the others. After Ctrl-C the same call goes on.

        Parameters
        ----------
        systems : sequence of System
        n_trials : int
            Trials of each system, those of earlier calls included.
        jobs : int
            Trials at a time, each in a process of its own.
        progress : bool
        report : callable
            Called with a line for each trial that has ended.
        """
        check_jobs(jobs)
        rounds = [system.trials(n_trials, seed=self.budget.seed) for system in systems]
        for system, trials in zip(systems, rounds, strict=True):
            self._check_planned(system, trials)
        # The first trial of every system before the second of any: what is there after a stop can be compared.
        planned = [(s, i, t[i]) for i in range(n_trials) for s, t in zip(systems, rounds, strict=True) if i < len(t)]
        return self.run_trials(planned, jobs=jobs, progress=progress, report=report)

    def run_trials(
        self,
        planned: Sequence[tuple[System, int, dict[str, Any]]],
        *,
        jobs: int = 1,
        progress: bool = False,
        report: Callable[[str], None] = logger.info,
    ) -> SearchTables:
        """Run those of some trials that are not finished, as :meth:`run` does: system, number and settings of each."""
        with only_process(self.folder, "A search"):
            return self._run_trials(planned, jobs, progress, report)

    def _run_trials(
        self,
        planned: Sequence[tuple[System, int, dict[str, Any]]],
        jobs: int,
        progress: bool,
        report: Callable[[str], None],
    ) -> SearchTables:
        with disk_errors(self.folder, next_step=NEXT_STEP):
            write_text(self.folder / SETTINGS_FILE, json.dumps(self._content(), indent=2))
        todo = {f"{s.name} trial {i}": (s, i, settings) for s, i, settings in planned if not self.is_finished(s, i)}
        report(f"{len(planned)} trials, {len(planned) - len(todo)} finished, in {self.folder}")
        tasks = {name: (self, *trial, progress and jobs == 1) for name, trial in todo.items()}
        for number, (name, error, seconds) in enumerate(side_by_side(_run_trial, tasks, jobs), start=1):
            if error:
                self._write_failure(*todo[name], error)
            tables = self._saved_tables()
            outcome = error or f"validation NDCG@10 {tables.row(*todo[name][:2])['validation_ndcg']:.4f}"
            report(f"[{number}/{len(todo)}] {name}: {outcome} ({seconds:.0f} s)")
        return self._saved_tables()

    def _saved_tables(self) -> SearchTables:
        tables = self.tables()
        with disk_errors(self.folder, next_step=NEXT_STEP):
            tables.save(self.folder)
        return tables

    def _check_planned(self, system: System, trials: list[dict[str, Any]]) -> None:
        """Refuse trials that are others than those of the same number that are in the folder."""
        for index, settings in enumerate(trials):
            recipe = self.recipe(system, index)
            if recipe is None:
                continue
            expected = varied_settings(system, self._resolved(system, index, settings))
            there = varied_settings(system, recipe)
            for values in (expected, there):  # a decay is scaled to the epochs of the trial
                values[_DECAY] = bool(values.get(_DECAY))
            changed = [name for name in dict.fromkeys([*expected, *there]) if there.get(name) != expected.get(name)]
            if changed:
                name = changed[0]
                raise ConfigError(
                    f"Trial {index} of {system.name} in {self.folder} has {name}={there.get(name)}; this search would "
                    f"try {expected.get(name)}. Leave the change out, or search in another folder (--out)."
                )

    def run_trial(self, system: System, index: int, settings: dict[str, Any], *, progress: bool = False) -> None:
        """Train one trial to its end; an interrupted one goes on from its checkpoint."""
        self.recipe_path(system, index).with_suffix(".error.json").unlink(missing_ok=True)
        recipe = self.recipe(system, index)
        if recipe is None or recipe.to_dict() == self._resolved(system, index, settings).to_dict():
            # The second is a trial that failed before its epochs were measured.
            recipe = self._planned(system, index, settings)
        train_recipe(recipe, out=self.folder / RUNS_FOLDER, resume=True, dataset=self.dataset, progress=progress)

    def recipe_path(self, system: System, index: int) -> Path:
        """Return where the recipe of a trial is written."""
        return self.folder / TRIALS_FOLDER / f"{system.name}-{index:02d}.yaml"

    def recipe(self, system: System, index: int) -> Recipe | None:
        """Return the recipe of a trial that was begun, with its measured number of epochs; else None.

        Raises
        ------
        DataError
            If it is not the whole recipe that was written: what is missing would be filled with defaults.
        """
        path = self.recipe_path(system, index)
        if not path.exists():
            return None
        try:
            content = read_yaml(path)
            recipe = Recipe.from_dict(content)
            if content != recipe.to_dict():
                raise ValueError("settings are missing")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} is not the whole recipe of a trial: {error}. Restore it, or delete it to run the trial again."
            ) from error
        return recipe

    def is_finished(self, system: System, index: int) -> bool:
        """Return whether a trial has been trained to its end, or has failed for good."""
        recipe = self.recipe(system, index)
        if recipe is None:
            return False
        if (failure := self.failure(system, index)) is not None:
            return bool(failure["is_final"])
        in_table, _ = self.stored().trial_of(system, index, self._hash(recipe))
        return bool(in_table) or self.finished_run(recipe) is not None

    def finished_run(self, recipe: Recipe) -> RunFolder | None:
        """Return the finished run of a recipe; None if there is none."""
        return RunFolder.newest_finished(self.folder / RUNS_FOLDER, identity(recipe, self.dataset))

    def failure(self, system: System, index: int) -> dict[str, Any] | None:
        """Return what stopped a trial; None if nothing did."""
        path = self.recipe_path(system, index).with_suffix(".error.json")
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = read_json(path, {"error": str, "is_final": bool})
            return content
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}. Delete it to run the trial again.") from error

    def _write_failure(self, system: System, index: int, settings: dict[str, Any], error: str) -> None:
        path = self.recipe_path(system, index)
        if not path.exists():  # it failed before it was planned
            self._write_recipe(system, index, self._resolved(system, index, settings))
        # A diverged training is a result of its settings; anything else may succeed the next time.
        content = {"error": error, "is_final": error.startswith("NonFiniteStateError")}
        write_text(path.with_suffix(".error.json"), json.dumps(content, indent=2))

    def _resolved(self, system: System, index: int, settings: dict[str, Any]) -> Recipe:
        threads = {"threads": self.budget.threads} if system.is_trained else {}
        base = Recipe(model=system.model, name=f"{system.name}-{index:02d}", seed=self.budget.seed)
        return base.merged({**self.request, **threads, **settings})

    def _planned(self, system: System, index: int, settings: dict[str, Any]) -> Recipe:
        """Return the recipe of a new trial, with the epochs that fit into its seconds; it is written first."""
        recipe = self._resolved(system, index, settings)
        if system.is_trained:
            assert recipe.training is not None
            model = build_model(recipe, self.dataset)
            pace = measure_pace(model, self.dataset, recipe.training, seed=recipe.seed, threads=recipe.threads)
            n_epochs, between = pace.schedule(self.budget.seconds, self.budget.n_validations)
            epochs = {"n_epochs": n_epochs, "validate_every": between, "patience": self.budget.patience}
            if recipe.training.decay_every:
                # The recipe gives the decay for its own number of epochs; its share of the training stays.
                share = recipe.training.decay_every / recipe.training.n_epochs
                epochs["decay_every"] = max(1, round(share * n_epochs))
            recipe = recipe.merged({f"training.{name}": value for name, value in epochs.items()})
        self._write_recipe(system, index, recipe)
        return recipe

    def _write_recipe(self, system: System, index: int, recipe: Recipe) -> None:
        write_text(self.recipe_path(system, index), yaml.safe_dump(recipe.to_dict(), sort_keys=False).rstrip("\n"))

    def tables(self) -> SearchTables:
        """Return the trials that have ended: of the runs in the folder, and of its tables where a run is gone."""
        stored = self.stored()
        rows: list[dict[str, Any]] = []
        curves: list[dict[str, Any]] = []
        for path in sorted((self.folder / TRIALS_FOLDER).glob("*.yaml")):
            if (name := _TRIAL.fullmatch(path.stem)) is None:
                raise DataError(
                    f"{path} is no recipe of a trial: these are called MODEL-own-00.yaml. Move it elsewhere."
                )
            system, index = System(name[1], name[2]), int(name[3])  # type: ignore[arg-type]
            recipe = self.recipe(system, index)
            assert recipe is not None
            run, failure = self._readable_run(recipe), self.failure(system, index)
            if run is None and failure is None:
                row, curve = stored.trial_of(system, index, self._hash(recipe))
            else:
                error = "" if failure is None or run is not None else str(failure["error"])
                row, curve = trial_row(system, index, recipe, self.dataset, run, error)
                row["budget_seconds"] = self.budget.seconds
            rows += [row] if row else []
            curves += curve
        return SearchTables.from_rows(rows, curves)

    def _readable_run(self, recipe: Recipe) -> RunFolder | None:
        """Return the finished run of a recipe; None if there is none, or its record is damaged."""
        run = self.finished_run(recipe)
        try:
            if run is not None:
                TrainingSummary.read(run.path)
        except DataError as error:
            logger.warning("%s The tables of the search are read instead.", error)
            return None
        return run

    def stored(self) -> SearchTables:
        """Return the tables in the folder; they outlive the runs, so that a search goes on from them on any machine."""
        there = (self.folder / "trials.csv").exists() and (self.folder / "curves.csv").exists()
        return SearchTables.load(self.folder) if there else SearchTables.empty()

    def _hash(self, recipe: Recipe) -> str:
        return settings_hash(identity(recipe, self.dataset))


def _run_trial(search: Search, system: System, index: int, settings: dict[str, Any], progress: bool) -> None:
    search.run_trial(system, index, settings, progress=progress)
