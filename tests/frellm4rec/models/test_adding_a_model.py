"""docs/adding_a_model.md, followed to the letter in a copy of the project: three places, and everything passes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frellm4rec.tiny_recommenders import write_log

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "adding_a_model.md"
NAME = "ema"
#: What a model may touch, in the order of the page.
PLACES = (f"frellm4rec/models/{NAME}.py", f"frellm4rec/recipes/{NAME}.yaml", "setup.cfg")
CONTRACT = "tests/frellm4rec/models/test_contract.py"


def blocks():
    """Return the model, the recipe and the entry point of the page."""
    text = PAGE.read_text(encoding="utf-8")
    return [re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1] for language in ("python", "yaml", "ini")]


def contents(folder):
    """Return the bytes of every file that is not made by running something."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if ".egg-info" not in str(path)}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the model of the page, and what was touched."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("frellm4rec", "spectral_probe", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, copy / name)
    before = contents(copy)
    model, recipe, entry = blocks()
    (copy / PLACES[0]).write_text(model, encoding="utf-8")
    (copy / PLACES[1]).write_text(recipe, encoding="utf-8")
    group, line = entry.rstrip().splitlines()
    setup = (copy / "setup.cfg").read_text(encoding="utf-8")
    assert setup.count(f"{group}\n") == 1
    (copy / "setup.cfg").write_text(setup.replace(f"{group}\n", f"{group}\n{line}\n"), encoding="utf-8")
    after = contents(copy)
    touched = sorted(name for name in after if after[name] != before.get(name))
    # What `pip install -e .` does to make entry points known, without the network.
    run(copy, "setup.py", "-q", "egg_info")
    return copy, touched


def run(folder, *arguments):
    """Run Python in a folder whose packages come first, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "SPECTRAL_PROBE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_three_places_are_touched(project):
    assert project[1] == sorted(PLACES)


def test_the_code_of_the_page_is_well_formed(project):
    folder, _ = project
    run(folder, "-m", "ruff", "check", PLACES[0])
    run(folder, "-m", "ruff", "format", "--check", PLACES[0])


def test_the_model_of_the_page_meets_the_contract(project):
    folder, _ = project
    options = ("-p", "no:cacheprovider", "-p", "no:nbmake", "-o", "addopts=", "-rA", "-q")
    out = run(folder, "-m", "pytest", CONTRACT, "tests/frellm4rec/models/test_registry.py", "-k", NAME, *options)
    passed = set(re.findall(rf"PASSED \S+::(\w+)\[{NAME}\]", out))
    clauses = set(re.findall(r"^def (test_\w+)\(name", (ROOT / CONTRACT).read_text(encoding="utf-8"), re.MULTILINE))
    # It is trained, and has no layers.
    assert clauses - passed == {"test_which_states_see_later_items", "test_what_is_not_trained_says_so"}
    assert "failed" not in out
    assert {"test_the_recipe_can_be_read_and_every_value_of_its_grid_is_allowed"} < passed - clauses  # of the registry


def test_the_commands_know_the_model_of_the_page(project, tmp_path):
    folder, _ = project
    cli = ("-m", "frellm4rec.cli.main")
    assert NAME in run(folder, *cli, "models")
    log = write_log(tmp_path / "log.csv")
    settings = ("--epochs", "2", "--set", "training.validate_every=1", "--set", "architecture.decay=0.2")
    out = run(folder, *cli, "train", "--model", NAME, "--dataset", log, *settings, "--out", tmp_path / "runs")
    assert "probe it" not in out  # it has no layers
    (trained,) = (tmp_path / "runs").iterdir()
    assert f"  {NAME}  " in run(folder, *cli, "evaluate", trained, "--ranking", "full")
    assert "Volume" in run(folder, *cli, "recommend", trained, "--user", "u1")
