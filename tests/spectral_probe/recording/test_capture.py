"""capture(): Grams against states kept whole, whatever the batch, the padding, the family or the interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spectral_probe.backbones import HFDecoder, load_backbone
from spectral_probe.errors import ConfigError, DataError, ModelError, NonFiniteStateError, ShapeError
from spectral_probe.recording.capture import LayerGrams, capture
from spectral_probe.recording.configuration import BATCHES_PER_SHARD
from tests.spectral_probe.recording.conftest import T, item_table
from tests.spectral_probe.tiny_models import CONFIGS, N_BLOCKS, Toy, n_hooks, tiny


def gram(states: torch.Tensor) -> np.ndarray:
    return (states.double() @ states.double().mT).detach().numpy()


def close(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Compare on the scale of the norms: an entry near zero between long vectors is no more exact than they are."""
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    return actual.shape == expected.shape and bool((np.abs(actual - expected) <= 2e-5 * scale + 1e-7).all())


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral"])
def test_grams_equal_the_hidden_states_of_a_saved_model(family, tmp_path, sequences):
    inputs, lengths = sequences
    inputs, lengths = inputs[:15], lengths[:15]
    reference = tiny(family)
    reference.save_pretrained(tmp_path / family)
    model = load_backbone(str(tmp_path / family))
    model.set_item_embeddings(item_table())
    result = capture(model, inputs, lengths, batch_size=8)
    assert result.layer_names == ("embed", *(f"block {i}" for i in range(1, N_BLOCKS + 1)), "final_norm")
    assert result.is_causal
    for row in range(len(lengths)):
        alone = torch.from_numpy(item_table()[inputs[row, : lengths[row]]])[None]  # no batch, no padding, no mask
        with torch.no_grad():
            states = reference(inputs_embeds=alone, output_hidden_states=True).hidden_states
        n = lengths[row]
        # transformers replaces the last block's raw state by the final norm's output.
        for layer, state in [*enumerate(states[:-1]), (N_BLOCKS + 1, states[-1])]:
            assert close(result.grams[row, layer, :n, :n], gram(state[0])), (family, row, layer)
        assert not result.grams[row, :, n:].any()
        assert not result.grams[row, :, :, n:].any()


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_row(family, sequences):
    inputs, lengths = sequences
    reference = tiny(family)
    model = HFDecoder(tiny(family), item_table())
    result = capture(model, inputs[:6], lengths[:6])
    states = reference(
        inputs_embeds=torch.from_numpy(item_table()[inputs[:1]]), output_hidden_states=True, use_cache=False
    ).hidden_states
    has_final_norm = family != "bert"
    last = N_BLOCKS + 1 if has_final_norm else N_BLOCKS
    assert result.layer_states == ("embed", *["block"] * N_BLOCKS, *["final_norm"] * has_final_norm)
    for layer, state in [*enumerate(states[:-1]), (last, states[-1])]:
        assert close(result.grams[0, layer], gram(state[0])), layer
    if has_final_norm:  # the last block's raw state is in no output; its norm is
        normed = capture(model, inputs[:6], lengths[:6], state_norm="final")
        assert close(normed.grams[0, N_BLOCKS], gram(states[-1][0]))
        assert not close(result.grams[0, N_BLOCKS], gram(states[-1][0]))


def test_state_norm_is_applied_to_embed_and_blocks_once(sequences):
    inputs, lengths = sequences
    toy = Toy()
    with torch.no_grad():
        toy.norm.weight.copy_(torch.linspace(0.5, 2.0, 5))
    raw, normed = (capture(toy, inputs, lengths, state_norm=kind) for kind in (None, "final"))
    embed = toy.norm(toy.table[torch.from_numpy(inputs[0])])
    assert close(normed.grams[0, 0], gram(embed))
    np.testing.assert_array_equal(normed.grams[:, 3], raw.grams[:, 3])
    np.testing.assert_allclose(normed.grams[:, 2], raw.grams[:, 3], rtol=1e-5, atol=1e-5)
    assert normed.settings["state_norm"] == "final"
    with pytest.raises(ConfigError, match="lists none"):
        capture(HFDecoder(tiny("bert"), item_table()), inputs, lengths, state_norm="final")


