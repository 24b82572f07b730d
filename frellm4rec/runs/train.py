"""Train a recipe into a run folder; an interrupted run can be resumed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from frellm4rec.models.base import Recommender
from frellm4rec.models.registry import load_model, model_class
from frellm4rec.runs.recipe import Recipe, flatten_all
from frellm4rec.runs.records import CHECKPOINT_FOLDER, METRICS_FILE, SUMMARY_FILE, TrainingSummary
from frellm4rec.training.checkpoints import CheckpointFolder
from frellm4rec.training.config import TrainingRecord
from frellm4rec.training.threads import check_same_threads
from frellm4rec.training.trainer import check_trainable, train
from frellm4rec.training.validation import check_k, untrained_record
from spectral_probe.backbones.devices import parse_device
from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, what_failed
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.plugins.saved_models import open_training_run
from spectral_probe.progress import stage
from spectral_probe.runs.folder import MODEL_FOLDER, RunFolder
from spectral_probe.runs.references import TRAINING
from spectral_probe.storage.atomic import disk_errors, write_text
from spectral_probe.storage.hashing import settings_hash

logger = logging.getLogger("frellm4rec")


@dataclass(frozen=True)
class TrainingRun:
    """A finished training run.

    Attributes
    ----------
    path : Path
        The run folder; ``from_pretrained`` reads its ``model/``.
    record : TrainingRecord
    model : Recommender
        With its best weights, in evaluation mode.
    """

    path: Path
    record: TrainingRecord
    model: Recommender


def identity(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Return what determines the trained weights: :meth:`Recipe.identity`, and the data's hash."""
    return {**recipe.identity(), "dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint(titles=False)}


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a run folder, with the names and paths of its request, or that of a YAML file."""
    if not path.is_dir():
        return Recipe.from_yaml(path)
    run = open_training_run(path)
    if run is None:
        raise DataError(f"{path} is not a training run: it has no run.json. Give the folder of one, or a recipe.")
    values = {name: value for name, value in run.config().items() if name != "dataset_fingerprint"}
    request = run.request()
    # Runs of older versions name no threads.
    asked = {"threads": request.get("threads"), "name": request.get("name") or ""}
    asked |= {name: request[name] for name in ("dataset", "from_dir")}
    try:
        return Recipe.from_dict(values | asked)
    except ConfigError as error:
        raise DataError(
            f"{path / 'config.yaml'} is not the recipe of a training: {what_failed(error)} Restore it, or train again."
        ) from error


def build_model(recipe: Recipe, dataset: Dataset) -> Recommender:
    """Return the untrained model of a recipe, on its device."""
    config, device = recipe.config(dataset.n_items), str(parse_device(recipe.device))
    return model_class(recipe.model).from_dataset(config, dataset, seed=recipe.seed, device=device, dtype=recipe.dtype)


def train_recipe(
    recipe: Recipe,
    *,
    out: Path,
    resume: bool = False,
    dataset: Dataset | None = None,
    progress: bool = False,
    tensorboard: bool = False,
    folder: Path | None = None,
) -> TrainingRun:
    """Train the model of a recipe in a run folder under ``out``.

    Parameters
    ----------
    recipe : Recipe
    out : path
    resume : bool
        Continue the newest unfinished run of the same identity; its final weights equal those of an uninterrupted run.
        If there is none, a finished run of that identity is returned unchanged.
    dataset : Dataset, optional
        The data set of ``recipe.dataset``, if it is already loaded.
    progress : bool
    tensorboard : bool
        Also write losses and validation metrics for TensorBoard, to ``tensorboard/`` of the run.
    folder : path, optional
        The run to continue, whatever it is called; ``out`` is then not searched.

    Raises
    ------
    ConfigError
        If the recipe is another one than that of ``folder``.
    SpectralProbeError
        Any error of :mod:`spectral_probe.errors`. The run keeps its last checkpoint and its best model.
    """
    n_processes = os.environ.get("WORLD_SIZE", "").strip() or "1"
    if n_processes != "1":
        raise ConfigError(
            f"A run folder has one writer, so WORLD_SIZE must be 1 or unset; got "
            f"WORLD_SIZE={n_processes}. Start frellm4rec train without a launcher. "
            "To train on several processes, call frellm4rec.training.train from your own program."
        )
    if dataset is None:
        stage(f"data {recipe.dataset}")
    dataset = dataset or resolve_dataset(recipe.dataset, None if recipe.from_dir is None else Path(recipe.from_dir))
    content = identity(recipe, dataset)
    run, finished = _earlier(content, out, folder) if resume else (None, None)
    if finished is not None:
        done = load_run(finished.path, device=str(parse_device(recipe.device)))
        check_same_threads(done.record.threads, recipe.threads)
        return done
    stage(f"model {recipe.model}")
    model = build_model(recipe, dataset)  # first: if the model cannot be loaded or trained, no folder is created
    assert recipe.training is not None
    if model.traits.is_trained:
        check_trainable(model, recipe.training, dataset)
    else:
        check_k(recipe.training.k, dataset)
    is_resumed = run is not None
    if run is None:
        model_name = f"{recipe.model}-{recipe.name or recipe.seed}"
        run = RunFolder.create(out, kind=TRAINING, model=model_name, dataset=dataset.name, config=content)
    # The kind is repeated here because version 0.1.0 reads it here.
    request = {"model": recipe.model, "kind": TRAINING}
    request |= {"dataset": recipe.dataset, "from_dir": recipe.from_dir, "name": recipe.name}
    if is_resumed:  # a refused request for other threads must not replace those that the run began with
        begun_with = (run.state().get("request") or {}).get("threads")
        check_same_threads(begun_with, recipe.threads)
        recipe = recipe if recipe.threads is not None else replace(recipe, threads=begun_with)
    request |= {"threads": begun_with if is_resumed else recipe.threads}
    facts = {"request": request, "dataset_fingerprint": content["dataset_fingerprint"]}
    with run.at_work(logger, "A training", **facts):
        return _train(model, recipe, dataset, run, resume, progress, tensorboard)


def _earlier(content: dict[str, Any], out: Path, folder: Path | None) -> tuple[RunFolder | None, RunFolder | None]:
    """Return the unfinished run to continue, and the finished one to hand back; at most one of them is there."""
    if folder is None:
        unfinished = RunFolder.newest_unfinished(out, content)
        return unfinished, None if unfinished is not None else RunFolder.newest_finished(out, content)
    run = RunFolder.open(folder)
    if run.state()["config_hash"] != settings_hash(content):
        before, now = flatten_all(run.config()), flatten_all(content)
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        raise ConfigError(
            f"{folder} is continued with the settings it began with; {', '.join(changed) or 'its settings'} would "
            "change. Leave the change out, or train anew: frellm4rec train RECIPE."
        )
    return (None, run) if run.state()["status"] == "finished" else (run, None)


def _train(
    model: Recommender,
    recipe: Recipe,
    dataset: Dataset,
    run: RunFolder,
    resume: bool,
    progress: bool,
    tensorboard: bool,
) -> TrainingRun:
    assert recipe.training is not None
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info("%s on %s: %d trained parameters", recipe.model, dataset.name, n_trained)
    _check_metrics(run.path)
    stage("training")
    with disk_errors(run.path), _metrics(run.path, tensorboard) as log:
        if model.traits.is_trained:
            record = train(
                model,
                dataset,
                recipe.training,
                seed=recipe.seed,
                checkpoints=run.path / CHECKPOINT_FOLDER,
                resume=resume,
                threads=recipe.threads,
                keep_best=lambda best: best.save_pretrained(run.path / MODEL_FOLDER),
                log=log,
                progress=progress,
            )
        else:
            record = untrained_record(model, dataset, k=recipe.training.k, seed=recipe.seed, log=log)
        model.check_frozen_parts()
        model.save_pretrained(run.path / MODEL_FOLDER)
        summary = {"revision": model.revision, "n_trained_parameters": n_trained, "record": record.to_dict()}
        write_text(run.path / SUMMARY_FILE, json.dumps(summary, indent=2))
    facts = {"threads": record.threads, "attention": record.attention, "n_users": dataset.train.n_users}
    run.finish(error=None, result=f"validation NDCG@{recipe.training.k} {record.best_ndcg:.4f}", **facts)
    logger.info("best validation NDCG %.4f in epoch %d", record.best_ndcg, record.best_epoch)
    return TrainingRun(run.path, record, model)


def load_run(path: Path, *, device: str = "cpu") -> TrainingRun:
    """Return a finished run from its folder."""
    return TrainingRun(path, TrainingSummary.read(path).record, load_model(path, device=device))


@contextmanager
def _metrics(folder: Path, tensorboard: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends an entry to ``metrics.jsonl``, and to TensorBoard if requested."""
    writer = _tensorboard_writer(folder / "tensorboard") if tensorboard else None
    path = folder / METRICS_FILE

    def log(entry: dict[str, Any]) -> None:
        # A resumed run repeats the steps after its last checkpoint: their new entries replace the old ones.
        earlier = [line for line in _lines(path) if _step_of(line) < entry["step"]]
        write_text(path, "\n".join([*earlier, json.dumps(entry)]))
        if writer is not None:
            for name in ("loss", "ndcg", "learning_rate"):
                if name in entry:
                    writer.add_scalar(name, entry[name], entry["step"])

    try:
        yield log
    finally:
        if writer is not None:
            writer.close()


def _check_metrics(folder: Path) -> None:
    """Refuse to go on where ``metrics.jsonl`` has lost an entry that no epoch to come writes again.

    Raises
    ------
    DataError
    """
    n_finished = CheckpointFolder(folder / CHECKPOINT_FOLDER).n_finished_epochs()
    path = folder / METRICS_FILE
    lines = _lines(path)
    damaged = [number for number, line in enumerate(lines, start=1) if _step_of(line) == float("inf")]
    n_lost = n_finished - (len(lines) - len(damaged))
    if n_lost > 0 and (damaged or not lines):
        what = f"line {damaged[0]} is damaged" if damaged else "it has no entries"
        raise DataError(
            f"{path} has lost an entry of the {n_finished} epochs that are trained: {what}. Restore the file"
            f"{', or delete the line and continue without it' if damaged else ', or train again'}."
        )


def _step_of(line: str) -> float:
    """Return the step of an entry; infinite, so that it is left out, for a line that is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _tensorboard_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "TensorBoard is not installed. Run: pip install 'spectral-probe[tensorboard]', or leave out --tensorboard."
        ) from error
    return SummaryWriter(str(folder))


def recipe_text(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML."""
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False)
