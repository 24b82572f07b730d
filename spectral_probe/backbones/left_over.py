"""Weights in a checkpoint that no module of the model has taken: refused, expected, or named in the run.

transformers leaves out what a configuration has no module for, and warns. A model without it is another model where the
tensor belongs to a block, to a further block, or to a module that the body has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from spectral_probe.errors import ModelError
from spectral_probe.storage.reading import read_json

#: Outside the blocks: heads and poolers, which are not part of the body that is probed.
HEADS = re.compile(r"(lm_head|embed_out|output_projection|cls|pooler)\.")
#: Anywhere: buffers that older versions of transformers saved, and that are computed today.
BUFFERS = re.compile(r"(^|\.)(inv_freq|original_inv_freq|position_ids|token_type_ids|masked_bias|embed_positions)$")
#: Causal masks of GPT-2 and its relatives, saved under the name of a bias; a bias has one axis, a mask has four.
_MASK = re.compile(r"(^|\.)(attn|attention|crossattention)\.(bias|causal_mask)$")
_MASK_AXES = 4
_INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")
#: Prefix of the names in a checkpoint whose adapter was not merged.
_ADAPTED = "base_model.model."
#: Names in the error; the rest are counted.
_SHOWN = 3
_STEP = "Correct config.json, or save the model again with save_pretrained()."


def stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in a safetensors file; only its header is read.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The weights in {str(file)!r} cannot be read: {error}. Download the file again, or save the model again."
        ) from error


def refuse_integers(folder: Path, config: Any) -> None:
    """Refuse weights that are stored as integers where the configuration does not say how they were rounded.

    Raises
    ------
    ModelError
    """
    from safetensors import safe_open

    if getattr(config, "quantization_config", None) is not None:
        return
    for file in weight_files(folder)[0]:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                part = stored.get_slice(name)
                if len(part.get_shape()) > 1 and part.get_dtype() in _INTEGERS and not BUFFERS.search(name):
                    raise ModelError(
                        f"{name} in {str(file)!r} is stored as {part.get_dtype()}, and config.json has no "
                        "quantization_config that says how. Restore it, or save the model in floating point."
                    )


def weight_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the safetensors files of a folder that transformers reads as its weights, and the others."""
    present = sorted(folder.glob("*.safetensors"))
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    names = {whole.name}
    if not whole.is_file() and index.is_file():
        try:
            names = {Path(name).name for name in read_json(index, {"weight_map": {str: str}})["weight_map"].values()}
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{index} must name the file of each weight; it cannot be read ({type(error).__name__}: {error}). "
                "Download the folder again."
            ) from error
    return [file for file in present if file.name in names], [file for file in present if file.name not in names]


def check_left_over(
    model: nn.Module, blocks: str, unexpected: Collection[str], folder: Path | None, source: str
) -> tuple[str, ...]:
    """Refuse a checkpoint with weights of the body that the model has not taken; return what else was left out.

    Parameters
    ----------
    model : PreTrainedModel
        The body as it was read.
    blocks : str
        Path of its list of blocks.
    unexpected : collection of str
        Names that transformers reports; it leaves out those on a list of its own, which are looked up in the files.
    folder : Path or None
        Where its files are; None if they are not safetensors.
    source : str
        The model in the error.

    Returns
    -------
    tuple of str
        Tensors and files that were left out, apart from :data:`HEADS` and :data:`BUFFERS`.

    Raises
    ------
    ModelError
        If a tensor belongs to a block, to a further block or to a module of the body, or two have one name.
    """
    body = _Body(model, blocks)
    shapes: dict[str, tuple[int, ...]] = {}
    unread: list[Path] = []
    if folder is not None:
        files, unread = weight_files(folder)
        stored = [(name, shape) for file in files for name, shape in stored_shapes(file).items()]
        body.refuse_twins([name for name, _ in stored], source)
        shapes = dict(stored)
    names = {*unexpected, *(name for name in shapes if body.is_muted(name) and body.is_missed(name))}
    left = [name for name in sorted(names, key=_natural) if not body.is_expected(name, shapes.get(name))]
    further = [name for file in unread for name in _readable(file) if body.is_further(name)]
    body.refuse([*filter(body.is_part, left), *further], source)
    return (*left, *(file.name for file in unread))


