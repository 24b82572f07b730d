"""The verdict of a curve, from two confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spectral_probe.profiles.bootstrap import ROUNDING, Interval

#: A retention is preserved if its confidence interval lies inside this range.
PRESERVED = (0.8, 1.25)
#: With fewer users the verdict is always "inconclusive".
MIN_USERS = 20
#: Beginning of the label of a component that the inputs do not measurably carry.
NOT_MEASURABLE = "no measurable"
#: The component in the words of a label.
COMPONENT_NAMES = {"taste": "taste", "popularity": "popularity", "lag": "lag profile", "whole": "excess"}


@dataclass(frozen=True)
class Verdict:
    """The verdict on the last block.

    Attributes
    ----------
    label : str
        ``attenuated``, ``amplified``, ``preserved``, ``inconclusive``, ``no measurable <component>`` or ``none`` (a
        curve without verdict).
    n_users : int
    users_needed : int or None
        Effective number of users at which an inconclusive verdict would be decided.
    n_effective : float or None
        Effective number of users, :math:`(\\sum w)^2 / \\sum w^2`.
    note : str
        ``measurably below 1`` or ``measurably above 1`` where a preserved retention is known to differ from 1.
    depends_on : tuple of str
        Choices under which the label would be another one.
    """

    label: str
    n_users: int
    users_needed: int | None = None
    n_effective: float | None = None
    depends_on: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "depends_on", tuple(self.depends_on))

    def __str__(self) -> str:
        text = f"{self.label} ({self.note})" if self.note else self.label
        if self.label == "inconclusive":
            needed = f"; effectively about {self.users_needed} needed" if self.users_needed is not None else ""
            effective = "" if self.n_effective is None else f", effectively {self.n_effective:.0f}"
            text = f"inconclusive ({self.n_users} users{effective}{needed})"
        return f"{text}; depends on: {', '.join(self.depends_on)}" if self.depends_on else text


def judge(
    embed_excess: Interval,
    retention: Interval,
    n_users: int,
    *,
    n_effective: float | None = None,
    component: str = "whole",
) -> Verdict:
    r"""Return the verdict from the two confidence intervals; the rules apply in this order.

    1. lower end of the ``embed`` excess ≤ 0, or above it by rounding alone: no measurable excess of the component;
    2. CI of the retention ρ inside [0.8, 1.25]: preserved, with a note where it leaves out 1; below 1: attenuated;
       above 1: amplified;
    3. else inconclusive, with :math:`m = \lceil n (h/h^*)^2 \rceil` users needed, n the effective number of users, h
       half the width of the CI and :math:`h^* = \max(|\rho - 1|, \min(\rho - 0.8, 1.25 - \rho))`.
    """
    n = float(n_users) if n_effective is None else n_effective
    if n_users < MIN_USERS or not np.isfinite(embed_excess.low):
        return Verdict("inconclusive", n_users, n_effective=n_effective)
    if embed_excess.low <= ROUNDING:
        return Verdict(f"{NOT_MEASURABLE} {COMPONENT_NAMES[component]}", n_users, n_effective=n_effective)
    if not np.isfinite([retention.value, retention.low, retention.high]).all():
        return Verdict("inconclusive", n_users, n_effective=n_effective)
    if PRESERVED[0] <= retention.low and retention.high <= PRESERVED[1]:
        side = "below" if retention.high < 1 else "above" if retention.low > 1 else ""
        note = f"measurably {side} 1" if side else ""
        return Verdict("preserved", n_users, n_effective=n_effective, note=note)
    if retention.high < 1:
        return Verdict("attenuated", n_users, n_effective=n_effective)
    if retention.low > 1:
        return Verdict("amplified", n_users, n_effective=n_effective)
    rho, half = retention.value, (retention.high - retention.low) / 2
    target = max(abs(rho - 1), min(rho - PRESERVED[0], PRESERVED[1] - rho))
    needed = max(math.floor(n) + 1, math.ceil(n * (half / target) ** 2 - 1e-9))
    return Verdict("inconclusive", n_users, needed, n_effective)
