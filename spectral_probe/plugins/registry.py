"""Models, data sets and item inputs that installed packages offer through entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Literal

from spectral_probe.errors import ConfigError, MissingDependencyError, did_you_mean

Kind = Literal["models", "datasets", "inputs", "saved_models"]


def plugin_names(kind: Kind) -> list[str]:
    """Return the names in the entry-point group ``spectral_probe.<kind>``, sorted."""
    return sorted({entry.name for entry in entry_points(group=f"spectral_probe.{kind}")})


def load_plugin(kind: Kind, name: str) -> Callable[..., Any]:
    """Return the object of the entry point ``name`` in a group.

    ``models``: ``factory(dataset, *, seed, device) -> LayeredModel``; ``datasets``:
    ``loader(argument, *, from_dir) -> Dataset``; ``inputs``: ``provider(dataset, *, seed, device) -> (n_items, d)``;
    ``saved_models``: ``loader(folder, *, dataset, device) -> LayeredModel``.

    Raises
    ------
    ConfigError
        If no installed package offers the name.
    MissingDependencyError
        If the plug-in cannot be imported.
    """
    for entry in entry_points(group=f"spectral_probe.{kind}"):
        if entry.name == name:
            try:
                plugin: Callable[..., Any] = entry.load()
            except ImportError as error:
                raise MissingDependencyError(
                    f"The plug-in {name!r} ({entry.value}) could not be imported: {error}. "
                    "Reinstall the package that provides it."
                ) from error
            return plugin
    known = plugin_names(kind)
    raise ConfigError(
        f"No installed package offers {name!r} among its {kind.replace('_', ' ')}; known: {known}."
        f"{did_you_mean(name, known)}"
    )
