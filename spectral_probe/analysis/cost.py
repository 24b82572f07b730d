"""The expected cost of a capture, from the configuration of a model alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from spectral_probe.analysis.captures import analysis_bytes, capture_names, check_memory
from spectral_probe.analysis.captures import n_treated as treated_of
from spectral_probe.analysis.measurable import check_measurable, probe_of
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.requests import (
    check_id_inputs,
    check_language_model,
    check_options,
    check_plugin,
    check_saved,
    has_own_code,
)
from spectral_probe.backbones import LayeredModel
from spectral_probe.backbones.aliases import TINY_CONFIG, Alias, known_aliases
from spectral_probe.backbones.architectures import KNOWN_CONFIGS, Architecture
from spectral_probe.backbones.devices import parse_device, parse_dtype
from spectral_probe.backbones.hub import locate
from spectral_probe.backbones.hub_access import HubAccess
from spectral_probe.backbones.hub_errors import failure
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.sequences import ProbeSequences
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.plugins.registry import plugin_names
from spectral_probe.plugins.saved_models import find_saved_model
from spectral_probe.recording.capture import selected_layers
from spectral_probe.recording.pilot import PILOT_POSITIONS

#: Resident bytes of Python, PyTorch and transformers without a model, measured on Linux with the CPU build.
RUNTIME_BYTES = 460 * 2**20
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


#: Quantities of a plan in the words of a table.
IN_WORDS = {
    "dataset": "data set",
    "n_users": "users",
    "family": "architecture",
    "n_layers": "blocks",
    "n_states": "recorded layers",
    "width": "features of a state",
    "n_parameters": "parameters",
    "weight_bytes": "weights, on disk and on the device",
    "max_length": "targets of the longest history",
    "batch_size": "users run together",
    "n_captures": "runs over all users",
    "is_by_prefix": "every prefix run on its own",
    "gram_bytes": "Grams, on disk and in memory",
    "forward_flops": "floating-point operations of the forward passes",
    "gram_flops": "floating-point operations of the Grams",
    "activation_bytes": "memory of a forward pass",
    "analysis_bytes": "memory of bases and energies",
    "peak_device_bytes": "peak memory of the device",
    "peak_host_bytes": "peak memory of the host, at most",
}


@dataclass(frozen=True)
class CapturePlan:
    """Sizes of a capture; every ``_bytes`` and ``_flops`` is an upper bound for histories of ``max_length`` targets.

    Attributes
    ----------
    model, source, family : str
        The given name, the repository or folder of that name, and the ``model_type``.
    n_layers, n_states : int
        Number of blocks of the model, and of recorded layers.
    width, n_parameters : int
        Width and number of parameters of the body, without a head.
    dtype, device : str
    weight_bytes : int
    n_users, max_length, batch_size : int
    n_captures : int
        Number of runs over all users: one, and one more for each control that runs the model again.
    is_by_prefix : bool
        Whether every prefix of a history is run as a separate sequence.
    gram_bytes : int
        Grams of all captures, plain and treated, in memory; on disk, each shard is cut to its longest sequence.
    forward_flops, gram_flops : int
        Multiplications and additions of the forward passes, and of the reduction of the states to Grams.
    activation_bytes : int
        Memory of a forward pass on one batch, without the weights.
    analysis_bytes : int
        Bases and energies computed from the Grams, in float64.
    peak_device_bytes, peak_host_bytes : int
        Expected peaks of required memory. On the CPU the first is part of the second; for another device the weights
        are read through main memory. A process monitor also counts the mapped pages of the checkpoint's file; the
        operating system reclaims them when memory is short.
    """

    model: str
    source: str
    family: str
    n_layers: int
    n_states: int
    width: int
    n_parameters: int
    dtype: str
    device: str
    weight_bytes: int
    n_users: int
    max_length: int
    batch_size: int
    n_captures: int
    is_by_prefix: bool
    gram_bytes: int
    forward_flops: int
    gram_flops: int
    activation_bytes: int
    analysis_bytes: int
    peak_device_bytes: int
    peak_host_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per quantity: ``quantity``, ``value``, and ``text`` with a unit for people."""
        rows = [
            {"quantity": name, "value": value, "text": _text(name, value)} for name, value in self.to_dict().items()
        ]
        return pd.DataFrame(rows).astype({"value": object})


