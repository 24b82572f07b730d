"""What a plan promises, against models made on the meta device, counted operations and real captures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch.utils.flop_counter import FlopCounterMode

from spectral_probe.analysis.cost import IN_WORDS, plan
from spectral_probe.backbones import HFDecoder, load_backbone
from spectral_probe.backbones.aliases import ALIASES
from spectral_probe.backbones.architectures import KNOWN_CONFIGS, Architecture
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.recording.capture import capture
from tests.spectral_probe.tiny_models import CONFIGS, WIDTH, tiny


def test_every_alias_can_be_planned():
    assert {alias.target for alias in ALIASES.values() if alias.kind != "random"} == set(KNOWN_CONFIGS)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_operations_are_those_that_are_counted(family):
    model = HFDecoder(tiny(family))
    if family == "bert":
        model.model.pooler = None
    model.model.set_attn_implementation("eager")  # the counter does not see into fused attention on the CPU
    with FlopCounterMode(display=False) as counter:
        model.forward_sequences(torch.randn(4, 20, WIDTH), torch.full((4,), 20))
    cost = plan(model.model.config, 4, 20)
    assert cost.forward_flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert plan(model.model.config, 4, 20, n_captures=3).forward_flops == 3 * cost.forward_flops


def test_prefixes_are_counted_one_by_one():
    config = tiny("llama").config
    cost = plan(config, 2, 5, prefixes=True)
    assert cost.is_by_prefix
    assert cost.forward_flops == sum(plan(config, 2, t).forward_flops for t in range(1, 6))
    assert plan({"model_type": "bert", **CONFIGS["bert"], "is_decoder": False}, 2, 5).is_by_prefix


def test_a_capture_takes_what_was_planned(tmp_path):
    model = load_backbone("tiny-random:qwen2")
    inputs = np.random.default_rng(0).normal(size=(40, 30, 64)).astype(np.float32)
    grams = capture(model, inputs, np.full(40, 30), out=tmp_path / "grams")
    cost = plan("tiny-random:qwen2", 40, 30)
    assert cost.gram_bytes == grams.grams.nbytes
    on_disk = sum(path.stat().st_size for path in (tmp_path / "grams").iterdir())
    assert cost.gram_bytes <= on_disk <= cost.gram_bytes + 20_000
    assert cost.weight_bytes == sum(parameter.nbytes for parameter in model.model.parameters())
    items = np.random.default_rng(1).integers(0, 50, (40, 30))
    treated = capture(model, inputs, np.full(40, 30), targets=items, items=items, item_counts=np.arange(1, 51))
    assert treated.treated is not None
    both = plan("tiny-random:qwen2", 40, 30, n_treated=1)
    assert both.gram_bytes == treated.grams.nbytes + treated.treated.nbytes
    assert both.forward_flops == 2 * cost.forward_flops  # 40 users have fewer positions than a pilot
    selected = capture(model, inputs, np.full(40, 30), layers=["block 1"])
    assert plan("tiny-random:qwen2", 40, 30, layers=["block 1"]).gram_bytes == selected.grams.nbytes


def test_the_backbone_of_the_paper_is_planned_without_a_network(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cost = plan("qwen2.5-7b", 1090, 50, dtype="bfloat16")
    assert (cost.source, cost.n_layers, cost.n_states, cost.width) == ("Qwen/Qwen2.5-7B-Instruct", 28, 30, 3584)
    assert cost.n_parameters == 7_615_616_512 - 152_064 * 3584  # what the hub states, less the head
    assert cost.weight_bytes == 2 * cost.n_parameters
    assert cost.gram_bytes == 1090 * 30 * 50 * 50 * 4
    assert cost.forward_flops == pytest.approx(2 * 6.53e9 * 1090 * 50, rel=0.01)
    assert cost.peak_host_bytes > cost.weight_bytes + cost.gram_bytes
    full = plan("qwen2.5-7b", 1090, 50, dtype="float32")
    assert full.weight_bytes == 2 * cost.weight_bytes
    halved = plan("qwen2.5-7b", 1090, 50, dtype="bfloat16", quantize="8bit")
    assert 0.5 < halved.weight_bytes / cost.weight_bytes < 0.6


def test_folders_and_repositories_are_planned_from_their_configuration(tmp_path, monkeypatch):
    tiny("gemma").save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()  # only the configuration is looked at
    cost = plan(str(tmp_path / "m"), 10)
    assert (cost.family, cost.n_parameters) == ("gemma", Architecture.from_config(tiny("gemma").config).n_parameters)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match="was not fetched earlier"):
        plan("owner/model", 10)
    with pytest.raises(ModelError, match=r"There is no folder '\./m'"):
        plan("./m", 10)
    with pytest.raises(ModelError, match="model_type 't5'"):
        plan({"model_type": "t5"}, 10)
    with pytest.raises(ModelError, match="not a configuration of a llama"):
        plan({"model_type": "llama", "hidden_size": "wide"}, 10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n_users": 0}, "n_users must be at least 1"),
        ({"max_length": 513}, "512 positions; got max_length 513"),
        ({"dtype": "half"}, "dtype must be one of auto"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_impossible_plans_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        plan("tiny-random:llama", **{"n_users": 10, **arguments})


def test_a_plan_is_labelled():
    cost = plan("tiny-random:mistral", 10)
    table = cost.to_frame()
    assert list(table.columns) == ["quantity", "value", "text"]
    assert dict(zip(table["quantity"], table["value"], strict=True)) == cost.to_dict() == dataclasses.asdict(cost)
    texts = table.set_index("quantity")["text"]
    assert texts["is_by_prefix"] == "no"
    assert texts["weight_bytes"].endswith("MiB")
    assert set(IN_WORDS) >= {name for name in texts if "_" in name}  # a table shows no name of the code
    assert texts["forward_flops"].endswith("TFLOP")
