"""The training loop: seeded, resumable to the bit, best validation NDCG kept."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from frellm4rec.evaluation.evaluator import evaluate
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.training.attention import attention_of, step_attention
from frellm4rec.training.batches import Batch, batches, draw_prefixes, make_batch, training_windows
from frellm4rec.training.checkpoints import CheckpointFolder, Progress
from frellm4rec.training.config import TrainingConfig, TrainingRecord
from frellm4rec.training.losses import sampled_softmax_loss, softmax_loss
from frellm4rec.training.threads import check_same_threads, chosen_threads, limited_threads
from spectral_probe.errors import ConfigError, NonFiniteStateError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.types import IntArray

__all__ = ["TrainingConfig", "TrainingRecord", "train"]

logger = logging.getLogger(__name__)
#: Called with an entry of the training log: the loss of an epoch, a validation.
Logger = Callable[[dict[str, Any]], None]


def train(
    model: SequentialRecommender,
    dataset: Dataset,
    config: TrainingConfig | None = None,
    *,
    seed: int = 0,
    checkpoints: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    keep_best: Callable[[SequentialRecommender], None] | None = None,
    log: Logger | None = None,
    progress: bool = True,
) -> TrainingRecord:
    """Fit the model to the training part in place; it ends with its best weights, in evaluation mode.

    Each user gives the most recent ``max_length + 1`` training items. Where ``model.supervision`` is ``every``, all but
    the last are read and each next one is predicted; where it is ``prefix``, one prefix per user and step is drawn and
    the item after it is predicted. Validation and test items are never read or predicted in a training step; the
    validation items choose the epoch.

    Parameters
    ----------
    model : SequentialRecommender
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
        If the model's states contain later items, it would be trained at every position, and its mode is not
        ``two_sided_leaky``; if ``threads`` is below 1 or differs from those of the checkpoint.
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
    is_leaky = getattr(model.config, "mode", None) == "two_sided_leaky"
    if model.supervision == "every" and not (model.is_causal or is_leaky):
        raise ConfigError(
            f"{model.name} is not causal, so its states would already contain the items to be predicted. Train it on "
            "prefixes."
        )
    run = _Run(model, dataset, config, seed, checkpoints, keep_best, log)
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        run.start(resume, threads)
        with limited_threads(run.now.record.threads):
            run.finish(progress)
    return run.now.record


