"""The configuration of a recommender, and the names of the files it is saved in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Self

from spectral_probe.errors import ConfigError, check_choice, check_known

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
#: States of fewer features are narrow. From here on a second thread takes at least a quarter off a training step, and a
#: batch in groups of similar length is faster with both numbers of threads. Measured by ``python -m benchmarks.speed``.
NARROW_BELOW = 256
#: Largest whole number of a setting; the libraries overflow beyond it.
LARGEST = 2**31 - 1
#: Largest other number of a setting: PyTorch computes in float32, which ends at 3.4e38.
LARGEST_FLOAT = 1e30
#: Most blocks, layers or steps of a model: each is built and run by itself, so a million would take days.
MOST_BLOCKS = 1000
_LATER = "later"
#: Settings that say how often a part of a model is built or run.
_REPEATED = ("n_blocks", "n_steps", "n_propagations", "mask_depth")


@dataclass(frozen=True)
class RecommenderConfig:
    """Settings of a recommender; each subclass checks its own values when it is made."""

    n_items: int
    max_length: int = 50

    def __post_init__(self) -> None:
        self.check_at_least("n_items", 1)
        self.check_at_least("max_length", 1)

    def check_at_least(self, name: str, low: int) -> None:
        """Refuse a setting that is not a whole number of at least ``low``, and of at most :data:`LARGEST`.

        Numbers of blocks, layers and steps end at :data:`MOST_BLOCKS`.
        """
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ConfigError(f"{name} must be a whole number of at least {low}; got {value!r}. Correct the config.")
        most = MOST_BLOCKS if name in _REPEATED else LARGEST
        if value > most:
            raise ConfigError(f"{name} must be at most {most}; got {value!r}. Correct the config.")

    def check_within(self, name: str, interval: str, advice: str) -> None:
        """Refuse a setting that is no number of an interval such as ``[0, 1)``; ``inf`` is :data:`LARGEST_FLOAT`."""
        value = getattr(self, name)
        low, high = (float(end) for end in interval[1:-1].split(","))
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_above = is_number and (value > low or (value == low and interval[0] == "["))
        if not is_above or not (value < high or (value == high and interval[-1] == "]")):
            raise ConfigError(f"{name} must lie in {interval}; got {value!r}. {advice}")
        if value > LARGEST_FLOAT:
            raise ConfigError(f"{name} must be at most {LARGEST_FLOAT:g}; got {value!r}. {advice}")

    def check_one_of(self, name: str, known: Iterable[str]) -> None:
        """Refuse a setting that is none of these names."""
        check_choice(name, getattr(self, name), known)

    def check_switch(self, name: str) -> None:
        """Refuse a setting that is neither true nor false."""
        if not isinstance(getattr(self, name), bool):
            raise ConfigError(f"{name} must be true or false; got {getattr(self, name)!r}. Correct the config.")

    def check_heads(self) -> None:
        """Refuse ``n_heads`` that do not divide ``n_features``."""
        n_features, n_heads = getattr(self, "n_features"), getattr(self, "n_heads")  # noqa: B009
        if n_features % n_heads:
            divisors = ", ".join(str(n) for n in range(1, min(n_features, 64) + 1) if n_features % n == 0)
            raise ConfigError(
                f"n_heads must divide n_features; got n_heads={n_heads}, n_features={n_features}. Choose one of "
                f"{divisors}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the config from names and values; an unknown or missing name is an error."""
        check_known(values, (entry.name for entry in fields(cls)), cls.__name__)
        for entry in fields(cls):
            if entry.default is MISSING and entry.name not in values:
                raise ConfigError(f"{cls.__name__} lacks the required setting {entry.name!r}. Add it.")
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"A setting of {cls.__name__} is of the wrong type: {error}. Correct it.") from error

    def to_dict(self) -> dict[str, Any]:
        """Return names and values."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the settings that a hash of the model takes: all but those of :func:`later` at their default.

        So a setting that a version adds does not change the hash of a model that was trained before.
        """
        return identity_of(self)


def later(default: Any) -> Any:
    """Return the field of a setting that came after the first version; its default must mean what was done before."""
    return field(default=default, metadata={_LATER: True})


def identity_of(config: Any) -> dict[str, Any]:
    """Return the settings of a config dataclass without those of :func:`later` that are at their default."""
    is_unset = {f.name for f in fields(config) if f.metadata.get(_LATER) and getattr(config, f.name) == f.default}
    return {name: value for name, value in asdict(config).items() if name not in is_unset}
