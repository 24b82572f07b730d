"""Models spread over devices and models in 8 bits: the same Grams, or a refusal."""

from __future__ import annotations

import copy
import importlib.util

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from spectral_probe.analysis.controls import random_weights
from spectral_probe.backbones import HFDecoder, load_backbone, weights_fingerprint
from spectral_probe.backbones.devices import execution_device
from spectral_probe.errors import ConfigError, MissingDependencyError, ModelError
from spectral_probe.recording.capture import capture
from tests.spectral_probe.tiny_models import N_ITEMS, WIDTH, n_hooks, tiny

SPREAD = {"embed_tokens": "cpu", "layers.0": "cpu", "layers.1": "disk", "layers.2": "disk", "norm": "disk"}
SPREAD |= {"rotary_emb": "cpu"}


@pytest.fixture
def folder(tmp_path) -> str:
    tiny("llama").save_pretrained(tmp_path / "m")
    return str(tmp_path / "m")


def sequences() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.integers(0, N_ITEMS, size=(12, 6)), rng.integers(1, 7, size=12)


def table() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)


def spread(folder: str) -> HFDecoder:
    decoder = load_backbone(folder, device_map=SPREAD)
    decoder.set_item_embeddings(table())
    return decoder


def whole(folder: str) -> HFDecoder:
    decoder = load_backbone(folder)
    decoder.set_item_embeddings(table())
    return decoder


@pytest.mark.parametrize("options", [{}, {"state_norm": "final"}, {"prefixes": True}])
def test_a_model_in_two_parts_gives_the_same_grams(folder, options):
    in_parts = spread(folder)
    assert in_parts.is_spread
    assert {p.device.type for p in in_parts.model.layers[2].parameters()} == {"meta"}
    assert in_parts.device == torch.device("cpu")
    in_parts_grams = capture(in_parts, *sequences(), **options).grams
    np.testing.assert_array_equal(in_parts_grams, capture(whole(folder), *sequences(), **options).grams)
    assert n_hooks(in_parts) == 0


def test_a_model_in_two_parts_has_the_revision_of_its_weights(folder, tmp_path):
    in_parts, at_once = spread(folder), whole(folder)
    assert in_parts.revision == at_once.revision
    # So what one began, the other may finish.
    capture(in_parts, *sequences(), out=tmp_path / "grams")
    capture(at_once, *sequences(), out=tmp_path / "grams", resume=True)


def test_text_and_scale_come_from_a_model_in_two_parts_too(folder):
    in_parts, at_once = spread(folder), whole(folder)
    assert in_parts.token_rms() == at_once.token_rms()
    ids, mask = torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.long)
    torch.testing.assert_close(in_parts.encode_tokens(ids, mask), at_once.encode_tokens(ids, mask))


def test_offloading_by_hand_is_seen_as_well():
    model = tiny("qwen2")
    fingerprint = weights_fingerprint(model)
    decoder = HFDecoder(cpu_offload(model, execution_device="cpu"))
    assert decoder.is_spread
    assert weights_fingerprint(decoder.model) == fingerprint
    assert execution_device(decoder.model) == torch.device("cpu")


def test_auto_runs_where_there_is_one_device_only(folder):
    decoder = load_backbone(folder, device_map="auto")
    assert weights_fingerprint(decoder.model) == weights_fingerprint(whole(folder).model)
    decoder.set_item_embeddings(table())
    capture(decoder, *sequences())


def test_what_is_spread_is_neither_moved_nor_copied(folder):
    in_parts = spread(folder)
    with pytest.raises(ConfigError, match=r"spread over devices stays.*Leave out device and dtype"):
        capture(in_parts, *sequences(), dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match="Leave out the random-weights control"):
        random_weights(in_parts)
    at_once = whole(folder)
    twin = copy.deepcopy(at_once)
    with torch.no_grad():
        twin.model.norm.weight.add_(1)
    assert twin.revision != at_once.revision
    assert torch.equal(twin.item_embeddings, at_once.item_embeddings)


def test_weights_that_are_nowhere_have_no_fingerprint():
    with torch.device("meta"):
        nowhere = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="'bias' is on no device"):
        weights_fingerprint(nowhere)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device_map": "auto", "device": "cpu"}, "Give one of them"),
        ({"device_map": "everywhere"}, "device_map must be"),
        ({"quantize": "4bit"}, "None or '8bit'; got '4bit'"),
    ],
)
def test_contradictory_places_are_refused(folder, options, says):
    with pytest.raises(ConfigError, match=says):
        load_backbone(folder, **options)


def test_small_models_are_not_spread():
    with pytest.raises(ConfigError, match="Leave them out"):
        load_backbone("tiny-random:qwen2", device_map="auto")


def test_8_bits_without_its_package_prints_the_line_to_run(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(MissingDependencyError, match=r'pip install "spectral-probe\[quant\]"') as caught:
        load_backbone(folder, quantize="8bit")
    assert caught.value.exit_code == 5


def test_8_bits(tmp_path):
    pytest.importorskip("bitsandbytes")
    wide = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    tiny("llama", **wide).save_pretrained(tmp_path)
    full, half = load_backbone(str(tmp_path)), load_backbone(str(tmp_path), quantize="8bit")
    assert half.quantization == "8bit"
    assert half.model.layers[0].mlp.up_proj.weight.dtype == torch.int8
    assert half.revision != full.revision
    vectors, lengths = np.random.default_rng(0).normal(size=(12, 6, 64)).astype(np.float32), sequences()[1]
    grams = [capture(model, vectors, lengths).grams for model in (full, half)]
    assert not np.array_equal(*grams)
    traces = [np.einsum("nltt->nl", gram) for gram in grams]
    np.testing.assert_allclose(*traces, rtol=0.1)
    with pytest.raises(ConfigError, match="quantised"):
        capture(half, vectors, lengths, dtype=torch.float32)
    with pytest.raises(ConfigError, match="quantised"):
        random_weights(half)


def test_an_adapter_is_laid_over_8_bits_without_rounding_it_in(tmp_path):
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig, get_peft_model

    base = tiny("llama", hidden_size=64, intermediate_size=128, head_dim=16)
    base.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "lora")
    lora, vectors = str(tmp_path / "lora"), np.random.default_rng(0).normal(size=(12, 6, 64)).astype(np.float32)
    full, half = (load_backbone(str(tmp_path / "base"), adapter=lora, quantize=bits) for bits in (None, "8bit"))
    assert any("lora_A" in name for name, _ in half.named_parameters())
    traces = [np.einsum("nltt->nl", capture(m, vectors, sequences()[1]).grams) for m in (full, half)]
    np.testing.assert_allclose(*traces, rtol=0.1)
