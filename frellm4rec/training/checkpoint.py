"""Trained weights kept by content: the same data, settings and seed are trained once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from frellm4rec.cache import CACHE_VARIABLE, cache_root
from frellm4rec.models.base import RecommenderConfig, SequentialRecommender
from frellm4rec.training.config import TrainingConfig, TrainingRecord
from spectral_probe.errors import ModelError, ResourceError

#: Raised whenever the same settings would train to other weights; old weights are then left unused.
RECIPE_VERSION = 1
_FIRST_SETTINGS = ("n_epochs", "batch_size", "learning_rate", "validate_every", "patience", "k")
RECORD_FILE = "training.json"

Model = TypeVar("Model", bound=SequentialRecommender)


def training_key(name: str, fingerprint: str, config: RecommenderConfig, training: TrainingConfig, seed: int) -> str:
    """Return the hash of everything that decides the trained weights."""
    content = {
        "model": name,
        "recipe": RECIPE_VERSION,
        "log": fingerprint,
        "config": config.to_dict(),
        "training": _deciding(training),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _deciding(training: TrainingConfig) -> dict[str, Any]:
    """Return the settings that were always there, and later ones where they are not at their default."""
    default = TrainingConfig().to_dict()
    return {n: v for n, v in training.to_dict().items() if n in _FIRST_SETTINGS or v != default[n]}


def checkpoint_folder(name: str, key: str) -> Path:
    """Return where weights of this key lie, present or not."""
    return cache_root() / name / key


def save_checkpoint(
    model: SequentialRecommender, record: TrainingRecord, training: TrainingConfig, folder: Path
) -> Path:
    """Write weights, config and training record; the folder appears whole or not at all.

    Raises
    ------
    ResourceError
        If the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            model.save_pretrained(partial)
            content = {"training": training.to_dict(), "record": record.to_dict(), "revision": model.revision}
            (partial / RECORD_FILE).write_text(json.dumps(content, indent=2) + "\n")
            # Where another process was faster, its folder holds the same weights: keep that one.
            if not folder.exists():
                _move(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ResourceError(
            f"Trained weights are kept in {folder}, which could not be written: {error}. Free space there, or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from error
    return folder


def _move(partial: Path, folder: Path) -> None:
    """Give the finished folder its name, unless another process has just taken it."""
    try:
        os.rename(partial, folder)
    except OSError:
        if not folder.is_dir():
            raise


def load_checkpoint(model_class: type[Model], folder: Path) -> Model | None:
    """Return the model kept in a folder, or None where there is none.

    Raises
    ------
    ModelError
        If the folder exists but its weights are damaged or not those that were written.
    """
    if not folder.exists():
        return None
    model = model_class.from_pretrained(folder)
    try:
        expected = json.loads((folder / RECORD_FILE).read_text())["revision"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The training record in {folder} is damaged ({error}). Delete the folder to train again."
        ) from error
    if model.revision != expected:
        raise ModelError(
            f"The weights in {folder} must have revision {expected}; they have {model.revision}. "
            "Delete the folder to train again."
        )
    return model
