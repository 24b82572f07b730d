"""The protocol every probed model meets."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.types import LayerState


@runtime_checkable
class LayeredModel(Protocol):
    """What the instrument asks of a model.

    ``layers()`` lists ``(layer_name, layer_state, module)`` in the order of computation. For ``"embed"`` the state is
    the *input* of the named module (the first block); for ``"block"`` and ``"final_norm"`` it is the module's output.
    A model without layers lists none, and gives the reason in its attribute ``why_no_layers``.
    """

    name: str
    is_causal: bool

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return the layers in the order of computation."""
        ...

    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> Any:
        """Run the model on right-padded ``inputs``, (batch, position) item indices or (batch, position, feature)."""
        ...


def check_has_layers(model: LayeredModel) -> None:
    """Refuse a model without layers before anything runs.

    Raises
    ------
    ConfigError
        If the model gives a reason in ``why_no_layers``.
    ModelError
        If it lists no layers and gives no reason.
    """
    refuse_without_layers(model)
    if not model.layers():
        raise ModelError(
            f"The layers() of {model.name!r} is empty, so there is nothing to probe. List its layers, or give the "
            "reason why it has none in its attribute why_no_layers."
        )


def refuse_without_layers(model: Any) -> None:
    """Raise ConfigError for a model that gives a reason in ``why_no_layers``; it needs no other member than a name."""
    if reason := getattr(model, "why_no_layers", ""):
        raise without_layers(str(getattr(model, "name", type(model).__name__)), str(reason))


def without_layers(name: str, reason: str) -> ConfigError:
    """Return the error for a model that has no layers, with its reason."""
    return ConfigError(
        f"{name} has no layers to probe: {reason.rstrip(' .')}. Probe a model that has layers; how well this one "
        "recommends can be evaluated without them."
    )
