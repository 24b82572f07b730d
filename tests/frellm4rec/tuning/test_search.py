"""The search: equal time, resumed and extended, failures recorded, chosen on validation."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from frellm4rec.training.config import TrainingRecord
from frellm4rec.training.pace import Pace, measure_pace
from frellm4rec.tuning import search as search_module
from frellm4rec.tuning.search import Budget, Search
from frellm4rec.tuning.tables import BUDGET, PATIENCE, SearchTables, is_still_rising
from frellm4rec.tuning.trials import System
from spectral_probe.errors import ConfigError, DataError, NonFiniteStateError
from spectral_probe.storage.lock import only_process
from tests.frellm4rec.tiny_recommenders import run as command
from tests.frellm4rec.tiny_recommenders import write_log

TINY = {"architecture.n_features": 8, "architecture.n_inner": 8, "architecture.max_length": 6}
SASREC = System("sasrec", base=TINY)
QUICK = Budget(seconds=0.05, n_validations=2)


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv")


@pytest.fixture
def search(tmp_path, log):
    return Search.open(tmp_path / "search", dataset=str(log), budget=QUICK)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def test_a_search_writes_a_recipe_and_a_row_for_every_trial(search):
    tables = search.run([SASREC], n_trials=3)
    rows = tables.rows_of(SASREC)
    assert rows["trial"].tolist() == [0, 1, 2]
    assert rows["status"].tolist() == ["finished"] * 3
    assert rows[["cpu_seconds", "n_steps", "n_parameters", "validation_ndcg"]].notna().all(axis=None)
    for row in rows.to_dict("records"):
        curve = tables.curves[tables.curves["trial"] == row["trial"]]
        assert curve["ndcg"].max() == pytest.approx(row["validation_ndcg"], rel=1e-9)
        assert len(curve) == row["n_validations"]
        settings = json.loads(row["settings"])
        assert settings["architecture.n_features"] == 8
        assert settings["training.learning_rate"] in (3e-4, 1e-3, 3e-3)
    winner = tables.winner(SASREC)
    assert winner["validation_ndcg"] == rows["validation_ndcg"].max()
    loaded = SearchTables.load(search.folder)
    pd.testing.assert_frame_equal(loaded.trials, tables.trials)


def test_the_recipe_of_a_trial_repeats_it_to_the_bit(search):
    from frellm4rec.runs.train import train_recipe

    search.run([SASREC], n_trials=1)
    recipe = search.recipe(SASREC, 0)
    first = search.tables().row(SASREC, 0)
    again = train_recipe(recipe, out=search.folder / "again", dataset=search.dataset)
    assert again.model.revision == first["revision"]


def test_finished_trials_are_not_run_again_and_more_can_be_added(search, monkeypatch):
    search.run([SASREC], n_trials=2)
    before = search.tables().trials
    names = []
    train = search_module.train_recipe
    monkeypatch.setattr(
        search_module, "train_recipe", lambda recipe, **o: names.append(recipe.name) or train(recipe, **o)
    )
    search.run([SASREC], n_trials=2)
    assert names == []
    tables = search.run([SASREC], n_trials=4)
    assert names == ["sasrec-own-02", "sasrec-own-03"]
    pd.testing.assert_frame_equal(tables.trials[:2], before)


def test_the_first_trial_of_all_systems_comes_before_the_second_of_any(search, monkeypatch):
    lines = []
    search.run([SASREC, System("itemknn")], n_trials=2, report=lines.append)
    assert [line.split("] ")[1].split(":")[0] for line in lines[1:]] == [
        *("sasrec-own trial 0", "itemknn-own trial 0", "sasrec-own trial 1", "itemknn-own trial 1"),
    ]


def test_side_by_side_gives_the_same_trials(tmp_path, log, monkeypatch):
    """Two processes; the epochs that fit are measured, so they are given here by the first search."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = Search.open(tmp_path / "alone", dataset=str(log), budget=QUICK)
    alone.run([SASREC], n_trials=2)
    together = Search.open(tmp_path / "together", dataset=str(log), budget=QUICK)
    (tmp_path / "together" / "trials").mkdir(parents=True)
    for path in (alone.folder / "trials").iterdir():
        (together.folder / "trials" / path.name).write_bytes(path.read_bytes())
    tables = together.run([SASREC], n_trials=2, jobs=2)
    columns = ["validation_ndcg", "best_epoch", "n_epochs", "revision"]
    pd.testing.assert_frame_equal(tables.trials[columns], alone.tables().trials[columns])


