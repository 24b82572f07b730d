"""What is checked of a request before anything is loaded: options that a model takes, layers, inputs, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spectral_probe.analysis.captures import check_captures
from spectral_probe.analysis.measurable import probe_of
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.backbones import HFDecoder, LayeredModel
from spectral_probe.backbones.adapters import check_adapter
from spectral_probe.backbones.aliases import known_aliases
from spectral_probe.backbones.architectures import meta_body
from spectral_probe.backbones.checkpoints import Reading
from spectral_probe.backbones.decoder import read_tokenizer
from spectral_probe.backbones.devices import parse_device, parse_dtype
from spectral_probe.backbones.gguf_files import find_gguf
from spectral_probe.backbones.hub_access import HubAccess
from spectral_probe.backbones.left_over import check_headers, refuse_integers
from spectral_probe.backbones.loading import check_packaged, is_on_hub
from spectral_probe.backbones.protocol import without_layers
from spectral_probe.backbones.weight_files import check_folder_weights
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.inputs.item_vectors import check_width
from spectral_probe.inputs.vector_files import load_embeddings
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.registry import load_plugin, plugin_names
from spectral_probe.plugins.saved_models import SavedModel, find_saved_model
from spectral_probe.storage.reading import read_json

_ANY = ("inputs", "embeddings", "dtype", "adapter")
_SPREAD = ("device_map", "quantize")
_FILES = ("trust_remote_code", "allow_pickle")
#: What each kind of model takes of the options that not every model takes.
TAKES: dict[str, tuple[str, ...]] = {
    "a plug-in": (),
    "a saved model": (),
    "a model in memory": (),
    "a language model in memory": ("inputs", "embeddings"),
    "a tiny model with random weights": _ANY,
    "a packaged model": _ANY,
    "a GGUF file": (*_ANY, *_SPREAD),
    "a folder": (*_ANY, *_SPREAD, *_FILES),
    "a repository": (*_ANY, *_SPREAD, *_FILES, "revision"),
}
#: Controls that some models cannot be run for, or that run those with a graph of their own again.
OF_THE_MODEL = ("random-weights", "exchanged-items", "split-graph")
NOT_FOR_ALL = TAKES["a repository"]


def kind_of(model: Any) -> str:
    """Return the key of :data:`TAKES` for a name or an object.

    Raises
    ------
    ConfigError, DataError, ModelError
        See :func:`spectral_probe.plugins.saved_models.find_saved_model`.
    """
    if not isinstance(model, str):
        is_decoder = isinstance(model, HFDecoder) or (isinstance(model, nn.Module) and _is_hugging_face(model))
        return "a language model in memory" if is_decoder else "a model in memory"
    if model in plugin_names("models"):
        return "a plug-in"
    if find_saved_model(model) is not None:
        return "a saved model"
    alias = known_aliases().get(model)
    if alias is not None and alias.kind in ("random", "packaged"):
        return "a packaged model" if alias.kind == "packaged" else "a tiny model with random weights"
    source = alias.target if alias is not None else model
    if (alias is None or alias.kind == "folder") and find_gguf(source) is not None:
        return "a GGUF file"
    return "a repository" if (alias is not None and alias.kind == "hub") or is_on_hub(source) else "a folder"


def _is_hugging_face(model: nn.Module) -> bool:
    """Tell whether a module is wrapped as a decoder, not probed by its own layers()."""
    return hasattr(model, "config") and not hasattr(model, "forward_sequences")


def check_options(model: Any, options: AnalysisOptions) -> None:
    """Refuse an option that would be ignored for this model.

    Raises
    ------
    ConfigError
    """
    kind = kind_of(model)
    for name in given_of(options):
        if name not in TAKES[kind]:
            raise _ignored(name, options, [(model, kind)])
    device = getattr(model, "device", None)
    if not isinstance(model, str) and options.device != "auto" and isinstance(device, torch.device):
        wanted = parse_device(options.device)
        if wanted.type != device.type or wanted.index not in (None, device.index):
            raise ConfigError(
                f"A model in memory is probed on the device that it is on, {device}; got device={options.device!r}. "
                "Move the model, or leave the device out."
            )


def options_by_model(models: Sequence[str], options: AnalysisOptions) -> list[AnalysisOptions]:
    """Return the options of each model of one command; what a model does not take has its default there.

    Raises
    ------
    ConfigError
        If no model of the command takes an option.
    """
    kinds = [kind_of(model) for model in models]
    for name in given_of(options):
        if not any(name in TAKES[kind] for kind in kinds):
            raise _ignored(name, options, list(zip(models, kinds, strict=True)))
    default = AnalysisOptions()
    left_out = [{n: getattr(default, n) for n in NOT_FOR_ALL if n not in TAKES[kind]} for kind in kinds]
    return [replace(options, **changes) for changes in left_out]


def given_of(options: AnalysisOptions) -> list[str]:
    """Return the options that not every model takes and that differ from their defaults."""
    default = AnalysisOptions()
    return [name for name in NOT_FOR_ALL if getattr(options, name) != getattr(default, name)]


def _ignored(name: str, options: AnalysisOptions, models: list[tuple[Any, str]]) -> ConfigError:
    listing = ", ".join(
        f"{model!r} is {kind}" if isinstance(model, str) else f"this is {kind}" for model, kind in models
    )
    takers = " or ".join(kind for kind, taken in TAKES.items() if name in taken)
    return ConfigError(
        f"{name} is for language models ({takers}), and would be ignored here; got {name}={getattr(options, name)!r}, "
        f"and {listing}. Leave it out, or name a model that takes it."
    )


def has_own_code(model: str) -> bool:
    """Whether a model is a folder whose configuration names code of its own."""
    alias = known_aliases().get(model)
    config = Path(alias.target if alias is not None else model).expanduser() / "config.json"
    try:
        return kind_of(model) == "a folder" and "auto_map" in read_json(config, {})
    except (OSError, ValueError):
        return False


def check_language_model(model: str, dataset: Dataset, options: AnalysisOptions, width: int) -> None:
    """Refuse, without loading it, a language model of this width whose files, adapter or inputs cannot be used.

    Raises
    ------
    SpectralProbeError
        As :func:`spectral_probe.backbones.load_backbone` and :func:`spectral_probe.analysis.model.give_inputs`.
    """
    alias, kind = known_aliases().get(model), kind_of(model)
    Reading(
        parse_dtype(options.dtype),
        parse_device(options.device),
        options.device_map,
        options.quantize,
        options.trust_remote_code,
        options.allow_pickle,
    )
    source = Path(alias.target if alias is not None else model).expanduser()
    if kind == "a packaged model":
        check_packaged(model)
    if kind == "a folder":
        check_folder_weights(source, allow_pickle=options.allow_pickle)
        if any(source.glob("*.safetensors")):
            body, blocks = meta_body(source)
            refuse_integers(source, body.config)
            check_headers(body, blocks, source)
    if (adapter := options.adapter or (alias.adapter if alias is not None else None)) is not None:
        check_adapter(adapter)
    if options.embeddings is not None:
        path = Path(options.embeddings).expanduser()
        check_width(load_embeddings(path, dataset.n_items, item_ids=dataset.item_ids).shape[1], width)
    elif "text" in options.inputs:
        titles_of(dataset)
        if kind in ("a folder", "a tiny model with random weights"):
            read_tokenizer(model, str(source) if kind == "a folder" else None, HubAccess(), options.trust_remote_code)


def check_id_inputs(dataset: Dataset, options: AnalysisOptions, width: int) -> list[dict[str, Any]]:
    """Refuse, before the model of the ID vectors is trained, vectors wider than the language model.

    Returns
    -------
    list of {"quantity", "value", "text"}
        The row of their training, if there will be one.

    Raises
    ------
    ConfigError, MissingDependencyError
    """
    rows, plan = _training_plan(load_plugin("inputs", "id"), dataset, options)
    if (n_features := plan.get("width")) is not None:
        check_width(n_features, width)
    return rows


def _training_plan(
    plugin: Any, dataset: Dataset, options: AnalysisOptions
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the row ``training`` of a plug-in that trains a model first, and its plan; both empty if it has none."""
    if not hasattr(plugin, "plan"):
        return [], {}
    plan = plugin.plan(dataset, seed=options.seed)
    text = plan["training"]
    return [{"quantity": "training", "value": text, "text": text}] if text else [], plan


