"""Weights that no module takes: refused by name where they belong to the body, noted or expected elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.backbones import HFDecoder, load_backbone, weights_fingerprint
from spectral_probe.backbones.architectures import meta_body
from spectral_probe.backbones.left_over import check_headers
from spectral_probe.errors import MissingDependencyError, ModelError
from tests.spectral_probe.tiny_models import CONFIGS, WIDTH, tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BIAS = "model.layers.1.self_attn.q_proj.bias"
FURTHER = "model.layers.3.input_layernorm.weight"


def with_head(family: str = "llama", **changes):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **CONFIGS[family], **changes))


def save(folder: Path, more: dict[str, torch.Tensor], *, model=None, **config) -> Path:
    """Save a tiny model, add tensors to its file and change its configuration."""
    (model or with_head()).save_pretrained(folder)
    save_file({**load_file(folder / "model.safetensors"), **more}, folder / "model.safetensors", {"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    return folder


def refused(folder: Path, *says: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_backbone(str(folder))
    assert caught.value.exit_code == 4
    assert all(word in str(caught.value) for word in says), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "config", "says"),
    [
        ({}, {"num_hidden_layers": 2}, ("model.layers.2.input_layernorm.weight", "2 blocks", "block 3")),
        ({FURTHER: torch.ones(WIDTH)}, {}, (FURTHER, "block 4")),
        ({BIAS: torch.ones(WIDTH)}, {}, (BIAS,)),
        ({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}, {}, ("q_norm.weight",)),
        ({"model.layers.0.mlp.up_proj.weight_scale": torch.ones(1)}, {}, ("weight_scale",)),
        ({"model.norm.bias": torch.ones(WIDTH)}, {}, ("model.norm.bias",)),
        ({"layers.0.input_layernorm.weight": torch.ones(WIDTH)}, {}, ("twice", "layers.0.input_layernorm.weight")),
    ],
)
def test_what_belongs_to_the_body_is_refused_by_name(more, config, says, tmp_path):
    folder = save(tmp_path / "m", more, **config)
    refused(folder, *says)
    body, blocks = meta_body(folder)
    if "q_norm" not in str(says) and "weight_scale" not in str(says):  # a module that the body lacks may be renamed
        with pytest.raises(ModelError, match=says[0]):
            check_headers(body, blocks, folder)


def test_an_adapter_that_was_not_merged_is_refused(tmp_path):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    refused(save(tmp_path / "m", {name: torch.ones(2, WIDTH)}), name)


def test_integers_without_a_word_on_their_rounding_are_refused(tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    folder = save(tmp_path / "m", {name: torch.ones(48, WIDTH, dtype=torch.int8)})
    refused(folder, name, "I8", "quantization_config")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"vocab_size": 70}, ("embed_tokens.weight is 64×32 and should be 70×32", "1 of another shape")),
        (
            {"intermediate_size": 52},
            ("layers.0.mlp.down_proj.weight is 32×48 and should be 32×52", "9 of another shape"),
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_named_with_both(config, says, tmp_path):
    refused(save(tmp_path / "m", {}, **config), *says)


@pytest.mark.parametrize("method", [{"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "hqq"}])
def test_a_quantised_checkpoint_names_the_package_that_it_needs(method, tmp_path):
    with pytest.raises(MissingDependencyError, match="package that is not installed") as caught:
        load_backbone(str(save(tmp_path / "m", {}, quantization_config=method)))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gpt_neox", "gpt_neox.layers.0.attention.bias"),
        ("bert", "bert.encoder.layer.3.output.dense.bias"),
        ("bert", "encoder.layer.0.attention.self.rotary.weight"),
    ],
)
def test_every_family_is_asked_also_where_transformers_says_nothing(family, name, tmp_path):
    """GPT-2 and GPT-NeoX saved their masks under the name of a bias: a tensor with one axis is no mask."""
    refused(save(tmp_path / "m", {name: torch.ones(WIDTH)}, model=tiny(family)), name)


def test_a_list_of_what_may_be_left_over(tmp_path):
    model = tiny("gpt2")
    more = {
        "lm_head.weight": torch.ones(64, WIDTH),
        "h.0.attn.bias": torch.ones(1, 1, 8, 8),
        "h.0.attn.masked_bias": torch.ones(()),
    }
    assert load_backbone(str(save(tmp_path / "gpt2", more, model=model))).left_over == ()
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "lm_head.weight": torch.ones(64, WIDTH)}
    assert load_backbone(str(save(tmp_path / "llama", more))).left_over == ()
    more = {"bert.pooler.dense.weight": torch.ones(WIDTH, WIDTH), "cls.predictions.bias": torch.ones(64)}
    more["bert.embeddings.position_ids"] = torch.ones(1, 64, dtype=torch.long)
    assert load_backbone(str(save(tmp_path / "bert", more, model=tiny("bert")))).left_over == ()


def test_everything_else_is_noted_in_the_run(tmp_path, caplog):
    more = {"score.weight": torch.ones(2, WIDTH), "vision.layers.7.weight": torch.ones(3)}
    folder = save(tmp_path / "m", more)
    save_file({"consolidated.weight": torch.ones(2)}, folder / "consolidated.safetensors")
    rng = np.random.default_rng(0)
    rows = [(u, int(rng.integers(20)), t) for u in range(80) for t in range(9)]
    np.save(tmp_path / "vectors.npy", rng.normal(size=(20, 8)).astype(np.float32))
    options = AnalysisOptions(embeddings=str(tmp_path / "vectors.npy"), n_bootstrap=100)
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    run = run_analysis(str(folder), frame, options, out=tmp_path / "runs").run
    assert run is not None
    assert run.state()["left_over"] == ["score.weight", "vision.layers.7.weight", "consolidated.safetensors"]
    assert "3 weights or files were not read: score.weight" in caplog.text


def test_a_block_in_a_file_that_the_index_does_not_name(tmp_path):
    folder = save(tmp_path / "m", {})
    save_file({FURTHER: torch.ones(WIDTH)}, folder / "model-00002-of-00002.safetensors")
    refused(folder, FURTHER)


def test_a_downloaded_repository_is_asked_too(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--owner--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    save(folder / "snapshots" / COMMIT, {"gpt_neox.layers.0.attention.bias": torch.ones(WIDTH)}, model=tiny("gpt_neox"))
    (folder / ".no_exist" / COMMIT).mkdir(parents=True)
    (folder / ".no_exist" / COMMIT / "adapter_config.json").touch()
    refused(Path("owner/model"), "gpt_neox.layers.0.attention.bias")
    (folder / "snapshots" / COMMIT / "adapter_config.json").write_text("{}")
    refused(Path("owner/model"), "both config.json and adapter_config.json")


def test_blocks_that_predict_further_tokens_are_noted(tmp_path):
    folder = save(tmp_path / "m", {FURTHER: torch.ones(WIDTH)}, num_nextn_predict_layers=1)
    assert load_backbone(str(folder)).left_over == (FURTHER,)


@pytest.mark.parametrize(("more", "config"), [({}, {"num_hidden_layers": 2}), ({BIAS: torch.ones(WIDTH)}, {})])
def test_a_model_in_memory_lacks_nothing_of_its_folder(more, config, tmp_path):
    folder = save(tmp_path / "m", more, **config)
    for kind in (AutoModel, AutoModelForCausalLM):
        with pytest.raises(ModelError, match=r"model\.layers\.\d\..*name_or_path = ''"):
            HFDecoder(kind.from_pretrained(folder))
    model = AutoModel.from_pretrained(folder)
    model.config.name_or_path = ""
    assert HFDecoder(model).left_over == ()


def test_a_configuration_changed_in_memory_is_refused():
    model = tiny("llama")
    model.config.num_hidden_layers = 2
    with pytest.raises(ModelError, match="block 3 ran 0 times"):
        HFDecoder(model)


def lora(*modules: str, **settings) -> LoraConfig:
    settings.setdefault("target_modules", list(modules))
    return LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings)


def test_adapters_in_memory_that_nothing_runs():
    tuned = get_peft_model(with_head(), lora("q_proj"))
    assert HFDecoder(tuned).left_over == ()
    tuned.add_adapter("second", lora("v_proj"))
    assert HFDecoder(tuned).left_over == ("second",)
    tuned.base_model.disable_adapter_layers()
    for model in (tuned, tuned.get_base_model()):
        with pytest.raises(ModelError, match=r"\['default', 'second'\] of this model are switched off"):
            HFDecoder(model)
    prompt = get_peft_model(with_head(), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(ModelError, match="PROMPT_TUNING and feeds vectors"):
        HFDecoder(prompt)


@pytest.mark.parametrize("settings", [{"target_modules": ["embed_tokens", "q_proj"]}, {"trainable_token_indices": [3]}])
def test_an_adapter_of_the_token_table_gives_the_merged_model(settings, tmp_path):
    base = with_head()
    base.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(base, lora("v_proj", **settings))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "trainable_tokens" in name:
                parameter.normal_()
    tuned.save_pretrained(tmp_path / "lora")
    merged = tuned.merge_and_unload()
    adapted = load_backbone(str(tmp_path / "base"), adapter=str(tmp_path / "lora"))
    assert weights_fingerprint(adapted.model) == weights_fingerprint(merged.model)
    assert not torch.equal(
        adapted.model.embed_tokens.weight, load_backbone(str(tmp_path / "base")).model.embed_tokens.weight
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda name: name.replace("q_proj", "k_proj"), r"2 weights without a counterpart \(first: .*k_proj\.lora_A"),
        (lambda name: name.removeprefix("base_model.model."), "twice, with and without"),
    ],
)
def test_an_adapter_leaves_nothing_over(change, says, tmp_path):
    with_head().save_pretrained(tmp_path / "base")
    get_peft_model(with_head(), lora("q_proj")).save_pretrained(tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_model.safetensors"
    weights = load_file(file)
    first = {change(name): weight.clone() for name, weight in weights.items() if ".layers.0." in name}
    save_file({**weights, **first}, file)
    with pytest.raises(ModelError, match=says):
        load_backbone(str(tmp_path / "base"), adapter=str(tmp_path / "lora"))


def test_an_adapter_of_another_rank_is_named_with_its_shapes(tmp_path):
    with_head().save_pretrained(tmp_path / "base")
    get_peft_model(with_head(), lora("q_proj")).save_pretrained(tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_model.safetensors"
    save_file({n: w[:3].contiguous() if "lora_A" in n else w for n, w in load_file(file).items()}, file)
    with pytest.raises(ModelError, match=r"q_proj\.lora_A.*\[3, 32\].*\[8, 32\]"):
        load_backbone(str(tmp_path / "base"), adapter=str(tmp_path / "lora"))