def _readable(file: Path) -> list[str]:
    """Return the names in a file that nobody reads; none if it is damaged."""
    try:
        return list(stored_shapes(file))
    except ModelError:
        return []


def check_headers(model: nn.Module, blocks: str, folder: Path) -> None:
    """Refuse, before any weights are read, a folder whose files hold what :func:`check_left_over` would refuse.

    Parameters
    ----------
    model : PreTrainedModel
        The body that the configuration describes, without values. A tensor that transformers may rename or merge is
        not judged: only further blocks, and tensors of a module that the body has.
    blocks, folder
        See :func:`check_left_over`.

    Raises
    ------
    ModelError
    """
    body = _Body(model, blocks)
    stored = [(name, shape) for file in weight_files(folder)[0] for name, shape in stored_shapes(file).items()]
    body.refuse_twins([name for name, _ in stored], str(folder))
    missed = [name for name, shape in stored if body.is_missed(name) and not body.is_expected(name, shape)]
    body.refuse(sorted(missed, key=_natural), str(folder))


def check_in_memory(model: nn.Module, blocks: str, folder: Path) -> None:
    """Refuse a model in memory that lacks further blocks, or biases, of the weights that it was read from.

    Parameters
    ----------
    model : PreTrainedModel
        Modules that have replaced others, of an adapter or of quantised weights, are not judged.
    blocks : str
        Path of its list of blocks.
    folder : Path
        Where it was read from.

    Raises
    ------
    ModelError
    """
    body = _Body(model, blocks)
    files, _ = weight_files(folder)
    missed = [name for file in files for name in _readable(file) if body.is_further(name) or body.is_switched_off(name)]
    step = "Read it with a correct configuration; if it was cut on purpose, say so with model.config.name_or_path = ''."
    body.refuse(sorted(missed, key=_natural), str(folder), step)


def inactive_adapters(model: Any) -> tuple[str, ...]:
    """Return the adapters in a model in memory that its forward pass leaves out.

    Raises
    ------
    ModelError
        If an adapter feeds vectors beside the items (prompt or prefix tuning), or all adapters are switched off.
    """
    configs: Any = getattr(model, "peft_config", None) or {}
    for name, config in configs.items():
        if getattr(config, "is_prompt_learning", False):
            raise ModelError(
                f"An adapter must be in the blocks of its model; {name!r} is of type {config.peft_type.value} and "
                "feeds vectors beside the items, so it would be left out. Probe the model without it "
                "(get_base_model())."
            )
    layers: list[Any] = [part for part in getattr(model, "modules", tuple)() if hasattr(part, "merged_adapters")]
    names = {
        name for layer in layers for name in getattr(layer, "adapter_layer_names", ()) for name in getattr(layer, name)
    }
    active = {name for layer in layers if not layer.disable_adapters for name in layer.active_adapters}
    active |= {name for layer in layers for name in layer.merged_adapters}
    if names and not names & active:
        raise ModelError(
            f"The adapters {sorted(names)} of this model are switched off, so it would be probed without them. Switch "
            "them on (enable_adapter_layers()), or take them out (unload())."
        )
    return tuple(sorted(names - active))


#: Old or parametrised names of a weight, which transformers gives their present names.
_RENAMED = re.compile(r"\.(gamma|beta|weight_g|weight_v)$")


