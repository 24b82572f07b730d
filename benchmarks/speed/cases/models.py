"""Cases of every trained model: our trainer beside a bare loop of the same module; growth with the catalogue."""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from benchmarks.speed.cases.inputs import lastfm
from benchmarks.speed.timing import CPU_CLOCK, ratio_of

N_PAIRS, MAX_LENGTH = 3, 50
#: Models over a language model have cases of their own.
_OVER_A_BACKBONE = ("frellm4rec", "morec")
#: Catalogues of the growth, and users: items grow, the histories stay as they are.
CATALOGUES, N_USERS, BATCH_SIZE = (2_000, 20_000, 200_000), 512, 128


#: Of a training that is stopped when it has been timed.
MOST_EPOCHS = 100_000


class _EnoughEpochsError(Exception):
    """Stops the trainer before its validation."""


def names() -> list[str]:
    """Return the trained models that need no language model."""
    from frellm4rec.models.registry import model_class, model_names

    return [name for name in model_names() if model_class(name).traits.is_trained and name not in _OVER_A_BACKBONE]


def published(name: str, dataset: Any, device: str = "cpu") -> tuple[Any, Any]:
    """Return an untrained model as its recipe and its published loss have it, and the settings of its training."""
    from frellm4rec.runs.recipe import Recipe
    from frellm4rec.runs.train import build_model
    from frellm4rec.tuning.trials import System

    recipe = Recipe(model=name).merged({**System(name).settings, "device": device})
    return build_model(recipe, dataset), recipe.training


class BareLoop:
    """The loop one would write around the same module: batches, loss, backward, the recipe's clipping, optimizer."""

    def __init__(self, name: str, dataset: Any, device: str = "cpu") -> None:
        import torch

        from frellm4rec.training.batches import training_samples
        from frellm4rec.training.loop import chosen_supervision

        self.device = torch.device(device)
        self.model, self.training = published(name, dataset, device)
        self.model.train()
        self.supervision = chosen_supervision(self.model, self.training)
        self.samples = training_samples(dataset, MAX_LENGTH, self.supervision)
        kind = torch.optim.Adam if self.training.optimizer == "adam" else torch.optim.AdamW
        rate, decay = self.training.learning_rate, self.training.weight_decay
        self.optimizer = kind(self.model.parameters(), lr=rate, weight_decay=decay)
        self.draws = torch.Generator().manual_seed(0)

    def epoch(self) -> None:
        """Train an epoch."""
        import torch

        from frellm4rec.training.batches import make_batch

        order = torch.randperm(len(self.samples), generator=self.draws).numpy()
        for start in range(0, len(order), self.training.batch_size):
            samples = self.samples.select(order[start : start + self.training.batch_size])
            if self.supervision == "prefix":
                samples = samples.drawn_prefixes(self.draws)
            batch = make_batch(samples, self.supervision, self.device)
            self.optimizer.zero_grad(set_to_none=True)
            total, n_targets = self.model.training_loss(batch, self.draws)
            (total / n_targets).backward()
            if self.training.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.max_grad_norm)
            self.optimizer.step()


def epoch_pairs(
    name: str,
    dataset: Any,
    n_pairs: int,
    *,
    least_seconds: float = 0.0,
    device: str = "cpu",
    clock: Callable[[], float] = CPU_CLOCK,
) -> tuple[list[tuple[float, float]], int]:
    """Return seconds of epochs of our trainer and of the bare loop, in turn, and the samples of an epoch.

    At least ``n_pairs`` pairs, and as many more as fit into ``least_seconds``; the first pair, a warm-up, is left out.
    """
    import torch

    from frellm4rec.training.trainer import TrainingConfig, train

    bare, times = BareLoop(name, dataset, device), []
    began = 0.0

    def after_our_epoch(_entry: dict[str, Any]) -> None:
        nonlocal began
        ours = clock() - began
        with torch.random.fork_rng(devices=[]):
            began = clock()
            bare.epoch()
            times.append((ours, clock() - began))
        if len(times) > n_pairs and sum(map(sum, times[1:])) >= least_seconds:
            raise _EnoughEpochsError
        began = clock()

    model, training = published(name, dataset, device)
    long = dict.fromkeys(("n_epochs", "validate_every"), MOST_EPOCHS)
    with suppress(_EnoughEpochsError):
        train(model, dataset, TrainingConfig(**{**training.to_dict(), **long}), log=after_our_epoch, progress=False)
    return times[1:], len(bare.samples)


def training_models(folder: str) -> dict[str, Any]:
    """Time an epoch of every model with our trainer and with a bare loop, in turn; the first pair is a warm-up."""
    dataset, ratios, details = lastfm(folder), {}, []
    for name in names():
        times, n_samples = epoch_pairs(name, dataset, N_PAIRS)
        ratios[name], ours, bare = ratio_of(times)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        details.append(
            f"{name} {ratios[name]:.2f}× ({n_samples / ours:.0f} / {n_samples / bare:.0f} samples/s, {ours:.2f} s an "
            f"epoch, peak of the process so far {peak:.0f} MiB)"
        )
    return {
        "measured": f"{max(ratios.values()):.2f}×",
        "goal": "<= 1.1×",
        "detail": f"settings of the recipes, medians of {N_PAIRS} pairs, the largest ratio counts; "
        f"{'; '.join(details)}",
    }


def synthetic(n_items: int) -> Any:
    """Return histories of 12 to 60 items of a catalogue of this size, popularity falling with the rank."""
    from spectral_probe.interactions.dataset import Dataset
    from spectral_probe.interactions.log import Interactions

    generator = np.random.default_rng(0)
    popularity = 1.0 / np.arange(1, n_items + 1) ** 0.7
    popularity /= popularity.sum()
    lengths = generator.integers(12, 61, N_USERS)
    items = generator.choice(n_items, size=int(lengths.sum()), p=popularity)
    histories = [list(dict.fromkeys(part)) for part in np.split(items, np.cumsum(lengths)[:-1])]
    return Dataset.from_interactions(Interactions.from_sequences(histories, n_items=n_items))


def training_items(_folder: str) -> dict[str, Any]:
    """Time steps of every model, with its published loss, on catalogues that grow while the histories stay."""
    details, growth = [], {}
    for name in names():
        seconds = {n_items: _step_seconds(name, synthetic(n_items)) for n_items in CATALOGUES}
        small, middle, large = seconds.values()
        growth[name] = middle / small
        details.append(f"{name} {small * 1e3:.0f}, {middle * 1e3:.0f}, {large * 1e3:.0f} ms")
    return {
        "measured": f"{max(growth.values()):.1f}×",
        "goal": "<= 10× for 10× the items",
        "detail": f"a step of {BATCH_SIZE} users with {' / '.join(f'{n:,}' for n in CATALOGUES)} items; from 2,000 to "
        f"20,000 the largest growth counts; {'; '.join(details)}; above 20,000 items a softmax is sampled",
    }


def _step_seconds(name: str, dataset: Any) -> float:
    """Return the mean processor seconds of a step, after a warm-up."""
    from dataclasses import replace

    from frellm4rec.training.pace import measure_pace

    model, training = published(name, dataset)
    pace = measure_pace(model, dataset, replace(training, batch_size=BATCH_SIZE, supervision="auto"), threads=1)
    n_steps = -(-N_USERS // BATCH_SIZE)
    return pace.epoch / n_steps
