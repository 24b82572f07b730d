"""How long an epoch and a validation take, so that trainings can be given equal time and still be repeatable."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from frellm4rec.models.base import Recommender
from frellm4rec.training.attention import attention_of
from frellm4rec.training.config import TrainingConfig
from frellm4rec.training.loop import TrainingLoop
from frellm4rec.training.threads import limited_threads
from frellm4rec.training.trainer import check_trainable
from frellm4rec.training.validation import validation_ndcg
from spectral_probe.interactions.dataset import Dataset

#: Steps that are not timed: the first ones load libraries and fill caches.
_WARM_UP = 2
#: Seconds of timed steps, unless an epoch is over sooner.
_TIMED_SECONDS = 4.0


@dataclass(frozen=True)
class Pace:
    """Seconds of an epoch and of a validation: of computing on the CPU, else of the clock.

    Attributes
    ----------
    epoch, validation : float
    n_steps : int
        Steps that were timed.
    """

    epoch: float
    validation: float
    n_steps: int

    def schedule(self, seconds: float, n_validations: int) -> tuple[int, int]:
        """Return the epochs that fit into so many seconds, and the epochs between two validations.

        There are about ``n_validations``; fewer where an epoch is longer than its share. At least one epoch fits.
        """
        between = max(1, round((seconds / n_validations - self.validation) / self.epoch))
        round_seconds = between * self.epoch + self.validation
        return between * max(1, int(seconds / round_seconds + 1e-9)), between


def measure_pace(
    model: Recommender, dataset: Dataset, config: TrainingConfig, *, seed: int = 0, threads: int | None = None
) -> Pace:
    """Return the pace of a training from its first steps and one validation.

    The model's weights change: build it again for the training itself.

    Parameters
    ----------
    model, dataset, config, seed, threads
        As of :func:`~frellm4rec.training.trainer.train`.
    """
    check_trainable(model, config, dataset)
    loop = TrainingLoop(model, dataset, config, seed, None, None, None)
    clock = time.process_time if loop.device.type == "cpu" else time.perf_counter
    with torch.random.fork_rng(devices=[loop.device] if loop.device.type == "cuda" else []):
        loop.start(False, threads)
        with limited_threads(loop.now.record.threads), attention_of(model, loop.now.record.attention):
            steps, n_per_epoch = loop.timed_steps(clock, _WARM_UP, _TIMED_SECONDS)
            began = clock()
            validation_ndcg(model.eval(), dataset, config.k)
            validation = clock() - began
    return Pace(epoch=sum(steps) / len(steps) * n_per_epoch, validation=validation, n_steps=len(steps))
