"""LoRA adapters: the Grams of the merged model, and no other backbone's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from spectral_probe.backbones import load_backbone, weights_fingerprint
from spectral_probe.errors import ConfigError, MissingDependencyError, ModelError
from spectral_probe.recording.capture import capture
from tests.spectral_probe.tiny_models import CONFIGS, N_ITEMS, WIDTH, tiny


def make(folder: Path, family: str = "llama", *, has_head: bool = True, seed: int = 0, **lora) -> tuple[str, str, str]:
    """Save a base, a LoRA adapter on it, and the two merged by peft; return their folders."""
    torch.manual_seed(seed)
    if has_head:
        base = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **CONFIGS[family]))
    else:
        base = tiny(family)
    base.save_pretrained(folder / "base")
    target = {"gpt2": ["c_attn", "c_proj"]}.get(family, ["q_proj", "v_proj", "down_proj"])
    settings = {"target_modules": target, "task_type": "CAUSAL_LM" if has_head else None, **lora}
    tuned = get_peft_model(base, LoraConfig(r=4, init_lora_weights=False, **settings))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, 0, 0.3)
    tuned.save_pretrained(folder / "lora")
    tuned.merge_and_unload().save_pretrained(folder / "merged")
    return str(folder / "base"), str(folder / "lora"), str(folder / "merged")


def grams(model) -> np.ndarray:
    rng = np.random.default_rng(3)
    model.set_item_embeddings(np.random.default_rng(0).normal(size=(N_ITEMS, WIDTH)))
    return capture(model, rng.integers(0, N_ITEMS, size=(9, 6)), rng.integers(1, 7, size=9)).grams


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {}),
        ("llama", {"has_head": False}),
        ("llama", {"use_dora": True, "use_rslora": True}),
        ("llama", {"target_modules": r"model\.layers\.[01]\.self_attn\.(q|k)_proj", "rank_pattern": {"k_proj": 2}}),
        ("llama", {"target_modules": ["q_proj", "lm_head"]}),
        ("llama", {"modules_to_save": ["embed_tokens"]}),
        ("gpt2", {"fan_in_fan_out": True}),
    ],
)
def test_an_adapter_gives_the_grams_of_the_merged_model(family, settings, tmp_path):
    base, lora, merged = make(tmp_path, family, **settings)
    plain, adapted = load_backbone(base), load_backbone(base, adapter=lora)
    assert (adapted.name, adapted.adapter) == ("base+lora", lora)
    assert adapted.revision == load_backbone(merged).revision
    assert not any("lora" in name for name, _ in adapted.named_parameters())
    assert not any(parameter.requires_grad for parameter in adapted.parameters())
    actual, expected = grams(adapted), grams(load_backbone(merged))
    np.testing.assert_array_equal(actual, expected)
    assert not np.allclose(actual[:, 2], grams(plain)[:, 2], rtol=1e-2)


def test_the_tokens_of_an_adapted_model_are_its_own(tmp_path):
    base, lora, merged = make(tmp_path, modules_to_save=["embed_tokens"])
    assert load_backbone(base, adapter=lora).token_rms() == load_backbone(merged).token_rms()
    assert load_backbone(base, adapter=lora).token_rms() != load_backbone(base).token_rms()


@pytest.mark.parametrize("change", [{"num_hidden_layers": 2}, {"num_hidden_layers": 4}, {"hidden_size": 64}])
def test_an_adapter_of_another_shape_is_refused(change, tmp_path):
    _, lora, _ = make(tmp_path)
    tiny("llama", **change).save_pretrained(tmp_path / "other")
    if change == {"num_hidden_layers": 4}:  # then it fits, and changes the first three blocks of four
        weights = load_file(tmp_path / "lora" / "adapter_model.safetensors")
        lost = {name: weight for name, weight in weights.items() if ".layers.1." not in name}
        save_file(lost, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"does not fit 'other'.*adapter_config\.json names"):
        load_backbone(str(tmp_path / "other"), adapter=lora)


def test_an_adapter_of_another_repository_is_refused_though_it_fits(tmp_path, monkeypatch):
    base, lora, _ = make(tmp_path)
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    decoder = load_backbone(base)
    from spectral_probe.backbones.adapters import apply_adapter

    def trained_on(name: str) -> None:
        (tmp_path / "lora" / "adapter_config.json").write_text(
            json.dumps({**settings, "base_model_name_or_path": name})
        )

    decoder.source = "Qwen/Qwen2.5-7B-Instruct"
    trained_on("Qwen/Qwen2.5-7B")
    before = weights_fingerprint(decoder.model)
    with pytest.raises(
        ModelError, match=r"trained on 'Qwen/Qwen2\.5-7B', and the model is 'Qwen/Qwen2\.5-7B-Instruct'"
    ):
        apply_adapter(decoder, lora)
    assert weights_fingerprint(decoder.model) == before
    trained_on("mirror/qwen2.5-7b-instruct")
    assert weights_fingerprint(apply_adapter(decoder, lora).model) != before


def test_adapters_that_cannot_be_used_are_refused(tmp_path):
    base, lora, _ = make(tmp_path)
    with pytest.raises(ModelError, match=r"no readable adapter_config\.json"):
        load_backbone(base, adapter=base)
    with pytest.raises(ModelError, match="neither"):
        load_backbone(base, adapter=str(tmp_path / "nowhere"))
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "o/b"}))
    with pytest.raises(ModelError, match=rf"is an adapter.*--model o/b --adapter {lora}"):
        load_backbone(lora)
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "prefix"
    )
    with pytest.raises(ModelError, match="type PREFIX_TUNING"):
        load_backbone(base, adapter=str(tmp_path / "prefix"))
    weights = load_file(Path(lora) / "adapter_model.safetensors")
    save_file({name: weight * np.nan for name, weight in weights.items()}, Path(lora) / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        load_backbone(base, adapter=lora)
    (Path(lora) / "adapter_model.safetensors").rename(Path(lora) / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"read from adapter_model\.safetensors"):
        load_backbone(base, adapter=lora)


def test_an_adapter_needs_a_base_in_one_place(tmp_path):
    base, lora, _ = make(tmp_path)
    parts = {"embed_tokens": "cpu", "layers": "cpu", "norm": "disk", "rotary_emb": "cpu"}
    with pytest.raises(ConfigError, match="Merge the adapter"):
        load_backbone(base, adapter=lora, device_map=parts)


def test_without_peft_the_line_to_run_is_printed(tmp_path, monkeypatch):
    base, lora, _ = make(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(MissingDependencyError, match=r'pip install "spectral-probe\[lora\]"'):
        load_backbone(base, adapter=lora)
