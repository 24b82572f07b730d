"""Which layers of a deep model a terminal shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

#: A model with more layers than this is shown by chosen ones.
MOST_LAYERS = 12
#: How many of them are chosen because the curve changes most there.
N_CHANGES = 3


def chosen_layers(values: Sequence[float], *, most: int = MOST_LAYERS) -> list[int]:
    """Return the layers that are shown: the first, the last, those with the largest changes, and evenly spaced ones.

    Parameters
    ----------
    values : sequence of float
        The curve, from the first layer to the last.
    most : int
        How many layers are shown; a curve of no more is shown whole.

    Returns
    -------
    list of int
        Positions, ascending.
    """
    n = len(values)
    if n <= most:
        return list(range(n))
    chosen = {0, n - 2, n - 1}  # the last block and, behind it, the final norm of most models
    changes = [abs(values[layer] - values[layer - 1]) for layer in range(n)]
    by_change = sorted(range(1, n), key=lambda layer: -changes[layer] if math.isfinite(changes[layer]) else 0.0)
    chosen |= set([layer for layer in by_change if layer not in chosen][:N_CHANGES])
    while len(chosen) < most:  # the middle of the widest gap, so that the others are evenly spaced
        ordered = sorted(chosen)
        gap, start = max((after - before, -before) for before, after in pairwise(ordered))
        chosen.add(gap // 2 - start)
    return sorted(chosen)
