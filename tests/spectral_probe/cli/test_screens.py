"""What every command prints at 80 and at 120 columns, as text beside this file.

``pytest tests/spectral_probe/cli/test_screens.py --write-screens`` writes the texts anew.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from spectral_probe.analysis import pipeline, reanalysis
from spectral_probe.cli.main import app
from spectral_probe.cli.printing import print_profile
from spectral_probe.doctor import machine
from spectral_probe.doctor.check import Check
from spectral_probe.figure_style import PaperFigure
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report import folder
from spectral_probe.runs.analysis_run import AnalysisRun
from tests.spectral_probe.worlds import make_world, run_probe, with_excess

WIDTHS = (80, 120)
COMMANDS = sorted(command.callback.__name__ for command in app.registered_commands)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a finished analysis in ``runs/``, and a copy of it that looks like another model's."""
    home = tmp_path_factory.mktemp("screens")
    sequences = make_world(5, n_users=60).dataset.sequences
    rows = [(f"u{u}", f"i{item}", t) for u, s in enumerate(sequences) for t, item in enumerate(s)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    log.to_csv(home / "log.csv", index=False)
    vectors = np.random.default_rng(0).standard_normal((log["item_id"].nunique(), 8)).astype(np.float32)
    np.save(home / "vectors.npy", vectors)
    options = pipeline.AnalysisOptions(embeddings=str(home / "vectors.npy"))
    with pytest.MonkeyPatch.context() as without_figures:
        without_figures.setattr(folder, "write_figures", lambda *_, **__: None)
        source = pipeline.run_analysis(
            "tiny-random:qwen2", str(home / "log.csv"), options, out=home / "runs", run_name="first"
        )
    other = shutil.copytree(source.run.path, home / "runs" / "20200101T000000Z-tiny-random-llama-log-0123abcd")
    bands = pd.read_csv(other / "bands.csv", keep_default_na=False, dtype=str)
    bands.assign(model="tiny-random:llama").to_csv(other / "bands.csv", index=False)
    state = json.loads((other / "run.json").read_text())
    request = {**state["request"], "model": "tiny-random:llama"}
    (other / "run.json").write_text(json.dumps(state | {"name": "second", "request": request}))
    return home


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    # What a command computes is tested elsewhere; here a finished run is shown.
    monkeypatch.setattr(folder, "write_figures", lambda *_, **__: None)
    monkeypatch.setattr(PaperFigure, "save", lambda *_: None)
    monkeypatch.setattr(reanalysis, "reanalyze", lambda path, changes, **_: shown(path))
    checks = [
        Check("python", "ok", "3.11.7"),
        Check("adapters", "warn", "peft is not installed", "pip install 'spectral-probe[lora]'"),
    ]
    monkeypatch.setattr(machine, "diagnose", lambda: checks)
    monkeypatch.setattr(machine, "self_test", lambda: [Check("self-test: capture", "ok", "60 users in 0.1 s")])


def shown(path):
    run = AnalysisRun.open(path)
    return pipeline.Analysis(DecayProfile.load(run.path), run)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command, width, screen, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run_probe([*([command] if command else []), "--help"], monkeypatch, capsys)
    assert code == 0
    assert not command or out.count(f"$ spectral-probe {command}") == 3
    screen(f"help-{command}".strip("-"), width, out)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("analyze", ["analyze", "first"]),
        ("runs", ["runs"]),
        ("runs-fields", ["runs", "--name", "second", "--fields", "ref,verdict,n_users"]),
        ("report", ["report", "first"]),
        ("explain", ["explain"]),
        ("explain-term", ["explain", "swap", "null"]),
        ("models", ["models"]),
        ("datasets", ["datasets"]),
        ("doctor", ["doctor"]),
        (
            "dry-run",
            ["analyze", "-m", "tiny-random:qwen2", "-d", "log.csv", "--embeddings", "vectors.npy", "--dry-run"],
        ),
    ],
)
def test_result(name, arguments, width, at_home, screen, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run_probe(arguments, monkeypatch, capsys)
    assert code == 0
    screen(name, width, out)


@pytest.mark.parametrize("width", WIDTHS)
def test_compare(width, at_home, home, screen, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run_probe(["compare", "first", "second", "--out", f"c{width:03}"], monkeypatch, capsys)
    assert code == 0
    screen("compare", width, out.replace(f"c{width:03}", "runs"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("error-no-run", ["report", "absent"], 3),
        ("error-one-run", ["compare", "first"], 2),
        ("error-options", ["analyze", "first", "--model", "minilm"], 2),
        ("error-data", ["analyze", "-m", "minilm", "-d", "lastfmm"], 2),
        ("error-usage", ["analyze", "--nonsense"], 2),
        ("error-term", ["explain", "retension"], 2),
    ],
)
def test_error(name, arguments, code, width, at_home, screen, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ended, out, err = run_probe(arguments, monkeypatch, capsys)
    assert (ended, out) == (code, "")
    screen(name, width, err)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_deep_model(width, screen, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    factors = [1.0, *np.linspace(0.9, 0.7, 14), *np.linspace(0.4, 0.2, 15), -0.0001]
    profile = DecayProfile.from_energy(
        with_excess(*factors, noise=0.01), component="whole", labels={"model": "deep", "dataset": "made up"}
    )
    print_profile(profile, where="runs/deep/bands.csv has all.")
    screen("deep", width, capsys.readouterr().out)
