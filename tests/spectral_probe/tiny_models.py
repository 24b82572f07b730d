"""Tiny real transformers models, and toy layered models whose states are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from spectral_probe.interactions.dataset import Dataset
from spectral_probe.recording.shards import ShardFolder
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

_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_GPT = {"vocab_size": 64, "n_embd": WIDTH, "n_layer": N_BLOCKS, "n_head": 4, "n_positions": 64, "rotary_dim": 4}
_MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
_HYBRID = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
#: Decoders of transformers beyond :data:`CONFIGS`: configuration, path of the blocks, path of the final norm.
DECODERS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "apertus": (_ROPE, "layers", "norm"),
    "arcee": (_ROPE, "layers", "norm"),
    "bamba": ({**_ROPE, **_HYBRID, "attn_layer_indices": [1]}, "layers", "final_layernorm"),
    "biogpt": ({**_COMMON, "intermediate_size": 48, "max_position_embeddings": 64}, "layers", "layer_norm"),
    "bloom": (_COMMON, "h", "ln_f"),
    "codegen": (_GPT, "h", "ln_f"),
    "cohere": (_ROPE, "layers", "norm"),
    "cohere2": (_ROPE, "layers", "norm"),
    "deepseek_v3": (
        {**_COMMON, **_MLA, "intermediate_size": 48, "moe_intermediate_size": 16, "num_key_value_heads": 4}
        | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
        | {"max_position_embeddings": 64},
        "layers",
        "norm",
    ),
    "exaone4": (_ROPE, "layers", "norm"),
    "falcon": (_COMMON, "h", "ln_f"),
    "falcon_mamba": (_COMMON, "layers", "norm_f"),
    "gemma3_text": ({**_ROPE, "sliding_window": 4}, "layers", "norm"),
    "glm": ({**_ROPE, "pad_token_id": 0}, "layers", "norm"),
    "gpt_bigcode": ({**_COMMON, "n_positions": 64}, "h", "ln_f"),
    "gpt_neo": (
        {"vocab_size": 64, "hidden_size": WIDTH, "num_layers": N_BLOCKS, "num_heads": 4, "max_position_embeddings": 64}
        | {"attention_types": [[["global", "local", "global"], 1]]},
        "h",
        "ln_f",
    ),
    "gpt_oss": ({**_ROPE, **_MOE}, "layers", "norm"),
    "gptj": (_GPT, "h", "ln_f"),
    "granite": (_ROPE, "layers", "norm"),
    "granitemoe": ({**_ROPE, **_MOE}, "layers", "norm"),
    "helium": (_ROPE, "layers", "norm"),
    "jetmoe": ({**_ROPE, **_MOE, "kv_channels": 8}, "layers", "norm"),
    "lfm2": ({**_ROPE, "layer_types": ["conv", "full_attention", "conv"]}, "layers", "embedding_norm"),
    "mamba": (_COMMON, "layers", "norm_f"),
    "mamba2": (
        {"vocab_size": 64, "hidden_size": WIDTH, "num_hidden_layers": N_BLOCKS, "num_heads": 8, "head_dim": 8}
        | {"n_groups": 1, "state_size": 8},
        "layers",
        "norm_f",
    ),
    "minimax": ({**_ROPE, **_MOE}, "layers", "norm"),
    "mixtral": ({**_ROPE, **_MOE}, "layers", "norm"),
    "mpt": ({"vocab_size": 64, "d_model": WIDTH, "n_layers": N_BLOCKS, "n_heads": 4}, "blocks", "norm_f"),
    # One norm module for the inputs and the last state: it runs twice, and is not recorded.
    "nanochat": (_ROPE, "layers", None),
    "nemotron": (_ROPE, "layers", "norm"),
    "olmo": (_ROPE, "layers", "norm"),
    "olmo2": (_ROPE, "layers", "norm"),
    "olmoe": ({**_ROPE, **_MOE}, "layers", "norm"),
    # Post-norm: a block ends with its norm.
    "openai-gpt": ({**_COMMON, "n_positions": 64}, "h", None),
    "opt": (
        {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": WIDTH, "max_position_embeddings": 64},
        "decoder.layers",
        "decoder.final_layer_norm",
    ),
    "persimmon": (_ROPE, "layers", "final_layernorm"),
    "phi": (_ROPE, "layers", "final_layernorm"),
    "phi3": ({**_ROPE, "pad_token_id": 0}, "layers", "norm"),
    "qwen2_moe": ({**_ROPE, **_MOE, "shared_expert_intermediate_size": 16}, "layers", "norm"),
    "qwen3_moe": ({**_ROPE, **_MOE}, "layers", "norm"),
    "recurrent_gemma": ({**_ROPE, "lru_width": WIDTH}, "layers", "final_norm"),
    "smollm3": ({**_ROPE, "pad_token_id": 0}, "layers", "norm"),
    "stablelm": (_ROPE, "layers", "norm"),
    "starcoder2": (_ROPE, "layers", "norm"),
    "xglm": (
        {"vocab_size": 64, "d_model": WIDTH, "num_layers": N_BLOCKS, "attention_heads": 4, "ffn_dim": 48}
        | {"max_position_embeddings": 64},
        "layers",
        "layer_norm",
    ),
}


def tiny(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a random model of a family, without a head, with weights large enough for layers to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = CONFIGS[family] if family in CONFIGS else DECODERS[family][0]
        model = AutoModel.from_config(AutoConfig.for_model(family, **{**config, **changes}))
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


def stop_in(monkeypatch, method: str, call: int = 1) -> None:
    """Press Ctrl-C at the beginning of the given call of a method of the folder of shards."""
    original, calls = getattr(ShardFolder, method), []

    def stopped(self, *arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(ShardFolder, method, stopped)


def knowing(dataset: Dataset, taste: np.ndarray, strength: float = 1.5) -> MixingModel:
    """Return a model whose item table knows the tastes, and whose blocks add noise of their own."""
    model = MixingModel(dataset.n_items)
    with torch.no_grad():
        model.table.weight[:, : taste.max() + 1] += strength * torch.eye(int(taste.max()) + 1)[torch.from_numpy(taste)]
        for block in model.blocks:
            block.weight += torch.eye(12)
    return model
