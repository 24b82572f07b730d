"""Item embeddings: from training interactions (SASRec, trained once per data set and seed) and from titles."""

from __future__ import annotations

import hashlib
import json
import logging
import os

import numpy as np
import numpy.typing as npt

from frellm4rec.cache import cache_root
from frellm4rec.data import log_fingerprint
from frellm4rec.models.sasrec import SASRec, SASRecConfig
from frellm4rec.training.checkpoint import checkpoint_folder, load_checkpoint, save_checkpoint, training_key
from frellm4rec.training.trainer import TrainingConfig, train
from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import DataError, ShapeError
from spectral_probe.interactions import Dataset
from spectral_probe.item_inputs import text_inputs
from spectral_probe.registry import load_plugin

#: Raised whenever the same model would read the same titles to other vectors.
_READING_VERSION = 1

logger = logging.getLogger(__name__)


def trained_sasrec(
    dataset: Dataset, *, seed: int = 0, device: str = "cpu", training: TrainingConfig | None = None
) -> SASRec:
    """Return SASRec trained on the training part of a data set, from the cache where it is there.

    Parameters
    ----------
    dataset : Dataset
        Histories and catalogue decide the weights; titles do not.
    seed : int
        Draws initial weights, order of users and dropout.
    device : str
        Where it is trained and returned. On the CPU the same seed gives the same weights.
    training : TrainingConfig, optional
        The published settings when left out.

    Returns
    -------
    SASRec
        In evaluation mode; ``.revision`` is a short SHA-256 of its weights.
    """
    training = training or TrainingConfig()
    config = SASRecConfig(n_items=dataset.n_items)
    key = training_key(SASRec.name, log_fingerprint(dataset), config, training, seed)
    folder = checkpoint_folder(SASRec.name, key)
    model = load_checkpoint(SASRec, folder)
    if model is None:
        logger.info("Training %s on %s with seed %d; kept in %s.", SASRec.name, dataset.name, seed, folder)
        model = SASRec(config, seed=seed).to(device)
        record = train(model, dataset, training, seed=seed)
        save_checkpoint(model, record, training, folder)
    return model.to(device)


def sasrec_item_table(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> npt.NDArray[np.float32]:
    """Return the item embeddings of the trained SASRec, (n_items, 50) float32."""
    table = trained_sasrec(dataset, seed=seed, device=device).item_embeddings()
    return table.detach().cpu().numpy().astype(np.float32, copy=True)


def id_item_table(
    dataset: Dataset, source: str = "id", *, seed: int = 0, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """Return ID embeddings of a plug-in in the group ``spectral_probe.inputs``, (n_items, d_id) float32.

    Raises
    ------
    ConfigError
        If no plug-in has the name.
    ShapeError
        If it does not give one vector for each item.
    """
    vectors = np.asarray(load_plugin("inputs", source)(dataset, seed=seed, device=device), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != dataset.n_items:
        raise ShapeError(
            f"ID embeddings must be ({dataset.n_items}, d_id), one row for each item; {source!r} gave {vectors.shape}."
        )
    return vectors


def text_item_table(dataset: Dataset, backbone: HFDecoder) -> npt.NDArray[np.float32]:
    """Return every item's title as a backbone reads it, (n_items, d_model) float32, from the cache where it is there.

    Parameters
    ----------
    dataset : Dataset
        With titles.
    backbone : HFDecoder
        As it was loaded: nothing may be attached to it yet.

    Raises
    ------
    DataError
        If the data set has no titles.

    Notes
    -----
    Source: FreLLM4Rec section 3, e_text of Eq. (2); see :func:`spectral_probe.item_inputs.text_inputs`. Kept under a
    hash of the backbone's weights and the titles.
    """
    if dataset.item_titles is None:
        raise DataError(f"Data set {dataset.name!r} has no item titles, so there is no text to read. Use inputs=id.")
    content = [_READING_VERSION, backbone.revision, str(backbone.dtype), list(dataset.item_titles)]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
    path = cache_root() / "text" / f"{key}.npy"
    if path.is_file():
        try:
            kept = np.load(path, allow_pickle=False)
            if np.shape(kept) != (dataset.n_items, backbone.width):
                raise ValueError(f"shape {np.shape(kept)}, not {(dataset.n_items, backbone.width)}")
            return np.asarray(kept, dtype=np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"The text embeddings in {path} are damaged ({error}). Delete the file.") from error
    logger.info("Reading %d titles with %s; kept in %s.", dataset.n_items, backbone.name, path)
    table = text_inputs(backbone, dataset.item_titles)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, table)
    os.replace(partial, path)
    return table
