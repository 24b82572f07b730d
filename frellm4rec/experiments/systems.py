"""Definitions of tables whose rows are tuned: systems with equal trials and equal time, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from frellm4rec.experiments.definitions import (
    BACKBONE_KEY,
    INPUTS_KEY,
    MODE_KEY,
    Experiment,
    Variant,
    has_setting,
    read_definition,
)
from frellm4rec.experiments.grid import short_name
from frellm4rec.models.registry import model_names
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.tuning.trials import System, systems_of
from spectral_probe.errors import ConfigError, check_known, did_you_mean


@dataclass(frozen=True)
class SystemRow:
    """A model of the table.

    Attributes
    ----------
    model : str
        Registered model.
    label : str
        In the table; default: its title.
    base : dict
        Dotted settings that all its trials have.
    paper : dict
        Further columns of ``paper.csv`` that select the paper's number.
    """

    model: str
    label: str = ""
    base: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Label, or the model's title."""
        return self.label or model_defaults(self.model).title

    @property
    def printed(self) -> dict[str, Any]:
        """Columns of ``paper.csv`` and their values."""
        return {"table": 2, "model": model_defaults(self.model).title, **self.paper}


@dataclass(frozen=True)
class TunedExperiment:
    """A published table whose rows are tuned by the same search.

    Attributes
    ----------
    name, title, source, note : str
    rows : tuple of SystemRow
    reference : str
        Model that all others are compared with.
    """

    name: str
    title: str
    source: str
    rows: tuple[SystemRow, ...]
    reference: str
    note: str = ""

    def __post_init__(self) -> None:
        models, known = [row.model for row in self.rows], model_names()
        for model in models:
            if model not in known:
                raise ConfigError(
                    f"The systems of {self.name!r} are registered models; got {model!r}.{did_you_mean(model, known)} "
                    "`frellm4rec models` lists them."
                )
        if len(set(models)) != len(models) or self.reference not in models:
            raise ConfigError(
                f"Systems are different models, the reference among them; {self.name!r} has {models} and the reference "
                f"{self.reference!r}. Correct the file."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], name: str) -> Self:
        """Build it from the mapping in its YAML file; an unknown key is an error."""
        known = {entry.name for entry in fields(cls)} - {"name", "rows"} | {"systems"}
        check_known(values, known, f"The experiment {name!r}")
        if not isinstance(values["systems"], list) or not values["systems"]:
            raise ConfigError(f"systems of {name!r} must be a list of models; got {values['systems']!r}.")
        rows = []
        for entry in values["systems"]:
            if not isinstance(entry, Mapping) or "model" not in entry:
                raise ConfigError(f"A system of {name!r} names its model, as {{model: sasrec}}; got {entry!r}.")
            for key, value in entry.items():
                is_mapping = isinstance(value, Mapping) and all(isinstance(inner, str) for inner in value)
                if not (is_mapping if key in ("base", "paper") else isinstance(value, str)):
                    what = "a mapping of names to values" if key in ("base", "paper") else "text"
                    raise ConfigError(f"{key} of a system of {name!r} must be {what}; got {value!r}. Correct the file.")
            check_known(entry, (f.name for f in fields(SystemRow)), f"A system of {name!r}")
            rows.append(SystemRow(**entry))
        texts = {key: values.get(key, "") for key in ("title", "source", "reference", "note")}
        for key, value in texts.items():
            if not isinstance(value, str):
                raise ConfigError(f"{key} of {name!r} must be text; got {value!r}. Put it in quotation marks.")
        return cls(name=name, rows=tuple(rows), **texts)

    def over(self, backbone: str, mode: str) -> TunedExperiment:
        """Return the table with the reference over a language model and in a mode; empty ones leave it as it is.

        Raises
        ------
        ConfigError
            If the reference has no such setting.
        """
        named = {BACKBONE_KEY: backbone, MODE_KEY: mode}
        base = {key: value for key, value in named.items() if value}
        if not base:
            return self
        for key in base:
            if not has_setting(self.reference, key):
                raise ConfigError(f"{self.reference} has no setting {key}. Leave out --backbone and --mode.")
        old = self.row(self.reference)
        parts = [short_name(backbone)] * bool(backbone) + [mode] * bool(mode)
        title = model_defaults(self.reference).title
        row = replace(old, label=f"{title} ({', '.join(parts)})", base={**old.base, **base})
        return replace(self, rows=tuple(row if other is old else other for other in self.rows))

    def without_titles(self) -> TunedExperiment:
        """Return the table for a data set without titles: the reference reads ids alone, and its label says so."""
        old = self.row(self.reference)
        if not has_setting(self.reference, INPUTS_KEY) or INPUTS_KEY in old.base:
            return self
        row = replace(old, label=f"{old.title}, ids alone", base={**old.base, INPUTS_KEY: "id"})
        return replace(self, rows=tuple(row if other is old else other for other in self.rows))

    def labelled(self, labels: Mapping[str, str]) -> TunedExperiment:
        """Return the table with other labels of some models."""
        return replace(self, rows=tuple(replace(row, label=labels.get(row.model, row.label)) for row in self.rows))

    def row(self, model: str) -> SystemRow:
        """Return the row of a model."""
        return next(row for row in self.rows if row.model == model)

    def systems(self, models: tuple[str, ...] = (), base: Mapping[str, Any] | None = None) -> list[System]:
        """Return the systems of some models, all when none is named: each with its own loss, then with the softmax.

        Raises
        ------
        ConfigError
            If a model is not in the table.
        """
        names = [row.model for row in self.rows]
        for model in models:
            if model not in names:
                raise ConfigError(f"{self.name!r} has the systems {', '.join(names)}; got {model!r}.")
        chosen = [row for row in self.rows if not models or row.model in models]
        systems = [s for row in chosen for s in systems_of(row.model, {**row.base, **(base or {})}, row.label)]
        return sorted(systems, key=lambda system: system.column == "same")

    def variant(self, system: System, settings: Mapping[str, Any]) -> Variant:
        """Return a system with chosen settings as a row of the final table."""
        label = system.label if system.column == "own" else f"{system.label}, softmax"
        paper = self.row(system.model).printed if system.column == "own" else {}
        return Variant(system.name, label, overrides=settings, paper=paper, model=system.model)

    def longer_variant(self, system: System, settings: Mapping[str, Any], times: float) -> Variant:
        """Return a system with the settings of a longer run; it is compared with its own row of the table alone."""
        label = f"{self.variant(system, {}).label}, {times:g}× the time"
        name = longer_name(system.name)
        return Variant(name, label, overrides=settings, model=system.model, only_against=system.name)

    def final(self, variants: tuple[Variant, ...], best_baseline: str) -> Experiment:
        """Return the experiment that trains chosen settings with several seeds and opens the test items."""
        return Experiment(
            name=self.name,
            title=self.title,
            source=self.source,
            variants=variants,
            reference=f"{self.reference}-own",
            also_against=(best_baseline,) if best_baseline else (),
            note=self.note,
            is_one_table=True,
        )


def longer_name(system: str) -> str:
    """Return the name of the variant with more time of a system, such as ``sasrec-own-longer``."""
    return f"{system}-longer"


def load_definition(name: str, path: Path | None = None) -> Experiment | TunedExperiment:
    """Return a packaged experiment, or that of a YAML file; one that lists ``systems`` is a tuned table.

    Errors as of :func:`~frellm4rec.experiments.definitions.load_experiment`.
    """
    values = read_definition(name, path)
    return TunedExperiment.from_dict(values, name) if "systems" in values else Experiment.from_dict(values, name)
