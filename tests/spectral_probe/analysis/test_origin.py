"""The command that makes a run again, and the options that differ from their defaults."""

from dataclasses import fields

import pytest

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.origin import WITHOUT_FLAG, origin_of
from spectral_probe.cli.analyze import OPTIONS
from spectral_probe.runs.analysis_run import ANALYSIS, COMPARISON, AnalysisRun

REQUEST = {"model": "my model", "dataset": "table:log.csv,user=u", "from_dir": "/raw"}


@pytest.fixture
def run_of(tmp_path):
    def make(request=REQUEST, kind=ANALYSIS, **options):
        values = AnalysisOptions.from_mapping(options).to_dict()
        config = {"model": "m", "revision": "r", "dataset": "d", "inputs": "id", "options": values}
        run = AnalysisRun.create(tmp_path, kind=kind, model="m", dataset="d", config=config)
        run.write_state("running", **({} if request is None else {"request": request}))
        return run

    return make


def test_the_command_has_the_options_that_differ(run_of):
    origin = origin_of(run_of(users=60, dtype="bfloat16", controls="path-graph,split-graph", allow_pickle=True))
    assert origin.command == (
        "spectral-probe analyze --model 'my model' --dataset table:log.csv,user=u --from-dir /raw --users 60 "
        "--controls path-graph,split-graph --dtype bfloat16 --allow-pickle"
    )
    assert origin.changed["users"] == (60, None)
    assert list(origin.changed) == ["users", "controls", "dtype", "allow_pickle"]


def test_a_run_that_no_command_can_make_has_its_call(run_of):
    assert origin_of(run_of(n_bootstrap=200)).command == (
        "spectral_probe.analyze('my model', 'table:log.csv,user=u', n_bootstrap=200)"
    )
    assert origin_of(run_of(request=None, tau=2.0)).command == "spectral_probe.analyze(model, dataset, tau=2.0)"
    flags = {flag.setting or flag.name for flag in OPTIONS}
    assert set(WITHOUT_FLAG) == {field.name for field in fields(AnalysisOptions)} - flags


def test_a_re_analysis_names_its_source_and_what_it_changed(run_of):
    source = run_of(users=60)
    again = run_of(request=None, users=60, tau=2.0)
    again.write_state("running", grams_from=f"../{source.path.name}")
    assert origin_of(again).command == f"spectral-probe analyze {source.path.name} --tau 2.0"
    assert set(origin_of(again).changed) == {"users", "tau"}


def test_a_comparison_has_no_origin(run_of):
    run = run_of(kind=COMPARISON)
    (run.path / "config.yaml").write_text("compared: []\n")
    assert origin_of(run) is None
