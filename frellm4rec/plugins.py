"""Our models and inputs as plug-ins of the instrument; PyTorch is imported only when one is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset

if TYPE_CHECKING:
    from frellm4rec.models.base import Recommender


#: Model whose item table is the ID embeddings of a language model.
ID_NETWORK = "sasrec"


def sasrec(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> Recommender:
    """Return SASRec trained on the training part of the data set, from the cache if it is there."""
    from frellm4rec.runs.pretrained import pretrained

    return pretrained(ID_NETWORK, dataset, seed=seed, device=device)


def saved_model(folder: Path, *, dataset: Dataset, device: str = "cpu") -> Recommender:
    """Return a saved recommender, or the model of a training run, for probing on its own data set.

    If the run has a name (``full``, ``base``), the model's name ends in it: ``frellm4rec full``.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    DataError
        If it was trained on another log, or for a catalogue of another size.
    """
    from frellm4rec.models.registry import load_model
    from spectral_probe.runs.folder import RunFolder

    state = RunFolder.open(folder).state() if (folder / "run.json").is_file() else {}
    request = state.get("request") or {}
    trained = state.get("dataset_fingerprint")
    if trained is not None and trained != dataset.fingerprint(titles=False):
        raise DataError(
            f"A model is probed on the data set it was trained on. {folder} was trained on {request.get('dataset')!r}, "
            f"whose histories differ from those of {dataset.name!r}. Leave out --dataset, or name the run's data set."
        )
    model = load_model(folder, device=device)
    if model.config.n_items != dataset.n_items:
        raise DataError(
            f"A model is probed on the data set it was trained on. The one in {folder} has {model.config.n_items} "
            f"items, and {dataset.name!r} has {dataset.n_items}. Name its own data set with --dataset."
        )
    name = request.get("name")
    if name and name != model.name:
        model.name = f"{model.name} {name}"  # of this instance; the name of the class, which is saved, stays
    return model


def id_embeddings(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> npt.NDArray[np.float32]:
    """Return one vector per item from training interactions alone, (n_items, 50): SASRec's item table."""
    from frellm4rec.runs.pretrained import pretrained_item_table

    return pretrained_item_table(ID_NETWORK, dataset, seed=seed, device=device)
