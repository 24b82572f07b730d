"""A trained model with its data set: the input of evaluation, recommendation and export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from frellm4rec.models.registry import load_model, model_folder
from spectral_probe.errors import ConfigError, DataError, ModelError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.folder import RunFolder
from spectral_probe.storage.hashing import digest, file_hash
from spectral_probe.types import Float32Array

if TYPE_CHECKING:
    from frellm4rec.models.base import Recommender

DatasetLoader = Callable[[str, Path | None], Dataset]


@dataclass(frozen=True)
class TrainedModel:
    """A saved model and its data set; the weights are read on first use.

    Attributes
    ----------
    folder : Path
        The training run, or the folder of the saved model.
    dataset : Dataset
    run : RunFolder or None
        None for a saved model without a run.
    device : str
        ``auto`` uses CUDA if there is one.
    """

    folder: Path
    dataset: Dataset
    run: RunFolder | None = None
    device: str = "cpu"

    @cached_property
    def model(self) -> Recommender:
        """The model, in evaluation mode on its device."""
        from spectral_probe.backbones.devices import parse_device

        model = load_model(self.folder, device=str(parse_device(self.device)))
        if model.config.n_items != self.dataset.n_items:
            raise DataError(
                f"The model of {self.folder} has {model.config.n_items} items, data set {self.dataset.name!r} has "
                f"{self.dataset.n_items}. Name the data set that it was trained on."
            )
        return model

    def item_vectors(self) -> Float32Array:
        """Return the table that scores are inner products with, (n_items, d); equal items have equal rows.

        Raises
        ------
        ConfigError
            If the scores of the model are no inner products.
        """
        import torch

        from frellm4rec.models.sequential import item_table_of

        with torch.no_grad():
            return np.asarray(item_table_of(self.model).float().cpu().numpy())

    @cached_property
    def weights(self) -> str:
        """Short SHA-256 of the saved model's files; it identifies the model of a stored evaluation."""
        return weights_digest(self.folder)


def weights_digest(folder: Path) -> str:
    """Return a short SHA-256 of the files of a saved model, or of the model in a training run.

    Raises
    ------
    ModelError
        If the folder contains no model, or a file cannot be read.
    """
    parts: list[str | bytes] = []
    model = model_folder(folder)
    for path in sorted(path for path in model.iterdir() if path.is_file() and not path.name.startswith(".")):
        try:
            parts += [f"{path.name}\0", bytes.fromhex(file_hash(path))]
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error}. Restore it, or train again.") from error
    return digest(parts)[:12]


def open_training_run(folder: Path) -> RunFolder | None:
    """Return the training run in a folder; None for a folder without ``run.json``.

    Raises
    ------
    DataError
        If there is no such folder, ``run.json`` cannot be read, or the run is not a training run.
    """
    if not folder.is_dir():
        known = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        raise DataError(
            f"{folder} is not a folder. Give a training run or a saved model.{did_you_mean(folder.name, known)}"
        )
    if not (folder / "run.json").exists():
        return None
    run = RunFolder.open(folder)
    if run.request().get("kind") != "training":
        raise DataError(
            f"{folder} is not a training run: it is the result of an analysis. Give the folder of a `frellm4rec train` "
            "run."
        )
    return run


def open_trained(
    folder: str | Path,
    *,
    dataset: str | None = None,
    from_dir: Path | None = None,
    device: str = "cpu",
    load: DatasetLoader = resolve_dataset,
) -> TrainedModel:
    """Return the model of a folder with the data set it was trained on.

    Parameters
    ----------
    folder : path
        A training run, or a saved model.
    dataset : str, optional
        Name or file. Required for a saved model, which does not name its data. For a run, its data at another path.
    from_dir : path, optional
        Folder that now contains the raw files of the data set.
    device : str
    load : callable
        Returns the data set of a name and folder; a cached one saves time if many runs share it.

    Raises
    ------
    DataError
        If the folder, the run or the data cannot be read, or the run was trained on other data.
    ConfigError
        If no data set is given for a saved model.
    ModelError
        If the folder contains no model.
    """
    folder = Path(folder).expanduser()
    from spectral_probe.backbones.devices import parse_device

    parse_device(device)
    run = open_training_run(folder)
    model_folder(folder)
    if run is None:
        if dataset is None:
            raise ConfigError(
                f"{folder} is a saved model without a run: the data set that it was trained on is unknown. "
                "Name the data set with --dataset."
            )
        return TrainedModel(folder, load(dataset, from_dir), None, device)
    request = run.request()
    name, raw_folder = trained_on(run)
    data = load(dataset or name, from_dir or (None if dataset else raw_folder))
    expected, fingerprint = run.state().get("dataset_fingerprint"), data.fingerprint(titles=False)
    if expected != fingerprint:
        raise DataError(
            f"{folder} was trained on {request.get('dataset')!r} with fingerprint {str(expected)[:8]}; "
            f"{data.name!r} has {fingerprint[:8]}. Give the run's data with --dataset and --from-dir, or train again."
        )
    return TrainedModel(folder, data, run, device)


def trained_on(run: RunFolder) -> tuple[str, Path | None]:
    """Return name and folder of the data set of a training run."""
    request: dict[str, Any] = run.request()
    if not request.get("dataset"):
        raise DataError(f"{run.path / 'run.json'} does not name a data set. Name it with --dataset.")
    from_dir = request.get("from_dir")
    return str(request["dataset"]), None if from_dir is None else Path(from_dir)