class _Run:
    """One training run: model, optimizer, random states and progress."""

    def __init__(
        self,
        model: SequentialRecommender,
        dataset: Dataset,
        config: TrainingConfig,
        seed: int,
        checkpoints: Path | None,
        keep_best: Callable[[SequentialRecommender], None] | None,
        log: Logger | None,
    ) -> None:
        self.model, self.dataset, self.config, self.seed = model, dataset, config, seed
        self.device = next(model.parameters()).device
        self.accelerator = _accelerator(config, self.device)
        self.windows = training_windows(dataset, model.config.max_length)
        self.is_sampled = config.is_sampled(model.config.n_items)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        self.optimizer = self.accelerator.prepare(
            kind(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        )
        self.folder = CheckpointFolder(checkpoints) if checkpoints else None
        self.keep_best, self.log = keep_best, log or (lambda entry: None)
        self.best: dict[str, torch.Tensor] = {}
        if config.gradient_checkpointing:
            enable = getattr(model, "enable_gradient_checkpointing", None)
            if enable is None:
                raise ConfigError(f"{model.name} has no backbone to recompute. Leave out gradient_checkpointing.")
            enable()

    def start(self, resume: bool, threads: int | None) -> None:
        """Seed everything and choose threads and attention, or restore the last checkpoint with its choices."""
        # Dropout can only draw from the global generator; train() restores its state.
        torch.manual_seed(self.seed)
        self.shuffle = torch.Generator().manual_seed(self.seed)
        self.draws = torch.Generator().manual_seed(self.seed + 2**32)
        self.epoch_start = self.shuffle.get_state()
        n_threads = chosen_threads(self.model, self.device, threads)
        attention = step_attention(self.model, self.config.mixed_precision)
        self.now = Progress(TrainingRecord(self.seed, threads=n_threads, attention=attention))
        progress = self.folder.load(self.model, self.optimizer.optimizer) if resume and self.folder else None
        if progress is not None:
            self._go_on(progress, threads)
        record = self.now.record
        logger.info("threads: %s; attention in training steps: %s", record.threads, record.attention)

    def _go_on(self, progress: Progress, threads: int | None) -> None:
        """Restore the progress and the random states of a checkpoint."""
        check_same_threads(progress.record.threads, threads)
        self.now, generators = progress, progress.generators
        torch.set_rng_state(generators["torch"])
        if "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"], self.device)
        self.shuffle.set_state(generators["epoch_start"])
        self.epoch_start = generators["epoch_start"]
        self.draws.set_state(generators["draws"])
        best = {n.removeprefix("best."): t for n, t in generators.items() if n.startswith("best.")}
        self.best = {name: tensor.to(self.device) for name, tensor in best.items()}

    def finish(self, progress: bool) -> None:
        """Train the epochs that are left, and load the best weights into the model."""
        config, now = self.config, self.now
        n_batches = -(-len(self.windows) // config.batch_size)
        bar = tqdm(
            total=config.n_epochs * n_batches,
            initial=now.n_steps,
            desc=f"train {self.model.name} seed {self.seed}",
            file=sys.stderr,
            unit="step",
            disable=None if progress and self.accelerator.is_main_process else True,
        )
        with bar:
            while not now.is_done:
                self._epoch(bar)
        if self.best:
            self.model.load_saved_state(self.best)
        self.model.eval()

    def _epoch(self, bar: Any) -> None:
        """Take the steps of an epoch that are left, validate, and write a checkpoint."""
        config, now = self.config, self.now
        began = time.perf_counter()
        self.epoch_start = self.shuffle.get_state()
        order = torch.randperm(len(self.windows), generator=self.shuffle).numpy()
        self.model.train()
        for step, windows in enumerate(batches(self.windows, order, config.batch_size), start=1):
            if step <= now.step:
                continue
            with attention_of(self.model, now.record.attention):
                value, n_targets = self._step(windows, now.epoch, step)
            now.loss_sum += value * n_targets
            now.n_targets += n_targets
            now.step, now.n_steps = step, now.n_steps + 1
            bar.update()
            if config.save_every and now.n_steps % config.save_every == 0 and step * config.batch_size < len(order):
                now.seconds += time.perf_counter() - began
                began = time.perf_counter()
                self._check_weights()
                self._save()
        self._check_weights()
        loss = now.loss_sum / now.n_targets
        entry: dict[str, Any] = {"epoch": now.epoch, "step": now.n_steps, "loss": loss}
        is_last = now.epoch == config.n_epochs
        if now.epoch % config.validate_every == 0 or is_last:
            is_last |= self._validate(loss, entry)
            bar.set_postfix(loss=f"{loss:.3f}", ndcg=f"{entry['ndcg']:.4f}", best=f"{now.record.best_ndcg:.4f}")
        now.seconds += time.perf_counter() - began
        self.log({**entry, "learning_rate": config.learning_rate, "seconds": round(now.seconds, 3)})
        now.epoch, now.step, now.loss_sum, now.n_targets, now.is_done = now.epoch + 1, 0, 0.0, 0, is_last
        self.epoch_start = self.shuffle.get_state()
        self._save()

    def _validate(self, loss: float, entry: dict[str, Any]) -> bool:
        """Measure NDCG on the validation items, keep the best weights, and return whether patience has run out."""
        now, config = self.now, self.config
        self.model.eval()
        with self.accelerator.autocast():
            ndcg = float(evaluate(self.model, self.dataset, part="valid", k=config.k).ndcg.mean())
        now.record = now.record.after(now.epoch, loss, ndcg)
        entry |= {"ndcg": ndcg, "best_epoch": now.record.best_epoch}
        if now.record.best_epoch == now.epoch:
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.saved_state().items()}
            if self.keep_best is not None and self.accelerator.is_main_process:
                self.keep_best(self.model)
            return False
        return now.epoch - now.record.best_epoch >= config.patience * config.validate_every

    def _step(self, windows: list[IntArray], epoch: int, step: int) -> tuple[float, int]:
        """Take one optimizer step on a batch of windows; return its loss and the number of targets."""
        if self.model.supervision == "prefix":
            windows = draw_prefixes(windows, self.draws)
        negatives = None
        if self.is_sampled:
            n = min(self.config.n_negatives, self.model.config.n_items)
            negatives = torch.randperm(self.model.config.n_items, generator=self.draws)[:n].to(self.device)
        accelerator = self.accelerator
        n_parts = self.config.accumulation * accelerator.num_processes
        parts = [windows[part::n_parts] for part in range(n_parts)]
        local_parts = parts[accelerator.process_index :: accelerator.num_processes]
        local_batches = [make_batch(part, self.model.supervision, self.device) for part in local_parts if part]
        n_targets = sum(len(w) - 1 for w in windows) if self.model.supervision == "every" else len(windows)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for batch in local_batches:
            with accelerator.autocast():
                loss = self._loss(batch, negatives)
            value = loss.item()
            if not np.isfinite(value):
                raise self._broken(batch, value, epoch, step)
            share = batch.n_targets / n_targets
            accelerator.backward(loss if share == 1.0 else loss * share)
            total += value * share
        if accelerator.num_processes > 1:
            for parameter in self.parameters:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = accelerator.reduce(gradient, reduction="sum")
            total = float(accelerator.reduce(torch.tensor(total, device=self.device), reduction="sum"))
        if self.config.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        return total, n_targets

    def _loss(self, batch: Batch, negatives: torch.Tensor | None) -> torch.Tensor:
        """Return the mean loss of a batch."""
        states = self.model(batch.inputs, batch.lengths)[batch.counts]
        targets = batch.targets[batch.counts]
        if negatives is None:
            return softmax_loss(states, self.model.item_embeddings(), targets)
        vectors = self.model.item_vectors(torch.cat([targets, negatives]))
        return sampled_softmax_loss(
            states, vectors[: len(targets)], targets, vectors[len(targets) :], negatives, self.model.config.n_items
        )

    def _broken(self, batch: Batch, value: float, epoch: int, step: int) -> NonFiniteStateError:
        """Return the error of a loss that is not finite, with the first layer whose states are not."""
        where = _first_broken_layer(self.model, batch)
        return NonFiniteStateError(
            f"The training loss must stay finite; it is {value} in epoch {epoch}, step {step}"
            f"{f', first seen in layer {where!r}' if where else ''}. Lower the learning rate, or check the inputs."
        )

    def _check_weights(self) -> None:
        """Refuse weights that are NaN or infinite after a step, before they are evaluated or saved."""
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters):
            raise NonFiniteStateError(
                f"Trained weights must stay finite; after epoch {self.now.epoch}, step {self.now.step} they are not. "
                "The previous checkpoint is kept. Lower the learning rate."
            )

    def _save(self) -> None:
        """Write the last checkpoint."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        generators = {"torch": torch.get_rng_state(), "draws": self.draws.get_state(), "epoch_start": self.epoch_start}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        generators |= {f"best.{name}": tensor.cpu() for name, tensor in self.best.items()}
        self.now.generators = generators
        self.folder.save(self.model, self.optimizer.optimizer, self.now)


def _accelerator(config: TrainingConfig, device: torch.device) -> Any:
    """Return accelerate's handle on devices, processes and dtypes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if config.mixed_precision == "fp16" and device.type == "cpu":
        raise ConfigError("mixed_precision 'fp16' needs a GPU; this model is on the CPU. Use bf16 or no.")
    # Accelerate would otherwise keep the precision of an earlier run in this process.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=config.mixed_precision, cpu=device.type == "cpu", device_placement=False)


@torch.no_grad()
def _first_broken_layer(model: Any, batch: Batch) -> str | None:
    """Return the name of the first layer with a state that is not finite at a valid position, or None."""
    is_valid = torch.arange(batch.inputs.shape[1], device=batch.lengths.device) < batch.lengths[:, None]
    broken: list[str] = []
    handles = []

    def check_state(name: str, state: Any) -> None:
        state = state[0] if isinstance(state, tuple) and state else state
        if isinstance(state, torch.Tensor) and not bool(torch.isfinite(state[is_valid.to(state.device)]).all()):
            broken.append(name)

    for name, kind, module in model.layers() if hasattr(model, "layers") else []:
        if kind == "embed":
            handles.append(module.register_forward_pre_hook(lambda m, args, name=name: check_state(name, args)))
        else:
            handles.append(module.register_forward_hook(lambda m, args, output, name=name: check_state(name, output)))
    try:
        model.forward_sequences(batch.inputs, batch.lengths)
    except (AttributeError, RuntimeError, ValueError):
        return None
    finally:
        for handle in handles:
            handle.remove()
    return broken[0] if broken else None
