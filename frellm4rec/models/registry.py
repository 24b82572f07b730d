"""Load the recommender of a folder: a saved model, or a training run with one in ``model/``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_probe.errors import ModelError, did_you_mean
from spectral_probe.plugins.saved_models import SavedModel

if TYPE_CHECKING:
    from frellm4rec.models.sequential import SequentialRecommender

#: Value of ``model`` in ``config.json`` → module and class; imported when a model is loaded.
SAVED_MODELS = {
    "frellm4rec": ("frellm4rec.models.frellm4rec.model", "FreLLM4Rec"),
    "sasrec": ("frellm4rec.models.sasrec", "SASRec"),
}


def load_model(folder: str | Path, *, device: str = "cpu") -> SequentialRecommender:
    """Return the recommender that a folder holds, in evaluation mode.

    Parameters
    ----------
    folder : path
        What ``save_pretrained`` wrote, or a training run.
    device : str

    Raises
    ------
    ModelError
        If the folder holds no saved recommender, or its files are damaged.
    DataError
        If there is no such folder, or it is a run that trains no model.
    ConfigError
        If its config has an unknown or forbidden setting.
    """
    saved = SavedModel.open(folder)
    return model_class(saved.name).from_pretrained(saved.model_folder, device=device)


def model_class(name: str) -> type[SequentialRecommender]:
    """Return the class of a model by its name in ``config.json``.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    if name not in SAVED_MODELS:
        raise ModelError(
            f"There is no model {name!r}; this version loads {sorted(SAVED_MODELS)}."
            f"{did_you_mean(name, SAVED_MODELS)} Install the version that saved it."
        )
    module, class_name = SAVED_MODELS[name]
    loaded: type[SequentialRecommender] = getattr(import_module(module), class_name)
    return loaded
