"""Times of two functions called in turn, and memory use of this process."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

#: Processor seconds of this process.
CPU_CLOCK = time.process_time


class Ratio(NamedTuple):
    """The median of the pairwise ratios of times, and the median time of each side in seconds."""

    value: float
    first: float
    second: float


def paired_ratio(
    first: Callable[[], Any],
    second: Callable[[], Any],
    repeats: int,
    *,
    calls: tuple[int, int] = (1, 1),
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Return the ratio of the times of one call, after one warm-up of both.

    Parameters
    ----------
    first, second : callable
    repeats : int
        Pairs.
    calls : (int, int)
        Calls of each side per timing; more than one if a call is too short to be timed.
    clock : callable
        :data:`CPU_CLOCK` for work on one thread, which other programs do not affect.
    """

    def timed(work: Callable[[], Any], n: int) -> float:
        def several() -> None:
            for _ in range(n):
                work()  # the result is freed at once, before the next call

        return seconds(several, clock) / n

    first(), second()
    return ratio_of([(timed(first, calls[0]), timed(second, calls[1])) for _ in range(repeats)])


def ratio_of(times: list[tuple[float, float]]) -> Ratio:
    """Return the ratio of pairs of times taken in turn."""
    return Ratio(median(a / b for a, b in times), median(a for a, _ in times), median(b for _, b in times))


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def status_bytes(name: str) -> int:
    """Return a memory figure of this process on Linux in bytes: VmRSS is current, VmHWM peak resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"This case reads {name} from /proc/self/status and needs Linux.")
