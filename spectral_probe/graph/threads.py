"""Threads over independent groups of users, one core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")


def for_each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call ``work`` on every item, several at a time, with single-threaded linear algebra inside.

    Many small matrix products run faster side by side than with threads inside each, because NumPy releases the GIL.
    Items must write to different rows, so that the order of execution cannot change a result.
    """
    n_threads = _asked_for() or len(os.sched_getaffinity(0))
    with threadpool_limits(1), ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(work, items):
            pass


def _asked_for() -> int:
    """Return the threads in ``OMP_NUM_THREADS``, of a list of nested levels the first; 0 if it names none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and len(first) < 6 else 0
