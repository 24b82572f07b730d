"""One finding of a diagnosis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was checked, and its status.

    Attributes
    ----------
    name : str
    status : {"ok", "warn", "fail"}
        ``warn`` limits some uses; ``fail`` prevents every use that needs it.
    value : str
        The observed value.
    advice : str
        The next step; empty if none is needed.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    value: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return plain values, ready for JSON."""
        return asdict(self)
