"""Columns by name on every command that reads a data set; a run remembers them."""

from __future__ import annotations

import inspect
import json

import pytest

from frellm4rec.cli.main import app
from spectral_probe.cli import main as probe
from tests.frellm4rec.tiny_recommenders import run, write_log

COLUMNS = "user=who,item=what,time=when"


@pytest.fixture
def log(tmp_path):
    path = write_log(tmp_path / "log.csv", n_users=40)
    path.write_text(path.read_text().replace("user_id,item_id,timestamp", "who,what,when", 1))
    return path


def test_every_command_that_takes_a_data_set_takes_its_columns() -> None:
    commands = {command.callback.__name__: inspect.signature(command.callback) for command in app.registered_commands}
    reading = {name for name, signature in commands.items() if "from_dir" in signature.parameters}
    assert reading == {"data", "train", "tune", "evaluate", "recommend", "export", "compare", "experiment"}
    assert {name for name, signature in commands.items() if "columns" in signature.parameters} == reading
    (analyze,) = [c.callback for c in probe.app.registered_commands if c.callback.__name__ == "analyze"]
    assert "columns" in inspect.signature(analyze).parameters


def test_a_run_remembers_the_columns_of_its_data(log, tmp_path, monkeypatch, capsys) -> None:
    arguments = ["--model", "popularity", "--dataset", log, "--out", tmp_path / "runs"]
    code, _, err = run(monkeypatch, capsys, "train", *arguments)
    assert code == 3
    assert "--columns user=COLUMN" in err
    assert run(monkeypatch, capsys, "train", *arguments, "--columns", COLUMNS)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["request"]["dataset"] == f"table:{log},{COLUMNS}"
    full = ["--ranking", "full"]
    for command in (["evaluate", folder, *full], ["recommend", folder, "--user", "u1"]):
        code, _, err = run(monkeypatch, capsys, *command)
        assert code == 0, err
    moved = log.rename(tmp_path / "moved.csv")
    named = ["--dataset", moved, "--columns", COLUMNS]
    assert run(monkeypatch, capsys, "recommend", folder, "--user", "u1", "--dataset", moved)[0] == 3
    assert run(monkeypatch, capsys, "recommend", folder, "--user", "u1", *named)[0] == 0
    assert run(monkeypatch, capsys, "evaluate", folder, *full, *named)[0] == 0


def test_data_prints_what_was_recognised_and_refuses_columns_of_a_named_data_set(log, monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "data", log, "--columns", "user=who,item=what")
    assert code == 0
    assert "note: no column of times" in out
    code, _, err = run(monkeypatch, capsys, "data", "demo", "--columns", COLUMNS)
    assert (code, "--columns names the columns of a file" in err) == (2, True)
    code, _, err = run(monkeypatch, capsys, "data", log, "--columns", "who")
    assert (code, "user=…,item=…" in err) == (2, True)


def test_analyze_plans_with_named_columns(log, monkeypatch, capsys) -> None:
    for columns, expected in ((COLUMNS, 0), ("user=who", 3), ("user", 2)):
        arguments = [
            "analyze",
            "--model",
            "tiny-random:qwen2",
            "--dataset",
            str(log),
            "--dry-run",
            "--columns",
            columns,
        ]
        monkeypatch.setattr("sys.argv", ["spectral-probe", *arguments])
        with pytest.raises(SystemExit) as done:
            probe.main()
        assert done.value.code == expected, capsys.readouterr().err
