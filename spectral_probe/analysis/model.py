"""Build the model and its item inputs from the names and options that a user gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.requests import check_id_inputs, check_options, check_plugin, titles_of
from spectral_probe.backbones import HFDecoder, LayeredModel, load_backbone
from spectral_probe.backbones.devices import parse_device
from spectral_probe.backbones.protocol import refuse_without_layers
from spectral_probe.errors import ConfigError
from spectral_probe.inputs.item_vectors import id_inputs, joint_inputs, scaled_inputs, text_inputs
from spectral_probe.inputs.vector_files import read_embeddings
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.registry import load_plugin, plugin_names
from spectral_probe.plugins.saved_models import find_saved_model


def resolve_model(model: str | nn.Module | LayeredModel, dataset: Dataset, options: AnalysisOptions) -> LayeredModel:
    """Return the layered model for a name or an object.

    Raises
    ------
    ConfigError, DataError, ModelError, MissingDependencyError
        See :func:`spectral_probe.backbones.load_backbone`, :func:`spectral_probe.plugins.registry.load_plugin` and
        :class:`spectral_probe.plugins.saved_models.SavedModel`.
    """
    check_options(model, options)
    if isinstance(model, str):
        if model in plugin_names("models"):
            check_plugin(model, dataset, options)
            device = "cpu" if options.device == "auto" else options.device
            plugin_model: LayeredModel = load_plugin("models", model)(dataset, seed=options.seed, device=device)
            return plugin_model
        saved = find_saved_model(model)
        if saved is not None:
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
    refuse_without_layers(model)
    if isinstance(model, LayeredModel):
        return model
    if isinstance(model, nn.Module) and hasattr(model, "config"):
        return HFDecoder(model)
    raise ConfigError(
        f"A model must be a name, a Hugging Face decoder, or have name, is_causal, layers() and forward_sequences(); "
        f"got {type(model).__name__}, which lacks "
        f"{[a for a in ('name', 'is_causal', 'layers', 'forward_sequences') if not hasattr(model, a)]}."
    )


@dataclass(frozen=True)
class GivenInputs:
    """What a model reads.

    Attributes
    ----------
    name : str
        In the output: ``own``, ``id``, ``text``, ``id+text`` or ``file:NAME``.
    is_by_position : bool
        Whether vectors came without ids, so that row i was taken as that of item i.
    """

    name: str
    is_by_position: bool = False


def give_inputs(model: LayeredModel, dataset: Dataset, options: AnalysisOptions) -> GivenInputs:
    """Set the item vectors of a language model; a model with its own item table is unchanged.

    Raises
    ------
    ConfigError, DataError
        If the vectors cannot be loaded or computed, or do not fit the model.
    """
    if not isinstance(model, HFDecoder):
        return GivenInputs("own")
    if options.embeddings is not None:
        path = Path(options.embeddings).expanduser()
        vectors, is_by_position = read_embeddings(path, dataset.n_items, item_ids=dataset.item_ids)
        model.set_item_embeddings(scaled_inputs(model, vectors, seed=options.seed))
        return GivenInputs(f"file:{path.name}", is_by_position)
    if options.inputs != "text":
        check_id_inputs(dataset, options, model.width)
    if options.inputs == "id":
        table = id_inputs(model, _id_vectors(dataset, options), seed=options.seed)
    elif options.inputs == "text":
        table = text_inputs(model, titles_of(dataset))
    else:
        table = joint_inputs(model, _id_vectors(dataset, options), titles_of(dataset), seed=options.seed)
    model.set_item_embeddings(table)
    return GivenInputs(options.inputs)


def _id_vectors(dataset: Dataset, options: AnalysisOptions) -> npt.NDArray[np.float32]:
    device = "cpu" if options.device == "auto" else options.device
    vectors = load_plugin("inputs", "id")(dataset, seed=options.seed, device=device)
    return np.asarray(vectors, dtype=np.float32)


def revision_of(model: Any) -> str:
    """Return the attribute ``revision`` that identifies a model's weights; an empty string if it has none."""
    return str(getattr(model, "revision", "") or "")