def check_plugin(
    name: str, dataset: Dataset, options: AnalysisOptions
) -> tuple[list[dict[str, Any]], LayeredModel | None]:
    """Refuse, before a plug-in trains, layers and controls that it does not have and histories that it cannot read.

    Returns
    -------
    list of {"quantity", "value", "text"}
        The row of its training, if it will train.
    LayeredModel or None
        The model before its training, if the plug-in shows it.

    Raises
    ------
    ConfigError, ResourceError
    """
    rows, plan = _training_plan(load_plugin("models", name), dataset, options)
    model = plan.get("model")
    parse_device(options.device)
    if model is not None:
        probe = probe_of(dataset, options)
        check_captures(model, probe, options)
        _check_length(model.name, getattr(model.config, "max_length", None), probe.inputs.shape[1])
    return rows, model


def _check_length(name: str, longest: int | None, max_length: int) -> None:
    if longest is not None and max_length > longest:
        raise ConfigError(
            f"{name} reads at most {longest} items; got {max_length}. For a probe, use --max-length {longest}."
        )


def check_saved(saved: SavedModel, dataset: Dataset, options: AnalysisOptions) -> LayeredModel | None:
    """Refuse a saved model that cannot be probed on these data.

    It is loaded, and returned, only where the names of its layers or what its controls need must be looked up.

    Raises
    ------
    ConfigError, DataError, ModelError, MissingDependencyError, ResourceError
        See :class:`spectral_probe.plugins.saved_models.SavedModel`.
    """
    if reason := saved.why_no_layers():
        raise without_layers(saved.name, reason)
    saved.check_trained_on(dataset)
    probe = probe_of(dataset, options)
    _check_length(saved.name, saved.max_length, probe.inputs.shape[1])
    device = str(parse_device(options.device))
    if options.layers is None and not set(options.controls) & set(OF_THE_MODEL):
        return None
    model = saved.load(dataset, device)
    check_captures(model, probe, options)
    return model


def titles_of(dataset: Dataset) -> list[str]:
    """Return the titles of the items; DataError if there are none."""
    if dataset.item_titles is None:
        raise DataError(
            f"Data set {dataset.name!r} has no item titles, and text inputs are computed from titles. "
            "Use --inputs id, or give vectors with --embeddings FILE."
        )
    return dataset.item_titles