def test_a_diverged_trial_is_a_result_and_another_failure_is_tried_again(search, monkeypatch):
    train = search_module.train_recipe
    error = NonFiniteStateError("The training loss must stay finite; it is nan.")

    def broken(recipe, **options):
        if recipe.name.endswith("01"):
            raise error
        return train(recipe, **options)

    monkeypatch.setattr(search_module, "train_recipe", broken)
    tables = search.run([SASREC], n_trials=3)
    rows = tables.rows_of(SASREC)
    assert rows["status"].tolist() == ["finished", "failed", "finished"]
    assert "must stay finite" in rows["error"].iloc[1]
    assert tables.winner(SASREC)["trial"] != 1
    monkeypatch.setattr(search_module, "train_recipe", train)
    assert search.run([SASREC], n_trials=3).rows_of(SASREC)["status"].tolist() == ["finished", "failed", "finished"]

    error = OSError("the disk is full")
    monkeypatch.setattr(search_module, "train_recipe", broken)
    other = Search.open(search.folder.parent / "other", dataset=search.request["dataset"], budget=QUICK)
    assert other.run([SASREC], n_trials=2).rows_of(SASREC)["status"].tolist() == ["finished", "failed"]
    monkeypatch.setattr(search_module, "train_recipe", train)
    assert other.run([SASREC], n_trials=2).rows_of(SASREC)["status"].tolist() == ["finished", "finished"]


@pytest.mark.parametrize("change", [{"seconds": 2.0}, {"patience": 2}, {"n_validations": 3}, {"seed": 1}])
def test_a_folder_has_one_budget(search, change):
    search.run([System("popularity")], n_trials=1)
    with pytest.raises(ConfigError, match="same data and budget"):
        Search.open(search.folder, dataset=search.request["dataset"], budget=replace(QUICK, **change))


def test_a_folder_has_one_data_set(search, tmp_path):
    search.run([System("popularity")], n_trials=1)
    with pytest.raises(ConfigError, match="same data and budget"):
        Search.open(search.folder, dataset=str(write_log(tmp_path / "other.csv", n_users=9)), budget=QUICK)


def test_trials_with_other_settings_of_all_trials_are_refused(search):
    search.run([SASREC], n_trials=1)
    with pytest.raises(ConfigError, match="n_features=8"):
        search.run([System("sasrec", base={**TINY, "architecture.n_features": 4})], n_trials=1)


@pytest.mark.parametrize("values", [{"seconds": 0}, {"seconds": float("inf")}, {"patience": 0}, {"threads": 1.5}])
def test_a_budget_checks_itself(values):
    with pytest.raises(ConfigError):
        Budget(**values)


@pytest.mark.parametrize(
    ("epoch", "validation", "seconds", "n", "expected"),
    [
        (1.0, 0.0, 100.0, 20, (100, 5)),  # five epochs to a validation
        (1.0, 1.0, 100.0, 20, (80, 4)),  # a validation costs as much as an epoch
        (30.0, 1.0, 100.0, 20, (3, 1)),  # an epoch is longer than its share
        (300.0, 1.0, 100.0, 20, (1, 1)),  # an epoch is longer than all
    ],
)
def test_the_schedule_fits_the_time(epoch, validation, seconds, n, expected):
    n_epochs, between = Pace(epoch, validation, 3).schedule(seconds, n)
    assert (n_epochs, between) == expected
    assert n_epochs % between == 0
    if epoch < seconds:
        assert n_epochs * epoch + n_epochs // between * validation == pytest.approx(seconds, rel=0.12)


