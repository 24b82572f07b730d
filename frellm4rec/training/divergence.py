"""Where a training diverged."""

from __future__ import annotations

from typing import Any

import torch

from frellm4rec.models.batch import Batch


@torch.no_grad()
def first_broken_layer(model: Any, batch: Batch) -> str | None:
    """Return the name of the first layer with a state that is not finite at a valid position, or None."""
    inputs = batch.inputs[:, : model.config.max_length]  # a model that hides items has one more
    lengths = batch.lengths.clamp(max=inputs.shape[1])
    is_valid = torch.arange(inputs.shape[1], device=lengths.device) < lengths[:, None]
    broken: list[str] = []
    handles = []

    def check_state(name: str, state: Any) -> None:
        state = state[0] if isinstance(state, tuple) and state else state
        if isinstance(state, torch.Tensor) and not bool(torch.isfinite(state[is_valid.to(state.device)]).all()):
            broken.append(name)

    for name, kind, module in model.layers():
        if kind == "embed":
            handles.append(module.register_forward_pre_hook(lambda m, args, name=name: check_state(name, args)))
        else:
            handles.append(module.register_forward_hook(lambda m, args, output, name=name: check_state(name, output)))
    try:
        model.forward_sequences(inputs, lengths)
    except (AttributeError, RuntimeError, ValueError):
        return None
    finally:
        for handle in handles:
            handle.remove()
    return broken[0] if broken else None