def plan(
    model: str | Mapping[str, Any] | Any,
    n_users: int,
    max_length: int = 50,
    *,
    batch_size: int = 32,
    dtype: str = "auto",
    device: str = "auto",
    quantize: Literal["8bit"] | None = None,
    revision: str | None = None,
    layers: Sequence[str] | None = None,
    n_captures: int = 1,
    n_treated: int = 0,
    prefixes: bool | Literal["auto"] = "auto",
    n_items: int = 0,
) -> CapturePlan:
    r"""Return what a capture will take, before any weights are fetched or read.

    .. math:: \mathrm{FLOPs} = 2 W t + 4 N_b T a t, \quad t = n_u T

    with W matrix entries in all blocks, :math:`N_b` blocks and attention width a: a multiplication and an addition for
    each entry and position, and scores and sums over T positions. Embedding tables are looked up, not multiplied; of a
    stack of experts, those that a router takes for a position count.

    Parameters
    ----------
    model : str, mapping or PretrainedConfig
        An alias, a folder, a hub repository, or a configuration. Built-in aliases need no network.
    n_users, max_length : int
        Histories, and targets of the longest.
    batch_size, dtype, device, quantize, revision, layers, prefixes
        As in :func:`spectral_probe.recording.capture.capture` and :func:`spectral_probe.backbones.load_backbone`.
    n_captures : int
        1, and one more for each control that runs the model again.
    n_treated : int
        How many of them record treated states too: as many Grams again, and a pilot that is run first.
    n_items : int
        Rows of the table of item vectors held beside the model.

    Raises
    ------
    ConfigError
        If a number is not positive, ``max_length`` exceeds the model's positions, or it has no layer of a name.
    ModelError
        If the model is absent, not reachable, or not a decoder.
    """
    _check_positive(n_users=n_users, max_length=max_length, batch_size=batch_size)
    label, source, sizes, wanted = _resolve(model, revision)
    _check_positions(label, sizes, max_length)
    torch_device = parse_device(device)
    torch_dtype = parse_dtype(wanted if dtype == "auto" and wanted else dtype)
    dtype_name = str(torch_dtype or (sizes.dtype if torch_device.type != "cpu" else "float32")).removeprefix("torch.")
    size = _BYTES.get(dtype_name, 4)
    by_prefix = (not sizes.is_causal) if prefixes == "auto" else bool(prefixes)
    n_states = len(selected_layers(label, *_layers(sizes), layers))
    weights = _weights(sizes, size, quantize)
    n_grams = (n_captures + n_treated) * n_users * n_states * max_length**2
    n_forwards = n_captures * n_users + n_treated * _pilot_users(n_users, max_length)
    activations = _activations(sizes, batch_size, max_length, size, n_states)
    analysis = analysis_bytes(n_users, max_length)
    device_bytes = weights + activations + n_items * sizes.width * size
    return CapturePlan(
        model=label,
        source=source,
        family=sizes.family,
        n_layers=sizes.n_blocks,
        n_states=n_states,
        width=sizes.width,
        n_parameters=sizes.n_parameters,
        dtype=dtype_name if quantize is None else f"{dtype_name}, blocks in {quantize}",
        device=torch_device.type,
        weight_bytes=weights,
        n_users=n_users,
        max_length=max_length,
        batch_size=batch_size,
        n_captures=n_captures,
        is_by_prefix=by_prefix,
        gram_bytes=4 * n_grams,
        forward_flops=_forward_flops(sizes, n_forwards, max_length, by_prefix=by_prefix),
        gram_flops=2 * n_grams * sizes.width,
        activation_bytes=activations,
        analysis_bytes=analysis,
        peak_device_bytes=device_bytes,
        peak_host_bytes=RUNTIME_BYTES
        + 4 * n_grams
        + analysis
        + (device_bytes if torch_device.type == "cpu" else weights),
    )


def _layers(sizes: Architecture) -> tuple[list[str], list[str]]:
    """Return the names and the states of the layers of a decoder."""
    blocks = range(1, sizes.n_blocks + 1)
    last = ["final_norm"] * (sizes.n_states - sizes.n_blocks - 1)
    return ["embed", *(f"block {i}" for i in blocks), *last], ["embed", *("block" for _ in blocks), *last]


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1; got {value}.")


def _check_positions(label: str, sizes: Architecture, max_length: int) -> None:
    if sizes.n_positions is not None and max_length > sizes.n_positions:
        raise ConfigError(
            f"{label!r} has {sizes.n_positions} positions; got max_length {max_length}. "
            f"Use --max-length {sizes.n_positions}."
        )