def test_the_pace_is_that_of_the_training(search):
    """Epochs and validations measured beforehand take about the time that the training then takes."""
    from frellm4rec.runs.train import build_model
    from frellm4rec.training import train

    recipe = search._resolved(SASREC, 0, {**SASREC.settings, "training.n_epochs": 40, "training.validate_every": 40})
    pace = measure_pace(build_model(recipe, search.dataset), search.dataset, recipe.training, threads=1)
    record = train(build_model(recipe, search.dataset), search.dataset, recipe.training, threads=1)
    assert record.effort.cpu_seconds == pytest.approx(40 * pace.epoch + pace.validation, rel=0.7)


def test_a_trial_is_still_rising_if_the_best_of_the_last_two_validations_is_the_best():
    def record(best, *values):
        return TrainingRecord(0, best, list(range(1, len(values) + 1)), [1.0] * len(values), list(values))

    assert is_still_rising(record(4, 0.1, 0.2, 0.3, 0.4), BUDGET)
    assert is_still_rising(record(3, 0.1, 0.2, 0.4, 0.3), BUDGET)
    assert not is_still_rising(record(2, 0.1, 0.4, 0.3, 0.3), BUDGET)
    assert not is_still_rising(record(4, 0.1, 0.2, 0.3, 0.4), PATIENCE)


def test_a_decay_keeps_its_share_of_the_training(search):
    base = {**TINY, "training.decay_every": 100}  # of the 400 epochs of the recipe
    system = System("sasrec", base=base)
    search.run([system], n_trials=1)
    training = search.recipe(system, 0).training
    assert training.decay_every == max(1, round(training.n_epochs / 4))
    assert search.run([system], n_trials=1).row(system, 0)["status"] == "finished"


def test_the_test_items_are_not_read(log, tmp_path, monkeypatch):
    from frellm4rec.training import validation

    parts = []
    evaluate = validation.evaluate

    def recorded(*args, part, **options):
        parts.append(part)
        return evaluate(*args, part=part, **options)

    monkeypatch.setattr(validation, "evaluate", recorded)
    Search.open(tmp_path / "s", dataset=str(log), budget=QUICK).run([SASREC, System("itemknn")], n_trials=2)
    assert set(parts) == {"valid"}


def test_the_command_prints_the_trials_and_the_best(log, tmp_path, monkeypatch, capsys):
    out = tmp_path / "tuned"
    words = ["tune", "itemknn", "--dataset", str(log), "--trials", "3", "--out", str(out)]
    code, text, _ = command(monkeypatch, capsys, *words, "--dry-run")
    assert code == 0
    assert len(text.splitlines()) == 3
    assert not out.exists()
    code, text, _ = command(monkeypatch, capsys, *words, "--json")
    assert code == 0
    result = json.loads(text)
    scores = [row["validation_ndcg"] for row in result["trials"]]
    assert result["best_trial"] == int(np.argmax(scores))
    code, text, _ = command(monkeypatch, capsys, *words)
    assert f"best on validation: trial {result['best_trial']}" in text
    recipe = out / "trials" / f"itemknn-own-{result['best_trial']:02d}.yaml"
    assert command(monkeypatch, capsys, "train", str(recipe), "--out", str(tmp_path / "runs"))[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing"),
        (["sasrec", "--column", "best"], "own, same"),
        (["frellm4rec", "--column", "same"], "softmax already"),
        (["sasrec", "--trials", "0"], "--trials"),
        (["sasrec", "--jobs", "0"], "--jobs"),
        (["sasrec", "--seconds", "-1"], "--seconds"),
        (["sasrec", "--set", "architecture.nothing=1"], "architecture.nothing"),
    ],
)
def test_the_command_refuses_before_it_writes(words, message, log, tmp_path, monkeypatch, capsys):
    out = tmp_path / "tuned"
    code, _, err = command(monkeypatch, capsys, "tune", *words, "--dataset", str(log), "--out", str(out))
    assert code == 2
    assert message in err
    assert not out.exists()


