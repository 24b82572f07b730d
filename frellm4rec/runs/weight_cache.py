"""Cache of trained weights: the same data, settings and seed are trained once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from frellm4rec.models.base import Recommender
from frellm4rec.models.config import RecommenderConfig
from frellm4rec.training.config import TrainingConfig, TrainingRecord
from spectral_probe.errors import ModelError, what_failed
from spectral_probe.storage.atomic import whole_folder, write_text
from spectral_probe.storage.cache import cache_root, only_a_cache
from spectral_probe.storage.hashing import settings_hash
from spectral_probe.storage.reading import read_json

#: Increased whenever the same settings would give other weights; weights of older versions are then not used.
RECIPE_VERSION = 1
_FIRST_SETTINGS = ("n_epochs", "batch_size", "learning_rate", "validate_every", "patience", "k")
RECORD_FILE = "training.json"

Model = TypeVar("Model", bound=Recommender)


def training_key(name: str, fingerprint: str, config: RecommenderConfig, training: TrainingConfig, seed: int) -> str:
    """Return the hash of everything that determines the trained weights."""
    content = {
        "model": name,
        "recipe": RECIPE_VERSION,
        "log": fingerprint,
        "config": config.identity(),
        "training": _hashed_settings(training),
        "seed": seed,
    }
    return settings_hash(content)[:16]


def _hashed_settings(training: TrainingConfig) -> dict[str, Any]:
    """Return the first version's settings, and settings added later if they differ from their defaults."""
    default = TrainingConfig().to_dict()
    return {n: v for n, v in training.to_dict().items() if n in _FIRST_SETTINGS or v != default[n]}


def checkpoint_folder(name: str, key: str) -> Path:
    """Return the folder for the weights of this key, whether it exists or not."""
    return cache_root() / name / key


def save_checkpoint(model: Recommender, record: TrainingRecord, training: TrainingConfig, folder: Path) -> Path:
    """Write weights, config and training record; the folder is written whole or, with a warning, not at all."""
    content = {"training": training.to_dict(), "record": record.to_dict(), "revision": model.revision}
    # If another process has written the folder first, its weights are the same and stay.
    with only_a_cache(folder), whole_folder(folder) as partial:
        model.save_pretrained(partial)
        write_text(partial / RECORD_FILE, json.dumps(content, indent=2))
    return folder


def unfinished_folder(folder: Path) -> Path:
    """Return the folder for the checkpoints of the training whose weights a folder is for."""
    return folder.with_name(f"{folder.name}-unfinished")


def load_checkpoint(model_class: type[Model], folder: Path) -> Model | None:
    """Return the model stored in a folder; None if the folder does not exist.

    Raises
    ------
    ModelError
        If the folder exists but its weights are damaged or differ from those written.
    """
    if not folder.exists():
        return None
    try:
        model = model_class.from_pretrained(folder)
    except ModelError as error:
        raise ModelError(
            f"Trained weights in the cache are damaged: {what_failed(error)} Delete {folder} to train again."
        ) from error
    try:
        expected = read_json(folder / RECORD_FILE, {"revision": str})["revision"]
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The training record in {folder} is damaged ({error}). Delete the folder to train again."
        ) from error
    if model.revision != expected:
        raise ModelError(
            f"The weights in {folder} must have revision {expected}; they have {model.revision}. "
            "Delete the folder to train again."
        )
    return model