def test_neither_batch_size_nor_padding_matters(sequences):
    inputs, lengths = sequences
    model = HFDecoder(tiny("qwen2"), item_table())
    whole = capture(model, inputs, lengths, batch_size=40)
    for batch_size in (1, 7):
        np.testing.assert_allclose(
            capture(model, inputs, lengths, batch_size=batch_size).grams, whole.grams, rtol=1e-4, atol=1e-4
        )
    wider = np.concatenate([inputs, np.ones((40, 5), dtype=int)], axis=1)
    np.testing.assert_allclose(capture(model, wider, lengths).grams[..., :T, :T], whole.grams, rtol=1e-4, atol=1e-4)


def test_vectors_and_indices_give_the_same(sequences):
    inputs, lengths = sequences
    model = HFDecoder(tiny("llama"), item_table())
    by_index = capture(model, inputs, lengths)
    by_vector = capture(HFDecoder(tiny("llama")), item_table()[inputs], lengths)
    np.testing.assert_array_equal(by_vector.grams, by_index.grams)


def test_a_block_that_returns_a_tuple(sequences):
    plain, tupled = (capture(Toy(returns_tuple=flag), *sequences) for flag in (False, True))
    np.testing.assert_array_equal(tupled.grams, plain.grams)


@pytest.mark.parametrize("is_leaky", [False, True])
def test_prefixes_against_an_explicit_loop(is_leaky, sequences):
    inputs, lengths = (array[:15] for array in sequences)
    toy = Toy(is_leaky=is_leaky, is_causal=False)
    result = capture(toy, inputs, lengths, batch_size=6)
    assert result.is_causal
    assert result.settings["prefixes"]
    outputs: dict[str, torch.Tensor] = {}
    toy.blocks[1].register_forward_hook(lambda module, args, output: outputs.__setitem__("state", output))
    for row, length in enumerate(lengths):
        last = []
        for t in range(1, length + 1):
            toy.forward_sequences(torch.from_numpy(inputs[row : row + 1, :t]), torch.tensor([t]))
            last.append(outputs["state"][0, -1])
        assert close(result.grams[row, 2, :length, :length], gram(torch.stack(last)))
        assert not result.grams[row, :, length:].any()


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_prefixes_equal_one_pass_for_a_causal_model(family, sequences):
    inputs, lengths = (array[:6] for array in sequences)
    model = HFDecoder(tiny(family), item_table())
    one_pass = capture(model, inputs, lengths)
    by_prefix = capture(model, inputs, lengths, prefixes=True, batch_size=5)
    np.testing.assert_allclose(by_prefix.grams, one_pass.grams, rtol=1e-4, atol=1e-4)


def test_state_norm_prefix_by_prefix(sequences):
    one_pass, by_prefix = (capture(Toy(), *sequences, state_norm="final", prefixes=flag) for flag in (False, True))
    np.testing.assert_allclose(by_prefix.grams, one_pass.grams, rtol=1e-4, atol=1e-4)


def test_hooks_and_training_mode_are_given_back(sequences):
    toy = Toy().train()
    toy.norm.eval()
    mine = toy.norm.register_forward_hook(lambda *_: None)
    capture(toy, *sequences)
    assert n_hooks(toy) == 1
    toy.poisoned_item = int(sequences[0][0, 0])
    with pytest.raises(NonFiniteStateError):
        capture(toy, *sequences)
    assert n_hooks(toy) == 1
    assert (toy.training, toy.norm.training) == (True, False)
    mine.remove()


def test_hooks_are_given_back_when_registering_fails(sequences):
    class Unhookable(nn.Linear):
        def register_forward_hook(self, *args, **kwargs):
            raise RuntimeError("no hooks here")

    toy = Toy()
    toy.norm = Unhookable(5, 5)
    with pytest.raises(RuntimeError, match="no hooks here"):
        capture(toy, *sequences)
    assert n_hooks(toy) == 0


