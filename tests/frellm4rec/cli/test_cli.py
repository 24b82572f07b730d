import json
import subprocess
import sys

import pytest

from frellm4rec.data import read_recbole
from frellm4rec.models.registry import model_names
from frellm4rec.runs.recipe import Recipe
from tests.frellm4rec.tiny_recommenders import run, write_log


@pytest.fixture
def amazon_folder(tmp_path):
    reviews = [
        {"reviewerID": f"u{u}", "asin": f"i{i}", "unixReviewTime": u + i}
        for u in range(6)
        for i in range(7)
        if i < 6 or u == 0
    ]
    (tmp_path / "Luxury_Beauty.json").write_text("".join(json.dumps(row) + "\n" for row in reviews))
    return tmp_path


def test_data_prints_counts_and_the_papers_row(monkeypatch, capsys, amazon_folder):
    code, out, err = run(monkeypatch, capsys, "data", "amazon:Luxury_Beauty", "--from-dir", amazon_folder)
    assert (code, err) == (0, "")
    assert [line.split()[-4:-1] for line in out.splitlines()[2:5]] == [
        ["6", "7", "37"],
        ["6", "6", "36"],
        ["11,490", "6,534", "71,898"],
    ]
    arguments = ("data", "amazon:Luxury_Beauty", "--from-dir", amazon_folder, "--core")
    assert "single-pass 5-core" in run(monkeypatch, capsys, *arguments, "single")[1]
    assert "5-core" not in run(monkeypatch, capsys, *arguments, "none")[1]


def test_core_of_a_file_and_export(monkeypatch, capsys, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("".join(f"{u} 1 2 3 4 5\n" for u in range(5)) + "9 1 7\n")
    arguments = ("data", log, "--core", "iterative", "--export", "recbole", tmp_path / "out")
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "as read" in out
    assert "iterative 5-core" in out
    assert read_recbole(tmp_path / "out" / "log" / "log.inter").n_users == 5
    assert f"written: {tmp_path / 'out' / 'log' / 'log.inter'}" in out


def test_core_of_lastfm(monkeypatch, capsys, tmp_path):
    rows = "".join(f"{u}\t{a}\t1\t{u + a}\n" for u in range(6) for a in range(6)) + "0\t9\t1\t1\n"
    (tmp_path / "user_taggedartists-timestamps.dat").write_text("userID\tartistID\ttagID\ttimestamp\n" + rows)
    shown = {
        core: run(monkeypatch, capsys, "data", "lastfm", "--from-dir", tmp_path, *(("--core", core) if core else ()))[1]
        for core in (None, "single", "none")
    }
    assert "iterative 5-core" in shown[None]
    assert "single-pass 5-core" in shown["single"]
    assert "5-core" not in shown["none"]


def test_core_of_movielens(monkeypatch, capsys, tmp_path):
    rows = [(u, m) for u in range(100) for m in range(1000)]
    (tmp_path / "u.data").write_text("".join(f"{u}\t{m}\t3\t{u + m}\n" for u, m in rows))
    command = ("data", "movielens:100k", "--from-dir", tmp_path)
    shown = {
        core: run(monkeypatch, capsys, *command, *(("--core", core) if core else ()))[1] for core in (None, "none")
    }
    assert "iterative 5-core" in shown[None]
    assert "5-core" not in shown["none"]
    assert "movielens:100k" in shown["none"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("data", "movielens"), 2, "Write movielens:100k"),
        (("data", "movielens:100k", "--from-dir", "absent"), 3, "does not exist"),
        (("data", "demmo"), 2, "Did you mean 'demo'"),
        (("data", "demo", "--core", "iterativ"), 2, "Did you mean 'iterative'"),
        (("data", "demo", "--export", "recbol", "x"), 2, "Did you mean 'recbole'"),
        (("data", "absent.csv"), 3, "does not exist"),
        (("data", "amazon"), 2, "none was named"),
        (("data", "amazon:Gift_Cards", "--from-dir", "absent"), 3, "is not a folder"),
        (("data",), 2, "Missing argument"),
        (("data", "demo", "--unknown"), 2, "No such option"),
    ],
)
def test_failures_end_with_their_exit_code(monkeypatch, capsys, tmp_path, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = run(monkeypatch, capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_interrupt(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("frellm4rec.cli.data._load", interrupt)
    assert run(monkeypatch, capsys, "data", "demo")[0] == 130


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("data", "--from-dir"),
        ("evaluate", "--ranking"),
        ("recommend", "--history"),
        ("export", "--out"),
        ("compare", "--metric"),
    ],
)
def test_help_imports_nothing_heavy(command, option):
    code = (
        f"import sys, frellm4rec.cli.main; sys.argv = ['frellm4rec', '{command}', '--help']\n"
        "try: frellm4rec.cli.main.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'scipy', 'pooch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert option in done.stdout


def test_models_lists_every_registered_model_and_its_recipe(monkeypatch, capsys, tmp_path):
    code, out, _ = run(monkeypatch, capsys, "models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == set(model_names())
    assert set(rows["popularity"]["exceptions"]) == {"order", "learns"}
    assert "no states" in rows["markov"]["why_no_layers"]
    _, out, _ = run(monkeypatch, capsys, "models")
    for name, row in rows.items():
        assert f"\n{name} " in out
        assert row["title"] in out
    code, out, _ = run(monkeypatch, capsys, "models", "sasrec")
    assert code == 0
    (tmp_path / "recipe.yaml").write_text(out)
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == Recipe.from_dict(Recipe(model="sasrec").to_dict())
    assert "#   architecture.n_blocks: 1, 2, 3" in out
    assert "training:" not in run(monkeypatch, capsys, "models", "markov")[1]
    code, out, err = run(monkeypatch, capsys, "models", "sasrek")
    assert (code, out) == (2, "")
    assert "Did you mean 'sasrec'" in err


@pytest.mark.parametrize("name", ["popularity", "markov", "itemknn"])
def test_a_floor_goes_through_every_command(name, monkeypatch, capsys, tmp_path):
    log = write_log(tmp_path / "log.csv")
    code, out, _ = run(monkeypatch, capsys, "train", "--model", name, "--dataset", log, "--out", tmp_path / "runs")
    assert code == 0
    assert "counted, not trained" in out
    assert "probe it" not in out
    (trained,) = (tmp_path / "runs").iterdir()
    code, out, _ = run(monkeypatch, capsys, "evaluate", trained, "--ranking", "full", "--json")
    assert (code, json.loads(out)[0]["model"]) == (0, name)
    assert run(monkeypatch, capsys, "recommend", trained, "--user", "u1")[0] == 0
    code, _, err = run(monkeypatch, capsys, "export", trained, "--out", tmp_path / "x.npy")
    assert code == 2
    assert "no item embeddings" in err
    again = run(monkeypatch, capsys, "train", trained, "--resume", "--json")
    assert (again[0], json.loads(again[1])["run"]) == (0, str(trained))
