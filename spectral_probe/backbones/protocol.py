"""The protocol every probed model meets."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from spectral_probe.types import LayerState


@runtime_checkable
class LayeredModel(Protocol):
    """What the instrument asks of a model.

    ``layers()`` lists ``(layer_name, layer_state, module)`` in the order of computation. For ``"embed"`` the state is
    the *input* of the named module (the first block); for ``"block"`` and ``"final_norm"`` it is the module's output.
    """

    name: str
    is_causal: bool

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return the layers in the order of computation."""
        ...

    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> Any:
        """Run the model on right-padded ``inputs``, (batch, position) item indices or (batch, position, feature)."""
        ...
