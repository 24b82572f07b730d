"""Devices and dtypes: which names are allowed, and on which devices the parts of a model are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from spectral_probe.errors import ConfigError, ModelError, check_choice

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def parse_device(device: str) -> torch.device:
    """Return the device that a name stands for; ``auto`` is CUDA if available, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps; got {device!r}.") from error
    if parsed.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} needs a CUDA build of PyTorch and a GPU; CUDA is not available. Use cpu.")
    return parsed


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """Return the dtype that a name stands for; None for ``auto``."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return None
    check_choice("dtype", dtype, ["auto", *sorted(DTYPES)])
    return DTYPES[dtype]


def execution_device(module: nn.Module) -> torch.device:
    """Return the device a module computes on; for offloaded weights, the device accelerate moves them to."""
    for part in module.modules():
        for hook in _hooks(part):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                return torch.device(device)
    for tensor in module.parameters():
        if not tensor.is_meta:
            return tensor.device
    return torch.device("cpu")


def is_spread(module: nn.Module) -> bool:
    """Tell whether weights are on several devices or offloaded; such a model cannot be moved or copied."""
    devices = {parameter.device for parameter in module.parameters()}
    return len(devices) > 1 or torch.device("meta") in devices


def has_no_values(module: nn.Module) -> bool:
    """Tell whether a module has weights on no device and no hook that loads them."""
    is_hooked = any(True for part in module.modules() for _ in _hooks(part))
    return not is_hooked and any(parameter.is_meta for parameter in module.parameters())


def stored_tensor(module: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor that ``name`` of ``state_dict()`` stands for, loaded if it is offloaded.

    Raises
    ------
    ModelError
        If it is on no device and no hook holds its values.
    """
    if not tensor.is_meta:
        return tensor
    module_name, _, tensor_name = name.rpartition(".")
    for hook in _hooks(module.get_submodule(module_name)):
        weights = getattr(hook, "weights_map", None)
        if weights is not None:
            stored: torch.Tensor = weights[tensor_name]
            return stored
    raise ModelError(f"The weight {name!r} is on no device, so the model cannot be identified. Load its weights.")


def _hooks(module: nn.Module) -> Iterator[Any]:
    """Yield accelerate's hooks on one module; several are stored as one sequence."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))
