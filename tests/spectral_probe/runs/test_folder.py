"""Run folders are found by what they computed, newest first, and by whether they ended."""

from __future__ import annotations

from spectral_probe.runs.folder import RunFolder

CONFIG = {"dataset": "demo", "seed": 0}


def test_runs_are_found_by_configuration_and_state(tmp_path) -> None:
    run = RunFolder.create(tmp_path, model="m", dataset="demo", config=CONFIG)
    RunFolder.create(tmp_path, model="m", dataset="demo", config={**CONFIG, "seed": 1})
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) == run
    assert RunFolder.newest_finished(tmp_path, CONFIG) is None
    for status in ("failed", "interrupted"):
        run.write_state(status)
        assert RunFolder.newest_unfinished(tmp_path, CONFIG) == run
        assert RunFolder.newest_finished(tmp_path, CONFIG) is None
    run.write_state("finished")
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) is None
    assert RunFolder.newest_finished(tmp_path, CONFIG) == run


def test_a_folder_whose_record_cannot_be_read_is_passed_over(tmp_path) -> None:
    run = RunFolder.create(tmp_path, model="m", dataset="demo", config=CONFIG)
    (run.path / "run.json").write_text("{")
    assert RunFolder.newest_unfinished(tmp_path, CONFIG) is None
