"""Numbers as they are printed: excesses in units of 10⁻³ with two significant digits, never a zero with a minus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

#: Stands where a number would have no meaning, such as a retention without a measurable input.
NOT_AVAILABLE = "n/a"
#: Excesses are printed in these units.
PER_MILLE = 1000.0
#: No number has more decimals.
MOST_DECIMALS = 4


def fixed(value: float, decimals: int, *, sign: bool = False) -> str:
    """Return a number with so many decimals; ``n/a`` for one that is not finite, and no minus before a zero."""
    if not math.isfinite(value):
        return NOT_AVAILABLE
    rounded = round(value, decimals) + 0.0  # the sum has no negative zero
    return f"{rounded:+.{decimals}f}" if sign and rounded else f"{rounded:.{decimals}f}"


def decimals_for(values: Iterable[float], *, n_digits: int = 2) -> int:
    """Return the decimals with which the largest of some numbers has two significant digits, at most four."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return n_digits - 1
    return min(MOST_DECIMALS, max(0, n_digits - 1 - math.floor(math.log10(largest))))


def interval(low: float, high: float, decimals: int, *, sign: bool = False) -> str:
    """Return a confidence interval: ``[0.52, 0.56]``; ``n/a`` where it has no ends."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NOT_AVAILABLE
    return f"[{fixed(low, decimals, sign=sign)}, {fixed(high, decimals, sign=sign)}]"


def excess_decimals(rows: Sequence[dict[str, float]], *, most: int = 2) -> int:
    """Return the decimals of a column of excesses: two digits for the row that has the smallest numbers."""
    needed = [decimals_for([PER_MILLE * row[name] for name in ("excess", "excess_low", "excess_high")]) for row in rows]
    return min(most, max(needed, default=most))
