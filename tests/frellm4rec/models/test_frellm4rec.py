"""FreLLM4Rec: the backbone stays as it is, the filters act where they should, and files hold what they must."""

import copy
import gc
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from frellm4rec.items import vectors
from frellm4rec.items.item_table import ItemTable
from frellm4rec.models import FreLLM4Rec, FreLLM4RecConfig
from frellm4rec.models.frellm4rec import model as module
from frellm4rec.models.registry import load_model
from frellm4rec.modules.glpf import GraphLowPassFilter
from frellm4rec.runs import pretrained
from frellm4rec.training import TrainingConfig, train
from spectral_probe.analysis.controls import random_weights
from spectral_probe.analysis.pipeline import analyze
from spectral_probe.backbones import load_backbone, weights_fingerprint
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from tests.frellm4rec.conftest import make_random, make_ring
from tests.frellm4rec.tiny_recommenders import backbone, frellm4rec, padded, states, tables
from tests.spectral_probe.tiny_models import CONFIGS, N_BLOCKS, n_hooks

HISTORIES = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6], [11], [7, 7, 0]]
TWO_EPOCHS = TrainingConfig(n_epochs=2, validate_every=1, batch_size=16, learning_rate=1e-2)
families = pytest.mark.parametrize("family", sorted(CONFIGS))


def graph_of(n_items=12):
    return ItemGraph.from_interactions(make_ring(n_items=n_items).train.user_items, self_loops=True)


def words(title, **_):
    """A tokenizer: one token for each letter."""
    return {"input_ids": [1 + ord(letter) % 60 for letter in title]}


@pytest.fixture
def quick_ids(tmp_path, monkeypatch):
    """Train the ID embeddings for two epochs, and keep everything in a folder of the test."""
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    quick = partial(pretrained.pretrained, training=TrainingConfig(n_epochs=2, validate_every=2))
    monkeypatch.setattr(pretrained, "pretrained", quick)


# The config


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_items": 0}, "n_items must be a whole number of at least 1"),
        ({"max_length": 0}, "max_length must be"),
        ({"inputs": "ids"}, "inputs must be one of .*Did you mean 'id'"),
        ({"fusion": "mpl"}, "Did you mean 'mlp'"),
        ({"fusion": "gate", "n_hidden": 8}, "no hidden layer"),
        ({"mode": "casual"}, "Did you mean 'causal'"),
        ({"n_hidden": 0}, "n_hidden must be"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]; got 1.5"),
        ({"alpha": "much"}, "of the wrong type"),
        ({"alpha": 0.0, "learnable_alpha": True}, r"inside \(0, 1\); got 0"),
        ({"glpf_order": 0}, "order must be"),
        ({"glpf_keep": 0.0}, r"in \(0, 1\]; got 0"),
        ({"glpf_keep": 0.5, "learnable_alpha": True}, "no alpha to learn"),
        ({"glpf_targets": ["id", "title"]}, "may name id and text"),
        ({"cutoff": 0.0}, r"in \(0, 1\]; got 0"),
        ({"cutoff": False}, "got False"),
        ({"cutoff": None, "learnable_cutoff": True}, "starts inside"),
        ({"tfm_order": 1.5}, "order must be"),
        ({"layers": []}, "from 1 on"),
        ({"layers": [0, 1]}, "from 1 on"),
        ({"train_norms": "no"}, "train_norms must be true or false; got 'no'"),
        ({"cutof": 0.3}, "has no setting 'cutof'.*Did you mean 'cutoff'"),
    ],
)
def test_the_config_refuses(settings, says):
    with pytest.raises(ConfigError, match=says):
        FreLLM4RecConfig.from_dict({"n_items": 12, **settings})


def test_a_config_survives_json():
    config = FreLLM4RecConfig(n_items=3, layers=(1, 2), glpf_targets=("id", "text"), cutoff=None)
    assert FreLLM4RecConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="lacks the required setting 'n_items'"):
        FreLLM4RecConfig.from_dict({"alpha": 0.1})


def test_what_does_not_fit_the_backbone_or_the_tables_is_refused():
    with pytest.raises(ConfigError, match=r"needs tables \('id', 'text'\) of 12 items; got {'id': 12}"):
        FreLLM4Rec(FreLLM4RecConfig(n_items=12), tables(12, "id"), backbone=backbone())
    with pytest.raises(ConfigError, match=r"got {'id': 11"):
        FreLLM4Rec(FreLLM4RecConfig(n_items=12), tables(11), backbone=backbone())
    with pytest.raises(ConfigError, match=r"has 3 blocks; layers names \[4\]"):
        frellm4rec(12, layers=[4])
    with pytest.raises(ConfigError, match="mode 'causal' would leak"):
        frellm4rec(12, mode="causal", decoder=backbone("bert", is_decoder=False))
    assert not frellm4rec(12, mode="prefix", decoder=backbone("bert", is_decoder=False)).is_causal


