"""Decoders whose files do not fit together: the same states as the intact one, or a refusal that names the tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.hostile.cases.damage import ANY, PARSED
from tests.hostile.cases.finished_runs import same_as
from tests.hostile.harness import Call
from tests.hostile.world import World, copy_of

Tensors = dict[str, torch.Tensor]


def _analyze(world: World, model: Path, folder: Path) -> list[str]:
    data = ["--dataset", str(world.data), "--embeddings", str(world.npy), "--n-pseudo", "5"]
    return ["spectral-probe", "analyze", "--model", str(model), *data, "--out", str(folder / "runs")]


def _with_tensors(
    change: Callable[[Tensors], object], codes: tuple[int, ...], world: World, folder: Path, rng: np.random.Generator
) -> Call:
    model = copy_of(world.decoder, folder)
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return Call(_analyze(world, model, folder), codes, check=same_as(world.printed["analyze"]))


def _with_config(
    changes: dict[str, Any], codes: tuple[int, ...], world: World, folder: Path, rng: np.random.Generator
) -> Call:
    model = copy_of(world.decoder, folder)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changes}))
    return Call(_analyze(world, model, folder), codes, check=same_as(world.printed["analyze"]))


def _further_block(tensors: Tensors) -> None:
    tensors |= {
        name.replace("layers.2", "layers.3"): tensor.clone() for name, tensor in tensors.items() if "layers.2" in name
    }


def _renamed(tensors: Tensors) -> None:
    tensors["layers.0.mlp.up.weight"] = tensors.pop("layers.0.mlp.up_proj.weight")


WRONG_TENSORS: dict[str, Callable[[Tensors], object]] = {
    "a block more": _further_block,
    "biases that the model does not have": lambda t: t.update({"layers.1.self_attn.q_proj.bias": torch.ones(16)}),
    "an adapter inside a block": lambda t: t.update({"layers.1.self_attn.q_proj.lora_A.weight": torch.ones(2, 16)}),
    "a norm more": lambda t: t.update({"layers.1.post_feedforward_layernorm.weight": torch.ones(16)}),
    "a tensor less": lambda t: t.pop("layers.2.mlp.down_proj.weight"),
    "no final norm": lambda t: t.pop("norm.weight"),
    "a tensor renamed": _renamed,
    "a tensor of another shape": lambda t: t.update({"layers.0.mlp.up_proj.weight": torch.ones(23, 16)}),
    "NaN in a weight": lambda t: t["layers.1.mlp.up_proj.weight"].fill_(float("nan")),
}
HARMLESS_TENSORS: dict[str, Callable[[Tensors], object]] = {
    "an output head": lambda t: t.update({"lm_head.weight": torch.ones(64, 16)}),
    "old rotary buffers": lambda t: t.update({"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
}
WRONG_CONFIGS: dict[str, dict[str, Any]] = {
    "fewer blocks than tensors": {"num_hidden_layers": 2},
    "more blocks than tensors": {"num_hidden_layers": 4},
    "no block": {"num_hidden_layers": 0},
    "-1 blocks": {"num_hidden_layers": -1},
    "a text for the number of blocks": {"num_hidden_layers": "three"},
    "another width": {"hidden_size": 24},
    "heads that do not divide the width": {"num_attention_heads": 3},
    "no heads": {"num_attention_heads": 0},
    "another vocabulary": {"vocab_size": 65},
    "an unknown type": {"model_type": "no-such-model"},
    "an unknown activation": {"hidden_act": "no-such-function"},
    "a vision model": {"model_type": "vit"},
    "code of the repository": {"auto_map": {"AutoModel": "evil.Evil"}, "model_type": "evil"},
    "4-bit weights that are none": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "a list as rope": {"rope_scaling": [1, 2]},
}


def _damaged(file: str, name: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    model = copy_of(world.decoder, folder)
    {**ANY, **PARSED}[name](model / file, rng)
    # Many keys of a configuration have defaults, and many do not change the states.
    return Call(_analyze(world, model, folder), (0, 2, 4) if name in PARSED else (4,), check=None)


def _pickle(world: World, folder: Path, rng: np.random.Generator) -> Call:
    model = copy_of(world.decoder, folder)
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    return Call(_analyze(world, model, folder), (4,), says="pickle")


def _index(shard: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    model = copy_of(world.decoder, folder)
    names = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(model / "a.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return Call(_analyze(world, model, folder), (4,))


CASES = {
    **{f"tensors: {name}": partial(_with_tensors, change, (4,)) for name, change in WRONG_TENSORS.items()},
    **{f"tensors: {name}": partial(_with_tensors, change, (0,)) for name, change in HARMLESS_TENSORS.items()},
    **{f"config: {name}": partial(_with_config, changes, (2, 4, 5)) for name, changes in WRONG_CONFIGS.items()},
    # The weights are plain: the states are the same, or the word is refused.
    "config: an unknown quantization": partial(
        _with_config, {"quantization_config": {"quant_method": "no-such-method"}}, (0, 4, 5)
    ),
    **{f"config.json: {name}": partial(_damaged, "config.json", name) for name in {**ANY, **PARSED}},
    **{f"model.safetensors: {name}": partial(_damaged, "model.safetensors", name) for name in ANY},
    "a pickle": _pickle,
    "a shard that is not there": partial(_index, "b.safetensors"),
    "a shard outside the folder": partial(_index, "../../../../etc/passwd"),
}
