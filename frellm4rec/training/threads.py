"""How many threads a training takes: part of the result, because rounding depends on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from frellm4rec.models.base import Recommender
from frellm4rec.models.config import NARROW_BELOW
from frellm4rec.training.config import check_threads
from spectral_probe.errors import ConfigError

logger = logging.getLogger(__name__)


def chosen_threads(model: Recommender, device: torch.device, asked: int | None = None) -> int | None:
    """Return how many threads a new training takes on the CPU; None where it trains on another device.

    The number that is asked for; else one for a narrow model (:data:`NARROW_BELOW`), and those of PyTorch for any
    other: ``OMP_NUM_THREADS``, or one per CPU. Where other programs keep the CPUs busy, one thread is faster for any
    width, because threads wait for each other after every operation.

    Raises
    ------
    ConfigError
        If the number asked for is below 1.
    """
    check_threads(asked)
    if device.type != "cpu":
        return None
    if asked is not None:
        return asked
    return 1 if model.width < NARROW_BELOW else torch.get_num_threads()


def check_same_threads(recorded: int | None, asked: int | None) -> None:
    """Refuse to go on with another number of threads than a training began with; warn if it is above that of the CPUs.

    Raises
    ------
    ConfigError
        If another number is asked for.
    """
    check_threads(asked)
    if recorded is None:
        return
    if asked not in (None, recorded):
        raise ConfigError(
            f"A training keeps the number of threads it began with, because rounding depends on it. It began with "
            f"{recorded}; got {asked}. Leave out --threads, or give --threads {recorded}; for another number, train "
            "anew in another folder (--out)."
        )
    n_cpus = os.cpu_count() or 1
    if recorded > n_cpus:
        logger.warning("Going on with %d threads on %d CPUs is slow; the weights are the same.", recorded, n_cpus)


@contextmanager
def limited_threads(n_threads: int | None) -> Iterator[None]:
    """Run PyTorch on the CPU with this number of threads, and restore the number before; None changes nothing.

    The bytes of a result depend on this number, not on how many CPUs the threads run on.
    """
    before = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
