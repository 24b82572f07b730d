"""Run an experiment cell by cell: finished cells are skipped, and the tables are written after each cell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from frellm4rec.evaluation import Candidates, Contrast, Evaluation, evaluate, stored_candidates
from frellm4rec.experiments.definitions import Experiment
from frellm4rec.experiments.grid import Cell, ExperimentRequest, cells_of
from frellm4rec.experiments.page import command_of
from frellm4rec.experiments.report import write_report
from frellm4rec.experiments.tables import (
    ABSENT,
    CELL_COLUMNS,
    EFFORT_COLUMNS,
    FAILED,
    FINISHED,
    KEY_COLUMNS,
    ExperimentTables,
    read_table,
    summarise,
    typed,
)
from frellm4rec.runs.evaluations import (
    EVALUATION_FOLDER,
    evaluate_trained,
    evaluation_path,
    parse_ranking,
    save_evaluation,
)
from frellm4rec.runs.pretrained import pretrained
from frellm4rec.runs.recipe import Recipe
from frellm4rec.runs.records import TrainingSummary
from frellm4rec.runs.train import identity, train_recipe
from frellm4rec.runs.trained import TrainedModel
from frellm4rec.tuning.processes import in_one_line, side_by_side
from spectral_probe.backbones.devices import parse_device
from spectral_probe.errors import DataError, user_error
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.folder import RunFolder
from spectral_probe.storage.atomic import disk_errors, remove_partials
from spectral_probe.storage.hashing import settings_hash
from spectral_probe.storage.lock import only_process

logger = logging.getLogger(__name__)
RUNS_FOLDER = "runs"
PART = "test"
#: Exit code of an error that no user can act on.
_BUG = 1


@dataclass
class ExperimentRun:
    """An experiment on one data set, in one folder.

    Attributes
    ----------
    experiment : Experiment
    request : ExperimentRequest
    folder : Path
        Contains ``runs/`` and, after every cell, the tables.
    dataset : Dataset
    exit_code : int
        Of the first failure; 0 if there is none.
    """

    experiment: Experiment
    request: ExperimentRequest
    folder: Path
    dataset: Dataset
    exit_code: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _memory: dict[str, Contrast] = field(default_factory=dict)

    @classmethod
    def open(
        cls, experiment: Experiment, request: ExperimentRequest, folder: Path, *, dataset: Dataset | None = None
    ) -> ExperimentRun:
        """Return the experiment with its data set loaded and every recipe checked, before any training.

        Raises
        ------
        ConfigError
            If a recipe has an unknown or forbidden setting.
        DataError
            If the data set cannot be read, or has too few items for a ranking.
        """
        run = cls(experiment, request, folder, dataset or resolve_dataset(request.dataset, request.from_dir))
        for cell in run.cells:
            if not cell.is_baseline:
                run.recipe(cell)
        for ranking in request.rankings:
            run._candidates(ranking)
        return run

    def _candidates(self, ranking: str) -> Candidates | None:
        """Return the stored candidates of a ranking, drawn now if they are missing; None for the full ranking."""
        n_negatives = parse_ranking(ranking)
        return None if n_negatives is None else stored_candidates(self.dataset, part=PART, n_negatives=n_negatives)

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order they are run."""
        return cells_of(self.experiment, self.request)

    def recipe(self, cell: Cell) -> Recipe:
        """Return the training recipe of a cell."""
        recipe = Recipe(
            model=cell.variant.model,
            dataset=self.request.dataset,
            from_dir=None if self.request.from_dir is None else str(self.request.from_dir),
            seed=cell.seed,
            name=cell.variant.name,
        )
        device = {} if self.request.device is None else {"device": self.request.device}
        return recipe.merged({**cell.overrides, **device})

    def state(self, cell: Cell) -> str:
        """Return the state of a cell: ``finished``, ``absent`` (cannot be run), ``resume`` or ``run``."""
        if cell.missing:
            return ABSENT
        if cell.is_baseline:
            return "run" if self._stored_baseline(cell, self.request.rankings[0]) is None else FINISHED
        recipe = self.recipe(cell)
        runs, content = self.folder / RUNS_FOLDER, identity(recipe, self.dataset)
        if RunFolder.newest_finished(runs, content) is not None:
            return FINISHED
        unfinished = RunFolder.newest_unfinished(runs, content)
        return "run" if unfinished is None else "resume"

    def run(
        self, *, jobs: int = 1, progress: bool = False, report: Callable[[str], None] = logger.info
    ) -> ExperimentTables:
        """Run every cell and return the tables; a failing cell is recorded and does not stop the others.

        After Ctrl-C the tables contain the finished cells; the same call continues from there. With ``jobs`` above 1,
        so many cells are trained at a time, each in a process of its own, before they are evaluated one by one.
        """
        with only_process(self.folder, "An experiment"):
            remove_partials(self.folder)
            return self._run_all(jobs, progress, report)

    def _run_all(self, jobs: int, progress: bool, report: Callable[[str], None]) -> ExperimentTables:
        cells = self.cells
        if jobs > 1:
            self._train_ahead([cell for cell in cells if self.state(cell) in ("run", "resume")], jobs, report)
        self._rows, self.exit_code = [], 0
        shown = None
        for number, cell in enumerate(cells, start=1):
            is_new = self.state(cell) != FINISHED
            started = time.monotonic()
            rows = self._run_cell(cell, progress=progress)
            self._rows += rows
            report(f"[{number}/{len(cells)}] {cell}: {_outcome(rows, time.monotonic() - started)}")
            # Cells that an earlier call finished are in its tables already.
            if is_new or number == len(cells):
                tables = self.tables()
                with disk_errors(self.folder):
                    tables.save(self.folder)
                if self.experiment.is_one_table:  # a tuned table writes its own page
                    continue
                command = command_of(self.experiment.name, self.request)
                width = self.request.figure_width
                shown = write_report(self.experiment, tables, self.folder, shown=shown, command=command, width=width)
        return tables

    def _train_ahead(self, cells: list[Cell], jobs: int, report: Callable[[str], None]) -> None:
        """Train cells side by side; what fails is met again, and recorded, when the cell is run."""
        recipes = {str(cell): self.recipe(cell) for cell in cells if not cell.is_baseline}
        tasks = {name: (recipe, self.folder / RUNS_FOLDER, self.dataset) for name, recipe in recipes.items()}
        for number, (name, error, seconds) in enumerate(side_by_side(_train_cell, tasks, jobs), start=1):
            report(f"trained {number} of {len(tasks)}: {name}{f': {error}' if error else ''} ({seconds:.0f} s)")

    def tables(self) -> ExperimentTables:
        """Return the tables of the cells run so far, and of other cells that earlier calls finished in this folder."""
        cells = typed(pd.DataFrame(self._rows, columns=CELL_COLUMNS))
        experiment = self.experiment
        return summarise(
            self._with_earlier(cells),
            experiment.reference,
            self._load,
            self._memory,
            experiment.also_against,
            experiment.only_against,
        )

    def _run_cell(self, cell: Cell, *, progress: bool) -> list[dict[str, Any]]:
        labels = {
            "experiment": self.experiment.name,
            "variant": cell.variant.name,
            "label": cell.variant.label,
            "mode": cell.mode,
            "backbone": cell.backbone_label,
            "dataset": self.dataset.name,
            "fingerprint": self.dataset.fingerprint(titles=False),
            "settings": "" if cell.is_baseline else self.request.settings_label,
            "seed": cell.seed,
        }
        if cell.missing:
            return [{**labels, "status": ABSENT, "error": cell.missing}]
        try:
            facts, evaluations = self._run_baseline(cell) if cell.is_baseline else self._train(cell, progress=progress)
        except Exception as error:
            if (ours := user_error(error)) is None:
                logger.exception("The cell %s failed.", cell)
            self.exit_code = self.exit_code or (_BUG if ours is None else ours.exit_code)
            return [{**labels, "status": FAILED, "error": in_one_line(ours or error)}]
        rows = []
        for evaluation in evaluations:
            summary = evaluation.summary()
            values = {name: summary[name] for name in ("ranking", "k", "n_users", "ndcg", "recall", "tie_rate")}
            values |= {"protocol": evaluation.protocol, "revision": evaluation.revision, "note": evaluation.note}
            rows.append({**labels, **values, **facts, "status": FINISHED, "error": ""})
        return rows

    def _train(self, cell: Cell, *, progress: bool) -> tuple[dict[str, Any], list[Evaluation]]:
        """Return columns about the training of a cell, and its evaluations; finished work is only read."""
        recipe = self.recipe(cell)
        runs = self.folder / RUNS_FOLDER
        folder = RunFolder.newest_finished(runs, identity(recipe, self.dataset))
        if folder is None:
            trained_run = train_recipe(recipe, out=runs, resume=True, dataset=self.dataset, progress=progress)
            folder = RunFolder.open(trained_run.path)
        trained = TrainedModel(folder.path, self.dataset, folder, recipe.device)
        evaluations = [evaluate_trained(trained, ranking=ranking, part=PART) for ranking in self.request.rankings]
        facts = {"run": f"{RUNS_FOLDER}/{folder.path.name}", "recipe_hash": folder.state()["config_hash"]}
        return {**_training_facts(folder.path), **facts}, evaluations

    def _run_baseline(self, cell: Cell) -> tuple[dict[str, Any], list[Evaluation]]:
        """Return the evaluations of a baseline of a seed, trained or from the cache."""
        device = str(parse_device(self.request.device or "cpu"))
        model = pretrained(cell.variant.model, self.dataset, seed=cell.seed, device=device)
        evaluations = []
        for ranking in self.request.rankings:
            evaluation = self._stored_baseline(cell, ranking)
            if evaluation is None or evaluation.revision != model.revision:
                evaluation = evaluate(model, self.dataset, part=PART, candidates=self._candidates(ranking))
                save_evaluation(evaluation, self.dataset, self._path(_baseline_folder(cell), ranking))
            evaluations.append(evaluation)
        return {"run": _baseline_folder(cell)}, evaluations

    def _stored_baseline(self, cell: Cell, ranking: str) -> Evaluation | None:
        path = self._path(_baseline_folder(cell), ranking)
        if not path.exists():
            return None
        try:
            evaluation = Evaluation.load(path)
        except DataError:
            return None
        return evaluation if evaluation.fingerprint == self.dataset.fingerprint(titles=False) else None

    def _path(self, run: str, ranking: str) -> Path:
        return evaluation_path(self.folder / run / EVALUATION_FOLDER, part=PART, ranking=ranking)

    def _load(self, run: str, ranking: str) -> Evaluation:
        return Evaluation.load(self._path(run, ranking))

    def _is_readable(self, run: str, ranking: str) -> bool:
        """Return whether the per-user values of an earlier cell exist; damaged ones are left out with a warning."""
        path = self._path(run, ranking)
        try:
            return path.exists() and bool(Evaluation.load(path).n_users)
        except DataError as error:
            logger.warning("%s Its cell is left out of the tables until it is evaluated again.", error)
            return False

    def _is_current(self, row: dict[str, Any]) -> bool:
        """Return whether an earlier cell has the settings that its variant has now.

        They differ where the definition was changed, and where a search has chosen others. A cell that this call does
        not ask for cannot be judged: it stays, but for a tuned table, which has no others.
        """
        if row["experiment"] != self.experiment.name:
            return True
        asked = [
            cell
            for cell in self.cells
            if not cell.is_baseline
            and (cell.variant.name, cell.mode, cell.backbone_label) == (row["variant"], row["mode"], row["backbone"])
            and self.request.settings_label == row["settings"]
        ]
        if not asked:
            return not self.experiment.is_one_table
        if asked[0].missing or not row["recipe_hash"]:
            return True
        recipe = self.recipe(replace(asked[0], seed=int(row["seed"])))
        return settings_hash(identity(recipe, self.dataset)) == row["recipe_hash"]

    def _with_earlier(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Return the cells, preceded by those of earlier calls that are not among them and whose values still exist."""
        path = self.folder / "cells.csv"
        if not path.exists():
            return cells
        earlier = read_table(path)
        done = set(map(tuple, cells[KEY_COLUMNS].to_numpy()))
        keep = [
            row["status"] == FINISHED
            and self._is_current(row)
            and self._is_readable(row["run"], row["ranking"])
            and not (tuple(row[name] for name in KEY_COLUMNS) in done and row["ranking"] in self.request.rankings)
            for row in earlier.to_dict("records")
        ]
        return typed(pd.concat([earlier[keep], cells], ignore_index=True)) if any(keep) else cells


def _train_cell(recipe: Recipe, runs: Path, dataset: Dataset) -> None:
    train_recipe(recipe, out=runs, resume=True, dataset=dataset)


def _baseline_folder(cell: Cell) -> str:
    return f"{cell.variant.model}/seed-{cell.seed}"


def _training_facts(run: Path) -> dict[str, Any]:
    """Return epochs, validation NDCG and seconds of a finished training run, resumed parts included."""
    summary = TrainingSummary.read(run)
    return {
        **{name: summary.effort.get(name) for name in EFFORT_COLUMNS},
        "n_parameters": summary.n_trained_parameters,
        "supervision": summary.record.supervision,
        "best_epoch": summary.record.best_epoch,
        "n_epochs": summary.log[-1]["epoch"],
        "validation_ndcg": summary.record.best_ndcg,
        "seconds": summary.log[-1]["seconds"],
    }


def _outcome(rows: list[dict[str, Any]], seconds: float) -> str:
    """Return the outcome of a cell in a few words."""
    first = rows[0]
    if first["status"] != FINISHED:
        return f"{first['status']} ({first['error']})"
    numbers = ", ".join(f"{row['ranking']} NDCG@{row['k']} {row['ndcg']:.4f}" for row in rows)
    return f"{numbers} ({seconds:.0f} s)"