def _pilot_users(n_users: int, max_length: int) -> int:
    """Return the users of a pilot, whose histories are run twice."""
    return min(n_users, -(-PILOT_POSITIONS // max(max_length - 1, 1)))


def _weights(sizes: Architecture, size: int, quantize: str | None) -> int:
    """Return the bytes of the weights; quantised, the matrices of the blocks take one byte an entry."""
    if quantize is None:
        return sizes.n_parameters * size
    return sizes.n_matrix_weights + (sizes.n_parameters - sizes.n_matrix_weights) * size


def _forward_flops(sizes: Architecture, n_users: int, max_length: int, *, by_prefix: bool) -> int:
    """Return the floating-point operations of one capture; by prefix, every length up to the longest is run."""
    lengths = range(1, max_length + 1) if by_prefix else range(max_length, max_length + 1)
    tokens, pairs = n_users * sum(lengths), n_users * sum(length**2 for length in lengths)
    attention = sizes.n_heads * sizes.head_width
    return 2 * sizes.n_active_weights * tokens + 4 * sizes.n_blocks * attention * pairs


def _activations(sizes: Architecture, batch: int, T: int, size: int, n_states: int) -> int:
    """Return the peak bytes for one batch without weights: states, largest block activation, mask, Grams; no logits."""
    n_positions = batch * T
    attention = 4 * sizes.n_heads * sizes.head_width
    state = n_positions * size * (3 * sizes.width + max(4 * sizes.mlp_width, attention))
    scores = 2 * size * batch * sizes.n_heads * T**2
    return state + 4 * n_positions * sizes.width + scores + 4 * n_states * batch * T**2


def _resolve(model: Any, revision: str | None) -> tuple[str, str, Architecture, str | None]:
    """Return name, source, sizes, and the dtype of an alias, if it has one."""
    if not isinstance(model, str):
        sizes = Architecture.from_config(model)
        name = str(getattr(model, "name_or_path", "") or sizes.family)
        return name, name, sizes, None
    alias = known_aliases().get(model) or Alias("hub", model, "")
    if alias.kind == "random":
        return model, model, Architecture.from_config({"model_type": alias.target, **TINY_CONFIG}), alias.dtype
    if alias.target in KNOWN_CONFIGS and not Path(alias.target).is_dir():
        return model, alias.target, Architecture.from_config(KNOWN_CONFIGS[alias.target]), alias.dtype
    return model, alias.target, Architecture.from_config(_read_config(alias.target, revision)), alias.dtype


def _read_config(source: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    from spectral_probe.backbones.gguf_files import find_gguf, gguf_config
    from spectral_probe.backbones.loading import checked_folder, is_on_hub

    access = HubAccess()
    if (gguf := find_gguf(source)) is not None:
        return gguf_config(gguf)
    if is_on_hub(source):
        access = locate(source, revision)
    else:
        source = str(checked_folder(source))
    try:
        with access.reading():
            return AutoConfig.from_pretrained(
                source, revision=access.revision, local_files_only=access.local_files_only, trust_remote_code=False
            )
    except ModelError:
        raise
    except Exception as error:
        raise failure(source, error, access) from error


def _text(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if name.endswith("_flops"):
        return f"{value / 1e12:.3g} TFLOP"
    if name == "n_parameters":
        return f"{value / 1e9:.2f} billion" if value >= 1e9 else f"{value / 1e6:.2f} million"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def plan_analysis(
    model: str, dataset: str, options: AnalysisOptions, *, from_dir: Path | None = None
) -> list[dict[str, Any]]:
    """Return the cost of an analysis, without running or loading a language model; what the run refuses is refused.

    A saved recommender is loaded where its layers, or what a control needs of it, must be looked up.

    Returns
    -------
    list of {"quantity", "value", "text"}
        First the data set, the number of users and the captures; then, for a language model, its sizes (see
        :class:`CapturePlan`). A plug-in model and a saved model have no sizes, because their configuration is not known
        before they are loaded. What a plug-in will train first is in the row ``training``.

    Raises
    ------
    SpectralProbeError
        As :func:`spectral_probe.analysis.pipeline.run_analysis`, as far as it can be known.
    """
    data = resolve_dataset(dataset, from_dir)
    check_options(model, options)
    probe = probe_of(data, options)
    check_measurable(probe, data.train.user_items, options)
    captures = capture_names(options)
    if model in plugin_names("models"):
        rows, planned = check_plugin(model, data, options)
        text = f"{model} (plug-in, made for the data set before it is probed)"
        return [*_head(data, probe, options, planned), {"quantity": "model", "value": model, "text": text}, *rows]
    if (saved := find_saved_model(model)) is not None:
        loaded = check_saved(saved, data, options)
        row = {"quantity": "model", "value": model, "text": f"{model} (saved {saved.name} model)"}
        return [*_head(data, probe, options, loaded), row]
    head = _head(data, probe, options)
    if options.trust_remote_code and has_own_code(model):
        return [*head, {"quantity": "model", "value": model, "text": f"{model} (its sizes are known to its own code)"}]
    n_treated = treated_of(captures)
    sizes = plan(
        model,
        len(probe),
        probe.inputs.shape[1],
        batch_size=options.batch_size,
        dtype=options.dtype,
        device=options.device,
        quantize=options.quantize,
        revision=options.revision,
        layers=options.layers,
        n_captures=len(captures),
        n_treated=n_treated,
        prefixes=options.prefixes,
    )
    check_language_model(model, data, options, sizes.width)
    check_memory(len(probe), probe.inputs.shape[1], sizes.n_states, len(captures) + n_treated)
    if options.embeddings is None and options.inputs != "text":
        head += check_id_inputs(data, options, sizes.width)
    return [*head, *(row for row in sizes.to_frame().to_dict("records") if row["quantity"] != "n_users")]


def _head(
    data: Dataset, probe: ProbeSequences, options: AnalysisOptions, model: LayeredModel | None = None
) -> list[dict[str, Any]]:
    """Return the rows that every plan begins with; a model that was looked at tells whether it has its own graph."""
    names = capture_names(options, has_graph=getattr(model, "has_graph", False))
    rows = [("dataset", data.name), ("n_users", len(probe)), ("captures", ", ".join(names))]
    return [{"quantity": name, "value": value, "text": str(value)} for name, value in rows]
