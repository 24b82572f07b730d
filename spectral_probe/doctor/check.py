"""One line of a diagnosis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was looked at, and whether it will do.

    Attributes
    ----------
    name : str
    status : {"ok", "warn", "fail"}
        ``warn`` will hinder some uses, ``fail`` all that need it.
    value : str
        What was seen.
    advice : str
        The next step; empty where none is needed.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    value: str
    advice: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether nothing is to be done."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, str]:
        """Return plain values, ready for JSON."""
        return asdict(self)
