"""The recipe of a registered model: its name in tables, training defaults, search grid, a tiny configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any, Self

import yaml

from frellm4rec.models.registry import model_entry
from spectral_probe.errors import ConfigError, check_known


@dataclass(frozen=True)
class ModelDefaults:
    """``recipes/<model>.yaml`` of the package that brings the model.

    Attributes
    ----------
    title : str
        Name in tables and figures.
    source : str
        Who published the model, where.
    training : dict
        Settings of :class:`~frellm4rec.training.config.TrainingConfig` that differ from its defaults.
    training_by : {dotted name: {value: dict}}
        Further settings that depend on a setting of the model.
    published : {dotted name: value}
        Settings of the published method where the default of the model differs; a search begins with them.
    search : {dotted name: list of values}
        Grid of a search, names as in a recipe of a run.
    of_the_loss : list of dotted names
        Settings of ``search`` that matter only with the published loss.
    only_with : {dotted name: dotted name}
        Settings of ``search`` that matter only where another one is not 0.
    tiny : dict
        Settings of the model's config for tests, which build and train it in seconds.
    """

    title: str
    source: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    training_by: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, list[Any]] = field(default_factory=dict)
    of_the_loss: tuple[str, ...] = ()
    only_with: Mapping[str, str] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str) -> Self:
        """Build the defaults from the content of a file; an unknown key is an error."""
        check_known(values, (entry.name for entry in fields(cls)), path)
        if not isinstance(values.get("title"), str):
            raise ConfigError(f"{path} must give the title of the model; got {values.get('title')!r}. Add title: NAME.")
        return cls(**values)

    def training_of(self, architecture: Mapping[str, Any]) -> dict[str, Any]:
        """Return the training settings for a model with these settings."""
        settings = dict(self.training)
        for name, blocks in self.training_by.items():
            settings |= blocks.get(architecture.get(name.removeprefix("architecture.")), {})
        return settings


@cache
def model_defaults(name: str) -> ModelDefaults:
    """Return what the recipe of a registered model says.

    Raises
    ------
    ConfigError
        If no model has this name, or its recipe is missing or malformed.
    """
    package = model_entry(name).module.partition(".")[0]
    file = resources.files(package) / "recipes" / f"{name}.yaml"
    path = f"{package}/recipes/{name}.yaml"
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The model {name!r} needs a recipe {path}; reading it failed: {error}. See docs/adding_a_model.md."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must be a YAML mapping; it holds a {type(values).__name__}. Correct it.")
    return ModelDefaults.from_dict(values, path)