def test_selected_layers_keep_embed_and_the_last_block(sequences):
    every = capture(Toy(), *sequences)
    assert capture(Toy(), *sequences, layers=[]).layer_names == ("embed", "block 2")
    some = capture(Toy(), *sequences, layers=["final_norm", 1])
    assert some.layer_names == every.layer_names
    np.testing.assert_array_equal(capture(Toy(), *sequences, layers=[]).grams, every.grams[:, [0, 2]])
    with pytest.raises(ConfigError, match=r"got 'blok 1'\. Did you mean 'block 1'"):
        capture(Toy(), *sequences, layers=["blok 1"])


def test_a_layer_must_run_exactly_once(sequences):
    toy = Toy()
    toy.blocks[1] = toy.blocks[0]
    with pytest.raises(ModelError, match="'embed' of 'toy' ran 2 times"):
        capture(toy, *sequences)
    toy = Toy()
    idle = nn.Linear(5, 5)
    toy.layers = lambda: [*Toy.layers(toy)[:3], ("final_norm", "final_norm", idle)]
    with pytest.raises(ModelError, match="'final_norm' of 'toy' ran 0 times"):
        capture(toy, *sequences)


def test_malformed_requests_are_refused(sequences):
    inputs, lengths = sequences
    for changes in (
        {"lengths": lengths[:-1]},
        {"lengths": np.where(lengths == T, T + 1, lengths)},
        {"lengths": lengths * 0},
        {"inputs": inputs[0]},
        {"inputs": inputs[..., None]},
        {"users": np.arange(3)},
        {"targets": inputs[:, 1:]},
    ):
        with pytest.raises(ShapeError):
            capture(Toy(), **{"inputs": inputs, "lengths": lengths, **changes})
    for changes in ({"batch_size": 0}, {"state_norm": "first"}, {"prefixes": "no"}, {"resume": True}):
        with pytest.raises(ConfigError):
            capture(Toy(), inputs, lengths, **changes)


