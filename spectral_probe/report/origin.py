"""What a page says of how its result was made: the command, and the settings that differ from their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spectral_probe.report.page import Settings


@dataclass(frozen=True)
class Origin:
    """How a result was made.

    Attributes
    ----------
    command : str
        The command line, or the call, that makes it again.
    changed : {setting: (value, default)}
        Settings that differ from their defaults.
    """

    command: str
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def settings_of(protocol: Mapping[str, Any], origin: Origin | None) -> Settings:
    """Return the settings of a protocol, those that differ from their defaults first."""
    changed = {} if origin is None else origin.changed
    first = [(name, setting_text(value), setting_text(default)) for name, (value, default) in changed.items()]
    rest = [(name, text) for name, text in flat(protocol) if name.removeprefix("options.") not in changed]
    return Settings(first, rest)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, text) pairs."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", setting_text(value)))
    return pairs


def setting_text(value: Any) -> str:
    """Return a setting as text."""
    if value is None:
        return "not set"
    return (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)
