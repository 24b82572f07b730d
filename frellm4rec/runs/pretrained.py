"""Models trained once per data set and seed, and the item embeddings of SASRec."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from frellm4rec.models.registry import SAVED_MODELS
from frellm4rec.models.sasrec import SASRec, SASRecConfig
from frellm4rec.runs.weight_cache import checkpoint_folder, load_checkpoint, save_checkpoint, training_key
from frellm4rec.training.trainer import TrainingConfig, train
from spectral_probe.errors import ConfigError, did_you_mean
from spectral_probe.interactions.dataset import Dataset

logger = logging.getLogger(__name__)


def pretrained(
    name: str, dataset: Dataset, *, seed: int = 0, device: str = "cpu", training: TrainingConfig | None = None
) -> SASRec:
    """Return a registered model trained with its published settings, from the cache if it is there.

    Raises
    ------
    ConfigError
        If there are no published settings for a model of this name alone.
    """
    if name != SASRec.name:
        raise ConfigError(
            f"Only {SASRec.name} can be trained without a recipe; got {name!r}.{did_you_mean(name, SAVED_MODELS)} "
            "Train other models with `frellm4rec train`."
        )
    return trained_sasrec(dataset, seed=seed, device=device, training=training)


def trained_sasrec(
    dataset: Dataset, *, seed: int = 0, device: str = "cpu", training: TrainingConfig | None = None
) -> SASRec:
    """Return SASRec trained on the training part of a data set, from the cache if it is there.

    Parameters
    ----------
    dataset : Dataset
        Histories and catalogue determine the weights; titles do not.
    seed : int
        Of the initial weights, the order of users and dropout.
    device : str
        Device of training and of the returned model. On the CPU the same seed gives the same weights.
    training : TrainingConfig, optional
        Default: the published settings.

    Returns
    -------
    SASRec
        In evaluation mode; ``.revision`` is a short SHA-256 of its weights.
    """
    training = training or TrainingConfig()
    config = SASRecConfig(n_items=dataset.n_items)
    key = training_key(SASRec.name, dataset.fingerprint(titles=False), config, training, seed)
    folder = checkpoint_folder(SASRec.name, key)
    model = load_checkpoint(SASRec, folder)
    if model is None:
        logger.info("Training %s on %s with seed %d; kept in %s.", SASRec.name, dataset.name, seed, folder)
        model = SASRec(config, seed=seed).to(device)
        record = train(model, dataset, training, seed=seed)
        save_checkpoint(model, record, training, folder)
    return model.to(device)


def sasrec_item_table(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> npt.NDArray[np.float32]:
    """Return the item embeddings of the trained SASRec, (n_items, 50) float32."""
    table = trained_sasrec(dataset, seed=seed, device=device).item_embeddings()
    return table.detach().cpu().numpy().astype(np.float32, copy=True)
