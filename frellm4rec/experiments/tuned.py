"""Run a tuned table: search on the validation items, and with ``final`` open the test items once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from frellm4rec.evaluation import stored_candidates
from frellm4rec.experiments.definitions import INPUTS_KEY, Variant
from frellm4rec.experiments.grid import ExperimentRequest
from frellm4rec.experiments.longer import longer_search, longer_trial
from frellm4rec.experiments.page import command_of, experiment_page, tuned_curves
from frellm4rec.experiments.report import paper_figure
from frellm4rec.experiments.runner import ExperimentRun
from frellm4rec.experiments.system_figure import learning_figure, longer_figure
from frellm4rec.experiments.system_page import system_page
from frellm4rec.experiments.system_tables import SystemTables, best_baseline, system_rows
from frellm4rec.experiments.systems import TunedExperiment, longer_name
from frellm4rec.experiments.tables import ExperimentTables
from frellm4rec.runs.evaluations import parse_ranking
from frellm4rec.runs.recipe import Recipe
from frellm4rec.tuning.processes import exit_code_of, is_for_good
from frellm4rec.tuning.search import NEXT_STEP, Budget, Search
from frellm4rec.tuning.tables import FINISHED, SearchTables, changed_settings
from frellm4rec.tuning.trials import LOSS_KEY, System
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.report.page import write_page
from spectral_probe.storage.atomic import disk_errors, write_text
from spectral_probe.storage.hashing import settings_hash
from spectral_probe.storage.lock import only_process
from spectral_probe.storage.reading import read_json

logger = logging.getLogger(__name__)
SEARCH_FOLDER, OPENINGS_FILE = "search", "openings.json"
Report = Callable[[str], None]


@dataclass
class TunedRun:
    """A tuned table on one data set, in one folder.

    Attributes
    ----------
    experiment : TunedExperiment
    request : ExperimentRequest
        Its variants are models of the table; its first seed is 1, so that no seed of a search is used again.
    search : Search
        In ``search/`` of the folder.
    n_trials : int
    folder : Path
    longer : Search or None
        In ``longer/`` of the folder: the winner again with several times the seconds.
    runs_longer : bool
        Whether :meth:`tune` runs it.
    exit_code : int
        Of the first failure of a final training; 0 if there is none.
    """

    experiment: TunedExperiment
    request: ExperimentRequest
    search: Search
    n_trials: int
    folder: Path
    longer: Search | None = None
    runs_longer: bool = False
    exit_code: int = 0

    @classmethod
    def open(
        cls,
        experiment: TunedExperiment,
        request: ExperimentRequest,
        folder: Path,
        *,
        n_trials: int,
        budget: Budget,
        longer: int | None = None,
        dataset: Dataset | None = None,
    ) -> Self:
        """Return the table with its data loaded and every trial drawn, before any training.

        ``longer``: also run the winner again with so many times the seconds.

        Raises
        ------
        ConfigError
            If a system, a setting or the budget is refused.
        DataError
            If the data cannot be read.
        """
        if request.baselines or len(request.backbones) > 1 or len(request.modes) > 1:
            raise ConfigError(
                f"{experiment.name!r} compares its systems; --backbone and --mode, once, are of "
                f"{experiment.reference}. Leave out --beside and further ones."
            )
        if request.variants and longer is not None:
            raise ConfigError("--longer is of the winner of the whole table. Leave out --variants, or --longer.")
        if LOSS_KEY in request.settings:
            raise ConfigError(f"The columns of {experiment.name!r} choose the loss. Leave out --set {LOSS_KEY}=….")
        experiment = experiment.over(*request.backbones[:1] or [""], *request.modes[:1] or [""])
        data = dataset or resolve_dataset(request.dataset, request.from_dir)
        if data.item_titles is None and INPUTS_KEY not in request.settings:
            experiment = experiment.without_titles()
        search = Search.open(
            folder / SEARCH_FOLDER,
            dataset=request.dataset,
            from_dir=None if request.from_dir is None else str(request.from_dir),
            device=request.device or "cpu",
            budget=budget,
            data=data,
        )
        more = longer_search(search, folder, longer)
        run = cls(experiment, request, search, n_trials, folder, more, runs_longer=longer is not None)
        for system in run.systems:
            system.trials(n_trials, seed=budget.seed)
        return run

    @property
    def systems(self) -> list[System]:
        """The systems of the request, in the order of the table."""
        return self.experiment.systems(self.request.variants, self.request.settings)

    def check_final(self) -> None:
        """Refuse what :meth:`finish` would refuse, before a search of hours.

        Raises
        ------
        ConfigError, DataError
            If only some systems are asked for, or the data do not allow a ranking; see
            :func:`~frellm4rec.evaluation.candidates.stored_candidates`.
        """
        if self.request.variants:
            raise ConfigError(
                "The test items are opened for all systems of a table, which are compared with each other. Leave out "
                "--variants, or write a table of your own with these systems."
            )
        for ranking in self.request.rankings:
            n_negatives = parse_ranking(ranking)
            if n_negatives is not None:
                stored_candidates(self.search.dataset, part="test", n_negatives=n_negatives)

    def tune(self, *, jobs: int = 1, progress: bool = False, report: Report = logger.info) -> SystemTables:
        """Run the trials that are missing, write the tables, and return them."""
        how: dict[str, Any] = {"jobs": jobs, "progress": progress, "report": report}
        trials = self.search.run(self.systems, n_trials=self.n_trials, **how)
        rows = system_rows(self.experiment, self.systems, trials, {}, {})
        if len(rows) and rows["validation_ndcg"].isna().all():
            self.exit_code = exit_code_of(rows["error"].iloc[0])
        planned = longer_trial(rows, self.systems, seed=self.search.budget.seed)
        if self.longer is not None and self.runs_longer and planned:
            self._write(self._final_tables())  # a call that is stopped in the longer run leaves the table
            ended = self.longer.run_trials(planned, **how).row(*planned[0][:2])
            self.exit_code = self.exit_code or (exit_code_of(ended["error"]) if ended["error"] else 0)
        return self._write(self._final_tables())

    def finish(self, *, jobs: int = 1, progress: bool = False, report: Report = logger.info) -> SystemTables:
        """Train the chosen settings with the seeds of the request, open the test items, and return the tables.

        Raises
        ------
        ConfigError
            If only some systems are asked for, they have not had the same number of trials, or another process is at
            work in the folder.
        """
        self.check_final()
        trials = self.search.tables()
        self._check_equal_trials(trials)
        variants = self._variants(trials)
        rows = system_rows(self.experiment, self.systems, trials, {}, {})
        against = best_baseline(rows, self.experiment.reference)
        variants |= self._longer_variants(trials)
        final = self.experiment.final(tuple(variants.values()), against)
        plain = replace(
            self.request, variants=(), settings={}, first_seed=1, device=self.search.request["device"], backbones=()
        )
        run = ExperimentRun.open(final, plain, self.folder, dataset=self.search.dataset)
        with only_process(self.folder, "A table"):
            self._write_openings(variants)
            try:
                tables = run.run(jobs=jobs, progress=progress, report=report)
            except KeyboardInterrupt:
                self._write(self._final_tables(), is_final=True)
                raise
            self.exit_code = self.exit_code or run.exit_code
            content = self._write(tables, is_final=True)
            if not content.final_of_systems.means.empty:
                figure = paper_figure(final, content.final_of_systems, width=self.request.figure_width)
                figure.save(self.folder / "figure")
            return content

    def _check_equal_trials(self, trials: SearchTables) -> None:
        """Refuse systems with more or fewer trials than asked for, or with one that could still succeed."""
        for system in self.systems:
            rows = trials.rows_of(system)
            has_ended = (rows["status"] == FINISHED) | rows["error"].map(is_for_good)
            n, expected = int(has_ended.sum()), len(system.trials(self.n_trials, seed=self.search.budget.seed))
            if n == expected:
                continue
            advice = f"Give --trials {len(rows)}." if n > expected else "Run the same command without --final first."
            raise ConfigError(
                f"The test items are opened after equal trials for all systems; of {system.name} {n} have ended, and "
                f"{expected} are asked for. {advice}"
            )

    def _variants(self, trials: SearchTables) -> dict[str, Variant]:
        """Return the chosen settings of every system that has a finished trial; the reference must be among them."""
        variants = self._chosen(trials)
        if f"{self.experiment.reference}-own" not in variants:
            raise ConfigError(
                f"{self.experiment.reference}, with which all are compared, has no finished trial. See why in "
                f"{self.folder / 'table.md'}."
            )
        return variants

    def _chosen(self, trials: SearchTables) -> dict[str, Variant]:
        """Return the chosen settings of every system that has a finished trial."""
        variants = {}
        for system in self.experiment.systems():
            winner = trials.winner(system)
            if winner is None:
                continue
            recipe = self.search.recipe(system, int(winner["trial"]))
            if recipe is None:
                raise DataError(
                    f"{self.search.recipe_path(system, int(winner['trial']))} is gone, the recipe of a chosen trial. "
                    "Restore it."
                )
            variants[system.name] = self.experiment.variant(system, _settings(recipe))
        return variants

    def _longer_variants(self, trials: SearchTables) -> dict[str, Variant]:
        """Return the settings of the run with more time, if it is of the trial that validation chooses."""
        variants: dict[str, Variant] = {}
        if self.longer is None:
            return variants
        systems = self.experiment.systems()
        rows = system_rows(self.experiment, systems, trials, {}, {})
        for system, index, _ in longer_trial(rows, systems, seed=self.search.budget.seed):
            ended = self.longer.tables().rows_of(system)
            if index in set(ended.loc[ended["status"] == FINISHED, "trial"]):
                recipe = self.longer.recipe(system, index)
                assert recipe is not None  # the tables name recipes that are there
                times = self.longer.budget.seconds / self.search.budget.seconds
                variant = self.experiment.longer_variant(system, _settings(recipe), times)
                variants[variant.name] = variant
        return variants

    def _without_stale(self, tables: ExperimentTables, trials: SearchTables) -> ExperimentTables:
        """Leave out the test of a run with more time that is not the one that would be tested now."""
        openings = self._openings()
        current = {name: _digest(variant) for name, variant in self._longer_variants(trials).items()}
        stale = {
            name
            for name in map(longer_name, (system.name for system in self.experiment.systems()))
            if [current.get(name)] != openings.get(name, [])[-1:]
        }
        return tables.without(stale)

    def _write_openings(self, variants: dict[str, Variant]) -> None:
        """Note for which settings the test items are opened; the same settings again are no further opening."""
        openings = self._openings()
        for name, variant in variants.items():
            earlier = [digest for digest in openings.get(name, []) if digest != _digest(variant)]
            openings[name] = [*earlier, _digest(variant)]
        with disk_errors(self.folder, next_step=NEXT_STEP):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / OPENINGS_FILE, json.dumps(openings, indent=2))

    def _openings(self) -> dict[str, list[str]]:
        path = self.folder / OPENINGS_FILE
        if not path.exists():
            return {}
        try:
            openings: dict[str, list[str]] = read_json(path, {str: [str]})
            return openings
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); it counts how often test was opened. Restore it."
            ) from error

    def _final_tables(self) -> ExperimentTables:
        """Return the tables of earlier final trainings; empty ones if there are none."""
        return ExperimentTables.load(self.folder) if (self.folder / "cells.csv").exists() else ExperimentTables.empty()

    def _write(self, tables: ExperimentTables, *, is_final: bool = False) -> SystemTables:
        trials = self.search.tables()
        chosen = {name: _digest(variant) for name, variant in self._chosen(trials).items()}
        rows = system_rows(self.experiment, self.experiment.systems(), trials, self._openings(), chosen)
        longer = SearchTables.empty() if self.longer is None else self.longer.tables()
        content = SystemTables(rows, trials, self._without_stale(tables, trials), longer)
        width = self.request.figure_width
        with disk_errors(self.folder, next_step=NEXT_STEP):
            content.save(self.folder)
            text = system_page(self.experiment, content)
            write_text(self.folder / "table.md", text.rstrip("\n"))
            if not content.search.curves.empty:
                learning_figure(self.experiment, content, width=width).save(self.folder / "curves")
            if content.has_longer():
                longer_figure(self.experiment, content, width=width).save(self.folder / "longer_curves")
            more = ["--trials", str(self.n_trials), "--seconds", f"{self.search.budget.seconds:g}"]
            command = command_of(
                self.experiment.name, self.request, [*more, *self._longer_words(), *["--final"] * is_final]
            )
            curves = tuned_curves(content)
            page = experiment_page(text, content.final_of_systems, curves, self.folder, command=command)
            write_page(self.folder / "report.html", page)
        return content

    def _longer_words(self) -> list[str]:
        """Return the option that asked for more time."""
        if self.longer is None:
            return []
        return ["--longer", f"{self.longer.budget.seconds / self.search.budget.seconds:g}"]


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the dotted settings with which a trial of a recipe is trained again."""
    return {**changed_settings(recipe), "threads": recipe.threads}


def _digest(variant: Variant) -> str:
    """Return a short hash of chosen settings."""
    return settings_hash(dict(variant.overrides))[:12]
