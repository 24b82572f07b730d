"""Definitions of experiments: variants as changes of one recipe, read from YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from frellm4rec.models.registry import model_class, model_names
from frellm4rec.runs.defaults import model_defaults
from spectral_probe.errors import ConfigError, DataError, check_known, did_you_mean
from spectral_probe.storage.reading import parse_yaml, read_text

MODE_KEY = "architecture.mode"
BACKBONE_KEY = "architecture.backbone"
INPUTS_KEY = "architecture.inputs"
DEFAULT_MODE = "prefix"
#: Settings of a recipe that the grid chooses for each training, besides backbone and mode.
GRID_KEYS = ("seed", "name", "model", "dataset", "from_dir", "device")


@dataclass(frozen=True)
class Variant:
    """One row of a table or one point of a curve.

    Attributes
    ----------
    name, label : str
        On the command line and in tables.
    overrides : dict
        Dotted keys of the training recipe and their values.
    paper : dict
        Columns of ``paper.csv`` and the values that select the paper's number; empty if it prints none.
    needs_input : str or None
        Plug-in of the group ``spectral_probe.inputs`` that the variant needs; without it the variant is left out.
    leaves_out : str
        Part of the reference that the variant does without, such as ``TFM``; empty if it differs otherwise.
    model : str
        Model that is trained.
    only_against : str
        Variant that this one is compared with, and no other; empty: compared as all are.
    """

    name: str
    label: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, Any] = field(default_factory=dict)
    needs_input: str | None = None
    leaves_out: str = ""
    model: str = "frellm4rec"
    only_against: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"The name of a variant must be text; got {self.name!r}. Put numbers in quotation marks.")
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @property
    def has_backbone(self) -> bool:
        """Whether the model is made over a language model, which the grid varies together with its mode."""
        return has_setting(self.model, BACKBONE_KEY)


def has_setting(model: str, key: str) -> bool:
    """Return whether the config of a registered model has a setting, such as ``architecture.backbone``."""
    names = {entry.name for entry in fields(model_class(model).config_class)}
    return key.removeprefix("architecture.") in names


def _check_settings(settings: Any, what: str) -> None:
    """Refuse settings of an experiment that are no mapping, or that the grid chooses for each training."""
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{what} must be a mapping of dotted names to values; got {settings!r}. Correct the file.")
    for key in settings:
        if key in GRID_KEYS:
            raise ConfigError(
                f"{what} sets {key}, which the grid chooses for each training; so the trainings would not be what the "
                "table calls them. Leave it out, and use the option for it."
            )


def model_title(name: str) -> str:
    """Return the name that papers give a model; the registered name if the model is not installed."""
    return model_defaults(name).title if name in model_names() else name


def baseline(name: str) -> Variant:
    """Return a registered model as a row of a table, with the paper's number for it."""
    title = model_title(name)
    return Variant(name, title, paper={"table": 2, "model": title}, model=name)