class _Body:
    """Names in a model, and where a stored tensor that it has not taken would belong."""

    def __init__(self, model: nn.Module, blocks: str) -> None:
        self.blocks = blocks
        self.n_blocks = len(model.get_submodule(blocks))  # type: ignore[arg-type]
        self.prefix = f"{getattr(model, 'base_model_prefix', '')}."
        self.modules = {name: module for name, module in model.named_modules() if name}
        self.tensors = set(model.state_dict())
        self.config: Any = getattr(model, "config", None)
        muted: Collection[str] = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
        self._muted = [re.compile(pattern) for pattern in muted]
        self._in_block = re.compile(rf"{re.escape(blocks)}\.(\d+)\.")

    def name(self, stored: str) -> str:
        """Return the name of a stored tensor in the body: without the body's own name under a head."""
        stored = stored.removeprefix(_ADAPTED)
        return stored.removeprefix(self.prefix) if self.prefix != "." else stored

    def is_muted(self, stored: str) -> bool:
        """Tell whether transformers does not report this tensor where the model has not taken it."""
        return any(pattern.search(f"{self.prefix}{self.name(stored)}") for pattern in self._muted)

    def block_of(self, stored: str) -> int | None:
        """Return the number of the block, from 0, that a tensor is in; None for one outside the list of blocks."""
        match = self._in_block.match(self.name(stored))
        return int(match.group(1)) if match else None

    def is_further(self, stored: str) -> bool:
        """Tell whether a tensor is of a block after the last, and not of one that predicts further tokens."""
        block = self.block_of(stored)
        n_predictors = int(getattr(self.config, "num_nextn_predict_layers", 0) or 0)
        return block is not None and block >= self.n_blocks + n_predictors

    def is_part(self, stored: str) -> bool:
        """Tell whether a tensor belongs to a block, to a further block or to a module of the body."""
        block = self.block_of(stored)
        if block is not None:
            return block < self.n_blocks or self.is_further(stored)
        return self.name(stored).rpartition(".")[0] in self.modules

    def is_missed(self, stored: str) -> bool:
        """Tell, without a report, whether no module takes a tensor; one that may be renamed or merged is not judged."""
        name = self.name(stored)
        is_leaf = name.rpartition(".")[0] in self.modules and not _RENAMED.search(name)
        return name not in self.tensors and (is_leaf or self.is_further(stored))

    def is_switched_off(self, stored: str) -> bool:
        """Tell whether a tensor is one that its module can have and was made without, such as a bias."""
        owner, _, leaf = self.name(stored).rpartition(".")
        return owner in self.modules and getattr(self.modules[owner], leaf, self) is None

    def is_expected(self, stored: str, shape: tuple[int, ...] | None) -> bool:
        """Tell whether a tensor may be left out without a word."""
        name = self.name(stored)
        is_mask = _MASK.search(name) is not None and shape is not None and len(shape) == _MASK_AXES
        return is_mask or BUFFERS.search(name) is not None or HEADS.match(name) is not None

    def refuse_twins(self, stored: Iterable[str], source: str) -> None:
        """Raise ModelError if two stored tensors have one name in the body: only the last would be read."""
        counts = Counter(self.name(name) for name in stored if not self.is_expected(name, None))
        twice = sorted((name for name, n in counts.items() if n > 1), key=_natural)
        if twice:
            raise ModelError(
                f"Each weight is stored once; {source!r} holds {len(twice)} of them twice, with and without "
                f"{self.prefix!r} before the name or in two files (first: {', '.join(twice[:_SHOWN])}). Only one of "
                "the two would be read. Save the model again with save_pretrained()."
            )

    def refuse(self, names: list[str], source: str, step: str = _STEP) -> None:
        """Raise ModelError that names tensors which the model has not taken, if there are any."""
        if not names:
            return
        n_stored = max((block + 1 for name in names if (block := self.block_of(name)) is not None), default=0)
        why = "Without them it would be another model."
        if n_stored > self.n_blocks:
            why = f"It describes {self.n_blocks} blocks, and there are weights of block {n_stored}."
        rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ModelError(
            f"The weights in {source!r} do not fit the model that config.json describes: no part of it takes "
            f"{len(names)} of them ({', '.join(names[:_SHOWN])}{rest}). {why} {step}"
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts block 2 before block 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
