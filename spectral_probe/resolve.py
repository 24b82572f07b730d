"""From the names a user gives to the objects they stand for: data set, model, item inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from spectral_probe.backbones import HFDecoder, LayeredModel, load_backbone
from spectral_probe.backbones.places import parse_device
from spectral_probe.embedding_files import load_embeddings
from spectral_probe.errors import ConfigError, DataError, did_you_mean
from spectral_probe.interactions import Dataset, Interactions
from spectral_probe.item_inputs import id_inputs, joint_inputs, scaled_inputs, text_inputs
from spectral_probe.options import AnalysisOptions
from spectral_probe.registry import load_plugin, plugin_names
from spectral_probe.saved_models import find_saved_model


def resolve_dataset(dataset: str | Dataset | pd.DataFrame, from_dir: Path | None = None) -> Dataset:
    """Return the data set that a name, a file or a table stands for.

    Parameters
    ----------
    dataset : str, Dataset or DataFrame
        ``name`` or ``name:argument`` of a data-set plug-in; the path of a file that the ``table`` plug-in reads; a
        table with the columns ``user_id``, ``item_id``, ``timestamp`` and, if there are titles, ``title``.
    from_dir : Path, optional
        Where the raw files of a named data set lie.

    Raises
    ------
    ConfigError
        If no plug-in has the name.
    DataError
        If the data are missing, malformed or empty.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, pd.DataFrame):
        log = Interactions.from_frame(dataset)
        titles = None
        if "title" in dataset.columns:
            by_item = dataset.drop_duplicates("item_id").set_index("item_id")["title"].fillna("").astype(str)
            titles = [str(by_item[item]) for item in log.item_ids]
        return Dataset.from_interactions(log, item_titles=titles, name="frame")
    known = plugin_names("datasets")
    name, _, argument = dataset.partition(":")
    if name in known:
        found = load_plugin("datasets", name)(argument or None, from_dir=from_dir)
    elif Path(dataset).expanduser().is_file():
        found = load_plugin("datasets", "table")(str(Path(dataset).expanduser()), from_dir=from_dir)
    elif Path(dataset).suffix or "/" in dataset:
        raise DataError(f"There is no file {dataset!r}. Give a file, or one of the data sets {known}.")
    else:
        raise ConfigError(
            f"Unknown data set {dataset!r}; known: {known}.{did_you_mean(name, known)} A file is fine too."
        )
    if not isinstance(found, Dataset):
        raise DataError(f"The data-set plug-in {name!r} must return a Dataset; got {type(found).__name__}.")
    return found


def resolve_model(model: str | nn.Module | LayeredModel, dataset: Dataset, options: AnalysisOptions) -> LayeredModel:
    """Return the layered model that a name or an object stands for.

    Raises
    ------
    ConfigError, DataError, ModelError, MissingDependencyError
        See :func:`spectral_probe.backbones.load_backbone`, :func:`spectral_probe.registry.load_plugin` and
        :class:`spectral_probe.saved_models.SavedModel`.
    """
    if isinstance(model, str):
        if model in plugin_names("models"):
            device = "cpu" if options.device == "auto" else options.device
            plugged: LayeredModel = load_plugin("models", model)(dataset, seed=options.seed, device=device)
            return plugged
        saved = find_saved_model(model)
        if saved is not None:
            _refuse_options_of_checkpoints(model, options)
            return saved.load(dataset, str(parse_device(options.device)))
        return load_backbone(
            model,
            device=options.device,
            dtype=options.dtype,
            revision=options.revision,
            adapter=options.adapter,
            device_map=options.device_map,
            quantize=options.quantize,
            trust_remote_code=options.trust_remote_code,
            allow_pickle=options.allow_pickle,
        )
    if isinstance(model, LayeredModel):
        return model
    if isinstance(model, nn.Module) and hasattr(model, "config"):
        return HFDecoder(model)
    raise ConfigError(
        f"A model must be a name, a Hugging Face decoder, or have name, is_causal, layers() and forward_sequences(); "
        f"got {type(model).__name__}, which lacks "
        f"{[a for a in ('name', 'is_causal', 'layers', 'forward_sequences') if not hasattr(model, a)]}."
    )


def _refuse_options_of_checkpoints(model: str, options: AnalysisOptions) -> None:
    """A saved model brings its inputs, its number type and its weights; what would change them is refused."""
    default = AnalysisOptions()
    for name in ("inputs", "embeddings", "dtype", "revision", "adapter", "device_map", "quantize"):
        if getattr(options, name) != getattr(default, name):
            raise ConfigError(
                f"A saved model is probed as it was saved, and {name} is for language models; got "
                f"{name}={getattr(options, name)!r} for {model!r}. Leave it out, or probe the two in runs of their own."
            )


def give_inputs(model: LayeredModel, dataset: Dataset, options: AnalysisOptions) -> str:
    """Give a language model its item vectors; return what outputs call them.

    A model with an item table of its own keeps it (``own``).

    Raises
    ------
    ConfigError, DataError
        If the vectors cannot be had or do not fit the model.
    """
    if not isinstance(model, HFDecoder):
        return "own"
    if options.embeddings is not None:
        path = Path(options.embeddings).expanduser()
        vectors = load_embeddings(path, dataset.n_items, item_ids=dataset.item_ids)
        model.set_item_embeddings(scaled_inputs(model, vectors, seed=options.seed))
        return f"file:{path.name}"
    if options.inputs == "id":
        table = id_inputs(model, _id_vectors(dataset, options), seed=options.seed)
    elif options.inputs == "text":
        table = text_inputs(model, _titles(dataset))
    else:
        table = joint_inputs(model, _id_vectors(dataset, options), _titles(dataset), seed=options.seed)
    model.set_item_embeddings(table)
    return options.inputs


def _id_vectors(dataset: Dataset, options: AnalysisOptions) -> npt.NDArray[np.float32]:
    device = "cpu" if options.device == "auto" else options.device
    vectors = load_plugin("inputs", "id")(dataset, seed=options.seed, device=device)
    return np.asarray(vectors, dtype=np.float32)


def _titles(dataset: Dataset) -> list[str]:
    if dataset.item_titles is None:
        raise DataError(
            f"Data set {dataset.name!r} has no item titles, which text inputs are made from. "
            "Use --inputs id, or give vectors with --embeddings FILE."
        )
    return dataset.item_titles


def revision_of(model: Any) -> str:
    """Return what identifies the weights of a model, as far as the model says."""
    return str(getattr(model, "revision", "") or "")
