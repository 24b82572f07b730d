"""The verdict of a curve, from two confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spectral_probe.profiles.bootstrap import Interval

#: A retention is preserved if its confidence interval lies inside this range.
PRESERVED = (0.8, 1.25)
#: With fewer users the verdict is always "inconclusive".
MIN_USERS = 20


@dataclass(frozen=True)
class Verdict:
    """The verdict on the last block.

    ``label`` is one of ``attenuated``, ``amplified``, ``preserved``, ``inconclusive``,
    ``no measurable collaborative signal`` and ``none`` (a curve without verdict).
    """

    label: str
    n_users: int
    users_needed: int | None = None

    def __str__(self) -> str:
        if self.label == "inconclusive":
            needed = f"; about {self.users_needed} needed" if self.users_needed is not None else ""
            return f"inconclusive ({self.n_users} users{needed})"
        return self.label


def judge(embed_excess: Interval, retention: Interval, n_users: int) -> Verdict:
    r"""Return the verdict from the two confidence intervals; the rules apply in this order.

    1. lower end of the ``embed`` excess ≤ 0: no measurable collaborative signal;
    2. CI of the retention ρ below 1: attenuated; above 1: amplified; inside [0.8, 1.25]: preserved;
    3. else inconclusive, with :math:`m = \lceil n (h/h^*)^2 \rceil` users needed, h half the width of the CI and
       :math:`h^* = \max(|\rho - 1|, \min(\rho - 0.8, 1.25 - \rho))`.
    """
    if n_users < MIN_USERS or not np.isfinite(embed_excess.low):
        return Verdict("inconclusive", n_users)
    if embed_excess.low <= 0:
        return Verdict("no measurable collaborative signal", n_users)
    if not np.isfinite([retention.value, retention.low, retention.high]).all():
        return Verdict("inconclusive", n_users)
    if retention.high < 1:
        return Verdict("attenuated", n_users)
    if retention.low > 1:
        return Verdict("amplified", n_users)
    if PRESERVED[0] <= retention.low and retention.high <= PRESERVED[1]:
        return Verdict("preserved", n_users)
    rho, half = retention.value, (retention.high - retention.low) / 2
    target = max(abs(rho - 1), min(rho - PRESERVED[0], PRESERVED[1] - rho))
    return Verdict("inconclusive", n_users, max(n_users + 1, math.ceil(n_users * (half / target) ** 2 - 1e-9)))
