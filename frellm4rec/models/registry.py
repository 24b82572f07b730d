"""The one list of models: names and classes by entry points, and the model that a folder holds."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from frellm4rec.models.config import CONFIG_FILE
from spectral_probe.errors import ConfigError, MissingDependencyError, ModelError, did_you_mean

if TYPE_CHECKING:
    from frellm4rec.models.base import Recommender

#: Folder of the best model in a training run.
MODEL_FOLDER = "model"
#: Entry-point group: name of a model → its class.
GROUP = "frellm4rec.models"


def model_names() -> list[str]:
    """Return the names of all registered models, sorted; nothing is imported."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def model_entry(name: str) -> EntryPoint:
    """Return the entry point of a registered model.

    Raises
    ------
    ConfigError
        If no installed package registers a model of this name.
    """
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not entries:
        known = model_names()
        raise ConfigError(f"model must be one of {known}; got {name!r}.{did_you_mean(str(name), known)}")
    return entries[0]


def model_class(name: str) -> type[Recommender]:
    """Return the class of a registered model, which is imported now.

    Raises
    ------
    ConfigError
        If no installed package registers a model of this name.
    MissingDependencyError
        If its module cannot be imported.
    """
    entry = model_entry(name)
    try:
        loaded: type[Recommender] = entry.load()
    except ImportError as error:
        raise MissingDependencyError(
            f"The model {name!r} ({entry.value}) could not be imported: {error}. Reinstall the package of it."
        ) from error
    return loaded


def load_model(folder: str | Path, *, device: str = "cpu") -> Recommender:
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
    return model_class(_model_name(path)).from_pretrained(path, device=device)


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
    known = model_names()
    if name not in known:
        raise ModelError(
            f"{folder / CONFIG_FILE} names the model {name!r}; this version loads {known}."
            f"{did_you_mean(str(name), known)}"
        )
    return str(name)
