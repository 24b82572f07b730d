"""Which implementation of attention the steps of a training take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: Transformers' name of plain matrix products and a softmax.
EAGER = "eager"


def step_attention(model: Any, mixed_precision: str) -> str | None:
    """Return the attention that the steps of a training take; None for a model without a Hugging Face backbone.

    ``eager`` where the backbone computes in bfloat16 on the CPU: there the backward pass of PyTorch's fused attention
    (``sdpa``) is slow. Everywhere else the backbone's own: in float32 both take the same time, and no other dtype is
    trained on a CPU. Evaluation and captures, which have no backward pass, always take the backbone's own.
    """
    backbone = getattr(model, "backbone", None)
    usual = _current(backbone)
    if usual is None:
        return None
    is_bfloat16 = backbone.dtype == torch.bfloat16 or mixed_precision == "bf16"
    return EAGER if usual == "sdpa" and is_bfloat16 and backbone.device.type == "cpu" else usual


@contextmanager
def attention_of(model: Any, name: str | None) -> Iterator[None]:
    """Run the backbone of a model with this attention, and restore its own; None changes nothing."""
    backbone = getattr(model, "backbone", None)
    before = _current(backbone)
    if name is None or before is None or name == before:
        yield
        return
    backbone.model.set_attn_implementation(name)
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(before)


def _current(backbone: Any) -> str | None:
    """Return the name of the attention of a backbone; None if there is no backbone, or it has no such choice."""
    config = getattr(getattr(backbone, "model", None), "config", None)
    name = getattr(config, "_attn_implementation", None)
    return name if isinstance(name, str) and hasattr(backbone.model, "set_attn_implementation") else None
