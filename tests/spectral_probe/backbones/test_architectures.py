"""Sizes from a configuration alone, against models that were made and verified, and against hand-written sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from spectral_probe.backbones import HFDecoder
from spectral_probe.backbones.architectures import KNOWN_CONFIGS, Architecture
from spectral_probe.errors import ModelError
from tests.spectral_probe.tiny_models import CONFIGS, DECODERS, N_BLOCKS, WIDTH

ALL = CONFIGS | {family: config for family, (config, *_) in DECODERS.items()}
VARIANTS: dict[str, dict[str, Any]] = {
    **{family: {"model_type": family, **config} for family, config in ALL.items()},
    "llama with biases": {"model_type": "llama", **CONFIGS["llama"], "attention_bias": True, "mlp_bias": True},
    "gpt2 with a narrow MLP": {"model_type": "gpt2", **CONFIGS["gpt2"], "n_inner": 40},
    "gpt_neox without biases": {"model_type": "gpt_neox", **CONFIGS["gpt_neox"], "attention_bias": False},
    "two-sided bert": {"model_type": "bert", **CONFIGS["bert"], "is_decoder": False},
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_sizes_are_those_of_the_verified_model(name):
    values = VARIANTS[name]
    before = torch.get_rng_state()
    sizes = Architecture.from_config(values)
    assert torch.equal(torch.get_rng_state(), before)
    config = AutoConfig.for_model(**values)
    model = AutoModel.from_config(config, **({"add_pooling_layer": False} if config.model_type == "bert" else {}))
    decoder = HFDecoder(model)
    assert sizes.n_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (sizes.n_blocks, sizes.width, sizes.n_states) == (decoder.n_blocks, decoder.width, len(decoder.layers()))
    assert (sizes.is_causal, sizes.family) == (decoder.is_causal, decoder.family)
    assert sizes == Architecture.from_config(config)
    blocks = [module for _, state, module in decoder.layers() if state == "block"]
    in_blocks = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    assert 0 < sizes.n_active_weights <= sizes.n_matrix_weights <= in_blocks


def by_hand(d: int, q: int, kv: int, ff: int, n: int) -> int:
    """Matrices of a block with grouped-query attention and a gated MLP, times n."""
    return n * (2 * d * q + 2 * d * kv + 3 * d * ff)


@pytest.mark.parametrize(
    ("name", "matrices", "rest"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", by_hand(3584, 3584, 512, 18944, 28), 28 * (2 * 3584 + 3584 + 1024) + 3584),
        ("meta-llama/Llama-3.1-8B", by_hand(4096, 4096, 1024, 14336, 32), 32 * 2 * 4096 + 4096),
        ("mistralai/Mistral-7B-v0.3", by_hand(4096, 4096, 1024, 14336, 32), 32 * 2 * 4096 + 4096),
    ],
)
def test_the_sizes_of_large_models_are_those_of_their_formula(name, matrices, rest):
    config = KNOWN_CONFIGS[name]
    sizes = Architecture.from_config(config)
    assert sizes.n_matrix_weights == sizes.n_active_weights == matrices
    assert sizes.n_parameters == matrices + rest + config["vocab_size"] * config["hidden_size"]
    assert (sizes.mlp_width, sizes.dtype) == (config["intermediate_size"], "bfloat16")
    assert sizes.head_width == 128


def test_a_position_uses_the_experts_that_are_chosen_for_it():
    sizes = Architecture.from_config({"model_type": "mixtral", **ALL["mixtral"]})
    expert = 3 * WIDTH * ALL["mixtral"]["intermediate_size"]
    assert sizes.n_matrix_weights - sizes.n_active_weights == N_BLOCKS * 2 * expert  # 2 of 4 are left out


def test_a_model_without_attention_has_no_heads():
    sizes = Architecture.from_config({"model_type": "mamba2", **ALL["mamba2"]})
    assert sizes.n_positions is None
    assert Architecture.from_config({"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 2}).n_heads == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "t5"}, "model_type 't5'.*one stack of blocks"),
        ({"model_type": "vit"}, "reads tokens"),
        ({"model_type": "no-such-model"}, "not a configuration of a no-such-model model"),
        ({"model_type": "llama", "hidden_size": "wide"}, "not a configuration of a llama"),
        ({"model_type": "falcon", **CONFIGS["qwen2"], "num_attention_heads": 5, "head_dim": None}, "falcon"),
    ],
)
def test_what_has_no_sizes_is_refused(values, says):
    with pytest.raises(ModelError, match=says):
        Architecture.from_config(values)
