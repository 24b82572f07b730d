"""A trained model with its data set: the input of evaluation, recommendation and export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from frellm4rec.models.registry import load_model
from frellm4rec.runs.records import SUMMARY_FILE, TrainingSummary
from spectral_probe.errors import ConfigError, DataError, ModelError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset, with_columns
from spectral_probe.plugins.saved_models import SavedModel
from spectral_probe.runs.folder import MODEL_FOLDER, RunFolder
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

        return load_trained(self.folder, device=str(parse_device(self.device)))

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


def load_trained(folder: Path, *, device: str = "cpu") -> Recommender:
    """Return the recommender of a folder, after a check that its weights are those that its training ended with.

    Raises
    ------
    ModelError, DataError, ConfigError
        As in :func:`~frellm4rec.models.registry.load_model`; or if a finished run recorded other weights.
    """
    model, run = load_model(folder, device=device), SavedModel.open(folder).run
    if run is None or run.state()["status"] != "finished" or not (run.path / SUMMARY_FILE).exists():
        return model
    try:
        recorded = TrainingSummary.read(run.path).revision
    except DataError:  # the record is damaged; the weights need not be
        return model
    if recorded and recorded != model.revision:
        raise ModelError(
            f"The weights in {run.path / MODEL_FOLDER} are not those that the training ended with: their revision is "
            f"{model.revision}, and {SUMMARY_FILE} names {recorded}. Restore the file, or train again."
        )
    return model


def weights_digest(folder: Path) -> str:
    """Return a short SHA-256 of the files of a saved model, or of the model in a training run.

    Raises
    ------
    ModelError
        If the folder contains no model, or a file cannot be read.
    """
    parts: list[str | bytes] = []
    model = SavedModel.open(folder).model_folder
    for path in sorted(path for path in model.iterdir() if path.is_file() and not path.name.startswith(".")):
        try:
            parts += [f"{path.name}\0", bytes.fromhex(file_hash(path))]
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error}. Restore it, or train again.") from error
    return digest(parts)[:12]


def open_trained(
    folder: str | Path,
    *,
    dataset: str | None = None,
    from_dir: Path | None = None,
    columns: str | None = None,
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
    columns : str, optional
        Columns of a file, ``user=…,item=…,time=…,title=…``; those that the run names when left out.
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
    saved = SavedModel.open(folder)
    name, raw_folder = _data_of(saved) if dataset is None else (dataset, None)
    data = load(with_columns(name, columns), from_dir or raw_folder)
    saved.check_trained_on(data)
    return TrainedModel(folder, data, saved.run, device)


def _data_of(saved: SavedModel) -> tuple[str, Path | None]:
    """Return name and folder of the data set that a model was trained on, as its run names them."""
    named = saved.named_data()
    if named is not None:
        return named
    if saved.run is None:
        raise ConfigError(
            f"{saved.folder} is a saved model without a run: the data set that it was trained on is unknown. "
            "Name the data set with --dataset."
        )
    raise DataError(f"{saved.folder / 'run.json'} does not name a data set. Name it with --dataset.")
