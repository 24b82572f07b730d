"""A user's own aliases: what they stand for, and where the file is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from spectral_probe.backbones import load_backbone
from spectral_probe.backbones.aliases import ALIASES, Alias, aliases_file, known_aliases
from spectral_probe.errors import ConfigError
from tests.spectral_probe.tiny_models import tiny

GOOD = """\
my-qwen: Qwen/Qwen2.5-7B
books:
  repo: meta-llama/Llama-3.1-8B
  revision: 0e9e39f2
  adapter: ./lora
  dtype: bfloat16
  text: fine-tuned on books
local: ./llama
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "models.yaml"
    monkeypatch.setenv("SPECTRAL_PROBE_MODELS", str(path))
    return path


def test_own_aliases_come_after_the_built_in_ones(file):
    file.write_text(GOOD)
    aliases = known_aliases()
    assert list(aliases)[: len(ALIASES)] == list(ALIASES)
    assert aliases["my-qwen"] == Alias("hub", "Qwen/Qwen2.5-7B", "from models.yaml: Qwen/Qwen2.5-7B")
    adapter = str(file.parent / "lora")
    assert aliases["books"] == Alias(
        "hub", "meta-llama/Llama-3.1-8B", "fine-tuned on books", "0e9e39f2", adapter, "bfloat16"
    )
    assert aliases["local"][:2] == ("folder", str(file.parent / "llama"))


def test_an_alias_is_loaded_from_anywhere_with_its_settings(file, monkeypatch, tmp_path_factory):
    file.write_text("local:\n  folder: llama\n  dtype: bfloat16\n")
    tiny("llama").save_pretrained(file.parent / "llama")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    decoder = load_backbone("local")
    assert (decoder.name, decoder.dtype) == ("local", torch.bfloat16)
    assert load_backbone("local", dtype="float32").dtype == torch.float32
    with pytest.raises(ConfigError, match="not on the hub"):
        load_backbone("local", revision="main")


def test_json_is_read_too(file):
    file.write_text(json.dumps({"mine": {"repo": "a/b"}}, indent=2))
    assert known_aliases()["mine"].target == "a/b"
    file.write_text("# nothing yet\n")
    assert known_aliases() == ALIASES


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: b/c\nd: [\n", 3, "not YAML"),
        ("a: b/c\n\tb: c\n", 2, "not YAML"),
        ("- a\n", 1, "map names to models"),
        ("a: b/c\na: d/e\n", 2, "'a' is defined twice"),
        ("a: b/c\nminilm: d/e\n", 2, "built in"),
        ("a:\n  repo: b/c\n  adaptor: d\n", 3, "Did you mean 'adapter'"),
        ("a:\n  text: b\n", 2, "needs one of repo and folder"),
        ("a:\n  repo: b/c\n  folder: d\n", 2, "needs one of repo and folder"),
        ("a:\n  folder: d\n  revision: e\n", 2, "only a repo has revisions"),
        ("x: y/z\na: [b/c]\n", 2, "must stand for"),
        ("a:\n  repo: [b]\n", 2, "repo must be a string"),
        ("a:\n", 1, "the model of 'a' must be a string"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(file, text, line, says):
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"models\.yaml', line {line}: .*{says}"):
        known_aliases()
    with pytest.raises(ConfigError, match=r"models\.yaml"):
        load_backbone("minilm")


def test_a_file_that_is_named_must_be_there_and_readable(file, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="SPECTRAL_PROBE_MODELS names"):
        known_aliases()
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        known_aliases()
    monkeypatch.delenv("SPECTRAL_PROBE_MODELS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert aliases_file().parts[-2:] == ("spectral-probe", "models.yaml")
    assert known_aliases() == ALIASES


def test_aliases_import_nothing_heavy(file):
    file.write_text(GOOD)
    code = "import sys, spectral_probe.backbones.aliases as a; a.known_aliases()\n"
    code += "print([m for m in ('torch', 'transformers', 'numpy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "[]\n"