def check_baselines(names: Iterable[str]) -> None:
    """Refuse names of models that are not registered.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    known = model_names()
    for name in names:
        if name not in known:
            raise ConfigError(
                f"A baseline is one of the models {', '.join(known)}; got {name!r}.{did_you_mean(str(name), known)} "
                "`frellm4rec models` lists them."
            )


@dataclass(frozen=True)
class Sweep:
    """The setting that an experiment varies along an axis: dotted key, and label of the axis."""

    key: str
    label: str


@dataclass(frozen=True)
class Experiment:
    """A published table or figure as a grid of training recipes.

    Attributes
    ----------
    name, title, source : str
        ``source`` is the table or figure of the paper.
    variants : tuple of Variant
    reference : str
        Variant that all others are compared with.
    backbones : tuple of str
        Used if the request names none; empty if no variant has a backbone.
    base : dict
        Dotted keys that hold for all variants.
    sweep : Sweep or None
        The setting whose values the variants are; None if they differ otherwise.
    baselines : tuple of str
        Registered models that are always evaluated alone beside the variants.
    note : str
        Text below the table.
    also_against : tuple of str
        Further variants that all others are compared with.
    is_one_table : bool
        Whether all variants are compared with each other although they differ in backbone and mode: these are then
        settings of the variants, and the grid does not vary them.
    """

    name: str
    title: str
    source: str
    variants: tuple[Variant, ...]
    reference: str
    backbones: tuple[str, ...] = ()
    base: Mapping[str, Any] = field(default_factory=dict)
    sweep: Sweep | None = None
    baselines: tuple[str, ...] = ()
    note: str = ""
    also_against: tuple[str, ...] = ()
    is_one_table: bool = False

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names) or self.reference not in names:
            raise ConfigError(
                f"Variants need different names, the reference among them; {self.name!r} has {names} and the reference "
                f"{self.reference!r}. Rename them in the YAML file."
            )
        if self.reference in self.only_against:
            raise ConfigError(
                f"The reference of {self.name!r}, with which all are compared, has only_against. Leave it out there."
            )
        for variant in self.variants:
            if variant.only_against and variant.only_against not in set(names) - {variant.name}:
                raise ConfigError(
                    f"only_against of {variant.name!r} in {self.name!r} must be another variant; got "
                    f"{variant.only_against!r}. Leave it out, or name one of {', '.join(names)}."
                )
        check_baselines(self.baselines)
        for what, settings in [("base", self.base), *((v.name, v.overrides) for v in self.variants)]:
            _check_settings(settings, f"{what!r} of the experiment {self.name!r}")
        for variant in self.variants:
            if variant.name in model_names():
                raise ConfigError(
                    f"A variant may not be called like a model, which may stand beside it; {self.name!r} has the "
                    f"variant {variant.name!r}. Rename it in the YAML file."
                )
        varies_backbone = any(variant.has_backbone for variant in self.variants) and not self.is_one_table
        if varies_backbone and not self.backbones:
            raise ConfigError(f"The experiment {self.name!r} names no backbone. Write for example backbones: [minilm].")
        if self.sweep is not None:
            for variant in self.variants:
                if self.sweep.key not in variant.overrides:
                    raise ConfigError(
                        f"Every variant of a sweep must set {self.sweep.key}; {variant.name!r} sets "
                        f"{sorted(variant.overrides)}. Add the key to its overrides."
                    )

    def variant(self, name: str) -> Variant:
        """Return the variant of a name."""
        names = [variant.name for variant in self.variants]
        if name not in names:
            raise ConfigError(
                f"The experiment {self.name!r} has the variants {', '.join(names)}; got {name!r}."
                f"{did_you_mean(name, names)}"
            )
        return self.variants[names.index(name)]

    @property
    def only_against(self) -> dict[str, str]:
        """Variants that are compared with one other alone, and that one."""
        return {variant.name: variant.only_against for variant in self.variants if variant.only_against}

    def swept_value(self, name: str) -> float | None:
        """Return the value of a variant on the axis of the sweep; None means off."""
        if self.sweep is None:
            raise ConfigError(f"The experiment {self.name!r} sweeps no setting; its variants have no value on an axis.")
        value = self.variant(name).overrides[self.sweep.key]
        return None if value is None else float(value)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], name: str) -> Experiment:
        """Build an experiment from the mapping in its YAML file; an unknown key is an error."""
        try:
            _check_keys(values, cls, f"the experiment {name!r}", leave_out=("name",))
            arguments = dict(values)
            variants = []
            for entry in arguments.pop("variants"):
                _check_keys(entry, Variant, f"a variant of {name!r}")
                variants.append(Variant(**entry))
            if arguments.get("sweep"):
                _check_keys(arguments["sweep"], Sweep, f"the sweep of {name!r}")
                arguments["sweep"] = Sweep(**arguments["sweep"])
            for key in ("backbones", "baselines", "also_against"):
                names = arguments.get(key) or ()
                if not isinstance(names, list | tuple):
                    raise ConfigError(f"{key} of {name!r} must be a list; got {names!r}. Write {key}: [{names}].")
                arguments[key] = tuple(names)
            return cls(name=name, variants=tuple(variants), **arguments)
        except (TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"The experiment {name!r} is not complete: {type(error).__name__}: {error}. It needs title, source, "
                "reference and variants; see the packaged experiments."
            ) from error


@cache
def experiment_names() -> tuple[str, ...]:
    """Return the names of the packaged experiments."""
    folder = resources.files("frellm4rec.experiments") / "published"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_experiment(name: str, path: Path | None = None) -> Experiment:
    """Return a packaged experiment by its name, or the one in a YAML file.

    Parameters
    ----------
    name : str
        Name of a packaged experiment, or a name for the one in ``path``.
    path : path, optional
        YAML file of an experiment of your own.

    Raises
    ------
    ConfigError
        If no such experiment is packaged, or the file has unknown or missing keys.
    DataError
        If the file cannot be read.
    """
    return Experiment.from_dict(read_definition(name, path), name)


def read_definition(name: str, path: Path | None = None) -> dict[str, Any]:
    """Return the mapping in the YAML file of an experiment; parameters and errors as of :func:`load_experiment`."""
    if path is None:
        names = experiment_names()
        if name not in names:
            raise ConfigError(
                f"Unknown experiment {name!r}; known: {', '.join(names)}.{did_you_mean(name, names)} Give an "
                "experiment of your own as NAME FILE.yaml."
            )
        text = (resources.files("frellm4rec.experiments") / "published" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = read_text(path)
        except (OSError, ValueError) as error:
            raise DataError(f"The experiment {path} cannot be read: {error}. Give a YAML file in UTF-8.") from error
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path or name} is not YAML that can be read: {error}. Correct the file.") from error
    if not isinstance(values, dict):
        content = "is empty" if values is None else f"holds a {type(values).__name__}"
        raise ConfigError(f"An experiment must be a YAML mapping; {path or name} {content}.")
    return values


def _check_keys(values: Mapping[str, Any], of: type, what: str, leave_out: tuple[str, ...] = ()) -> None:
    what = what[0].upper() + what[1:]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must be a mapping of names to values; got {values!r}. Correct the file.")
    check_known(values, (entry.name for entry in fields(of) if entry.name not in leave_out), what)
