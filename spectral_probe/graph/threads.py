"""Threads over independent groups of users, one core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")


def for_each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call ``work`` on every item, several at a time, with single-threaded algebra inside.

    Threads inside many tiny matrix products cost more than they give; side by side they pay, as NumPy lets go of the
    interpreter. Items must write to different places: then the order in which they are done cannot change a result.
    """
    n_threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))
    with threadpool_limits(1), ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(work, items):
            pass
