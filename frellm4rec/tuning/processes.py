"""Tasks side by side, each in a process of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from spectral_probe import errors
from spectral_probe.errors import ConfigError, SpectralProbeError

logger = logging.getLogger(__name__)


def check_jobs(jobs: int) -> None:
    """Refuse a number of processes that is not a whole number of at least 1."""
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise ConfigError(f"--jobs must be a whole number of at least 1; got {jobs!r}.")


def side_by_side(
    call: Callable[..., None], tasks: Mapping[str, tuple[Any, ...]], jobs: int
) -> Iterator[tuple[str, str, float]]:
    """Yield the name of each task as it ends, its error in one line (empty if there is none), and its seconds.

    Parameters
    ----------
    call : callable
        Of the top level of a module, so that another process finds it.
    tasks : {name: arguments}
    jobs : int
        Tasks at a time; 1 runs them in this process, in order.
    """
    check_jobs(jobs)
    if jobs == 1 or len(tasks) <= 1:
        for name, arguments in tasks.items():
            yield (name, *attempt(call, *arguments))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_end_with_parent) as pool:
        futures = {pool.submit(attempt, call, *arguments): name for name, arguments in tasks.items()}
        try:
            for future in as_completed(futures):
                try:
                    error, seconds = future.result()
                except BrokenProcessPool as broken:  # the system has killed a process, such as for its memory
                    error, seconds = f"ResourceError: {broken} Try fewer --jobs.", 0.0
                yield futures[future], error, seconds
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def exit_code_of(error: str) -> int:
    """Return the exit code of an error that :func:`attempt` gave; 1 for one that is none of ours."""
    return int(getattr(getattr(errors, error.partition(":")[0], None), "exit_code", 1))


def attempt(call: Callable[..., None], *arguments: Any) -> tuple[str, float]:
    """Call, and return the error in one line, if any, and the seconds it took."""
    began = time.monotonic()
    try:
        call(*arguments)
    except Exception as error:
        if not isinstance(error, SpectralProbeError):
            logger.exception("%s failed.", call.__name__)
        return f"{type(error).__name__}: {' '.join(str(error).split())}", time.monotonic() - began
    return "", time.monotonic() - began
