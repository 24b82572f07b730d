"""Our models and inputs as plug-ins of the instrument; PyTorch is imported only when one is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError
from spectral_probe.interactions.dataset import Dataset

if TYPE_CHECKING:
    from frellm4rec.models.base import Recommender


#: Model whose item table is the ID embeddings of a language model.
ID_NETWORK = "sasrec"


def sasrec(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> Recommender:
    """Return SASRec trained on the training part of the data set, from the cache if it is there."""
    from frellm4rec.runs.pretrained import pretrained

    return pretrained(ID_NETWORK, dataset, seed=seed, device=device)


def _plan_of_training(dataset: Dataset, *, seed: int = 0) -> dict[str, Any]:
    """Return what :func:`sasrec` and :func:`id_embeddings` will train first, the model before that, and its width."""
    from frellm4rec.models.sequential import item_table_of
    from frellm4rec.runs.pretrained import training_plan

    text, model = training_plan(ID_NETWORK, dataset, seed=seed)
    training = f"{ID_NETWORK}: {text}" if text else ""
    return {"training": training, "model": model, "width": item_table_of(model).shape[1]}


sasrec.plan = _plan_of_training


def saved_model(folder: Path, *, dataset: Dataset, device: str = "cpu") -> Recommender:
    """Return a saved recommender, or the model of a training run, for probing on its own data set.

    If the run has a name (``full``, ``base``), the model's name ends in it: ``frellm4rec full``.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    DataError
        See :meth:`spectral_probe.plugins.saved_models.SavedModel.check_trained_on`.
    """
    from frellm4rec.runs.trained import load_trained
    from spectral_probe.plugins.saved_models import SavedModel

    saved = SavedModel.open(folder)
    saved.check_trained_on(dataset)
    model = load_trained(folder, device=device)
    name = saved.request.get("name")
    if name and name != model.name:
        model.name = f"{model.name} {name}"  # of this instance; the name of the class, which is saved, stays
    return model


def _why_no_layers(folder: Path) -> str:
    """Return why the model in a folder has no layers; empty if it has some. Its weights are not read."""
    from frellm4rec.models.registry import model_class
    from spectral_probe.plugins.saved_models import SavedModel

    return model_class(SavedModel.open(folder).name).traits.why_no_layers


saved_model.why_no_layers = _why_no_layers


def model_embeddings(
    dataset: Dataset, *, argument: str = "", seed: int = 0, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """Return the item table of a registered model, trained with its recipe or from the cache, (n_items, d).

    Raises
    ------
    ConfigError
        If no model is named, or its scores are no inner products with a table.
    """
    from frellm4rec.runs.pretrained import pretrained_item_table

    if not argument:
        raise ConfigError("The item inputs 'model' need the name of a model. Write model:NAME, such as model:bsarec.")
    return pretrained_item_table(argument, dataset, seed=seed, device=device)


def recbole_checkpoint(path: Path, *, dataset: Dataset, device: str = "cpu") -> Recommender:
    """Return the SASRec or GRU4Rec in a checkpoint of RecBole, for probing on the data set that it was trained on.

    Raises
    ------
    ModelError, DataError
        See :func:`frellm4rec.models.recbole.networks.load_recbole`.
    """
    from frellm4rec.models.recbole.networks import load_recbole

    return load_recbole(path, dataset, device=device)


recbole_checkpoint.suffixes = (".pth",)


def id_embeddings(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> npt.NDArray[np.float32]:
    """Return one vector per item from training interactions alone, (n_items, 50): SASRec's item table."""
    from frellm4rec.runs.pretrained import pretrained_item_table

    return pretrained_item_table(ID_NETWORK, dataset, seed=seed, device=device)


id_embeddings.plan = _plan_of_training
