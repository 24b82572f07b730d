"""Recipes: all settings of a training run, from a YAML file and flags, checked before the run starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from frellm4rec.models.registry import model_class, model_entry
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.training.config import TrainingConfig, check_seed, check_threads
from spectral_probe.errors import ConfigError, did_you_mean
from spectral_probe.storage.reading import parse_yaml, read_text

if TYPE_CHECKING:
    from frellm4rec.models.config import RecommenderConfig

#: What does not determine the weights.
_NOT_OF_THE_WEIGHTS = ("name", "from_dir", "dataset", "threads")
#: YAML reads 1e-3 (without a dot) as text.
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
#: The nested parts of a recipe, each with a setting of it as an example.
_PARTS = {"architecture": "architecture.max_length=20", "training": "training.patience=5"}
#: Settings that follow from the data set and the backbone, never from the recipe.
_DERIVED = ("n_items", "backbone_weights", "backbone_dtype")


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes
    ----------
    model : str
        Name of a registered model, see ``frellm4rec models``.
    dataset : str
        Name of a data set, ``name:argument``, or a file.
    from_dir : str or None
        Folder with its raw files.
    name : str
        Label in tables and figures, such as ``full``; it does not affect training.
    seed : int
        Of the initial weights, the order of users, prefixes, negatives, dropout, and of the ID embeddings.
    device, dtype : str
        ``auto`` uses CUDA if there is one. ``dtype`` is that of the backbone.
    threads : int or None
        Threads on the CPU, see :func:`frellm4rec.training.train`; None chooses by the width of the model. The number
        taken is in the record of the run.
    architecture : dict
        Settings of the model's config.
    training : TrainingConfig
        Default: the model's recipe. If :meth:`merged` changes a setting that these depend on, settings at their default
        change with it.
    """

    model: str = "frellm4rec"
    dataset: str = "demo"
    from_dir: str | None = None
    name: str = ""
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    training: TrainingConfig | None = None

    def __post_init__(self) -> None:
        for name in ("model", "dataset", "name", "device", "dtype", *(() if self.from_dir is None else ("from_dir",))):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be text; got {getattr(self, name)!r}. Put it in quotes.")
        model_entry(self.model)  # raises where no such model is registered
        check_seed(self.seed)
        check_threads(self.threads)
        config = self.config(n_items=1)  # raises what the model's config raises, before any data is read
        default = TrainingConfig.from_dict(model_defaults(self.model).training_of(config.to_dict()))
        if self.training is None:
            object.__setattr__(self, "training", default)
        if not self.is_trained and (replace(self.training, k=default.k) != default or self.threads is not None):
            raise ConfigError(
                f"{self.model} is counted, not trained, so settings of a training would change nothing. Leave out "
                "training.… (but for training.k) and threads."
            )

    @property
    def is_trained(self) -> bool:
        """Whether the model has a training; else the data determine it."""
        return model_class(self.model).traits.is_trained

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a recipe; see :meth:`from_dict`.

        Raises
        ------
        ConfigError
            If the file is missing, is not a YAML mapping, or has an unknown key.
        """
        try:
            values = parse_yaml(read_text(Path(path).expanduser()))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"A recipe must be a YAML file; reading {path} failed: {reason}.") from error
        if not isinstance(values, dict):
            content = "is empty" if values is None else f"holds a {type(values).__name__}"
            raise ConfigError(
                f"A recipe must be a YAML mapping of names to values; {path} {content}. "
                "`frellm4rec train --dry-run` prints one to start from."
            )
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a recipe from nested names and values; an unknown name is an error with a suggestion."""
        flat = flatten(values)
        return cls(model=flat.get("model", "frellm4rec")).merged(flat)

    def merged(self, overrides: Mapping[str, Any]) -> Self:
        """Return the recipe with some settings replaced.

        Parameters
        ----------
        overrides : {dotted name: value}
            Such as ``{"seed": 1, "training.learning_rate": 1e-4, "architecture.cutoff": None}``.

        Raises
        ------
        ConfigError
            If a name is unknown or a value is not allowed.
        """
        run_names = {entry.name for entry in fields(self)} - set(_PARTS)
        model = overrides.get("model", self.model)
        # A change of the model resets its settings; data, device, seed and name of the run stay.
        same = {name: getattr(self, name) for name in run_names}
        base = self if model == self.model else type(self)(**{**same, "model": model})
        known = [*sorted(run_names), *(f"architecture.{n}" for n in base._architecture_names())]
        known += [f"training.{entry.name}" for entry in fields(TrainingConfig)]
        top: dict[str, Any] = {}
        architecture, training = dict(base.architecture), base._changed_training()
        for name, value in overrides.items():
            if name in _PARTS:
                raise ConfigError(
                    f"{name} is a part of a recipe with settings of its own; got {name}={value!r}. Name the setting, "
                    f"for example {_PARTS[name]}."
                )
            if name not in known:
                choices = known if "." in name else run_names | set(_PARTS)
                raise ConfigError(
                    f"Unknown recipe setting {name!r}.{did_you_mean(name, choices)} Settings of the run: "
                    f"{', '.join(sorted(run_names))}; of the model and its training: architecture.… and training.…"
                )
            number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
            part, _, rest = name.partition(".")
            if part == "architecture":
                architecture[rest] = number
            elif part == "training":
                training[rest] = number
            else:
                top[name] = value
        plain = replace(base, **top, architecture=architecture, training=None)
        assert plain.training is not None
        return replace(plain, training=TrainingConfig.from_dict({**plain.training.to_dict(), **training}))

    def config(self, n_items: int) -> RecommenderConfig:
        """Return the model's config for a catalogue of this size."""
        return self._config_class().from_dict({**self.architecture, "n_items": n_items})

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe with every setting resolved, ready for YAML; :meth:`from_dict` reads it back."""
        architecture = {n: v for n, v in self.config(n_items=1).to_dict().items() if n not in _DERIVED}
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        assert self.training is not None
        return {
            **values,
            "architecture": {n: list(v) if isinstance(v, tuple) else v for n, v in architecture.items()},
            "training": self.training.to_dict() if self.is_trained else {"k": self.training.k},
        }

    def identity(self) -> dict[str, Any]:
        """Return what the weights depend on beside the data, without later settings that are at their default.

        Names and paths do not matter; the threads decide the rounding alone, and a run keeps those it began with.
        """
        resolved = {name: value for name, value in self.to_dict().items() if name not in _NOT_OF_THE_WEIGHTS}
        architecture, training = self.config(n_items=1).identity(), resolved["training"]
        assert self.training is not None
        hashed = self.training.identity()
        return {
            **resolved,
            "architecture": {n: v for n, v in resolved["architecture"].items() if n in architecture},
            "training": {n: v for n, v in training.items() if n in hashed},
        }

    def _changed_training(self) -> dict[str, Any]:
        """Return the training settings that are not at their default."""
        assert self.training is not None
        default = replace(self, training=None).training
        assert default is not None
        known = default.to_dict()
        return {name: value for name, value in self.training.to_dict().items() if value != known[name]}

    def _config_class(self) -> type[RecommenderConfig]:
        return model_class(self.model).config_class

    def _architecture_names(self) -> list[str]:
        return [entry.name for entry in fields(self._config_class()) if entry.name not in _DERIVED]


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested recipe settings under dotted names; only ``architecture`` and ``training`` are nested."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in _PARTS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} must be a mapping of names to values; got {value!r}.")
            flat |= {f"{name}.{key}": setting for key, setting in value.items()}
        else:
            flat[str(name)] = value
    return flat


def flatten_all(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings of any depth under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten_all(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def parse_assignments(texts: Iterable[str], flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings that a command line gives, each of them once.

    Parameters
    ----------
    texts : iterable of str
        What ``--set`` was given; see :func:`parse_assignment`.
    flags : {dotted name: value}, optional
        Settings that have an option of their own, as far as it was given.

    Raises
    ------
    ConfigError
        If a setting is named twice, or a text is no assignment.
    """
    settings, ways = dict(flags or {}), dict.fromkeys(flags or {}, "its option")
    for text in texts:
        name, value = parse_assignment(text)
        if name in settings:
            raise ConfigError(
                f"{name} is named twice: {settings[name]!r} by {ways[name]} and {value!r} by --set. Leave one out."
            )
        settings[name], ways[name] = value, "--set"
    return settings


def parse_assignment(text: str) -> tuple[str, Any]:
    """Return name and value of text such as ``training.learning_rate=1e-4``; the value is read as YAML."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ConfigError(f"A setting must be NAME=VALUE; got {text!r}. Write for example training.patience=5.")
    try:
        return name.strip(), parse_yaml(value)
    except ValueError as error:
        raise ConfigError(f"The value of {name.strip()} cannot be read: {value!r} ({error}).") from error
