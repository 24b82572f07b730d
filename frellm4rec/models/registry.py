"""The one list of models: names and classes by entry points, and the model that a folder holds."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_probe.errors import MissingDependencyError, ModelError, check_choice, did_you_mean
from spectral_probe.plugins.saved_models import SavedModel

if TYPE_CHECKING:
    from frellm4rec.models.base import Recommender

#: Entry-point group: name of a model → its class.
GROUP = "frellm4rec.models"


@cache
def registered() -> tuple[EntryPoint, ...]:
    """Return the entry points of all registered models; the packages of a process do not change."""
    return tuple(entry_points(group=GROUP))


def model_names() -> list[str]:
    """Return the names of all registered models, sorted; nothing is imported."""
    return sorted({entry.name for entry in registered()})


def model_entry(name: str) -> EntryPoint:
    """Return the entry point of a registered model.

    Raises
    ------
    ConfigError
        If no installed package registers a model of this name.
    """
    entries = [entry for entry in registered() if entry.name == name]
    check_choice("model", name, model_names(), "See `frellm4rec models`.")
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


def class_named(name: str) -> Any:
    """Return class or config of a registered model by the name of the class; AttributeError if none has it."""
    for entry in registered():
        if name == entry.attr:
            return model_class(entry.name)
        if name == f"{entry.attr}Config":
            return model_class(entry.name).config_class
    raise AttributeError(f"frellm4rec has no name {name!r}, and no registered model is called so.")


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
    DataError
        If there is no such folder, or it is a run that trains no model.
    ConfigError
        If its config has an unknown or forbidden setting.
    """
    saved = SavedModel.open(folder)
    known = model_names()
    if saved.name not in known:
        raise ModelError(
            f"The config.json of {folder} names the model {saved.name!r}; this version loads {known}."
            f"{did_you_mean(saved.name, known)}"
        )
    return model_class(saved.name).from_pretrained(saved.model_folder, device=device)