def test_a_killed_search_goes_on_and_its_trials_are_the_same(log, tmp_path):
    """A search killed in a trial gives the trials of an undisturbed one with the same recipes."""
    words = ["tune", "sasrec", "--dataset", str(log), "--trials", "2", "--seconds", "1.5", "--validations", "3"]
    words += [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
    line = [sys.executable, "-m", "frellm4rec.cli.main", *words, "--out", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("runs/*/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "killed").glob("runs/*01*/summary.json"))
    subprocess.run(line, env=environment, check=True, capture_output=True)
    tables = SearchTables.load(tmp_path / "killed")
    assert tables.trials["status"].tolist() == ["finished", "finished"]
    budget = Budget(1.5, n_validations=3)
    straight = Search.open(tmp_path / "straight", dataset=str(log), budget=budget)
    (straight.folder / "trials").mkdir(parents=True)
    for path in (tmp_path / "killed" / "trials").glob("*.yaml"):
        (straight.folder / "trials" / path.name).write_bytes(path.read_bytes())
    expected = straight.run([SASREC], n_trials=2)
    assert tables.trials["revision"].tolist() == expected.trials["revision"].tolist()


def test_a_search_goes_on_from_its_tables_where_the_runs_are_gone(search):
    """The tables and recipes of trials are small, and enough to add trials on another machine."""
    first = search.run([SASREC, System("itemknn")], n_trials=2)
    shutil.rmtree(search.folder / "runs")
    again = search.run([SASREC, System("itemknn")], n_trials=3)
    assert len(again.rows_of(SASREC)) == 3
    two = again.trials[again.trials["trial"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(two, first.trials)
    pd.testing.assert_frame_equal(again.curves[again.curves["trial"] < 2].reset_index(drop=True), first.curves)
    # A recipe that was changed by hand is another trial.
    path = search.recipe_path(SASREC, 0)
    path.write_text(path.read_text().replace("validate_every: ", "validate_every: 1"))
    assert not search.is_finished(SASREC, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("search.json", "null"),
        ("search.json", "{"),
        ("trials/itemknn-own-00.yaml", "[]"),
        ("trials/itemknn-own-00.yaml", "model: ["),
        ("trials/itemknn-own-00.error.json", "{}"),
        ("trials/mine.yaml", "model: sasrec"),
        ("trials.csv", ""),
        ("curves.csv", "a,b\n1"),
    ],
)
def test_a_damaged_file_is_named(name, content, search, monkeypatch, capsys):
    """Tables alone are left: a run would be read instead of them."""
    search.run([System("itemknn")], n_trials=1)
    shutil.rmtree(search.folder / "runs")
    (search.folder / name).write_text(content)
    words = ["tune", "itemknn", "--dataset", search.request["dataset"], "--trials", "1", "--out", str(search.folder)]
    words += ["--seconds", str(QUICK.seconds), "--validations", str(QUICK.n_validations)]
    code, _, err = command(monkeypatch, capsys, *words)
    assert code in (2, 3), err
    assert name.rpartition("/")[2].rpartition(".")[0] in err or str(search.folder) in err
    assert "Traceback" not in err


def test_a_folder_has_one_search_at_a_time(search):
    refused = pytest.raises(ConfigError, match=rf"process {os.getpid()} is at work there")
    with only_process(search.folder, "A search"), ThreadPoolExecutor(1) as other, refused:
        other.submit(search.run, [System("popularity")], n_trials=1).result()
    assert search.run([System("popularity")], n_trials=1).row(System("popularity"), 0)["status"] == "finished"


def test_trials_on_another_kind_of_device_are_refused(search, monkeypatch):
    search.run([System("popularity")], n_trials=1)
    monkeypatch.setattr(search_module, "parse_device", lambda name: SimpleNamespace(type=name))
    with pytest.raises(ConfigError, match="device=cpu; got device=cuda"):
        Search.open(search.folder, dataset=search.request["dataset"], budget=QUICK, device="cuda")


def test_a_decay_cannot_be_switched_on_for_a_trial_that_is_there(search):
    search.run([SASREC], n_trials=1)
    with pytest.raises(ConfigError, match="decay_every=False"):
        search.run([System("sasrec", base={**TINY, "training.decay_every": 100})], n_trials=1)


def test_a_recipe_that_was_cut_off_is_refused(search):
    """What is missing would be filled with defaults, and the trial would have another number of epochs."""
    search.run([SASREC], n_trials=1)
    path = search.recipe_path(SASREC, 0)
    path.write_text(path.read_text().split("training:")[0])
    with pytest.raises(DataError, match="not the whole recipe"):
        search.run([SASREC], n_trials=1)


def test_a_damaged_record_does_not_lose_a_trial_that_is_in_the_tables(search):
    search.run([SASREC], n_trials=1)
    before = search.tables().trials
    (summary,) = search.folder.glob("runs/*/summary.json")
    summary.write_text("{")
    pd.testing.assert_frame_equal(search.run([SASREC], n_trials=1).trials, before)


def test_settings_that_are_no_json_are_named(search):
    search.run([System("popularity")], n_trials=1)
    shutil.rmtree(search.folder / "runs")
    path = search.folder / "trials.csv"
    path.write_text(path.read_text().replace("{}", "oops"))
    with pytest.raises(DataError, match=r"holds no tables of a search"):
        search.run([System("popularity")], n_trials=1)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sasrec", "--device", "nothing"], 2, "nothing"),
        (["sasrec", "--threads", "999999"], 2, "at most 1024"),
        (["sasrec", "--patience", "99999999999"], 2, "--patience must be at most 2147483647"),
        (["sasrec", "--seed", "99999999999999999999"], 2, "0 to 4294967295"),
        (["sasrec", "--set", "dataset=demo"], 2, "use the option for it"),
        (["sasrec", *("--set", "training.batch_size=7") * 2], 2, "training.batch_size is named twice"),
        (["sasrec", "--set", "training.learning_rate=1e30"], NonFiniteStateError.exit_code, "must stay finite"),
    ],
)
def test_what_a_search_ends_with_follows_from_its_errors(words, code, message, log, tmp_path, monkeypatch, capsys):
    line = ["tune", *words, "--dataset", str(log), "--trials", "1", "--seconds", "0.1", "--out", str(tmp_path / "out")]
    result = command(monkeypatch, capsys, *line)
    assert result[0] == code
    assert message in result[1] + result[2]


@pytest.mark.parametrize("seconds", [0, -1.0, 1e308, float("inf"), float("nan"), True, 10**400])
def test_a_time_out_of_range_is_refused(seconds):
    with pytest.raises(ConfigError, match="--seconds must be above 0, and at most 1000000; got "):
        Budget(seconds)
    assert Budget(1_000_000).seconds == 1_000_000


def test_the_workers_of_a_killed_search_end_too(log, tmp_path):
    words = ["tune", "sasrec", "--dataset", str(log), "--trials", "2", "--seconds", "20", "--jobs", "2"]
    line = [sys.executable, "-m", "frellm4rec.cli.main", *words, "--out", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed").glob("runs/*/checkpoints/step-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [pid for pid in workers if Path(f"/proc/{pid}").exists() and "Z" not in _state(pid)]
    assert alive == []


def _state(pid):
    """Return the state of a process, such as S or Z; Z if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
