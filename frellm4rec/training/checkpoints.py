"""Checkpoints: everything that a killed run needs to end with the weights of an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from frellm4rec.models.base import Recommender
from frellm4rec.training.config import TrainingRecord
from spectral_probe.errors import ModelError
from spectral_probe.storage.atomic import disk_errors, remove_partials, whole_folder, write_text
from spectral_probe.storage.reading import read_json, refuse_special

WEIGHTS, STATE = "state.safetensors", "state.json"
_PROGRESS = {
    "record": {},
    **dict.fromkeys(("epoch", "step", "n_steps", "n_targets"), int),
    **dict.fromkeys(("loss_sum", "seconds"), float),
    **dict.fromkeys(("n_samples?", "n_tokens?"), (int, None)),
    "cpu_seconds?": (float, None),
    "is_done": bool,
}


@dataclass
class Progress:
    """The state of a run between two steps.

    Attributes
    ----------
    epoch : int
        Epoch under way, from 1.
    step : int
        Optimizer steps taken in it.
    n_steps : int
        Optimizer steps taken in all.
    loss_sum : float
        Sum of the epoch's losses, weighted by targets.
    n_targets : int
        Targets of the epoch so far.
    record : TrainingRecord
        Validations so far.
    n_samples, n_tokens : int or None
        Histories and positions read so far; None in checkpoints that did not count them.
    seconds : float
        Time spent training, interruptions excluded.
    cpu_seconds : float or None
        Time that all threads spent computing; None in checkpoints that did not count it.
    is_done : bool
        Whether there is nothing left to train.
    """

    record: TrainingRecord
    epoch: int = 1
    step: int = 0
    n_steps: int = 0
    loss_sum: float = 0.0
    n_targets: int = 0
    n_samples: int | None = 0
    n_tokens: int | None = 0
    seconds: float = 0.0
    cpu_seconds: float | None = 0.0
    is_done: bool = False
    generators: dict[str, torch.Tensor] = field(default_factory=dict)


class CheckpointFolder:
    """The last checkpoint of a run, in a folder with one subfolder per checkpoint; older ones are deleted.

    A checkpoint is written atomically, by one rename, before its predecessor is deleted, so a killed process always
    leaves one. Optimizer and random states are tensors in a safetensors file; nothing is pickled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, model: Recommender, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write a checkpoint and delete the ones before it.

        Raises
        ------
        ResourceError
            If the checkpoint cannot be written; the previous one is kept.
        """
        tensors = {f"model.{name}": t.detach().cpu().contiguous() for name, t in model.saved_state().items()}
        tensors |= {f"random.{name}": state for name, state in progress.generators.items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value).cpu() for name, value in values.items()}
        content = {name: value for name, value in vars(progress).items() if name not in ("record", "generators")}
        content["record"] = progress.record.to_dict()
        older = self._checkpoints()
        name = f"step-{progress.n_steps:09d}" + ("-end" if progress.step == 0 else "")
        next_step = "The previous checkpoint is kept; free some space and continue with --resume."
        with disk_errors(self.path, what="Writing a checkpoint", next_step=next_step):
            with whole_folder(self.path / name, replace=True) as partial:
                save_file(tensors, str(partial / WEIGHTS))
                write_text(partial / STATE, json.dumps(content, indent=2))
            remove_partials(self.path)
        for folder in older:
            if folder.name != name:
                shutil.rmtree(folder, ignore_errors=True)

    def load(self, model: Recommender, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Restore model and optimizer from the newest checkpoint, and return its progress; None if there is none.

        Raises
        ------
        ModelError
            If the checkpoint is damaged or belongs to another model.
        """
        checkpoints = self._checkpoints()
        if not checkpoints:
            return None
        folder = checkpoints[-1]
        try:
            refuse_special(folder / WEIGHTS)
            tensors = load_file(str(folder / WEIGHTS))
            content: dict[str, Any] = read_json(folder / STATE, _PROGRESS)
            model.load_saved_state({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                if name.startswith("optimizer."):
                    _, index, moment = name.split(".")
                    moments.setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
            generators = {n.removeprefix("random."): t for n, t in tensors.items() if n.startswith("random.")}
            uncounted = dict.fromkeys({"n_samples", "n_tokens", "cpu_seconds"} - set(content))  # of an older version
            record = TrainingRecord.from_dict(content["record"])
            return Progress(**{**content, **uncounted, "record": record}, generators=generators)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise _unreadable(folder, error) from error

    def n_finished_epochs(self) -> int:
        """Return how many epochs the newest checkpoint has behind it; 0 if there is none.

        Raises
        ------
        ModelError
            If the checkpoint is damaged.
        """
        checkpoints = self._checkpoints()
        try:
            return int(read_json(checkpoints[-1] / STATE, _PROGRESS)["epoch"]) - 1 if checkpoints else 0
        except (OSError, ValueError) as error:
            raise _unreadable(checkpoints[-1], error) from error

    def _checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return sorted(self.path.glob("step-*"))


def _unreadable(checkpoint: Path, error: Exception) -> ModelError:
    return ModelError(
        f"The checkpoint {checkpoint} cannot be read ({error}). Delete it to train from the start of the run."
    )
