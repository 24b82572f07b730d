"""The loop of a training: its steps, validations and checkpoints, seeded and resumable to the bit."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frellm4rec.models.base import Recommender
from frellm4rec.models.batch import Batch, Supervision
from frellm4rec.training.attention import attention_of, step_attention
from frellm4rec.training.batches import Samples, make_batch, training_samples
from frellm4rec.training.checkpoints import CheckpointFolder, Progress
from frellm4rec.training.config import Effort, TrainingConfig, TrainingRecord
from frellm4rec.training.divergence import first_broken_layer
from frellm4rec.training.threads import check_same_threads, chosen_threads
from frellm4rec.training.validation import peak_memory, validation_ndcg
from spectral_probe.errors import NonFiniteStateError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.progress import Advance, counted, in_notebook

logger = logging.getLogger(__name__)
#: Called with an entry of the training log: the loss of an epoch, a validation.
Logger = Callable[[dict[str, Any]], None]


def chosen_supervision(model: Recommender, config: TrainingConfig) -> Supervision:
    """Return where the loss is taken: as the training says, or else as the model does."""
    return model.supervision if config.supervision == "auto" else config.supervision


class TrainingLoop:
    """One training run: model, optimizer, random states and progress."""

    def __init__(
        self,
        model: Recommender,
        dataset: Dataset,
        config: TrainingConfig,
        seed: int,
        checkpoints: Path | None,
        keep_best: Callable[[Recommender], None] | None,
        log: Logger | None,
    ) -> None:
        self.model, self.dataset, self.config, self.seed = model, dataset, config, seed
        self.device = next(model.parameters()).device
        self.accelerator = _accelerator(config, self.device)
        self.supervision = chosen_supervision(model, config)
        self.samples = training_samples(dataset, model.config.max_length, self.supervision)
        self.is_sampled = model.has_softmax_loss and config.is_sampled(model.config.n_items)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        self.optimizer = self.accelerator.prepare(
            kind(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        )
        self.folder = CheckpointFolder(checkpoints) if checkpoints else None
        self.keep_best, self.log = keep_best, log or (lambda entry: None)
        self.best: dict[str, torch.Tensor] = {}
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()

    def start(self, resume: bool, threads: int | None) -> None:
        """Seed everything and choose threads and attention, or restore the last checkpoint with its choices."""
        # Dropout can only draw from the global generator; train() restores its state.
        torch.manual_seed(self.seed)
        self.shuffle = torch.Generator().manual_seed(self.seed)
        self.draws = torch.Generator().manual_seed(self.seed + 2**32)
        self.epoch_start = self.shuffle.get_state()
        n_threads = chosen_threads(self.model, self.device, threads)
        attention = step_attention(self.model, self.config.mixed_precision)
        record = TrainingRecord(self.seed, threads=n_threads, attention=attention, supervision=self.supervision)
        self.now = Progress(record)
        progress = self.folder.load(self.model, self.optimizer.optimizer) if resume and self.folder else None
        if progress is not None:
            self._go_on(progress, threads)
        record = self.now.record
        logger.info("threads: %s; attention in training steps: %s", record.threads, record.attention)

    def _go_on(self, progress: Progress, threads: int | None) -> None:
        """Restore the progress and the random states of a checkpoint."""
        check_same_threads(progress.record.threads, threads)
        self.now, generators = progress, progress.generators
        self.now.record = replace(self.now.record, supervision=self.supervision)  # older checkpoints do not name it
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
        n_batches = -(-len(self.samples) // config.batch_size)
        # At most so many: patience may end it earlier.
        text, total = f"training {self.model.name}", config.n_epochs * n_batches
        is_shown = progress and self.accelerator.is_main_process and (in_notebook() or sys.stderr.isatty())
        with counted(text, total, unit="steps", done=now.n_steps, bar=is_shown) as advance:
            while not now.is_done:
                self._epoch(advance)
        if self.best:
            self.model.load_saved_state(self.best)
        self.model.eval()
        peak = peak_memory(self.device)
        cpu_seconds = None if now.cpu_seconds is None else round(now.cpu_seconds, 3)
        effort = Effort(now.n_steps, now.n_samples, now.n_tokens, round(now.seconds, 3), peak, cpu_seconds)
        now.record = replace(now.record, effort=effort)

    def timed_steps(self, clock: Callable[[], float], n_warm_up: int, seconds: float) -> tuple[list[float], int]:
        """Take steps of the first epoch for so many seconds; return how long they took, and the steps of an epoch."""
        size = self.config.batch_size
        order = torch.randperm(len(self.samples), generator=self.shuffle).numpy()
        starts = range(0, len(order), size)
        taken: list[float] = []
        self.model.train()
        for step in range(1, n_warm_up + len(starts) + 1):
            start = starts[(step - 1) % len(starts)]
            began = clock()
            self._step(self.samples.select(order[start : start + size]), 1, step)
            self.now.n_steps += 1
            if step > n_warm_up:
                taken.append(clock() - began)
            if sum(taken) > seconds:
                break
        return taken, len(starts)

    def _epoch(self, advance: Advance) -> None:
        """Take the steps of an epoch that are left, validate, and write a checkpoint."""
        config, now = self.config, self.now
        clock = _Clock(now)
        self.epoch_start = self.shuffle.get_state()
        order = torch.randperm(len(self.samples), generator=self.shuffle).numpy()
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_in(now.epoch)
        for step, start in enumerate(range(0, len(order), config.batch_size), start=1):
            if step <= now.step:
                continue
            samples = self.samples.select(order[start : start + config.batch_size])
            with attention_of(self.model, now.record.attention):
                value, n_targets = self._step(samples, now.epoch, step)
            now.loss_sum += value * n_targets
            now.n_targets += n_targets
            now.step, now.n_steps = step, now.n_steps + 1
            advance(now.n_steps, "")
            if config.save_every and now.n_steps % config.save_every == 0 and step * config.batch_size < len(order):
                clock.read()
                self._check_weights()
                self._save()
        self._check_weights()
        loss = now.loss_sum / max(1, now.n_targets)
        entry: dict[str, Any] = {"epoch": now.epoch, "step": now.n_steps, "loss": loss}
        is_last = now.epoch == config.n_epochs
        if now.epoch % config.validate_every == 0 or is_last:
            is_last |= self._validate(loss, entry)
            advance(now.n_steps, f"best NDCG {now.record.best_ndcg:.4f}")
        clock.read()
        cpu = {} if now.cpu_seconds is None else {"cpu_seconds": round(now.cpu_seconds, 3)}
        self.log(
            {**entry, "learning_rate": config.learning_rate_in(now.epoch), "seconds": round(now.seconds, 3), **cpu}
        )
        now.epoch, now.step, now.loss_sum, now.n_targets, now.is_done = now.epoch + 1, 0, 0.0, 0, is_last
        self.epoch_start = self.shuffle.get_state()
        self._save()

    def _validate(self, loss: float, entry: dict[str, Any]) -> bool:
        """Measure NDCG on the validation items, keep the best weights, and return whether patience has run out."""
        now, config = self.now, self.config
        self.model.eval()
        with self.accelerator.autocast():
            ndcg = validation_ndcg(self.model, self.dataset, config.k)
        now.record = now.record.after(now.epoch, loss, ndcg)
        entry |= {"ndcg": ndcg, "best_epoch": now.record.best_epoch}
        if now.record.best_epoch == now.epoch:
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.saved_state().items()}
            if self.keep_best is not None and self.accelerator.is_main_process:
                self.keep_best(self.model)
            return False
        return now.epoch - now.record.best_epoch >= config.patience * config.validate_every

    def _step(self, samples: Samples, epoch: int, step: int) -> tuple[float, int]:
        """Take one optimizer step on some samples; return its loss and the number of targets."""
        if self.supervision == "prefix":
            samples = samples.drawn_prefixes(self.draws)
        negatives = None
        if self.is_sampled:
            n = min(self.config.n_negatives, self.model.config.n_items)
            negatives = torch.randperm(self.model.config.n_items, generator=self.draws)[:n].to(self.device)
        n_parts = self.config.accumulation * self.accelerator.num_processes
        parts = [np.arange(part, len(samples), n_parts) for part in range(min(n_parts, len(samples)))]  # others: empty
        expected, n_not_read = self._n_targets(samples), int(self.supervision != "own")
        self.optimizer.zero_grad(set_to_none=True)
        total, n_targets, n_tokens = 0.0, 0, 0
        for part, rows in list(enumerate(parts))[self.accelerator.process_index :: self.accelerator.num_processes]:
            chosen = samples.select(rows)
            batch = make_batch(chosen, self.supervision, self.device, negatives)
            value, n = self._backward(batch, part, expected, epoch, step)
            total, n_targets = total + value, n_targets + n
            n_tokens += sum(len(window) - n_not_read for window in chosen.windows)
        total, n_targets, n_tokens = self._over_processes(total, n_targets, n_tokens)
        if not n_targets:  # the model chose nothing in this step
            return 0.0, 0
        if n_targets != expected:  # only the model knew how many it would predict
            total *= expected / n_targets
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad *= expected / n_targets
        if self.config.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self._count(len(samples), n_tokens)
        return total, n_targets

    def _n_targets(self, samples: Samples) -> int:
        """Return the number of targets of some samples; with ``own`` supervision a guess, one for each."""
        return sum(len(w) - 1 for w in samples.windows) if self.supervision == "every" else len(samples)

    def _backward(self, batch: Batch, part: int, expected: int, epoch: int, step: int) -> tuple[float, int]:
        """Add the gradient of a part of a step; return its share of the loss, and its number of targets."""
        draws = torch.Generator().manual_seed(_draw_seed(self.seed, self.now.n_steps, part))
        with self.accelerator.autocast():
            loss_sum, n = self.model.training_loss(batch, draws)
        if not n:
            return 0.0, 0
        self.accelerator.backward(loss_sum / expected)
        # Read once the backward pass is on its way: until then a GPU would have nothing to do.
        value = loss_sum.item() / n
        if not np.isfinite(value):
            raise self._broken(batch, value, epoch, step)
        return value * (n / expected), n

    def _over_processes(self, total: float, n_targets: int, n_tokens: int) -> tuple[float, int, int]:
        """Add up the gradients, the loss and the counts of all processes."""
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return total, n_targets, n_tokens
        for parameter in self.parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(gradient, reduction="sum")
        total = float(accelerator.reduce(torch.tensor(total, device=self.device), reduction="sum"))
        counts = accelerator.reduce(torch.tensor([n_targets, n_tokens], device=self.device), reduction="sum").tolist()
        return total, int(counts[0]), int(counts[1])

    def _count(self, n_samples: int, n_tokens: int) -> None:
        """Add what a step has read; a run that began before this was counted goes on without."""
        now = self.now
        if now.n_samples is not None and now.n_tokens is not None:
            now.n_samples, now.n_tokens = now.n_samples + n_samples, now.n_tokens + n_tokens

    def _broken(self, batch: Batch, value: float, epoch: int, step: int) -> NonFiniteStateError:
        """Return the error of a loss that is not finite, with the first layer whose states are not."""
        where = first_broken_layer(self.model, batch)
        return NonFiniteStateError(
            f"The training loss must stay finite; it is {value} in epoch {epoch}, step {step}"
            f"{f', first seen in layer {where!r}' if where else ''}. Lower the learning rate, or check the inputs."
        )

    def _check_weights(self) -> None:
        """Refuse weights that are NaN or infinite after a step, before they are evaluated or saved."""
        if not bool(torch.stack([torch.isfinite(p).all().to(self.device) for p in self.parameters]).all()):
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


class _Clock:
    """Adds the time that passes to the progress of a run."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.began = time.perf_counter(), time.process_time()

    def read(self) -> None:
        """Add the time since the last reading."""
        now = time.perf_counter(), time.process_time()
        self.progress.seconds += now[0] - self.began[0]
        if self.progress.cpu_seconds is not None:
            self.progress.cpu_seconds += now[1] - self.began[1]
        self.began = now


def _draw_seed(seed: int, step: int, part: int) -> int:
    """Return the seed of what a model draws in one part of a step: the same after a resume and in every process."""
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint64)[0] >> 1)


def _accelerator(config: TrainingConfig, device: torch.device) -> Any:
    """Return accelerate's handle on devices, processes and dtypes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate would otherwise keep the precision of an earlier run in this process.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=config.mixed_precision, cpu=device.type == "cpu", device_placement=False)
