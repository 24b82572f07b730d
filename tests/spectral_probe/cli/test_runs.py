"""The commands around runs and terms: lists, fields, references, names, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.cli.analyze import OPTIONS
from spectral_probe.cli.completion import complete_datasets, complete_models, complete_runs, complete_terms
from spectral_probe.cli.json_output import chosen, print_json
from spectral_probe.errors import ConfigError
from spectral_probe.profiles.profile import SUMMARY_FIELDS, DecayProfile
from spectral_probe.report.glossary import glossary
from spectral_probe.runs.folder import RunFolder
from spectral_probe.runs.references import check_name
from tests.spectral_probe.worlds import run_probe, with_excess


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    """An analysis and a training, in ``runs/`` of the working directory."""
    monkeypatch.chdir(tmp_path)
    first = RunFolder.create(tmp_path / "runs", kind="analysis", model="minilm", dataset="demo", config={"a": 1})
    first.finish(result="taste attenuated, popularity preserved", n_users=800, name="mine")
    second = RunFolder.create(tmp_path / "runs", kind="training", model="sasrec", dataset="lastfm", config={"a": 2})
    second.write_state("interrupted")
    return first, second


def test_runs_are_listed_with_when_model_data_users_and_verdict(two_runs, monkeypatch, capsys) -> None:
    code, out, _ = run_probe(["runs"], monkeypatch, capsys)
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("@last")]
    assert len(rows) == 2
    (mine,) = (row for row in rows if "minilm" in row)
    assert mine[3:7] == ["analysis", "mine", "minilm", "demo"]
    assert mine[7:10] == ["800", "taste", "attenuated,"]
    assert two_runs[0].path.name in out
    assert "interrupted" in out


@pytest.mark.parametrize(
    ("options", "models"),
    [
        ([], {"minilm", "sasrec"}),
        (["--name", "MINE"], {"minilm"}),
        (["--name", "lastfm"], {"sasrec"}),
        (["--kind", "training"], {"sasrec"}),
        (["--name", "absent"], set()),
    ],
)
def test_runs_are_filtered(options, models, two_runs, monkeypatch, capsys) -> None:
    _, out, _ = run_probe(["runs", *options, "--json"], monkeypatch, capsys)
    assert {row["model"] for row in json.loads(out)} == models
    code, out, _ = run_probe(["runs", *options], monkeypatch, capsys)
    assert code == 0
    assert models or "holds no runs that match" in out


def test_what_holds_no_runs_is_told_apart(two_runs, monkeypatch, capsys) -> None:
    Path("file").touch()
    run = f"runs/{two_runs[0].path.name}"
    for what, why in {"nodir": "does not exist", "file": "is a file", run: "is a run itself"}.items():
        code, out, err = run_probe(["runs", what], monkeypatch, capsys)
        assert (code, out) == (3, "")
        assert f"{what} {why}." in err
    code, _, err = run_probe(["runs", "--kind", "foo"], monkeypatch, capsys)
    assert (code, "--kind must be one of analysis, comparison, training; got 'foo'." in err) == (2, True)


def test_a_result_is_printed_by_field(two_runs, monkeypatch, capsys) -> None:
    _, out, _ = run_probe(["runs", "--fields", "model, n_users"], monkeypatch, capsys)
    assert {"model": "minilm", "n_users": 800} in json.loads(out)
    code, _, err = run_probe(["runs", "--fields", "modell"], monkeypatch, capsys)
    assert (code, "Did you mean 'model'?" in err) == (2, True)
    assert chosen({"a": {"b": 1, "c": 2}, "d": 3}, ["a.b", "d"]) == {"a.b": 1, "d": 3}
    assert chosen([], ["a"]) == []


def test_a_term_is_explained_in_the_words_of_the_glossary(monkeypatch, capsys) -> None:
    code, out, _ = run_probe(["explain", "swap", "null"], monkeypatch, capsys)
    assert (code, out.splitlines()[1]) == (0, glossary()["swap null"].text)
    code, out, _ = run_probe(["explain"], monkeypatch, capsys)
    assert code == 0
    assert [name for name in glossary() if f"  {name}: " not in out] == []
    code, out, _ = run_probe(["explain", "tau", "--fields", "term,also"], monkeypatch, capsys)
    assert json.loads(out) == {"term": "tau", "also": ["τ"]}


def test_compare_of_one_run_says_that_it_needs_two(two_runs, monkeypatch, capsys) -> None:
    code, out, err = run_probe(["compare", "mine"], monkeypatch, capsys)
    assert (code, out) == (2, "")
    assert err == (
        "error: A comparison needs two runs or more; got one: mine. Name another beside it, or see it alone with "
        "`spectral-probe report mine`.\n"
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "must be no path") for name in ("a/b", ".", "..")),
        *((name, "must not begin with") for name in ("@last", "-x", "~x")),
        *((name, "must not be empty") for name in ("", " ")),
        *((name, "one line") for name in ("a\nb", "a\x1bb")),
        ("n" * 81, "at most 80 letters"),
        *((name, "beginning of a run's folder") for name in ("2026", "20260101T", "20260101T0102")),
        ("mine", "has the name 'mine' already"),
    ],
)
def test_a_name_that_could_not_stand_for_a_run_is_refused(name, why, two_runs, monkeypatch, capsys) -> None:
    code, out, err = run_probe(["analyze", "-m", "sasrec", f"--name={name}"], monkeypatch, capsys)
    assert (code, out) == (2, "")
    assert why in " ".join(err.split())


def test_a_resumed_run_may_have_its_name_again(two_runs) -> None:
    path = two_runs[0].path
    check_name("mine", path.parent, resumed=path)
    check_name("20th try", path.parent)
    with pytest.raises(ConfigError, match=path.name):
        check_name("mine", path.parent)


def test_a_model_where_a_run_stands_is_named_with_its_option(two_runs, monkeypatch, capsys) -> None:
    code, _, err = run_probe(["analyze", "tiny-random:qwen2", "--dataset", "demo"], monkeypatch, capsys)
    assert (code, err) == (2, "error: 'tiny-random:qwen2' is no run; write --model tiny-random:qwen2.\n")


def test_a_model_may_be_a_training_run(two_runs, monkeypatch, capsys) -> None:
    asked = []
    monkeypatch.setattr("spectral_probe.analysis.cost.plan_analysis", lambda name, *_, **__: asked.append(name) or [])
    monkeypatch.setattr("spectral_probe.analysis.requests.options_by_model", lambda models, options: [options])
    monkeypatch.setattr("spectral_probe.plugins.saved_models.trained_on", lambda models: None)
    for name in ("@last", two_runs[1].path.name[:16], "minilm"):
        run_probe(["analyze", "--model", name, "--dry-run"], monkeypatch, capsys)
    assert asked == [f"runs/{two_runs[1].path.name}"] * 2 + ["minilm"]


def test_what_a_shell_offers(two_runs) -> None:
    assert "minilm" in set(complete_models("mini"))
    assert list(complete_datasets("dem")) == ["demo"]
    assert tuple(name for name, _ in list(complete_runs("analysis")(""))[:2]) == ("@last", "mine")
    assert [name for name, _ in complete_runs()("@-")] == ["@-2"]
    assert "swap null" in [name for name, _ in complete_terms("swa")]


def test_a_shell_can_ask(two_runs, tmp_path) -> None:
    variables = {
        "_SPECTRAL_PROBE_COMPLETE": "complete_bash",
        "COMP_WORDS": "spectral-probe report mi",
        "COMP_CWORD": "2",
    }
    command = [sys.executable, "-m", "spectral_probe.cli.main"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["mine"], done.stderr


def test_the_defaults_that_the_help_names_are_those_of_an_analysis() -> None:
    defaults = AnalysisOptions().to_dict()
    named = {flag.name: flag.default for flag in OPTIONS if flag.default}
    unset = {"controls": "none", "preset": "none", "users": "all", "layers": "all"}
    assert {name: text for name, text in named.items() if name in unset} == unset
    assert {name: text for name, text in named.items() if name not in unset} == {
        name: f"{defaults[name]:g}" if isinstance(defaults[name], float) else str(defaults[name])
        for name in named
        if name not in unset
    }


@pytest.mark.parametrize("fields", ["", " , ", "verdict,nope"])
@pytest.mark.parametrize("command", [["analyze", "mine"], ["compare", "mine", "mine"]])
def test_fields_that_no_result_has_are_refused_before_the_work(command, fields, two_runs, monkeypatch, capsys) -> None:
    monkeypatch.setattr("spectral_probe.analysis.reanalysis.reanalyze", lambda *_, **__: pytest.fail("work"))
    monkeypatch.setattr("spectral_probe.runs.analysis_run.AnalysisRun.open", lambda *_: pytest.fail("work"))
    code, out, err = run_probe([*command, "--fields", fields], monkeypatch, capsys)
    assert (code, out, "--fields" in err) == (2, "", True)


def test_the_fields_that_are_known_before_the_work_are_those_of_a_summary() -> None:
    profile = DecayProfile.from_energy(with_excess(1.0, 0.5), component="whole")
    assert tuple(profile.summary()) == SUMMARY_FIELDS


def test_a_field_that_is_refused_after_the_work_leaves_the_path_of_the_run() -> None:
    with pytest.raises(ConfigError, match=r"The run is finished: runs/x. report.html in the folder"):
        print_json({"a": {"b": 1}}, "a.c", finished=[Path("runs/x")])


def test_a_fault_of_the_fields_is_an_error() -> None:
    with pytest.raises(ConfigError, match="the result has a, b"):
        chosen({"a": 1, "b": 2}, ["x"])
