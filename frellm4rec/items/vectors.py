"""Item vectors for a recommender: ID embeddings of a plug-in, and titles encoded by a backbone."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import DataError, ShapeError
from spectral_probe.inputs.item_vectors import text_inputs
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.registry import load_plugin
from spectral_probe.storage.atomic import whole_file
from spectral_probe.storage.cache import cache_root, only_a_cache
from spectral_probe.storage.hashing import settings_hash

logger = logging.getLogger(__name__)
#: Increased whenever the same model would give other vectors for the same titles.
_READING_VERSION = 1


def id_item_table(
    dataset: Dataset, source: str = "id", *, seed: int = 0, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """Return ID embeddings of a plug-in in the group ``spectral_probe.inputs``, (n_items, d_id) float32.

    Parameters
    ----------
    dataset : Dataset
    source : str
        Name of the plug-in, or ``NAME:ARGUMENT``: ``id``, or ``model:bsarec`` for the item table of a registered model.
    seed, device
        Of the training, where there is one.

    Raises
    ------
    ConfigError
        If no plug-in has the name.
    ShapeError
        If it does not give one vector for each item.
    """
    name, _, argument = source.partition(":")
    named = {"argument": argument} if argument else {}
    vectors = np.asarray(load_plugin("inputs", name)(dataset, seed=seed, device=device, **named), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != dataset.n_items:
        raise ShapeError(
            f"ID embeddings must be ({dataset.n_items}, d_id), one row for each item; {source!r} gave {vectors.shape}."
        )
    return vectors


def text_item_table(dataset: Dataset, backbone: HFDecoder) -> npt.NDArray[np.float32]:
    """Return the vector of every item's title from a backbone, (n_items, d_model) float32; cached.

    Parameters
    ----------
    dataset : Dataset
        With titles.
    backbone : HFDecoder
        As it was loaded; no filter may be attached to it yet.

    Raises
    ------
    DataError
        If the data set has no titles.

    Notes
    -----
    Source: FreLLM4Rec section 3, e_text of Eq. (2); see :func:`~spectral_probe.inputs.item_vectors.text_inputs`. The
    cache key is a hash of the backbone's weights and the titles.
    """
    if dataset.item_titles is None:
        raise DataError(f"Data set {dataset.name!r} has no item titles, so there is no text to read. Use inputs=id.")
    return title_vectors(list(dataset.item_titles), backbone)


def distinct_titles(dataset: Dataset) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the distinct titles of a data set, and which of them each item has, (n_items,) int.

    An item without a title has the number of titles; how many there are is logged.

    Raises
    ------
    DataError
        If no item has a title.
    """
    titles = [title.strip() for title in dataset.item_titles or ()]
    distinct = [title for title in dict.fromkeys(titles) if title]
    if not distinct:
        raise DataError(
            f"Data set {dataset.name!r} has no item titles, so there is no text to read. Use a model that reads ids, "
            "such as sasrec, or a data set with titles."
        )
    n_empty = sum(not title for title in titles)
    if n_empty:
        logger.warning("%d of %d items have no title; they get the mean vector.", n_empty, len(titles))
    row_of = {title: row for row, title in enumerate(distinct)}
    return distinct, np.array([row_of.get(title, len(distinct)) for title in titles], dtype=np.int64)


def title_vectors(titles: list[str], backbone: HFDecoder) -> npt.NDArray[np.float32]:
    """Return the vectors of titles from a backbone, (n_titles, d_model) float32; cached as in :func:`text_item_table`.

    Raises
    ------
    DataError
        If the cached file is damaged.
    """
    content = [_READING_VERSION, backbone.revision, str(backbone.dtype), titles]
    key = settings_hash(content)[:24]
    path = cache_root() / "text" / f"{key}.npy"
    if path.is_file():
        try:
            cached = np.load(path, allow_pickle=False)
            if np.shape(cached) != (len(titles), backbone.width):
                raise ValueError(f"shape {np.shape(cached)}, not {(len(titles), backbone.width)}")
            return np.asarray(cached, dtype=np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"The text embeddings in {path} are damaged ({error}). Delete the file.") from error
    logger.info("Reading %d titles with %s; kept in %s.", len(titles), backbone.name, path)
    table = text_inputs(backbone, titles)
    with only_a_cache(path), whole_file(path) as partial:
        np.save(partial, table)
    return table
