"""The options of an analysis, checked in the constructor."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from spectral_probe.errors import ConfigError, check_choice, check_known
from spectral_probe.graph.filters import heat_kernel
from spectral_probe.interactions.sequences import HELD_OUT, SequencePart
from spectral_probe.runs.analysis_run import MAIN_CAPTURE
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.components import COMPONENT_TAU, COMPONENTS
from spectral_probe.spectrum.energy import MIN_TARGETS, NULLS
from spectral_probe.spectrum.nodes import NODES, Nodes
from spectral_probe.spectrum.nulls import MIN_REFERENCES
from spectral_probe.types import MOST_SEED

#: Controls that run the model again, and those that are computed from the saved Grams.
CAPTURED_CONTROLS = ("random-weights", "shuffled-history")
GRAM_CONTROLS = ("long-histories", "path-graph", "split-graph")
#: Controls that need the vectors of the items, not a run of the model.
VECTOR_CONTROLS = ("exchanged-items",)
#: Controls that are always computed.
FIXED_CONTROLS = ("raw", "plain", "normalized-rows", "equal-weights")
#: Minimum number of targets in the control ``long-histories``: from here on a user's excess is mostly signal.
LONG_HISTORY = 12
CONTROLS = (*CAPTURED_CONTROLS, *GRAM_CONTROLS, *VECTOR_CONTROLS)
#: No whole number among the options may be larger.
MOST = MOST_SEED
INPUTS = ("id", "text", "id+text")
#: Options that the Grams depend on; they cannot change on saved Grams.
CAPTURE_OPTIONS = (
    *("inputs", "embeddings", "sequence", "max_length", "users", "layers", "batch_size", "prefixes"),
    *("device", "dtype", "revision", "adapter", "device_map", "quantize", "trust_remote_code", "allow_pickle"),
)
_NAMES, _PATHS, _SWITCHES = ("controls", "layers"), ("embeddings", "adapter"), ("trust_remote_code", "allow_pickle")
_WHOLE_NUMBERS = (
    *("max_length", "users", "n_pseudo", "batch_size", "n_bootstrap", "n_references", "min_targets", "seed"),
)


@dataclass(frozen=True)
class AnalysisOptions:
    """All settings of an analysis, apart from the model and the data set.

    Attributes
    ----------
    inputs : {"id", "text", "id+text"}
        Inputs of a language model at each position; models with their own item table ignore it.
    embeddings : str or None
        File with item vectors, instead of ``inputs``.
    sequence : {"train", "valid", "full"}
        The part of a history that is probed.
    max_length : int
        Number of most recent targets that are probed.
    users : int or None
        Number of users to draw; None takes all.
    bands, tau, whole_tau, own_user, null
        See :func:`spectral_probe.spectrum.energy.spectral_energy` and :class:`spectral_probe.spectrum.bands.Bands`.
    nodes, component, weights
        What is displayed, and the weights of the users; see :meth:`DecayProfile.from_energy`. The verdicts are always
        of taste and popularity that are carried.
    n_pseudo : int
        Pseudo-histories per user; see :meth:`PopularityMatch.draw`.
    controls : tuple of str
        Any of :data:`CONTROLS`; those of :data:`FIXED_CONTROLS` are always computed.
    preset : {None, "paper"}
        ``paper`` adds the published curve beside the corrected one.
    layers : tuple of str or None
        Names of the layers to keep; ``embed`` and the last block are always kept.
    batch_size : int
    device, dtype, revision : str
        Device, dtype and commit of a language model.
    adapter : str or None
        Folder or repository of a LoRA adapter.
    device_map : {None, "auto"}
        ``auto`` spreads the model over all devices.
    quantize : {None, "8bit"}
    trust_remote_code, allow_pickle : bool
        Off by default: no code of a repository is run, and only safetensors are read.
    prefixes : "auto" or False
        False probes a two-sided model in one pass: its curve is leaky and has no verdict.
    n_bootstrap, n_references, min_targets, seed : int

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    inputs: Literal["id", "text", "id+text"] = "id"
    embeddings: str | None = None
    sequence: SequencePart = "valid"
    max_length: int = 50
    users: int | None = None
    bands: int | str = 4
    tau: float = COMPONENT_TAU
    whole_tau: float = 5.0
    nodes: Nodes = "carried"
    component: Literal["taste", "popularity", "lag", "whole"] = "taste"
    weights: Literal["graph", "equal"] = "graph"
    n_pseudo: int = 32
    own_user: Literal["drop", "keep"] = "drop"
    null: str = "swap"
    controls: tuple[str, ...] = ()
    preset: str | None = None
    layers: tuple[str, ...] | None = None
    batch_size: int = 32
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    adapter: str | None = None
    device_map: str | None = None
    quantize: Literal["8bit"] | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    prefixes: Literal["auto", False] = "auto"
    n_bootstrap: int = 1000
    n_references: int = 256
    min_targets: int = MIN_TARGETS
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(field.name, getattr(self, field.name)))
        check_choice("inputs", self.inputs, INPUTS)
        check_choice("sequence", self.sequence, tuple(HELD_OUT))
        check_choice("own_user", self.own_user, ("drop", "keep"))
        check_choice("null", self.null, NULLS)
        check_choice("nodes", self.nodes, NODES)
        check_choice("component", self.component, COMPONENTS)
        check_choice("weights", self.weights, ("graph", "equal"))
        if self.preset is not None:
            check_choice("preset", self.preset, ("paper",))
        if self.quantize is not None:
            check_choice("quantize", self.quantize, ("8bit",))
        if self.device_map is not None:
            check_choice("device_map", self.device_map, ("auto",))
        for control in self.controls:
            check_choice("controls", control, (*CONTROLS, *FIXED_CONTROLS))
        Bands.parse(self.bands)
        for tau in (self.tau, self.whole_tau):
            heat_kernel(np.empty(0), tau)
        for name, minimum in (
            ("max_length", 1),
            ("batch_size", 1),
            ("n_bootstrap", 100),
            ("n_references", MIN_REFERENCES),
            ("min_targets", MIN_TARGETS),
            ("n_pseudo", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}; got {getattr(self, name)}.")
            if getattr(self, name) > MOST:
                raise ConfigError(f"{name} must be at most {MOST}; got {getattr(self, name)}. Choose a smaller number.")
        self._check_pairs()
        if self.max_length > 512:
            raise ConfigError(f"max_length must be at most 512; got {self.max_length}.")
        if self.users is not None and self.users < 1:
            raise ConfigError(f"users must be at least 1; got {self.users}. Leave it out to probe all users.")

    def _check_pairs(self) -> None:
        """Refuse options of which one would be ignored."""
        if self.embeddings is not None and self.inputs != "id":
            raise ConfigError(
                f"The vectors of {self.embeddings!r} take the place of the inputs; got inputs={self.inputs!r} too. "
                "Give one of them."
            )
        if self.quantize is not None and "random-weights" in self.controls:
            raise ConfigError(
                f"random-weights redraws weights, and a quantised model has none to redraw; got quantize="
                f"{self.quantize!r}. Leave out one of them."
            )
        if self.device_map is not None and self.device != "auto":
            raise ConfigError(
                f"device puts a model on one device and device_map spreads it; got device={self.device!r} and "
                f"device_map={self.device_map!r}. Give one of them."
            )

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> AnalysisOptions:
        """Build options from keywords; an unknown keyword raises ConfigError with a suggestion."""
        check_known(values, (f.name for f in fields(cls)), "An analysis")
        return cls(**values)

    @classmethod
    def from_saved(cls, values: dict[str, Any]) -> AnalysisOptions:
        """Build options from the ``config.yaml`` of a run; in the first version ``tau`` was that of the whole."""
        if "nodes" not in values:
            values = {key: value for key, value in values.items() if key != "tau"} | {"whole_tau": values["tau"]}
            requested = [name for name in values.get("controls", ()) if name not in FIXED_CONTROLS]
            values["controls"] = requested
        return cls.from_mapping(values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for YAML and JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _plain(name: str, value: Any) -> Any:
    """Return the value of an option as the command line gives it; other types of the same meaning are converted.

    Raises
    ------
    ConfigError
        If the type cannot be the option's.
    """
    if name in _NAMES:
        parts = value.split(",") if isinstance(value, str) else value
        if parts is not None and not isinstance(parts, Iterable):
            raise ConfigError(f"{name} must be names, separated by commas or in a list; got {value!r}.")
        return parts if parts is None else tuple(p.strip() if isinstance(p, str) else p for p in parts if p != "")
    if name in _PATHS and value is not None:
        if not isinstance(value, str | os.PathLike):
            raise ConfigError(f"{name} must be a path; got a {type(value).__name__}. Save it to a file first.")
        return os.fspath(value)
    if name in ("device", "dtype"):
        return str(value).removeprefix("torch.")
    if name in _SWITCHES and not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False; got {value!r}.")
    if name in _WHOLE_NUMBERS and value is not None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ConfigError(f"{name} must be a whole number; got {value!r}.")
        return int(value)
    if name in ("tau", "whole_tau"):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ConfigError(f"{name} must be a number; got {value!r}.")
        try:
            return float(value)
        except OverflowError:
            return math.inf  # refused with the other values that are too large
    return value


#: Name of the capture of the headline; the other captures are named after their control.
MAIN = MAIN_CAPTURE
