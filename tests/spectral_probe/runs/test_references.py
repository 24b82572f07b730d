"""Which run a text means."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.runs.folder import RunFolder
from spectral_probe.runs.references import ANALYSIS, TRAINING, is_reference, names_of, reference, resolve_run, runs_in


def made(root: Path, folder: str, kind: str = ANALYSIS, **state: object) -> Path:
    """Make a run with a folder of this name."""
    run = RunFolder.create(root, kind=kind, model="m", dataset="d", config={"of": folder})
    run.write_state("finished", **state)
    return run.path.rename(root / folder)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made(Path("runs"), "20260101T000000Z-minilm-demo-0000aaaa", name="old")
    made(Path("runs"), "20260301T000000Z-minilm-demo-0000bbbb")
    made(Path("runs"), "20260201T000000Z-sasrec-demo-0000cccc", TRAINING, request={"name": "full"})
    made(Path("runs"), "20260302T000000Z-smollm2-demo-0000dddd", name="twice")
    made(Path("runs"), "20260303T000000Z-smollm2-demo-0000eeee", name="twice")
    return Path("runs")


@pytest.mark.parametrize(
    ("text", "kinds", "ending"),
    [
        ("@last", (), "eeee"),
        ("@-1", (), "eeee"),
        ("@-2", (), "dddd"),
        ("@last", (TRAINING,), "cccc"),
        ("@-4", (ANALYSIS,), "aaaa"),
        ("old", (), "aaaa"),
        ("full", (TRAINING,), "cccc"),
        ("20260201", (), "cccc"),
        ("20260301T000000Z-minilm-demo-0000bbbb", (), "bbbb"),
        ("runs/20260301", (), "bbbb"),
        ("runs/@last", (), "eeee"),
        ("runs/20260101T000000Z-minilm-demo-0000aaaa", (TRAINING,), "aaaa"),
    ],
)
def test_a_run_is_meant_by_number_name_and_beginning(text, kinds, ending, root) -> None:
    assert resolve_run(text, kinds).name.endswith(ending)
    assert resolve_run(Path(text), kinds) == resolve_run(text, kinds)


@pytest.mark.parametrize(
    ("text", "kinds", "error", "says"),
    [
        ("absent", (), DataError, r"no run 'absent'\. The newest runs in runs: 20260303T000000Z"),
        ("absent/absent", (), DataError, r"no run 'absent/absent'\. The newest runs in runs: 20260303T000000Z"),
        ("@-9", (), DataError, r"no run @-9\. The newest runs in runs"),
        ("@-2", (TRAINING,), DataError, r"The only one in runs: 20260201T000000Z-sasrec"),
        *((text, (), ConfigError, "counted from @-1") for text in ("@-0", "@0", "@1", "@", "@-", "@LAST")),
        ("@-\u0662", (), DataError, "There is no run"),
        ("202603", (), ConfigError, "3 runs in runs begin with '202603'"),
        ("twice", (), ConfigError, "2 runs in runs have the name 'twice'"),
        ("fulll", (TRAINING,), DataError, r"Did you mean 'full'\?"),
        ("full", (ANALYSIS,), DataError, r"no run 'full'\. 'full' is a training run .*reads analysis runs\."),
        ("20260101", (TRAINING,), DataError, r"'20260101' is an analysis run \(20260101T0"),
    ],
)
def test_what_means_no_run_or_several_is_refused_with_the_newest(text, kinds, error, says, root) -> None:
    with pytest.raises(error, match=says):
        resolve_run(text, kinds)


@pytest.mark.parametrize("damage", ["missing", "text", "folder"])
def test_a_run_that_cannot_be_read_is_told_from_one_that_is_not_there(damage, root) -> None:
    (root / "badjson").mkdir()
    if damage == "text":
        (root / "badjson" / "run.json").write_text("{")
    if damage == "folder":
        (root / "badjson" / "run.json").mkdir()
    with pytest.raises(DataError, match=r"^runs/badjson holds no readable run\.json: .*[^.]\. Restore"):
        resolve_run("badjson")


def test_a_folder_that_is_no_run_hides_no_run_of_that_name(root) -> None:
    Path("old").mkdir()
    Path("2026").mkdir()
    assert resolve_run("old").name.endswith("aaaa")
    assert resolve_run("2026") == Path("2026")


def test_a_folder_without_runs_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="runs holds no analysis run"):
        resolve_run("@last", (ANALYSIS,))


def test_runs_are_listed_newest_first_and_damaged_ones_left_out(root) -> None:
    (root / "20270101T000000Z-x-y-00000000").mkdir()
    (root / "20270101T000000Z-x-y-00000000" / "run.json").write_text("{")
    assert [entry.path.name[-4:] for entry in runs_in(root)] == ["eeee", "dddd", "bbbb", "cccc", "aaaa"]
    assert [entry.name for entry in runs_in(root, (TRAINING,))] == ["full"]
    assert runs_in(root)[0].when == "2026-03-03 00:00"


def test_of_two_runs_of_one_second_the_later_is_the_last(tmp_path) -> None:
    first = made(tmp_path, "20260101T000000Z-b-d-00000000")
    second = made(tmp_path, "20260101T000000Z-a-d-00000000")
    assert second.joinpath("config.yaml").stat().st_mtime_ns > first.joinpath("config.yaml").stat().st_mtime_ns
    assert resolve_run("@last", root=tmp_path) == second


def test_what_can_be_nothing_but_a_run() -> None:
    assert [is_reference(text) for text in ("@last", "@-3", "20260101T", "runs/20260101T1")] == [True] * 4
    assert [is_reference(text) for text in ("sasrec", "org/model", "@x", "2026")] == [False] * 4
    assert [reference(0), reference(1)] == ["@last", "@-2"]


def test_of_several_models_each_run_has_a_name_that_means_it(root) -> None:
    assert names_of(None, ["sasrec", "smollm2"], root) == ["", ""]
    assert names_of("base", ["sasrec"], root) == ["base"]
    names = names_of("base", ["sasrec", "smollm2", "./my model/", "owner/tiny:1"], root)
    assert names == ["base-sasrec", "base-smollm2", "base-my-model", "base-tiny-1"]
    for number, name in enumerate(names):
        path = made(root, f"2026040{number + 1}T000000Z-m-d-0000ffff", name=name)
        assert resolve_run(name) == path
    with pytest.raises(ConfigError, match="has the name 'base-sasrec' already"):
        names_of("base", ["minilm", "sasrec"], root)
    assert names_of("base", ["minilm", "sasrec"], None)[1] == "base-sasrec"  # resumed
    with pytest.raises(ConfigError, match="two of the models the name 'new-a'"):
        names_of("new", ["x/a", "y/a"], root)
    with pytest.raises(ConfigError, match="at most 80 letters"):
        names_of("n" * 78, ["sasrec", "minilm"], root)
