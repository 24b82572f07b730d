"""Which settings a search tries: the published ones first, then seeded draws from the grid of the recipe."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from frellm4rec.models.registry import model_class
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.runs.recipe import Recipe
from spectral_probe.errors import ConfigError, check_choice
from spectral_probe.storage.hashing import digest

#: Which loss a model is tuned with: that of its paper, or the softmax over the catalogue, the same for all.
Column = Literal["own", "same"]
COLUMNS: tuple[Column, ...] = ("own", "same")
LOSS_KEY = "architecture.loss"
#: Settings that follow from the time of a trial.
SCHEDULE = tuple(f"training.{name}" for name in ("n_epochs", "validate_every", "patience"))
SOFTMAX = "softmax"


@dataclass(frozen=True)
class System:
    """A registered model with one of its losses: what a search tunes, and a row of the table.

    Attributes
    ----------
    model : str
    column : {"own", "same"}
    base : dict
        Dotted settings that all trials have, besides the model's defaults.
    label : str
        In tables; default: the model's title.
    """

    model: str
    column: Column = "own"
    base: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        check_choice("--column", self.column, COLUMNS)
        if not self.label:
            object.__setattr__(self, "label", model_defaults(self.model).title)
        for name in self.base:
            if not str(name).startswith(("architecture.", "training.")) or name in SCHEDULE:
                raise ConfigError(
                    f"Settings of all trials are architecture.… or training.…, and not the schedule, which follows "
                    f"from the time of a trial; got {name!r}. Leave it out, or use the option for it "
                    "(--dataset, --seconds, --validations, --patience, --seed, --threads)."
                )
        if self.column == "own" and self.base.get(LOSS_KEY) == SOFTMAX and has_same_column(self.model):
            raise ConfigError(
                f"The softmax is the column same of {self.model}. Leave out {LOSS_KEY}, and use --column same."
            )
        if self.column == "same" and LOSS_KEY in self.base:
            raise ConfigError(
                f"The column same has the softmax as its loss; got {LOSS_KEY}={self.base[LOSS_KEY]}. Leave it out, or "
                "tune the column own."
            )
        if self.column == "same" and not has_same_column(self.model):
            raise ConfigError(
                f"The published loss of {self.model} is the softmax already, or it has no choice of a loss. Tune its "
                "column own."
            )

    @property
    def name(self) -> str:
        """Name in files and tables, such as ``gru4rec-own``."""
        return f"{self.model}-{self.column}"

    @property
    def is_trained(self) -> bool:
        """Whether there is a training; else the data determine the model."""
        return model_class(self.model).traits.is_trained

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted settings of every trial: those of the published method, of the column, and ``base``."""
        softmax = {LOSS_KEY: SOFTMAX} if self.column == "same" else {}
        return {**model_defaults(self.model).published, **softmax, **self.base}

    @property
    def grid(self) -> dict[str, list[Any]]:
        """Dotted settings that the search varies, with their values: none of another loss, none of ``base``."""
        defaults = model_defaults(self.model)
        left_out = {LOSS_KEY, *defaults.of_the_loss} if self.column == "same" else set()
        left_out |= set(self.base)
        return {name: list(values) for name, values in defaults.search.items() if name not in left_out}

    def trials(self, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        """Return the settings of the first n trials, none twice; fewer where the grid has fewer.

        The first trial has the settings of the recipe. The others are drawn from the grid without replacement; a trial
        does not depend on how many there are.

        Parameters
        ----------
        n : int
        seed : int
            Of the draws, together with the name of the system.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"--trials must be a whole number of at least 1; got {n!r}.")
        names = list(self.grid)
        crossed = itertools.product(*self.grid.values())
        points = [self._without_unused(dict(zip(names, values, strict=True))) for values in crossed]
        points = [point for i, point in enumerate(points) if point not in points[:i]]
        generator = np.random.default_rng([seed, int(digest([self.name])[:8], 16)])
        drawn = [points[i] for i in generator.permutation(len(points))]
        default = self._defaults()
        others = [point for point in drawn if any(value != default[name] for name, value in point.items())]
        return [{**self.settings, **point} for point in [{}, *others][:n]]

    def _without_unused(self, point: dict[str, Any]) -> dict[str, Any]:
        """Return a point of the grid without settings that change nothing there, because another one is 0."""
        only_with = model_defaults(self.model).only_with
        return {name: value for name, value in point.items() if point.get(only_with.get(name, ""), 1) != 0}

    def _defaults(self) -> dict[str, Any]:
        """Return the value of each varied setting in the first trial."""
        values = Recipe(model=self.model).merged(self.settings).to_dict()
        return {name: values[name.partition(".")[0]][name.partition(".")[2]] for name in self.grid}


def has_same_column(model: str) -> bool:
    """Return whether a model has a loss of its own beside the softmax over the catalogue."""
    config, published = model_class(model).config_class, model_defaults(model).published
    losses = [published.get(LOSS_KEY, entry.default) for entry in fields(config) if entry.name == "loss"]
    return bool(losses) and losses[0] != SOFTMAX


def systems_of(model: str, base: Mapping[str, Any] | None = None, label: str = "") -> list[System]:
    """Return the systems of a model: its own loss, and the softmax where that is another."""
    columns = COLUMNS if has_same_column(model) else COLUMNS[:1]
    return [System(model, column, base or {}, label) for column in columns]
