"""The configuration of a recommender, and the names of the files it is saved in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self

from spectral_probe.errors import ConfigError, did_you_mean

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
#: States of fewer features are narrow. From here on a second thread takes at least a quarter off a training step, and a
#: batch in groups of similar length is faster with both numbers of threads. Measured by ``python -m benchmarks.speed``.
NARROW_BELOW = 256


@dataclass(frozen=True)
class RecommenderConfig:
    """Settings of a recommender; each subclass checks its own values when it is made."""

    n_items: int
    max_length: int

    def __post_init__(self) -> None:
        self.check_at_least("n_items", 1)
        self.check_at_least("max_length", 1)

    def check_at_least(self, name: str, low: int) -> None:
        """Refuse a setting that is not a whole number of at least ``low``."""
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ConfigError(f"{name} must be a whole number of at least {low}; got {value!r}. Correct the config.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the config from names and values; an unknown or missing name is an error."""
        known = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"{cls.__name__} has no setting {name!r}; it has {', '.join(known)}.{did_you_mean(name, known)}"
                )
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
