"""GGUF files: the same tensors as before they were stored, their number format named, and everything else refused."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

gguf = pytest.importorskip("gguf")

from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants  # noqa: E402

from spectral_probe.analysis.cost import plan  # noqa: E402
from spectral_probe.analysis.pipeline import analyze  # noqa: E402
from spectral_probe.analysis.reanalysis import reanalyze  # noqa: E402
from spectral_probe.backbones import gguf_files, load_backbone, weights_fingerprint  # noqa: E402
from spectral_probe.backbones.gguf_format import describe_formats, relative_rounding_error  # noqa: E402
from spectral_probe.errors import MissingDependencyError, ModelError, ResourceError  # noqa: E402
from tests.spectral_probe.tiny_models import tiny  # noqa: E402

N_HEADS = {"q": 4, "k": 2}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def as_stored(name: str, weight: np.ndarray) -> np.ndarray:
    """Return a weight in llama.cpp's order: in each head of q and k, rows i and i + half become neighbours."""
    head = name.rpartition("attn_")[2]
    if head not in N_HEADS:
        return weight
    rows = np.arange(len(weight)).reshape(N_HEADS[head], 2, -1)
    return weight[rows.transpose(0, 2, 1).ravel()]


def stored_name(name: str) -> str:
    """Return llama.cpp's name of a parameter of a Llama body."""
    name = name.removesuffix(".weight")
    if name in ("embed_tokens", "norm"):
        return {"embed_tokens": "token_embd", "norm": "output_norm"}[name] + ".weight"
    _, block, rest = name.split(".", 2)
    return f"blk.{block}.{NAMES[rest]}.weight"


def write_gguf(
    path: Path, model, number_format: str = "F32", *, architecture: str = "llama", drop: str = "", **more
) -> Path:
    """Write a tiny Llama as llama.cpp's converter does; ``more``: further tensors, or texts of further fields."""
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    kind = GGMLQuantizationType[number_format]
    for name, parameter in model.named_parameters():
        if stored_name(name) == drop:
            continue
        weight = as_stored(stored_name(name).removesuffix(".weight"), parameter.detach().numpy())
        is_matrix = parameter.ndim > 1
        data = quants.quantize(weight, kind if is_matrix else GGMLQuantizationType.F32)
        writer.add_tensor(stored_name(name), data, raw_dtype=kind if data.dtype == np.uint8 else None)
    for name, value in more.items():
        if isinstance(value, str):
            writer.add_string(name.replace("__", "."), value)
        else:
            writer.add_tensor(name.replace("__", "."), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def llama():
    return tiny("llama", intermediate_size=64)


def n_conversions(cache: Path) -> int:
    return len(list((cache / "gguf" / str(gguf_files.CONVERSION)).iterdir()))


# --- the same model ----------------------------------------------------------------------------------------------


def test_the_tensors_are_the_originals_to_the_bit(tmp_path, llama):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    decoder = load_backbone(str(file))
    assert weights_fingerprint(decoder.model) == weights_fingerprint(llama)
    assert (decoder.name, decoder.n_blocks, decoder.dtype, decoder.quantization) == ("tiny", 3, torch.float32, None)
    x, lengths = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([6, 4])
    assert torch.equal(decoder.run(x, lengths)[0], llama(inputs_embeds=x).last_hidden_state[0])


def test_queries_and_keys_left_in_the_stored_order_would_give_another_model(tmp_path, llama):
    stored = {t.name: np.array(t.data) for t in GGUFReader(write_gguf(tmp_path / "tiny.gguf", llama)).tensors}
    left_in = copy.deepcopy(llama)
    with torch.no_grad():
        for name, parameter in left_in.named_parameters():
            parameter.copy_(torch.from_numpy(stored[stored_name(name)]).view_as(parameter))
    different = [n for (n, p), q in zip(llama.named_parameters(), left_in.parameters(), strict=True) if (p != q).any()]
    assert different == [f"layers.{block}.self_attn.{part}_proj.weight" for block in range(3) for part in "qk"]
    assert weights_fingerprint(left_in) != weights_fingerprint(llama)
    # Nothing fails: the states are finite and of the same size, and they are wrong.
    x = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0))
    right, wrong = (model(inputs_embeds=x).last_hidden_state.detach() for model in (llama, left_in))
    assert wrong.isfinite().all()
    assert 0.5 < float(wrong.norm() / right.norm()) < 2
    assert float((wrong - right).norm() / right.norm()) > 0.05