def test_grams_of_states_and_the_way_to_disk_and_back(tmp_path):
    rng = np.random.default_rng(0)
    states, lengths = rng.normal(size=(5, 3, 4, 6)), np.array([4, 2, 1, 3, 3])
    users, targets = np.arange(5) * 7, rng.integers(0, 9, size=(5, 4))
    made = LayerGrams.from_states(states, lengths, ["embed", "block 1", "final_norm"], users=users, targets=targets)
    for row, length in enumerate(lengths):
        H = states[row, 1, :length]
        np.testing.assert_allclose(made.grams[row, 1, :length, :length], H @ H.T, rtol=1e-6)
        assert not made.grams[row, :, length:].any()
    by_list = LayerGrams.from_states(list(states.transpose(1, 0, 2, 3)), lengths, made.layer_names)
    np.testing.assert_array_equal(by_list.grams, made.grams)
    made.save(tmp_path / "g")
    back = LayerGrams.load(tmp_path / "g")
    for name in ("grams", "lengths", "users", "targets"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    assert (back.layer_names, back.layer_states) == (made.layer_names, ("embed", "block", "final_norm"))
    with pytest.raises(ConfigError, match="never overwritten"):
        made.save(tmp_path / "g")
    with pytest.raises(DataError, match="cannot be read"):
        LayerGrams.load(tmp_path / "nothing")


class Interrupt:
    """A progress callback that presses Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, done: int, total: int) -> None:
        assert total == 40
        if done > self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("damage", ["none", "deleted", "truncated", "flipped", "empty"])
def test_a_resumed_capture_equals_a_straight_one(damage, tmp_path, sequences):
    options = {"batch_size": 2, "users": np.arange(40), "targets": sequences[0]}
    straight = capture(Toy(), *sequences, out=tmp_path / "a", **options)
    np.testing.assert_array_equal(straight.grams, capture(Toy(), *sequences, **options).grams)
    toy = Toy()
    with pytest.raises(KeyboardInterrupt):
        capture(toy, *sequences, out=tmp_path / "b", progress=Interrupt(33), **options)
    assert n_hooks(toy) == 0
    shards = sorted(path.name for path in (tmp_path / "b").glob("shard-*"))
    assert shards == ["shard-00000.npz", "shard-00001.npz"]
    with pytest.raises(DataError, match="1 of 3 shards"):
        LayerGrams.load(tmp_path / "b")
    victim = tmp_path / "b" / shards[0]
    content = victim.read_bytes()
    if damage == "deleted":
        victim.unlink()
    elif damage != "none":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :]
        victim.write_bytes({"truncated": content[:middle], "flipped": flipped, "empty": b""}[damage])
    again = Toy()
    resumed = capture(again, *sequences, out=tmp_path / "b", resume=True, **options)
    # 4 batches are left of the last shard, and one pass checks causality; a lost shard is 8 batches more.
    assert again.n_runs == 1 + 4 + 8 * (damage != "none")
    np.testing.assert_array_equal(resumed.grams, straight.grams)
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert {path.name for path in (tmp_path / "b").iterdir()} == files
    for name in files:
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
    np.testing.assert_array_equal(LayerGrams.load(tmp_path / "b").grams, straight.grams)


def test_shards_of_another_configuration_are_refused(tmp_path, sequences):
    inputs, lengths = sequences
    out = tmp_path / "grams"
    capture(Toy(), inputs, lengths, batch_size=4, out=out)
    finished = Toy()
    capture(finished, inputs, lengths, batch_size=4, out=out, resume=True)
    assert finished.n_runs == 0
    with pytest.raises(ConfigError, match="never overwritten"):
        capture(Toy(), inputs, lengths, batch_size=4, out=out)
    with pytest.raises(ConfigError, match=r"batch_size \(4 there, 5 here\)"):
        capture(Toy(), inputs, lengths, batch_size=5, out=out, resume=True)
    with pytest.raises(ConfigError, match="inputs_hash"):
        capture(Toy(), inputs[:, ::-1], lengths, batch_size=4, out=out, resume=True)
    retrained = Toy()
    with torch.no_grad():
        retrained.table += 1
    with pytest.raises(ConfigError, match="revision"):
        capture(retrained, inputs, lengths, batch_size=4, out=out, resume=True)
    other = tmp_path / "other"
    capture(retrained, inputs, lengths, batch_size=4, out=other)
    shutil.copy(other / "shard-00001.npz", out / "shard-00001.npz")
    with pytest.raises(ConfigError, match="another configuration than its manifest"):
        LayerGrams.load(out)


def test_other_item_vectors_are_another_configuration(tmp_path, sequences):
    model = HFDecoder(tiny("qwen2"), item_table())
    capture(model, *sequences, out=tmp_path / "grams")
    model.set_item_embeddings(item_table(seed=1))
    with pytest.raises(ConfigError, match="item_embeddings_hash"):
        capture(model, *sequences, out=tmp_path / "grams", resume=True)


def test_the_manifest_says_how_the_grams_came_about(tmp_path, sequences):
    result = capture(Toy(), *sequences, out=tmp_path / "grams", batch_size=4)
    manifest = json.loads((tmp_path / "grams" / "manifest.json").read_text())
    assert manifest["settings"] == result.settings
    assert LayerGrams.load(tmp_path / "grams").settings == result.settings
    assert manifest["rows_per_shard"] == 4 * BATCHES_PER_SHARD
    assert result.settings["device"] == "cpu"
    assert result.settings["threads"] == torch.get_num_threads()


def test_device_and_dtype_move_the_model(sequences):
    model = HFDecoder(tiny("qwen2"), item_table())
    full = capture(model, *sequences)
    half = capture(model, *sequences, device="cpu", dtype=torch.bfloat16)
    assert half.settings["dtype"] == "bfloat16"
    assert half.grams.dtype == np.float32
    trace = np.einsum("nltt->nl", full.grams)
    np.testing.assert_allclose(np.einsum("nltt->nl", half.grams), trace, rtol=0.05)
    assert not np.array_equal(half.grams, full.grams)


@pytest.mark.shared
def test_a_trained_language_model_end_to_end(shared_dir: Path):
    folder = str(shared_dir / "models" / "stories260K")
    model = load_backbone(folder)
    ids = model.tokenizer("Once upon a time, there was a little girl named Lily.", return_tensors="pt")["input_ids"]
    vectors = model.model.get_input_embeddings()(ids).detach()
    result = capture(model, vectors, [ids.shape[1]])
    states = model.model(ids, output_hidden_states=True).hidden_states
    assert result.grams.shape[1] == 7
    for layer, state in [*enumerate(states[:-1]), (6, states[-1])]:
        assert close(result.grams[0, layer], gram(state[0])), layer
