"""Models trained once per data set and seed, and their item tables."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frellm4rec.models.base import Recommender
from frellm4rec.models.registry import model_class
from frellm4rec.models.sequential import item_table_of
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.runs.weight_cache import (
    checkpoint_folder,
    load_checkpoint,
    save_checkpoint,
    training_key,
    unfinished_folder,
)
from frellm4rec.training.config import TrainingRecord
from frellm4rec.training.trainer import TrainingConfig, train
from spectral_probe.errors import ConfigError, ModelError, NonFiniteStateError, ResourceError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.lock import only_process

logger = logging.getLogger(__name__)


def pretrained(
    name: str,
    dataset: Dataset,
    *,
    seed: int = 0,
    device: str = "cpu",
    training: TrainingConfig | None = None,
    architecture: Mapping[str, Any] | None = None,
) -> Recommender:
    """Return a registered model trained on the training part of a data set, from the cache if it is there.

    Parameters
    ----------
    name : str
        Of a registered model. One that is not trained is made from the data set each time.
    dataset : Dataset
        Histories and catalogue determine the weights; titles only of a model that reads them.
    seed : int
        Of the initial weights, the order of users and dropout.
    device : str
        Device of training and of the returned model. On the CPU the same seed gives the same weights.
    training : TrainingConfig, optional
        Default: the model's recipe.
    architecture : mapping, optional
        Settings of the model's config that differ from their defaults.

    Returns
    -------
    Recommender
        In evaluation mode; ``.revision`` is a short SHA-256 of its weights.
    """
    request = _request(name, dataset, seed, device, training, architecture)
    if request.training is None:
        return request.untrained.eval()
    model = load_checkpoint(type(request.untrained), request.folder)
    if model is None:
        logger.warning("Training %s on %s: %s.", name, dataset.name, request.plan(dataset))
        model, record = _trained(request, dataset, seed)
        save_checkpoint(model, record, request.training, request.folder)
        shutil.rmtree(unfinished_folder(request.folder), ignore_errors=True)
    return model.to(device)


def training_plan(name: str, dataset: Dataset, *, seed: int = 0) -> tuple[str, Recommender]:
    """Return in words what :func:`pretrained` will train, empty if nothing, and the model before its training."""
    request = _request(name, dataset, seed, "cpu", None, None)
    is_needed = request.training is not None and not request.folder.exists()
    return request.plan(dataset) if is_needed else "", request.untrained


@dataclass(frozen=True)
class _Request:
    """A model before its training, its settings (None if it is not trained), and where its weights are stored."""

    make: Callable[[], Recommender]
    untrained: Recommender
    training: TrainingConfig | None
    folder: Path

    def plan(self, dataset: Dataset) -> str:
        assert self.training is not None
        return (
            f"{dataset.train.n_users} users, {dataset.n_items} items, at most {self.training.n_epochs} epochs; weights "
            f"are stored in {self.folder}, and an interrupted training goes on from its last checkpoint"
        )


def _request(
    name: str,
    dataset: Dataset,
    seed: int,
    device: str,
    training: TrainingConfig | None,
    architecture: Mapping[str, Any] | None,
) -> _Request:
    kind = model_class(name)
    config = kind.config_class.from_dict({"n_items": dataset.n_items, **(architecture or {})})
    make = partial(kind.from_dataset, config, dataset, seed=seed, device=device)
    untrained = make()  # its config names the backbone, if any
    if not kind.traits.is_trained:
        return _Request(make, untrained, None, Path())
    if training is None:
        training = TrainingConfig.from_dict(model_defaults(name).training_of(config.to_dict()))
        if training.k >= dataset.n_items > 1:  # a smaller catalogue has a shorter list
            training = replace(training, k=dataset.n_items - 1)
    fingerprint = dataset.fingerprint(titles="titles" in untrained.traits.reads)
    folder = checkpoint_folder(name, training_key(name, fingerprint, untrained.config, training, seed))
    return _Request(make, untrained, training, folder)


def _trained(request: _Request, dataset: Dataset, seed: int) -> tuple[Recommender, TrainingRecord]:
    """Train, from the last checkpoint of an interrupted training if there is one.

    A checkpoint that is damaged or cannot be written, or that another process is writing, costs time only.
    """
    folder = unfinished_folder(request.folder)
    assert request.training is not None
    without = "No checkpoints in %s; training from the beginning without them: %s"
    with ExitStack() as stack:
        try:
            stack.enter_context(only_process(folder, "A training"))
        except (ConfigError, ResourceError) as error:
            logger.warning(without, folder, error)
        else:
            try:
                record = train(request.untrained, dataset, request.training, seed=seed, checkpoints=folder, resume=True)
                return request.untrained, record
            except NonFiniteStateError:
                raise
            except (ModelError, ResourceError) as error:
                logger.warning(without, folder, error)
    model = request.make()
    return model, train(model, dataset, request.training, seed=seed)


def pretrained_item_table(
    name: str, dataset: Dataset, *, seed: int = 0, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """Return the item embeddings of a registered model after training, (n_items, feature) float32.

    Raises
    ------
    ConfigError
        If the model has no item table.
    """
    table = item_table_of(pretrained(name, dataset, seed=seed, device=device))
    return table.detach().cpu().numpy().astype(np.float32, copy=True)
