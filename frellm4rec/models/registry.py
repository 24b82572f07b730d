"""Load the recommender of a folder: a saved model, or a training run with one in ``model/``."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from frellm4rec.models.base import CONFIG_FILE
from spectral_probe.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from frellm4rec.models.sequential import SequentialRecommender

#: Folder of the best model in a training run.
MODEL_FOLDER = "model"
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
    ConfigError
        If its config has an unknown or forbidden setting.
    """
    path = model_folder(Path(folder))
    module, name = SAVED_MODELS[_model_name(path)]
    model_class: type[SequentialRecommender] = getattr(import_module(module), name)
    return model_class.from_pretrained(path, device=device)


def model_folder(folder: Path) -> Path:
    """Return the folder of the model itself: the given one, or ``model/`` in it if it is a training run."""
    for candidate in (folder, folder / MODEL_FOLDER):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    raise ModelError(
        f"A saved recommender is a folder with {CONFIG_FILE}, and a training run holds one in {MODEL_FOLDER}/; "
        f"{folder} has neither. Name another folder, or let the training finish."
    )


def _model_name(folder: Path) -> str:
    try:
        name = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / CONFIG_FILE} must name its model under the key 'model'; {type(error).__name__}: {error}. "
            "Restore the file, or train again."
        ) from error
    if name not in SAVED_MODELS:
        raise ModelError(
            f"{folder / CONFIG_FILE} names the model {name!r}; this version loads {sorted(SAVED_MODELS)}."
            f"{did_you_mean(str(name), SAVED_MODELS)}"
        )
    return str(name)
