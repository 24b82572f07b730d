"""Tiny real transformers models, and toy layered models whose states are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from spectral_probe.types import LayerState

WIDTH, N_BLOCKS, N_ITEMS = 32, 3, 30
_COMMON = {"vocab_size": 64, "hidden_size": WIDTH, "num_hidden_layers": N_BLOCKS, "num_attention_heads": 4}
_ROPE = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _ROPE,
    "mistral": {**_ROPE, "sliding_window": 4},
    "qwen2": _ROPE,
    "qwen3": _ROPE,
    "gemma": _ROPE,
    "gemma2": _ROPE,
    "gpt2": {**_COMMON, "n_positions": 64},
    "gpt_neox": {**_COMMON, "intermediate_size": 48, "max_position_embeddings": 64},
    "bert": {**_COMMON, "intermediate_size": 48, "max_position_embeddings": 64, "is_decoder": True},
}


def tiny(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a random model of a family, without a head, with weights large enough for layers to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(family, **{**CONFIGS[family], **changes}))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.2)
    return model.eval()


class ToyBlock(nn.Module):
    """Adds the mean of the states a position may see: all up to itself, or (leaky) all of them."""

    def __init__(self, is_leaky: bool, returns_tuple: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.is_leaky, self.returns_tuple = is_leaky, returns_tuple

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> Any:
        seen = valid[:, None, :].expand(-1, x.shape[1], -1)
        seen = seen if self.is_leaky else seen.tril()
        mean = (seen.float() / seen.sum(-1, keepdim=True).clamp(min=1)) @ x
        x = x + self.weight * mean.roll(1, dims=-1)
        return (x, "cache") if self.returns_tuple else x


class Toy(nn.Module):
    """A layered model small enough to compute by hand; counts its forward passes and can fail on demand."""

    def __init__(self, *, is_leaky: bool = False, is_causal: bool = True, returns_tuple: bool = False) -> None:
        super().__init__()
        self.name, self.is_causal, self.n_runs = "toy", is_causal, 0
        self.table = nn.Parameter(torch.randn(N_ITEMS, 5, generator=torch.Generator().manual_seed(1)))
        self.blocks = nn.ModuleList([ToyBlock(is_leaky, returns_tuple) for _ in range(2)])
        self.norm = nn.LayerNorm(5)
        self.poisoned_item: int | None = None

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        return [
            ("embed", "embed", self.blocks[0]),
            ("block 1", "block", self.blocks[0]),
            ("block 2", "block", self.blocks[1]),
            ("final_norm", "final_norm", self.norm),
        ]

    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.n_runs += 1
        valid = torch.arange(inputs.shape[1]) < lengths[:, None]
        x = inputs if inputs.is_floating_point() else self.table[inputs]
        # A model may leave any value at padded positions; a large one makes leaks visible.
        x = torch.where(valid[..., None], x, 1e3)
        for number, block in enumerate(self.blocks):
            x = block(x, valid)
            x = x[0] if isinstance(x, tuple) else x
            if number == 0 and self.poisoned_item is not None:
                x = x.masked_fill((inputs == self.poisoned_item)[..., None] & valid[..., None], float("nan"))
        return self.norm(x)


def n_hooks(model: nn.Module) -> int:
    """Return how many forward hooks a model carries."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class MixingModel(nn.Module):
    """Two causal blocks over an item table: enough of a model for every rule of the main path."""

    name = "mixing"
    is_causal = True

    def __init__(self, n_items: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Embedding.from_pretrained(torch.randn(n_items, 12, generator=generator))
        self.blocks = nn.ModuleList(nn.Linear(12, 12) for _ in range(2))
        for block in self.blocks:
            with torch.no_grad():
                block.weight.copy_(torch.randn(12, 12, generator=generator) / 4)
                block.bias.zero_()
        self.norm = nn.LayerNorm(12)

    def layers(self):
        blocks = [(f"block {i + 1}", "block", block) for i, block in enumerate(self.blocks)]
        return [("embed", "embed", self.blocks[0]), *blocks, ("final_norm", "final_norm", self.norm)]

    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        state = self.table(inputs)
        for block in self.blocks:
            state = block(state)
        return self.norm(state)
