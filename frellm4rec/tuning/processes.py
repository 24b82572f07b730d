"""Tasks side by side, each in a process of its own."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from spectral_probe import errors
from spectral_probe.errors import ConfigError, DataError, NonFiniteStateError, SpectralProbeError, user_error
from spectral_probe.runs import interruptions

logger = logging.getLogger(__name__)
#: Seconds that an interrupted task has to write down that it was interrupted.
GRACE = 10.0


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
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_begin_worker) as pool:
        futures = {pool.submit(_in_worker, call, *arguments): name for name, arguments in tasks.items()}
        try:
            for future in as_completed(futures):
                try:
                    error, seconds = future.result()
                except BrokenProcessPool as broken:  # the system has killed a process, such as for its memory
                    error, seconds = f"ResourceError: {broken} Try fewer --jobs.", 0.0
                yield futures[future], error, seconds
        except (KeyboardInterrupt, GeneratorExit):
            _stop(multiprocessing.active_children())
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _stop(workers: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """End processes: each may write down that it was interrupted, and is killed if that takes too long."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _begin_worker() -> None:
    """Leave Ctrl-C to the process that started this one, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Bars of one process need no semaphore of the system, which a process that is ended would leave behind.
    tqdm.set_lock(threading.RLock())
    _end_with_parent()


def _in_worker(call: Callable[..., None], *arguments: Any) -> tuple[str, float]:
    """Do as :func:`attempt`; a signal to end ends this process, which would else be given the next task."""
    interruptions.end_like_ctrl_c()
    try:
        return attempt(call, *arguments)
    except KeyboardInterrupt:
        os._exit(128 + interruptions.received)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
    kind = _kind_of(error)
    return 1 if kind is None else kind.exit_code


def is_for_good(error: str) -> bool:
    """Whether the same settings and data give an error of :func:`attempt` again: data, settings, or a divergence."""
    kind = _kind_of(error)
    return kind is not None and issubclass(kind, (NonFiniteStateError, ConfigError, DataError))


def _kind_of(error: str) -> type[SpectralProbeError] | None:
    kind = getattr(errors, error.partition(":")[0], None)
    return kind if isinstance(kind, type) and issubclass(kind, SpectralProbeError) else None


def attempt(call: Callable[..., None], *arguments: Any) -> tuple[str, float]:
    """Call, and return the error in one line, if any, and the seconds it took."""
    began = time.monotonic()
    try:
        call(*arguments)
    except Exception as error:
        if (ours := user_error(error)) is None:
            logger.exception("%s failed.", call.__name__)
        return in_one_line(ours or error), time.monotonic() - began
    return "", time.monotonic() - began


def in_one_line(error: Exception) -> str:
    """Return kind and message of an error, as tables hold it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
