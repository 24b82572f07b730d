"""Models trained once per data set and seed, and their item tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from frellm4rec.models.base import Recommender
from frellm4rec.models.registry import model_class
from frellm4rec.models.sequential import item_table_of
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.runs.weight_cache import checkpoint_folder, load_checkpoint, save_checkpoint, training_key
from frellm4rec.training.trainer import TrainingConfig, train
from spectral_probe.interactions.dataset import Dataset

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
    kind = model_class(name)
    config = kind.config_class.from_dict({"n_items": dataset.n_items, **(architecture or {})})
    if not kind.traits.is_trained:
        return kind.from_dataset(config, dataset, seed=seed, device=device).eval()
    if training is None:
        training = TrainingConfig.from_dict(model_defaults(name).training_of(config.to_dict()))
        if training.k >= dataset.n_items > 1:  # a smaller catalogue has a shorter list
            training = replace(training, k=dataset.n_items - 1)
    untrained = kind.from_dataset(config, dataset, seed=seed, device=device)  # its config names the backbone, if any
    fingerprint = dataset.fingerprint(titles="titles" in untrained.traits.reads)
    folder = checkpoint_folder(name, training_key(name, fingerprint, untrained.config, training, seed))
    model = load_checkpoint(kind, folder)
    if model is None:
        logger.info("Training %s on %s with seed %d; kept in %s.", name, dataset.name, seed, folder)
        model = untrained
        record = train(model, dataset, training, seed=seed)
        save_checkpoint(model, record, training, folder)
    return model.to(device)


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
