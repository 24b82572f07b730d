"""The arguments of wrap(): names of modules, vectors, numbers of rows; what does not fit is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spectral_probe.errors import ConfigError, ShapeError, did_you_mean, listed


def paths_of(module: nn.Module, layers: Any) -> list[str]:
    """Return the names of the blocks; a list of modules stands for its elements.

    Raises
    ------
    ConfigError
        If ``layers`` is no sequence, names nothing or the same block twice, or the module has no such part.
    """
    if not isinstance(layers, str | nn.Module | Iterable):
        raise ConfigError(f"layers must be a sequence of names or modules; got {layers!r}. Known: {_known(module)}.")
    wanted = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    paths: list[str] = []
    for layer in wanted:
        path = path_of(module, layer, "layers")
        part = module.get_submodule(path)
        is_list = isinstance(part, nn.ModuleList)
        paths += [f"{path}.{child}" for child, _ in part.named_children()] if is_list else [path]
    if not paths:
        raise ConfigError(f"layers must name at least one module; got {layers!r}. Known: {_known(module)}.")
    if len(set(paths)) < len(paths):
        double = next(path for path in paths if paths.count(path) > 1)
        raise ConfigError(f"layers names {double!r} twice. Name each block once, in the order of computation.")
    return paths


def path_of(module: nn.Module, part: str | nn.Module, what: str) -> str:
    """Return the name of a part of a module.

    Raises
    ------
    ConfigError
        If the module has no such part.
    """
    if not isinstance(part, str | nn.Module):
        raise ConfigError(
            f"{what} must name a module by a text, or be a module; got {part!r}. Known: {_known(module)}."
        )
    names = {path: value for path, value in module.named_modules() if path}
    if isinstance(part, nn.Module):
        path: str | None = next((path for path, value in names.items() if value is part), None)
        if path is None:
            raise ConfigError(
                f"{what} must be a part of the module; this {type(part).__name__} is no part of "
                f"{type(module).__name__}. Known: {_known(module)}."
            )
        return path
    if part not in names:
        raise ConfigError(
            f"{what}: {type(module).__name__} has no module {part!r}.{did_you_mean(str(part), names)} "
            f"Known: {_known(module)}."
        )
    return str(part)


def _known(module: nn.Module) -> str:
    return listed(path for path, _ in module.named_modules() if path)


def whole_numbers(values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return numbers of rows as an array.

    Raises
    ------
    ShapeError
        If they are not one whole number from 0 for each item.
    ConfigError
        If they are no numbers.
    """
    array = _array(values, "item_rows")
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        seen = f", the smallest {array.min()}" if array.ndim and array.size and array.dtype.kind in "if" else ""
        raise ShapeError(
            f"item_rows must be whole numbers from 0, one for each item; got shape {array.shape} of "
            f"{array.dtype}{seen}."
        )
    return array.astype(np.int64)


def vectors_of(embed: Any) -> torch.Tensor:
    """Return an array of vectors as a tensor.

    Raises
    ------
    ShapeError
        If it is no (n_items, d) array of decimal numbers, or has no row.
    ConfigError
        If it holds anything but finite numbers.
    """
    table = embed.detach() if isinstance(embed, torch.Tensor) else torch.as_tensor(_array(embed, "embed"))
    if table.ndim != 2 or not table.is_floating_point() or not table.numel():
        raise ShapeError(
            f"embed must be an (n_items, d) array of vectors, one row or more, or the name of a module; got shape "
            f"{tuple(table.shape)} of {table.dtype}."
        )
    if not bool(table.isfinite().all()):
        row = int((~table.isfinite()).any(dim=-1).long().argmax())
        raise ConfigError(f"embed must hold finite numbers; row {row} holds a NaN or an infinity. Check this vector.")
    return table


def _array(values: Any, what: str) -> npt.NDArray[Any]:
    """Return values as an array of numbers."""
    try:
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what} must be an array of numbers; got {_shown(values)}: {error}.") from error
    if array.dtype.kind not in "iuf":
        raise ConfigError(
            f"{what} must be an array of numbers; got {_shown(values)} of {array.dtype}. Name a single module by a "
            "text, or give the numbers."
        )
    return array


def _shown(value: Any) -> str:
    """Return a value for a message, cut."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"


def check_options(name: Any, call: Any, is_causal: Any) -> None:
    """Refuse options of another type than :func:`~spectral_probe.backbones.wrapping.wrap` takes.

    Raises
    ------
    ConfigError
        If ``name`` is no text, ``call`` no function, or ``is_causal`` neither a truth value nor None.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"name must be a text; got {_shown(name)}. Leave it out for the name of the class.")
    if call is not None and not callable(call):
        raise ConfigError(f"call must be a function of module, inputs and lengths; got {_shown(call)}.")
    if is_causal is not None and not isinstance(is_causal, bool):
        raise ConfigError(f"is_causal must be True or False; got {_shown(is_causal)}. Leave it out to have it tried.")
