"""What every command prints at 80 and at 120 columns, as text beside this file.

``pytest tests/frellm4rec/cli/test_screens.py --write-screens`` writes the texts anew.
"""

import re

import pandas as pd
import pytest

from frellm4rec.cli import rayleigh, train
from frellm4rec.cli.main import app
from frellm4rec.models.registry import load_model
from frellm4rec.runs.train import TrainingRun
from frellm4rec.theory.rayleigh import RayleighReport
from frellm4rec.training import TrainingRecord
from spectral_probe.cli.pages import print_page
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.storage.cache import CACHE_VARIABLE
from tests.frellm4rec.tiny_recommenders import make_run, run, write_log

WIDTHS = (80, 120)
COMMANDS = sorted(command.callback.__name__ for command in app.registered_commands)
#: What an untrained model says depends on the version of PyTorch.
NUMBER = re.compile(r"[+-]?\d+\.\d+|(?<=p )\d+|\b\d+e-\d+")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a log and two runs in ``runs/``."""
    home = tmp_path_factory.mktemp("screens")
    log = write_log(home / "log.csv")
    make_run(home / "runs", log, name="base")
    make_run(home / "runs", log, name="wider", n_inner=8)
    return home


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv(CACHE_VARIABLE, str(home / "cache"))


def without_numbers(text):
    return NUMBER.sub(lambda match: re.sub(r"[\d]", "0", match[0]).replace("-", "+", 1), text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command, width, screen, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run(monkeypatch, capsys, *([command] if command else []), "--help")
    assert code == 0
    assert not command or len(re.findall(r"^ \$ (frellm4rec|spectral-probe) \w+", out, re.M)) == 3
    screen(f"help-{command}".strip("-"), width, out)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("data", ["data", "log.csv"]),
        ("models", ["models"]),
        ("experiment", ["experiment"]),
        ("experiment-plan", ["experiment", "ablation", "--dataset", "demo", "--dry-run"]),
        ("tune-plan", ["tune", "sasrec", "-d", "log.csv", "--trials", "3", "--dry-run"]),
        ("evaluate", ["evaluate", "base", "wider", "--ranking", "9+1", "--ranking", "full", "--k", "5"]),
        ("compare", ["compare", "base", "wider", "--ranking", "9+1", "--k", "5"]),
        ("recommend", ["recommend", "@last", "--user", "u1", "--k", "3"]),
        ("export", ["export", "@last", "--out", "vectors-WIDTH.npy"]),
    ],
)
def test_result(name, arguments, width, at_home, screen, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    arguments = [argument.replace("WIDTH", f"{width:03}") for argument in arguments]
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert code == 0, err
    screen(name, width, without_numbers(out))


@pytest.mark.parametrize("width", WIDTHS)
def test_train(width, at_home, home, screen, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    folder = next((home / "runs").glob("*-base-*")).relative_to(home)
    record = TrainingRecord(0, best_epoch=3, epochs=[1, 2, 3, 4], validation_ndcg=[0.1, 0.11, 0.1234, 0.12])
    train._print(TrainingRun(folder, record, load_model(folder)), 10, False, None)
    screen("train", width, re.sub(r"sasrec [0-9a-f]{12}", "sasrec 000000000000", capsys.readouterr().out))


@pytest.mark.parametrize("width", WIDTHS)
def test_rayleigh(width, screen, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    row = {"model": "deep", "dataset": "made up", "treatment": "headline", "cutoff": 0.3, "order": 2, "n_layers": 1}
    row |= {"n_users": 60, "rayleigh_before": 0.912, "rayleigh_after": 0.873, "share_falls": 0.987}
    row |= {"other_share_falls": 1.0, "change": -0.0432, "other_change": -0.05, "excess_change": 0.0068}
    row |= {"excess_change_low": -0.0001, "excess_change_high": 0.012}
    table = pd.DataFrame([{**row, "layer_name": name, "mode": "causal"} for name in ("embed", "block 1", "block 2")])
    rayleigh._print(RayleighReport(table, Interval(0.12, 0.1, 0.14), share_local=0.8, n_local=60))
    screen("rayleigh", width, capsys.readouterr().out)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_with_a_wide_table(width, screen, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    head = ["system", "loss", "NDCG@10", "Recall@10", "paper: NDCG@10", "NDCG@10 − SASRec", "NDCG@10 − BSARec"]
    cells = ["GRU4Rec", "own", "0.2139 [0.1758, 0.2537]", "0.3801 [0.3243, 0.4409]", "0.1969"]
    cells += ["−0.0932 [−0.1237, −0.0626], p = 0.055: no detectable difference"] * 2
    rows = [head, ["---"] * len(head), cells, cells]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    print_page(f"# Systems\n\nEvery system had **3** trials.\n\n{table}\n", more="table.md has all.")
    screen("page", width, capsys.readouterr().out)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("error-no-run", ["evaluate", "nonexistent"], 3),
        ("error-one-run", ["compare", "base"], 2),
        ("error-not-unique", ["recommend", "2", "--user", "u1"], 2),
        ("error-no-argument", ["evaluate"], 2),
    ],
)
def test_error(name, arguments, code, width, at_home, screen, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    ended, out, err = run(monkeypatch, capsys, *arguments)
    assert (ended, out) == (code, "")
    screen(name, width, err)
