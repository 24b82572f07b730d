"""Options that a model does not take are refused; a dry run refuses what the run refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import analyze
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.analysis.requests import check_options, options_by_model
from spectral_probe.backbones import HFDecoder
from spectral_probe.cli import main as cli
from spectral_probe.errors import ConfigError, ModelError
from tests.spectral_probe.tiny_models import WIDTH, MixingModel, tiny

N_ITEMS = 20


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{int(rng.integers(N_ITEMS))}", t) for u in range(60) for t in range(9)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture(scope="module")
def inputs(frame, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    frame.to_csv(folder / "log.csv", index=False)
    np.save(folder / "vectors.npy", np.random.default_rng(1).normal(size=(N_ITEMS, 8)).astype(np.float32))
    np.save(folder / "wide.npy", np.ones((N_ITEMS, 65), dtype=np.float32))
    np.save(folder / "short.npy", np.ones((3, 8), dtype=np.float32))
    tiny("llama").save_pretrained(folder / "llama")
    tiny("llama", hidden_size=32).save_pretrained(folder / "narrow")
    tiny("llama").save_pretrained(folder / "longer")
    config = json.loads((folder / "longer" / "config.json").read_text())
    (folder / "longer" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    tiny("llama").save_pretrained(folder / "biased")
    weights = load_file(folder / "biased" / "model.safetensors")
    weights["layers.0.self_attn.q_proj.bias"] = torch.ones(WIDTH)
    save_file(weights, folder / "biased" / "model.safetensors", {"format": "pt"})
    tiny("llama").save_pretrained(folder / "integers")
    weights = load_file(folder / "integers" / "model.safetensors")
    weights["layers.0.mlp.up_proj.weight"] = weights["layers.0.mlp.up_proj.weight"].to(torch.int8)
    save_file(weights, folder / "integers" / "model.safetensors", {"format": "pt"})
    return folder


def run(arguments: list[str], monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["spectral-probe", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), capsys.readouterr().err


TINY = ["--model", "tiny-random:llama", "--embeddings", "vectors.npy"]
FOLDER = ["--model", "./llama", "--embeddings", "vectors.npy"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--model", "sasrec", "--adapter", "/nope"], 2, "adapter is for language models"),
        (["--model", "sasrec", "--embeddings", "/nope.npy"], 2, "embeddings is for language models"),
        (["--model", "sasrec", "--quantize", "8bit"], 2, "quantize is for language models"),
        (["--model", "sasrec", "--dtype", "float16"], 2, "'sasrec' is a plug-in"),
        (["--model", "sasrec", "--inputs", "text"], 2, "inputs is for"),
        (["--model", "sasrec", "--revision", "abc"], 2, "revision is for"),
        (["--model", "sasrec", "--trust-remote-code"], 2, "trust_remote_code is for"),
        (["--model", "sasrec", "--layers", "block 99"], 2, "block 99"),
        ([*TINY, "--revision", "abc"], 2, "revision is for"),
        ([*TINY, "--allow-pickle"], 2, "allow_pickle is for"),
        ([*TINY, "--device-map", "auto"], 2, "device_map is for"),
        ([*FOLDER, "--revision", "abc"], 2, "revision is for"),
        ([*TINY, "--inputs", "text"], 2, "take the place of the inputs"),
        ([*TINY, "--layers", "block 99"], 2, "block 99"),
        ([*TINY, "--seed", "1" * 30], 2, "seed must be at most"),
        ([*TINY, "--min-targets", "99"], 3, "None of the 60 users can be measured: fewer than 99 targets (60). Lower"),
        ([*TINY, "--dtype", "float17"], 2, "Did you mean 'float16'"),
        ([*TINY, "--device", "cuda:7"], 2, "cuda:7"),
        ([*TINY, "--adapter", "nowhere"], 4, "is neither"),
        ([*FOLDER, "--adapter", "./llama"], 4, "no readable adapter_config.json"),
        ([*FOLDER, "--max-length", "100"], 0, ""),
        (["--model", "./llama", "--embeddings", "wide.npy"], 2, "65"),
        (["--model", "./narrow"], 2, "width 32 < 50"),
        (["--model", "./llama", "--embeddings", "short.npy"], 3, "one row per item"),
        (["--model", "./llama", "--inputs", "text"], 3, "no item titles"),
        (["--model", "./longer", "--embeddings", "vectors.npy"], 4, "layers.2.input_layernorm.weight"),
        (["--model", "./biased", "--embeddings", "vectors.npy"], 4, "layers.0.self_attn.q_proj.bias"),
        (["--model", "./integers", "--embeddings", "vectors.npy"], 4, "layers.0.mlp.up_proj.weight"),
        ([*FOLDER, "--quantize", "8bit", "--controls", "random-weights"], 2, "random-weights"),
        ([*FOLDER, "--quantize", "8bit"], 5, "bitsandbytes"),
    ],
)
def test_a_dry_run_and_the_run_refuse_the_same(arguments, code, says, inputs, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(inputs)
    command = ["analyze", "--dataset", "log.csv", "--out", str(tmp_path / "runs"), *arguments]
    dry, err = run([*command, "--dry-run"], monkeypatch, capsys)
    assert (dry, says in err) == (code, True), err
    if code:
        real, err = run(command, monkeypatch, capsys)
        assert (real, says in err, "Training" in err) == (code, True, False), err
    assert not (tmp_path / "runs").exists()


def test_a_plan_names_what_is_trained_first(inputs, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(inputs)
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    for model in ("sasrec", "smollm2"):
        monkeypatch.setattr(sys, "argv", ["spectral-probe", "analyze", "-m", model, "-d", "log.csv", "--dry-run"])
        with pytest.raises(SystemExit):
            cli.main()
        out = " ".join(capsys.readouterr().out.split())
        assert "training" in out
        assert "60 users" in out
    assert not (tmp_path / "cache" / "sasrec").exists()


def test_a_plan_says_where_a_run_cannot_be_made(inputs, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(inputs)
    (tmp_path / "file").write_text("")
    command = ["analyze", *TINY, "--dataset", "log.csv", "--out", str(tmp_path / "file" / "runs")]
    for more in ([], ["--dry-run"]):
        code, err = run([*command, *more], monkeypatch, capsys)
        assert code == 6, err
        assert "file" in err


def test_an_option_that_one_model_of_the_command_takes_is_given_to_that_one(inputs, monkeypatch) -> None:
    monkeypatch.chdir(inputs)
    options = AnalysisOptions(dtype="bfloat16", embeddings="vectors.npy", seed=3)
    first, second = options_by_model(["sasrec", "./llama"], options)
    assert (first.dtype, first.embeddings, first.seed) == ("auto", None, 3)
    assert second == options
    with pytest.raises(ConfigError, match=r"'sasrec' is a plug-in, '\./llama' is a folder"):
        options_by_model(["sasrec", "./llama"], AnalysisOptions(revision="abc"))


@pytest.mark.parametrize(
    ("name", "value"), [("dtype", "float16"), ("adapter", "/nope"), ("quantize", "8bit"), ("revision", "abc")]
)
def test_a_model_in_memory_takes_no_option_of_a_checkpoint(name, value, frame) -> None:
    for model in (tiny("llama"), HFDecoder(tiny("llama")), MixingModel(N_ITEMS)):
        with pytest.raises(ConfigError, match=f"{name} is for language models"):
            analyze(model, frame, **{name: value})
    with pytest.raises(ConfigError, match="inputs is for"):
        check_options(MixingModel(N_ITEMS), AnalysisOptions(inputs="text"))
    check_options(tiny("llama"), AnalysisOptions(inputs="text"))
    with pytest.raises(ConfigError, match="on the device that it is on, cpu"):
        check_options(tiny("llama"), AnalysisOptions(device="meta"))


def test_names_in_a_text_are_a_list(frame) -> None:
    options = AnalysisOptions(controls="random-weights, path-graph", layers="block 1")  # type: ignore[arg-type]
    assert (options.controls, options.layers) == (("random-weights", "path-graph"), ("block 1",))
    assert options == AnalysisOptions(controls=["random-weights", "path-graph"], layers=["block 1"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("users", np.int64(5), 5),
        ("tau", np.float32(2), 2.0),
        ("device", torch.device("cpu"), "cpu"),
        ("dtype", torch.bfloat16, "bfloat16"),
        ("embeddings", Path("a.npy"), "a.npy"),
    ],
)
def test_values_of_other_types_are_those_of_the_command_line(name, value, plain) -> None:
    stored = AnalysisOptions(**{name: value}).to_dict()[name]
    assert (stored, type(stored)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("users", "5"), ("users", 5.5), ("seed", True), ("tau", "1"), ("layers", 3), ("embeddings", np.ones(3))],
        *[("allow_pickle", "yes"), ("inputs", ["id"]), ("controls", [3]), ("seed", 2**63)],
        *[("tau", 1e308), ("tau", 10**400), ("whole_tau", 501)],
    ],
)
def test_values_of_a_wrong_type_are_refused(name, value) -> None:
    with pytest.raises(ConfigError, match=name.removeprefix("whole_")):
        AnalysisOptions(**{name: value})


def test_a_run_folder_with_options_that_it_does_not_take(frame, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    analyze(MixingModel(N_ITEMS), frame, out="runs", n_bootstrap=100)
    (folder,) = Path("runs").iterdir()
    for more in (["--from-dir", "x"], ["--dry-run"], ["--resume", "--out", "elsewhere"], ["--dataset", "demo"]):
        code, err = run(["analyze", str(folder), *more], monkeypatch, capsys)
        assert (code, "would be ignored" in err.replace("\n", " ")) == (2, True), err


def test_a_run_is_resumed_with_its_own_options(inputs, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(inputs)
    command = ["analyze", "--dataset", "log.csv", "--out", str(tmp_path), *TINY]
    assert run(command, monkeypatch, capsys)[0] == 0
    (folder,) = tmp_path.iterdir()
    before = (folder / "run.json").read_bytes()
    code, err = run(["analyze", "--resume", str(folder), "--tau", "2"], monkeypatch, capsys)
    assert code == 2
    assert "tau would change" in err
    monkeypatch.chdir(tmp_path)  # where neither the data set nor the vectors can be read
    assert run(["analyze", "--resume", str(folder)], monkeypatch, capsys)[0] == 3
    assert (folder / "run.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == [folder]


def test_random_weights_of_a_spread_model_are_refused_before_it_runs(frame) -> None:
    model = MixingModel(N_ITEMS)
    model.is_spread = True
    with pytest.raises(ConfigError, match="spread over devices"):
        analyze(model, frame, controls="random-weights")


def test_a_folder_without_weights_is_no_plan(tmp_path, inputs) -> None:
    from spectral_probe.analysis.cost import plan_analysis

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_bytes((inputs / "llama" / "config.json").read_bytes())
    options = AnalysisOptions(embeddings=str(inputs / "vectors.npy"))
    with pytest.raises(ModelError, match="no weights"):
        plan_analysis(str(tmp_path / "m"), str(inputs / "log.csv"), options)


def test_vectors_without_ids_are_a_caveat_of_the_run(inputs, frame, tmp_path) -> None:
    fast = {"n_bootstrap": 100, "n_pseudo": 2, "max_length": 8}
    by_position = analyze("tiny-random:llama", frame, embeddings=inputs / "vectors.npy", out=tmp_path, **fast)
    assert "vectors-by-position" in by_position.caveats
    (path,) = tmp_path.iterdir()
    assert json.loads((path / "run.json").read_text())["vectors_by_position"] is True
    assert "has no ids, so row i was taken" in (path / "report.html").read_text(encoding="utf-8")
    assert "vectors-by-position" in reanalyze(path, {"tau": 2.0}).profile.caveats
    ids = pd.DataFrame({"item_id": sorted(frame["item_id"].unique())})
    named = ids.join(pd.DataFrame(np.load(inputs / "vectors.npy")))
    named.to_csv(tmp_path / "named.csv", index=False)
    assert (
        "vectors-by-position"
        not in analyze("tiny-random:llama", frame, embeddings=tmp_path / "named.csv", **fast).caveats
    )
