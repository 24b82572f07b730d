"""The cells of an experiment: one training per seed, backbone, mode and variant, in the order of the runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frellm4rec.experiments.definitions import (
    BACKBONE_KEY,
    DEFAULT_MODE,
    GRID_KEYS,
    MODE_KEY,
    Experiment,
    Variant,
    baseline,
    check_baselines,
)
from frellm4rec.models.registry import model_class
from frellm4rec.runs.evaluations import parse_ranking
from spectral_probe.errors import ConfigError
from spectral_probe.figure_style import DEFAULT_WIDTH, check_width
from spectral_probe.plugins.registry import plugin_names

#: Recipe keys that the grid sets for each cell.
_GRID_KEYS = (*GRID_KEYS, BACKBONE_KEY, MODE_KEY)


@dataclass(frozen=True)
class ExperimentRequest:
    """Settings of one call of an experiment.

    Attributes
    ----------
    dataset : str
        Name of the data set, as for ``frellm4rec train``.
    from_dir : path or None
        Folder with its raw files.
    backbones, modes, variants : tuple of str
        Defaults for empty values: the backbones of the experiment, ``prefix``, all variants.
    n_seeds, first_seed : int
        Seeds first_seed…first_seed + n_seeds − 1.
    settings : dict
        Dotted keys that hold for all variants.
    baselines : tuple of str
        Registered models that are evaluated alone beside the variants, besides those of the experiment.
    rankings : tuple of str
        ``full``, or ``99+1`` for 99 negatives.
    device : str or None
        Device of training, as in the recipe.
    figure_width : {85, 178}
        Of the figures, in mm.
    """

    dataset: str
    from_dir: Path | None = None
    backbones: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    n_seeds: int = 3
    first_seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    rankings: tuple[str, ...] = ("99+1", "full")
    device: str | None = None
    figure_width: int = DEFAULT_WIDTH

    def __post_init__(self) -> None:
        if self.n_seeds < 1:
            raise ConfigError(f"--seeds must be at least 1; got {self.n_seeds}.")
        if not self.rankings:
            raise ConfigError("At least one --ranking is needed: 99+1 or full.")
        check_width(self.figure_width)
        for ranking in self.rankings:
            parse_ranking(ranking)
        check_baselines(self.baselines)
        for key in self.settings:
            if key in _GRID_KEYS:
                raise ConfigError(f"--set {key} is not allowed: the grid sets it for each cell. Use the option for it.")

    @property
    def seeds(self) -> range:
        """The seeds, in the order of the runs."""
        return range(self.first_seed, self.first_seed + self.n_seeds)

    @property
    def settings_label(self) -> str:
        """The settings in one line, as in the column ``settings``."""
        return " ".join(f"{key}={_plain(value)}" for key, value in sorted(self.settings.items()))


@dataclass(frozen=True)
class Cell:
    """One training of the grid, or a baseline.

    Attributes
    ----------
    variant : Variant
    backbone, mode : str
        Empty for a model that has neither.
    seed : int
    overrides : dict
        Dotted keys of the training recipe.
    missing : str
        Why the cell cannot be run; empty if it can.
    """

    variant: Variant
    backbone: str
    mode: str
    seed: int
    overrides: Mapping[str, Any]
    missing: str = ""

    @property
    def is_baseline(self) -> bool:
        """Whether this is a model evaluated alone beside the variants."""
        return self.variant.name == self.variant.model

    @property
    def backbone_label(self) -> str:
        """Short name of the backbone: the name of a folder without its path."""
        return short_name(self.backbone)

    def __str__(self) -> str:
        parts = [self.variant.name, self.mode, self.backbone_label, f"seed {self.seed}"]
        return ", ".join(part for part in parts if part)


def cells_of(experiment: Experiment, request: ExperimentRequest) -> list[Cell]:
    """Return the cells in the order of the runs: all variants of seed 0 before those of seed 1.

    Raises
    ------
    ConfigError
        If a variant is unknown, two backbones share a name, or a setting is one that the experiment varies.
    """
    variants = [experiment.variant(name) for name in request.variants] or list(experiment.variants)
    backbones = request.backbones or experiment.backbones
    labels = [short_name(backbone) for backbone in backbones]
    if len(set(labels)) != len(labels):
        raise ConfigError(f"Backbones need different names in the tables; got {labels}. Rename a folder.")
    varied = {key for variant in variants for key in variant.overrides}
    for key in request.settings:
        if key in varied:
            raise ConfigError(f"--set {key} is not allowed: the variants of {experiment.name!r} set it. Leave it out.")
    baselines = [baseline(name) for name in dict.fromkeys((*experiment.baselines, *request.baselines))]
    modes = tuple(dict.fromkeys(request.modes)) or (experiment.base.get(MODE_KEY, DEFAULT_MODE),)
    cells = []
    over_backbones = [v for v in variants if v.has_backbone and not experiment.is_one_table]
    others = [v for v in variants if v not in over_backbones]
    for seed in request.seeds:
        # A model that is counted has one result, whatever the seed.
        is_first = seed == request.first_seed
        cells += [Cell(v, "", "", seed, {}) for v in baselines if is_first or model_class(v.model).traits.is_trained]
        cells += [
            _cell(v, "", "", seed, experiment, request)
            for v in others
            if is_first or model_class(v.model).traits.is_trained
        ]
        for backbone in backbones:
            for mode in modes:
                cells += [_cell(v, backbone, mode, seed, experiment, request) for v in over_backbones]
    return cells


def _cell(
    variant: Variant, backbone: str, mode: str, seed: int, experiment: Experiment, request: ExperimentRequest
) -> Cell:
    """Return a training; ``backbone`` and ``mode`` are empty for a model that has neither."""
    is_varied = variant.has_backbone and not experiment.is_one_table
    over_backbone = {BACKBONE_KEY: backbone, MODE_KEY: mode} if is_varied else {}
    overrides = {**experiment.base, **over_backbone, **request.settings, **variant.overrides}
    missing = ""
    if variant.needs_input is not None and variant.needs_input not in plugin_names("inputs"):
        missing = f"no installed package provides the item inputs {variant.needs_input!r}"
    mode = "" if experiment.is_one_table else str(overrides.get(MODE_KEY, ""))
    return Cell(variant, backbone, mode, seed, overrides, missing)


def short_name(backbone: str) -> str:
    """Return a backbone's name without parent folders; a hub repository keeps its owner."""
    if not backbone:
        return ""
    path = Path(backbone).expanduser()
    return os.path.basename(os.path.abspath(path)) if path.is_absolute() or path.is_dir() else backbone


def _plain(value: Any) -> str:
    return "null" if value is None else str(value).replace(" ", "")