@pytest.mark.parametrize("fusion", ["mlp", "gate"])
def test_dropout_has_no_part_in_the_initial_weights(fusion):
    plain = frellm4rec(12, fusion=fusion)
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.get_rng_state()
        model = frellm4rec(12, fusion=fusion, dropout=0.5)
        assert torch.equal(torch.get_rng_state(), expected)
        assert model.fusion.training
        assert model.revision == plain.revision


# The backbone


def test_the_backbone_is_bit_identical_through_its_whole_life(ring, tmp_path):
    decoder = backbone()
    untouched = weights_fingerprint(decoder.model)
    model = frellm4rec(12, mode="causal", decoder=decoder)
    assert weights_fingerprint(decoder.model) == untouched
    assert not any(p.requires_grad for p in decoder.parameters())
    train(model, ring, TWO_EPOCHS)
    assert weights_fingerprint(decoder.model) == untouched
    folder = model.save_pretrained(tmp_path / "model")
    loaded = FreLLM4Rec.from_pretrained(folder, backbone=backbone())
    assert weights_fingerprint(loaded.backbone.model) == untouched
    assert model.config.backbone_weights == loaded.config.backbone_weights == untouched[:16]


def test_another_backbone_is_refused_and_nothing_is_overwritten(ring, tmp_path):
    model = frellm4rec(12)
    folder = model.save_pretrained(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with torch.no_grad():
        other = backbone()
        next(other.model.parameters())[0, 0] += 1e-3
    expected = weights_fingerprint(other.model)
    with pytest.raises(ModelError, match=r"trained on backbone 'tiny llama' with weights .* has"):
        FreLLM4Rec.from_pretrained(folder, backbone=other)
    with pytest.raises(ModelError, match="trained on backbone"):
        FreLLM4Rec.from_pretrained(folder, backbone="tiny-random:llama")
    assert weights_fingerprint(other.model) == expected
    assert n_hooks(other) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(before) == ["config.json", "model.safetensors"]


def test_what_is_saved_is_not_the_backbone(tmp_path):
    model = frellm4rec(12, learnable_cutoff=True)
    saved = load_file(model.save_pretrained(tmp_path) / "model.safetensors")
    assert {name.split(".")[0] for name in saved} == {"fusion", "tables", "tfm"}
    sizes = [sum(tensor.numel() for tensor in part.state_dict().values()) for part in (model, model.backbone)]
    assert sum(tensor.numel() for tensor in saved.values()) == sizes[0] - sizes[1]
    del saved["fusion.out.bias"]
    save_file(saved, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"names differ in \['fusion.out.bias'\]"):
        FreLLM4Rec.from_pretrained(tmp_path, backbone=backbone())
    del saved["tables.id.basis"]
    save_file(saved, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack 'tables.id.basis'"):
        FreLLM4Rec.from_pretrained(tmp_path, backbone=backbone())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_trained_norms_are_saved_and_nothing_else_of_the_backbone(family, ring, tmp_path):
    model, fresh = frellm4rec(12, family=family, mode="causal", train_norms=True), backbone(family)
    train(model, ring, TWO_EPOCHS)
    changed = {
        name
        for name, tensor in model.backbone.state_dict().items()
        if not torch.equal(tensor, fresh.state_dict()[name])
    }
    assert changed
    assert all("norm" in name or "ln_" in name for name in changed)
    saved = load_file(model.save_pretrained(tmp_path) / "model.safetensors")
    assert {name.removeprefix("backbone.") for name in saved if name.startswith("backbone.")} >= changed
    assert not any(tensor.ndim > 1 for name, tensor in saved.items() if name.startswith("backbone."))
    loaded = FreLLM4Rec.from_pretrained(tmp_path, backbone=fresh)
    batch = padded(*HISTORIES)
    assert torch.equal(loaded.score(*batch), model.score(*batch))
    assert torch.equal(copy.deepcopy(model).score(*batch), model.score(*batch))


def test_a_saved_model_finds_its_backbone_by_name_in_its_number_type(ring, tmp_path):
    config = FreLLM4RecConfig(n_items=12, max_length=7, backbone="tiny-random:llama", mode="causal")
    decoder = load_backbone("tiny-random:llama", dtype="bfloat16")
    model = FreLLM4Rec(config, tables(12), backbone=decoder)
    assert model.config.backbone_dtype == "bfloat16"
    losses = []
    train(model, ring, TWO_EPOCHS, log=lambda entry: losses.append(entry["loss"]))
    assert np.isfinite(losses).all()
    states = model.forward_sequences(*padded(*HISTORIES))
    assert states.dtype == torch.float32
    loaded = load_model(model.save_pretrained(tmp_path))
    assert loaded.backbone.dtype == torch.bfloat16
    assert torch.equal(loaded.score(*padded(*HISTORIES)), model.score(*padded(*HISTORIES)))
    exact = FreLLM4Rec(config, tables(12), backbone=load_backbone("tiny-random:llama"))
    exact.load_saved_state(model.saved_state())
    similarity = torch.cosine_similarity(exact.score(*padded(*HISTORIES)), model.score(*padded(*HISTORIES)))
    assert similarity.min() > 0.99


def test_one_backbone_serves_one_model():
    decoder = backbone()
    model = frellm4rec(12, decoder=decoder)
    with pytest.raises(ConfigError, match="'tiny llama' belongs to another FreLLM4Rec"):
        frellm4rec(12, decoder=decoder, cutoff=None)
    assert n_hooks(decoder) == N_BLOCKS + 1
    del model
    gc.collect()
    assert n_hooks(decoder) == 0
    frellm4rec(12, decoder=decoder, cutoff=None)


@families
def test_every_family_trains_a_step_of_the_fusion_alone(family, ring):
    model = frellm4rec(12, family=family, mode="prefix")
    fusion = {id(p) for p in model.fusion.parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == fusion
    before = {name: p.clone() for name, p in model.named_parameters()}
    losses = []
    train(model, ring, replace(TWO_EPOCHS, n_epochs=1, batch_size=40), log=lambda e: losses.append(e["loss"]))
    assert np.isfinite(losses).all()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) not in fusion), name
        assert (parameter.grad is None) == (id(parameter) not in fusion), name


# The filters


def test_filters_that_are_off_are_the_identity_to_the_bit():
    vectors = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
    plain = ItemTable.filtered(vectors, None)
    off = ItemTable.filtered(vectors, GraphLowPassFilter(graph_of(), alpha=0.0))
    assert torch.equal(plain(), off())
    config = FreLLM4RecConfig(n_items=12, max_length=7, inputs="id", backbone="tiny", alpha=0.0, cutoff=None)
    model, bare = FreLLM4Rec(config, {"id": off}, backbone=backbone()), backbone()
    assert n_hooks(model) == 0
    inputs, lengths = padded(*HISTORIES)
    with torch.no_grad():
        expected = bare.run(model.fusion(plain(inputs)), lengths)
    assert torch.equal(model.forward_sequences(inputs, lengths), expected)
    filtered = FreLLM4Rec(replace(config, cutoff=0.3), {"id": off}, backbone=backbone())
    assert not torch.allclose(filtered.forward_sequences(inputs, lengths), expected, atol=1e-2)
    table = ItemTable.filtered(vectors, GraphLowPassFilter(graph_of(), alpha=0.5))
    assert not torch.allclose(table(), plain(), atol=1e-2)


def test_learnable_filters_move_and_survive_saving(ring, tmp_path):
    graph_filter = GraphLowPassFilter(graph_of(), alpha=0.3, learnable=True)
    vectors = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
    config = FreLLM4RecConfig(
        n_items=12, max_length=7, inputs="id", backbone="tiny", learnable_alpha=True, learnable_cutoff=True
    )
    model = FreLLM4Rec(config, {"id": ItemTable.filtered(vectors, graph_filter)}, backbone=backbone())
    fixed = ItemTable.filtered(vectors, GraphLowPassFilter(graph_of(), alpha=0.3))
    torch.testing.assert_close(model.tables["id"](), fixed())
    assert (model.tables["id"].alpha, model.tfm.cutoffs().tolist()) == (
        pytest.approx(0.3, abs=1e-6),
        pytest.approx([0.3] * N_BLOCKS, abs=1e-6),
    )
    train(model, ring, TWO_EPOCHS)
    assert abs(model.tables["id"].alpha - 0.3) > 1e-3
    assert (model.tfm.cutoffs() - 0.3).abs().min() > 1e-5
    assert not torch.allclose(model.tables["id"](), fixed(), atol=1e-3)
    loaded = FreLLM4Rec.from_pretrained(model.save_pretrained(tmp_path), backbone=backbone())
    assert loaded.tables["id"].alpha == model.tables["id"].alpha
    assert torch.equal(loaded.tfm.cutoffs(), model.tfm.cutoffs())
    assert torch.equal(loaded.score(*padded(*HISTORIES)), model.score(*padded(*HISTORIES)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_recomputed_blocks_give_equal_gradients_without_dropout(family, ring):
    """gpt2 and bert come with a dropout of 0.1, which a frozen backbone must not apply."""
    gradients, n_runs = [], []
    batch = padded(*HISTORIES)
    weights = torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(0))
    for is_recomputed in (False, True):
        model = frellm4rec(12, family=family, mode="causal").train()
        if is_recomputed:
            model.enable_gradient_checkpointing()
        model.train()
        count = []
        first = model.layers()[1][2]
        leaf = next(part for part in first.modules() if not list(part.children()))
        leaf.register_forward_hook(lambda *_, count=count: count.append(1))
        torch.manual_seed(int(is_recomputed))
        (model(*batch) * weights).sum().backward()
        n_runs.append(len(count))
        gradients.append([p.grad for p in model.fusion.parameters()])
    assert n_runs == [1, 2]
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(recomputed, plain, rtol=1e-4, atol=1e-5)
    assert not model.eval().backbone.model.training
    model.forward_sequences(*batch)
    assert len(count) == 3, "nothing is recomputed where nothing is trained"


# Copies and controls


def test_a_copy_is_independent_and_has_its_own_hooks():
    model, batch = frellm4rec(12, learnable_cutoff=True).eval(), padded(*HISTORIES)
    expected, before = model.score(*batch), n_hooks(model)
    twin = copy.deepcopy(model)
    assert n_hooks(model) == n_hooks(twin) == before == N_BLOCKS + 1
    assert torch.equal(twin.score(*batch), expected)
    assert twin.revision == model.revision
    with torch.no_grad():
        twin.tfm.logit.add_(2.0)
        twin.fusion.out.weight.mul_(2.0)
        next(twin.backbone.model.parameters()).mul_(2.0)
    assert torch.equal(model.score(*batch), expected)
    with torch.no_grad():
        model.tfm.logit.add_(2.0)
    assert not torch.allclose(model.score(*batch), expected, atol=1e-3), "the original is still filtered"
    assert copy.deepcopy(model.train()).training


def test_the_random_weights_control_keeps_the_inputs():
    model, batch = frellm4rec(12), padded(*HISTORIES)
    untouched = weights_fingerprint(model)
    control = random_weights(model)
    original, redrawn = states(model, *batch), states(control, *batch)
    assert torch.equal(original["embed"], redrawn["embed"])
    for name in ("block 1", f"block {N_BLOCKS}"):
        assert (original[name] - redrawn[name]).abs().max() > 0.1
    assert weights_fingerprint(model) == untouched
    assert n_hooks(control) == n_hooks(model) == N_BLOCKS + 1


# What it is built from


def planted(part):
    """A log in which items 28 and 29 meet in one history alone, in its held-out part; and the log without that."""
    rng = np.random.default_rng(0)
    histories = [rng.permutation(28)[:8] for _ in range(20)]
    histories[1][2], histories[2][2] = 28, 29  # each is known from training
    histories[0][1] = 28
    without = [h.copy() for h in histories]
    histories[0][{"test": -1, "valid": -2}[part]] = 29
    return [
        Dataset.from_interactions(Interactions.from_sequences(h, n_items=30), name="planted")
        for h in (histories, without)
    ]


@pytest.mark.parametrize("part", ["test", "valid"])
def test_graph_and_id_embeddings_know_nothing_of_held_out_items(part, quick_ids, monkeypatch):
    graphs, models = [], []
    make = ItemGraph.from_interactions

    def spy(*args, **kwargs):
        graphs.append(make(*args, **kwargs))
        return graphs[-1]

    monkeypatch.setattr(module.ItemGraph, "from_interactions", spy)
    with_pair, without = planted(part)
    everything = Interactions.from_sequences(with_pair.sequences, n_items=30)
    assert make(everything.user_items, self_loops=True).W.toarray()[28, 29] == 1, "the pair is there to leak"
    for dataset in (with_pair, without):
        config = FreLLM4RecConfig(n_items=30, max_length=7, inputs="id", backbone="tiny")
        models.append(FreLLM4Rec.from_dataset(config, dataset, backbone=backbone()))
    assert len(graphs) >= 2
    for graph in graphs:
        W = graph.W.toarray()
        assert W[28, 29] == W[29, 28] == 0
        assert W[28].sum() > 0
        assert W[29].sum() > 0
    ids = [vectors.id_item_table(dataset) for dataset in (with_pair, without)]
    np.testing.assert_array_equal(*ids)
    assert torch.equal(models[0].tables["id"].basis, models[1].tables["id"].basis)
    assert not torch.equal(models[0].tables["id"].basis[0], torch.from_numpy(ids[0])), "the filter was applied"


def test_the_text_table_is_read_once_for_each_content(quick_ids, tmp_path, monkeypatch):
    dataset = replace(make_random(), item_titles=[f"Item {i}" for i in range(30)])
    decoder = backbone()
    decoder._tokenizer = words
    read, calls = vectors.text_inputs, []
    monkeypatch.setattr(vectors, "text_inputs", lambda *args: calls.append(1) or read(*args))
    first = vectors.text_item_table(dataset, decoder)
    assert first.shape == (30, decoder.width)
    np.testing.assert_array_equal(vectors.text_item_table(replace(dataset, name="other"), decoder), first)
    assert len(calls) == 1
    renamed = replace(dataset, item_titles=["New", *dataset.item_titles[1:]])
    assert not np.array_equal(vectors.text_item_table(renamed, decoder), first)
    with torch.no_grad():
        next(decoder.model.parameters()).mul_(1.1)
    vectors.text_item_table(dataset, decoder)
    vectors.text_item_table(dataset, decoder.to(torch.bfloat16))
    assert len(calls) == 4
    assert len(list((tmp_path / "cache" / "text").iterdir())) == 4
    with pytest.raises(DataError, match="no item titles"):
        vectors.text_item_table(make_random(), decoder)


@pytest.mark.parametrize("damage", [b"", b"junk", "cut", "other shape"])
def test_a_damaged_text_table_is_named(damage, quick_ids, tmp_path):
    dataset = replace(make_random(), item_titles=[f"Item {i}" for i in range(30)])
    decoder = backbone()
    decoder._tokenizer = words
    vectors.text_item_table(dataset, decoder)
    (path,) = (tmp_path / "cache" / "text").iterdir()
    if damage == "other shape":
        np.save(path, np.zeros((3, 4), np.float32))
    else:
        path.write_bytes(path.read_bytes()[:-8] if damage == "cut" else damage)
    with pytest.raises(DataError, match=f"{path.name} are damaged .* Delete the file"):
        vectors.text_item_table(dataset, decoder)


def test_text_and_ids_together_from_a_data_set(quick_ids, ring):
    dataset = replace(ring, item_titles=[f"Item {i}" for i in range(12)])
    decoder = backbone()
    decoder._tokenizer = words
    config = FreLLM4RecConfig(n_items=12, max_length=7, backbone="tiny", glpf_targets=("id",))
    model = FreLLM4Rec.from_dataset(config, dataset, backbone=decoder)
    assert list(model.tables) == ["id", "text"]
    assert (model.tables["id"].width, model.tables["text"].width) == (50, decoder.width)
    plain = ItemTable.filtered(torch.from_numpy(vectors.text_item_table(dataset, decoder)), None)
    assert torch.equal(model.tables["text"](), plain()), "text is filtered only where asked"
    rms = model.item_embeddings().square().mean().sqrt()
    assert rms.item() == pytest.approx(decoder.token_rms(), rel=1e-4)
    with pytest.raises(DataError, match="no item titles"):
        FreLLM4Rec.from_dataset(config, ring, backbone=backbone())


# The instrument


@pytest.mark.parametrize("mode", ["prefix", "causal", "two_sided_leaky"])
def test_the_instrument_probes_it(mode, ring):
    model = frellm4rec(12, mode=mode)
    profile = analyze(model, ring, n_bootstrap=100, max_length=7)
    assert profile.n_users > 20
    assert set(profile.table["layer_name"]) == {"embed", "final_norm", *(f"block {i + 1}" for i in range(N_BLOCKS))}
    # Two-sided filters are probed prefix by prefix, so that no row has seen its answer.
    assert profile.protocol["prefix_by_prefix"] == (mode != "causal")
    assert ("leaky" in model.note) == (mode == "two_sided_leaky")
    assert model.number_format is None
    model.backbone.number_format = "GGUF Q8_0"
    assert model.number_format == "GGUF Q8_0"
    assert n_hooks(model) == N_BLOCKS + 1
    with pytest.raises(ShapeError, match=r"at most 7 items; got 8.* --max-length 7"):
        analyze(model, ring, n_bootstrap=100)
    raw = profile.controls["raw"].table.query("band == 'low' and layer_name == 'block 3'")["share"]
    off = analyze(frellm4rec(12, mode=mode, cutoff=None), ring, n_bootstrap=100, max_length=7).controls["raw"].table
    assert not np.allclose(raw, off.query("band == 'low' and layer_name == 'block 3'")["share"], atol=1e-3)


# Ties
