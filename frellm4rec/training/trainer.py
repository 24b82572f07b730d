"""The training loop: full softmax at every position, best validation NDCG kept, the same weights for the same seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from frellm4rec.evaluation.evaluator import evaluate, pad_right
from frellm4rec.models.base import SequentialRecommender
from frellm4rec.training.losses import full_softmax_loss
from spectral_probe.errors import ConfigError, DataError, NonFiniteStateError
from spectral_probe.interactions import Dataset


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    Attributes
    ----------
    n_epochs : int
        Most passes over the users.
    batch_size : int
        Users per step.
    learning_rate : float
        Of Adam.
    validate_every : int
        Epochs between two validations.
    patience : int
        Validations without a better NDCG after which training stops.
    k : int
        Cut of the validation NDCG (full ranking).
    """

    n_epochs: int = 400
    batch_size: int = 128
    learning_rate: float = 1e-3
    validate_every: int = 10
    patience: int = 8
    k: int = 10

    def __post_init__(self) -> None:
        for name in ("n_epochs", "batch_size", "validate_every", "patience", "k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate must be above 0 and finite; got {self.learning_rate}. Try 1e-3.")

    def to_dict(self) -> dict[str, Any]:
        """Return names and values."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingRecord:
    """What a training run did.

    Attributes
    ----------
    epochs, losses, validation_ndcg : lists of equal length
        At each validation: the epoch (from 1), its mean training loss, and NDCG@k on the validation items.
    best_epoch : int
        Epoch whose weights the model holds.
    seed : int
    """

    seed: int
    best_epoch: int = 0
    epochs: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    validation_ndcg: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return names and values."""
        return asdict(self)


def train(
    model: SequentialRecommender,
    dataset: Dataset,
    config: TrainingConfig | None = None,
    *,
    seed: int = 0,
) -> TrainingRecord:
    """Fit the model to the training part in place, and leave it with its best weights, in evaluation mode.

    Each user gives the most recent ``max_length + 1`` training items: all but the last are read, each next one is
    predicted. Validation and test items are never read or predicted in a training step; the validation items choose the
    epoch.

    Parameters
    ----------
    model : SequentialRecommender
        Must be causal: the loss is taken at every position.
    dataset : Dataset
    config : TrainingConfig, optional
    seed : int
        Draws the order of users and the dropout. The global generator is left as it was.

    Raises
    ------
    ConfigError
        If the model is not causal.
    DataError
        If no user has two training items.
    NonFiniteStateError
        If the loss stops being finite; epoch and step are named.
    """
    config = config or TrainingConfig()
    if not getattr(model, "is_causal", False):
        raise ConfigError(
            f"{model.name} is not causal; a loss at every position would show it the items it should predict."
        )
    window = model.config.max_length + 1
    sequences = [s[-window:] for s in dataset.train.sequences() if len(s) >= 2]
    if not sequences:
        raise DataError(f"No user of {dataset.name!r} has two training items; nothing can be learned.")
    record = TrainingRecord(seed=seed)
    device = model.item_embeddings().device
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    shuffle = torch.Generator().manual_seed(seed)
    best_ndcg, best_epoch, best = -1.0, 0, {}
    # Dropout can only draw from the global generator: seed it inside, give it back outside.
    with one_thread(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        bar = tqdm(
            range(1, config.n_epochs + 1),
            desc=f"train {model.name} seed {seed}",
            file=sys.stderr,
            unit="epoch",
            disable=None,
        )
        for epoch in bar:
            order = torch.randperm(len(sequences), generator=shuffle).numpy()
            loss = _train_epoch(model, optimizer, _batches(sequences, order, config.batch_size), device, epoch)
            if epoch % config.validate_every and epoch != config.n_epochs:
                continue
            model.eval()
            ndcg = float(evaluate(model, dataset, part="valid", k=config.k).ndcg.mean())
            record.epochs.append(epoch)
            record.losses.append(loss)
            record.validation_ndcg.append(ndcg)
            bar.set_postfix(loss=f"{loss:.3f}", ndcg=f"{ndcg:.4f}", best=f"{max(best_ndcg, ndcg):.4f}")
            if ndcg > best_ndcg:
                best_ndcg, best_epoch = ndcg, epoch
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            elif epoch - best_epoch >= config.patience * config.validate_every:
                break
    model.load_state_dict(best)
    model.eval()
    return TrainingRecord(seed, best_epoch, record.epochs, record.losses, record.validation_ndcg)


def _batches(
    sequences: list[npt.NDArray[np.int64]], order: npt.NDArray[np.int64], batch_size: int
) -> Iterator[list[npt.NDArray[np.int64]]]:
    """Yield the histories in this order, a batch at a time."""
    for start in range(0, len(order), batch_size):
        yield [sequences[row] for row in order[start : start + batch_size]]


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Train on one core of the CPU: the models are so narrow that on a busy machine more threads lose time."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_epoch(
    model: SequentialRecommender,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[npt.NDArray[np.int64]]],
    device: torch.device,
    epoch: int,
) -> float:
    """Take one step per batch and return the mean loss over targets."""
    model.train()
    total, n_targets = 0.0, 0
    for step, batch in enumerate(batches, start=1):
        inputs, lengths = pad_right([s[:-1] for s in batch], device)
        targets, _ = pad_right([s[1:] for s in batch], device)
        loss = full_softmax_loss(model(inputs, lengths), model.item_embeddings(), targets, lengths)
        value = loss.item()
        if not np.isfinite(value):
            raise NonFiniteStateError(
                f"The training loss must stay finite; it is {value} in epoch {epoch}, step {step}. "
                "Lower the learning rate, or check the inputs."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += value * int(lengths.sum())
        n_targets += int(lengths.sum())
    return total / n_targets