def test_a_head_of_its_own_is_kept_apart_from_the_token_table(tmp_path, llama):
    head = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    file = write_gguf(tmp_path / "tiny.gguf", llama, output__weight=head)
    decoder = load_backbone(str(file))
    assert weights_fingerprint(decoder.model) == weights_fingerprint(llama)
    settings = json.loads((Path(decoder.source) / "config.json").read_text())
    assert settings["architectures"] == ["LlamaForCausalLM"]
    assert settings["tie_word_embeddings"] is False
    assert "quantization_config" not in settings


def test_the_scaled_rotary_frequencies_of_llama_3_are_kept(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama = tiny("llama", intermediate_size=64, rope_parameters={**rope, "original_max_position_embeddings": 8192})
    # llama.cpp's definition: short waves stay, long ones are stretched by the factor, those between by a mixture.
    waves = 2 * np.pi * 5e5 ** (np.arange(4) / 4)
    smooth = (8192 / waves - 1) / (4 - 1)
    factors = np.where(waves < 8192 / 4, 1, np.where(waves > 8192, 8, 1 / ((1 - smooth) / 8 + smooth)))
    assert len(set(factors)) == 3
    file = write_gguf(tmp_path / "tiny.gguf", llama, rope_freqs__weight=factors.astype(np.float32))
    decoder = load_backbone(str(file))
    assert decoder.model.config.rope_parameters["rope_type"] == "llama3"
    torch.testing.assert_close(decoder.model.rotary_emb.inv_freq, llama.rotary_emb.inv_freq)
    x = torch.randn(1, 60, 32, generator=torch.Generator().manual_seed(0))
    states = decoder.run(x, torch.tensor([60]))
    torch.testing.assert_close(states, llama(inputs_embeds=x).last_hidden_state)
    plain = write_gguf(tmp_path / "plain.gguf", llama)
    assert not torch.allclose(load_backbone(str(plain)).run(x, torch.tensor([60])), states, atol=1e-3)


@pytest.mark.parametrize("number_format", ["F16", "BF16", "Q8_0"])
def test_rounded_weights_are_those_of_the_file(number_format, tmp_path, llama):
    decoder = load_backbone(str(write_gguf(tmp_path / "tiny.gguf", llama, number_format)))
    kind = GGMLQuantizationType[number_format]
    for name, parameter in llama.named_parameters():
        value = parameter.detach().numpy()
        expected = quants.dequantize(quants.quantize(value, kind), kind) if value.ndim > 1 else value
        loaded = decoder.model.get_parameter(name).detach().numpy()
        assert np.array_equal(loaded, expected), name
        assert value.ndim == 1 or not np.array_equal(loaded, value), name
    assert f"GGUF {number_format} (" in decoder.number_format


def test_a_folder_with_one_file_is_that_file(tmp_path, llama):
    (tmp_path / "model").mkdir()
    write_gguf(tmp_path / "model" / "a.gguf", llama)
    assert load_backbone(str(tmp_path / "model")).revision == load_backbone(str(tmp_path / "model/a.gguf")).revision
    write_gguf(tmp_path / "model" / "b.gguf", llama)
    with pytest.raises(ModelError, match=r"exactly one GGUF file; .*/model' holds 2 \(a\.gguf, b\.gguf\)"):
        load_backbone(str(tmp_path / "model"))
    llama.save_pretrained(tmp_path / "model")  # safetensors come first: they are not rounded
    assert load_backbone(str(tmp_path / "model")).number_format is None


# --- the number format, in words and in every output -------------------------------------------------------------


@pytest.mark.parametrize("number_format", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_the_rounding_error_is_that_of_known_weights(number_format, tmp_path):
    weights = np.random.default_rng(0).normal(size=(100, 256)).astype(np.float32)
    kind = GGMLQuantizationType[number_format]
    writer = GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("token_embd.weight", quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = GGUFReader(tmp_path / "one.gguf").tensors
    error = quants.dequantize(quants.quantize(weights, kind), kind) - weights
    measured = float(np.sqrt(np.square(error).mean() / np.square(weights).mean()))
    assert relative_rounding_error(tensors) == pytest.approx(measured, rel=0.1)
    assert f"{int(number_format[1])} bits a weight in blocks of 32" in describe_formats(tensors)


def test_formats_are_listed_by_their_share(tmp_path, llama):
    half = np.zeros((64, 32), dtype=np.float16)
    words = describe_formats(GGUFReader(write_gguf(tmp_path / "a.gguf", llama, "Q8_0", output__weight=half)).tensors)
    assert words.index("Q8_0 (") < words.index("F16 (") < words.index("F32 (")
    assert "11 significant bits" in words
    exact = describe_formats(GGUFReader(write_gguf(tmp_path / "b.gguf", llama)).tensors)
    assert exact == "GGUF F32 (24 significant bits), read as float32"


def test_every_output_names_the_number_format(tmp_path, llama, capsys):
    from spectral_probe.cli.printing import print_profile

    file = write_gguf(tmp_path / "tiny.gguf", llama, "Q8_0")
    rng = np.random.default_rng(0)
    log = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(40), 8),
            "item_id": rng.integers(0, 20, 320),
            "timestamp": np.tile(np.arange(8), 40),
        }
    )
    log.to_csv(tmp_path / "log.csv", index=False)
    np.save(tmp_path / "vectors.npy", rng.normal(size=(20, 32)).astype(np.float32))
    embeddings = str(tmp_path / "vectors.npy")
    profile = analyze(str(file), str(tmp_path / "log.csv"), embeddings=embeddings, out=tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    words = load_backbone(str(file)).number_format
    assert "Q8_0 (" in words
    assert json.loads((run / "grams" / "main" / "manifest.json").read_text())["settings"]["number_format"] == words
    assert json.loads((run / "summary.json").read_text())["protocol"]["number_format"] == words
    assert words.split("(")[0] in (run / "report.html").read_text()
    assert "rounded-weights" in profile.caveats
    again = reanalyze(run, {"tau": 2.0}).profile
    assert again.protocol["number_format"] == words
    print_profile(profile)
    assert "Q8_0 (" in capsys.readouterr().out
    other = analyze(llama, str(tmp_path / "log.csv"), embeddings=embeddings)
    assert "number_format" not in other.protocol
    assert "rounded-weights" not in other.caveats


# --- the cache ---------------------------------------------------------------------------------------------------


def test_a_file_is_converted_once_whatever_its_name(tmp_path, llama, cache, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    load_backbone(str(file))
    monkeypatch.setattr(gguf_files, "_convert", lambda *_: pytest.fail("converted again"))
    monkeypatch.setattr(gguf_files, "has_gguf_reader", lambda: False)  # needed for the conversion only
    moved = file.rename(tmp_path / "renamed.gguf")
    assert load_backbone(str(moved)).name == "renamed"
    assert n_conversions(cache) == 1


def test_another_process_may_be_faster(tmp_path, llama, cache, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    load, calls = gguf_files._load, []

    def overtaken(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            gguf_files.converted_folder(file)
        return load(*arguments)

    monkeypatch.setattr(gguf_files, "_load", overtaken)
    assert load_backbone(str(file)).revision == weights_fingerprint(llama)[:16]
    assert (len(calls), n_conversions(cache)) == (2, 1)


@pytest.mark.slow
def test_two_processes_at_once(tmp_path, llama, cache):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    code = f"from spectral_probe.backbones import load_backbone\nprint(load_backbone({str(file)!r}).revision)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    answers = [process.communicate()[0].strip() for process in both]
    assert answers == [weights_fingerprint(llama)[:16]] * 2
    assert n_conversions(cache) == 1


def test_a_damaged_conversion_is_reported(tmp_path, llama):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    folder = Path(load_backbone(str(file)).source)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"converted model in .* is damaged. Delete that folder"):
        load_backbone(str(file))


def test_a_failed_conversion_leaves_nothing(tmp_path, llama, cache, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf", llama)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(gguf_files._load(file, gguf_files._open(file))), "save_pretrained", full)
    with pytest.raises(ResourceError, match=r"No space left.*SPECTRAL_PROBE_CACHE"):
        load_backbone(str(file))
    assert n_conversions(cache) == 0


def test_too_little_room_is_found_before_the_conversion(tmp_path, llama, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    usage = gguf_files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(gguf_files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ResourceError, match=r"takes 0\.0 GiB as float32; .* has 0\.0 GiB free"):
        load_backbone(str(file))


# --- what is refused ---------------------------------------------------------------------------------------------


def test_without_its_package_the_line_to_run_is_printed(tmp_path, llama, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    monkeypatch.setattr(gguf_files, "has_gguf_reader", lambda: False)
    with pytest.raises(MissingDependencyError) as caught:
        load_backbone(str(file))
    assert caught.value.exit_code == 5
    assert str(caught.value).endswith('Run: pip install "spectral-probe[gguf]"')


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: b"", r"begins with b''. Download it again"),
        (lambda data: b"version https://git-lfs", r"begins with b'vers'.*git-lfs"),
        (lambda data: data[:100], r"damaged or not complete \(.+\)\. Download it again"),
        (lambda data: data[:-2000], r"damaged or not complete \(.+\)\. Download it again"),
        (lambda data: data[:4] + b"\xff" * 20 + data[24:], r"damaged or not complete \(.+\)\. Download it again"),
        (lambda data: data[:-5000] + b"\xff" * 5000, r"is damaged: .* is not finite"),
    ],
)
def test_a_damaged_file_is_refused(damage, says, tmp_path, llama, cache):
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=says) as caught:
        load_backbone(str(file))
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert not (cache / "gguf").exists() or n_conversions(cache) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "nonesuch"}, r"nonesuch"),
        ({"drop": "blk.1.attn_k.weight"}, r"1 weights of the model are not in the file, first .*layers\.1.*k_proj"),
        ({"rope_freqs__weight": np.full(4, 3, dtype=np.float32)}, r"some were left out \(rope_freqs\.weight\)"),
        ({"blk__1__attn_q__bias": np.ones(32, dtype=np.float32)}, r"some were left out \(blk\.1\.attn_q\.bias\)"),
        ({"blk__3__attn_norm__weight": np.ones(32, dtype=np.float32)}, r"left out \(blk\.3\.attn_norm\.weight\)"),
        ({"llama__rope__scaling__type": "yarn"}, r"scales its rotary frequencies \(yarn\), and this would be left out"),
    ],
)
def test_what_would_give_another_model_is_refused(changes, says, tmp_path, llama, cache):
    file = write_gguf(tmp_path / "tiny.gguf", llama, **changes)
    with pytest.raises(ModelError, match=rf"cannot be read by transformers [\d.]+: .*{says}") as caught:
        load_backbone(str(file))
    assert caught.value.exit_code == 4
    assert n_conversions(cache) == 0


def test_an_absent_file_and_a_part_of_a_split_model_are_named(tmp_path, llama):
    with pytest.raises(ModelError, match=r"There is no file 'models/absent\.gguf'"):
        load_backbone("models/absent.gguf")
    with pytest.raises(ModelError, match=r"one part of a split model.*gguf-split --merge"):
        load_backbone(str(write_gguf(tmp_path / "tiny-00001-of-00002.gguf", llama)))


def test_titles_need_a_tokenizer(tmp_path, llama):
    decoder = load_backbone(str(write_gguf(tmp_path / "tiny.gguf", llama)))
    with pytest.raises(ModelError, match="No tokenizer could be read"):
        _ = decoder.tokenizer


def test_the_cost_is_known_before_the_conversion(tmp_path, llama, cache):
    sizes = plan(str(write_gguf(tmp_path / "tiny.gguf", llama, "Q8_0")), 10, 20, device="cpu")
    assert (sizes.n_layers, sizes.width, sizes.dtype) == (3, 32, "float32")
    assert sizes.n_parameters == sum(parameter.numel() for parameter in llama.parameters())
    assert not (cache / "gguf").exists()
