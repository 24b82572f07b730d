"""Train a recommender: what is refused, what is seeded, and the loop between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from frellm4rec.models.base import Recommender
from frellm4rec.training.batches import training_samples
from frellm4rec.training.config import TrainingConfig, TrainingRecord
from frellm4rec.training.loop import Logger, TrainingLoop, chosen_supervision
from frellm4rec.training.threads import limited_threads
from frellm4rec.training.validation import check_k
from spectral_probe.errors import ConfigError
from spectral_probe.interactions.dataset import Dataset

__all__ = ["TrainingConfig", "TrainingRecord", "train"]


def train(
    model: Recommender,
    dataset: Dataset,
    config: TrainingConfig | None = None,
    *,
    seed: int = 0,
    checkpoints: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    keep_best: Callable[[Recommender], None] | None = None,
    log: Logger | None = None,
    progress: bool = True,
) -> TrainingRecord:
    """Fit the model to the training part in place; it ends with its best weights, in evaluation mode.

    Each user gives the most recent ``max_length + 1`` training items. With supervision ``every``, all but the last are
    read and each next one is predicted; with ``prefix``, one prefix per user and step is drawn and the item after it is
    predicted; with ``all-prefixes``, each prefix is a sample of the epoch; with ``own``, all are read and the model
    hides some of them, which it predicts. Validation and test items are never read or predicted in a training step; the
    validation items choose the epoch.

    Parameters
    ----------
    model : Recommender
    dataset : Dataset
    config : TrainingConfig, optional
    seed : int
        Draws the order of users, prefixes, negatives and the dropout. The global generator is not changed.
    checkpoints : path, optional
        Folder in which the last checkpoint is kept.
    resume : bool
        Continue from the last checkpoint, if there is one, with its number of threads. On the CPU the final weights
        are bit-identical to those of an uninterrupted run.
    threads : int, optional
        Threads of PyTorch on the CPU, restored afterwards. When left out: one for states of fewer than 256 features,
        else those of PyTorch (``OMP_NUM_THREADS``, or one per CPU). The record names the number: with the same seed and
        the same number the weights are the same to the bit, with another they may differ by rounding.
    keep_best : callable, optional
        Called with the model whenever a validation was the best so far.
    log : callable, optional
        Called with a dict at the end of each epoch and at each validation.
    progress : bool
        Show a progress bar on stderr, if that is a terminal.

    Raises
    ------
    ConfigError
        If the model has nothing to train; if its states contain later items, it would be trained at every position, and
        it does not declare so; if ``threads`` is below 1 or differs from those of the checkpoint.
    DataError
        If no user has two training items.
    NonFiniteStateError
        If the loss stops being finite; epoch, step and, if known, the layer are named. The best weights and the last
        checkpoint are kept.

    Notes
    -----
    With several processes (``accelerate launch``) each takes its share of a batch; a step is the same as that of one.
    """
    config = config or TrainingConfig()
    check_trainable(model, config, dataset)
    run = TrainingLoop(model, dataset, config, seed, checkpoints, keep_best, log)
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        run.start(resume, threads)
        with limited_threads(run.now.record.threads):
            run.finish(progress)
    return run.now.record


def check_trainable(model: Recommender, config: TrainingConfig, dataset: Dataset) -> None:
    """Refuse a training that cannot be: before anything is written, and before the first validation.

    Raises
    ------
    ConfigError
        If the model has no such loss, its loss would be taken of states that see the answer, or a setting does not fit
        the model, its device or the catalogue.
    DataError
        If no user has two training items.
    """
    supervision = chosen_supervision(model, config)
    if not model.traits.is_trained:
        raise ConfigError(f"{model.name} has nothing to train. Evaluate it as it is.")
    if supervision == "every" and not (model.is_causal or model.traits.sees_its_target):
        raise ConfigError(
            f"{model.name} is not causal, so its states would already contain the items to be predicted. Train it on "
            "prefixes."
        )
    if "own" in (supervision, model.supervision) and supervision != model.supervision:
        raise ConfigError(
            f"{model.name} chooses itself what it predicts; got training.supervision={supervision}. Leave it out."
        )
    if config.loss != "auto" and not model.has_softmax_loss:
        raise ConfigError(
            f"training.loss={config.loss} says how a softmax over the catalogue is taken, and the loss of {model.name} "
            "is another. Leave it out."
        )
    check_k(config.k, dataset)
    if config.mixed_precision == "fp16" and model.device.type == "cpu":
        raise ConfigError("mixed_precision 'fp16' needs a GPU; this model is on the CPU. Use bf16 or no.")
    if config.gradient_checkpointing and not hasattr(model, "enable_gradient_checkpointing"):
        raise ConfigError(f"{model.name} has no backbone to recompute. Leave out gradient_checkpointing.")
    training_samples(dataset, model.config.max_length, supervision)
