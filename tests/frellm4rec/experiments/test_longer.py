"""The winner of a tuned table with several times the seconds: beside the rows of equal time, never among them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from frellm4rec.evaluation import Evaluation
from frellm4rec.experiments.grid import ExperimentRequest
from frellm4rec.experiments.longer import longer_trial
from frellm4rec.experiments.system_figure import longer_figure
from frellm4rec.experiments.system_page import system_page
from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.systems import TunedExperiment, longer_name
from frellm4rec.experiments.tuned import TunedRun
from frellm4rec.runs.evaluations import EVALUATION_FOLDER, evaluation_path
from frellm4rec.tuning.search import Budget
from frellm4rec.tuning.tables import SearchTables
from frellm4rec.tuning.trials import System
from spectral_probe.errors import ConfigError, NonFiniteStateError
from spectral_probe.figure_style import line_labels
from tests.conftest import assert_print_ready
from tests.frellm4rec.tiny_recommenders import run as command
from tests.frellm4rec.tiny_recommenders import write_log

SMALL = {"architecture.n_features": 8}
TOY = {
    "title": "Toys",
    "source": "Table 2",
    "reference": "sasrec",
    "systems": [{"model": "gru4rec", "base": SMALL}, {"model": "sasrec", "base": SMALL}, {"model": "popularity"}],
}
SECONDS, TIMES = 0.1, 3


def open_table(log, folder, longer=None):
    request = ExperimentRequest(str(log), n_seeds=3, rankings=("10+1", "full"))
    budget = Budget(SECONDS, n_validations=2)
    experiment = TunedExperiment.from_dict(TOY, "toys")
    return TunedRun.open(experiment, request, folder, n_trials=1, budget=budget, longer=longer)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("data") / "log.csv", n_users=40)


@pytest.fixture(scope="module")
def tuned(log, tmp_path_factory):
    """A table with a longer run, before and after its test items are opened."""
    run = open_table(log, tmp_path_factory.mktemp("toys"), longer=TIMES)
    before = run.tune()
    text = (run.folder / "table.md").read_text()
    return run, before, text, run.finish()


def test_the_trained_system_that_validation_rates_best_runs_longer():
    systems = [System("sasrec"), System("gru4rec"), System("itemknn"), System("sasrec", "same")]
    scores = {"sasrec-own": 0.1, "gru4rec-own": 0.2, "itemknn-own": 0.9, "sasrec-same": 0.5}
    rows = pd.DataFrame(
        [
            {"variant": s.name, "is_trained": s.is_trained, "validation_ndcg": scores[s.name], "trial": 1}
            for s in systems
        ]
    )
    assert longer_trial(rows, systems, seed=0) == [(systems[3], 1, systems[3].trials(2, seed=0)[1])]
    assert longer_trial(rows.assign(validation_ndcg=np.nan), systems, seed=0) == []


def test_it_has_the_settings_of_the_trial_and_several_times_the_seconds(tuned):
    _, before, _, _ = tuned
    system, row = before.longer_row()
    trained = before.systems[before.systems["is_trained"]]
    assert system["validation_ndcg"] == trained["validation_ndcg"].max()
    assert row["budget_seconds"] == TIMES * SECONDS
    assert row["settings"] == system["settings"]
    trials = before.search.trials
    short = trials[(trials["model"] == row["model"]) & (trials["column"] == row["column"])].iloc[0]
    # The speed is measured anew before each: here, of a tenth of a second, and not to the step.
    assert 1.2 < row["epochs_given"] / short["epochs_given"] < 8
    assert set(before.systems["budget_seconds"]) == {SECONDS}
    assert len(before.search.trials) == 5  # no trial of the search


def test_the_page_shows_it_apart_and_test_is_opened_by_final_alone(tuned):
    run, _, text, tables = tuned
    assert "With more time" in text
    assert "It has no result on the test items." in text
    final = (run.folder / "table.md").read_text()
    tested, apart = final.split("## With more time")
    assert "the time" not in tested.split("## Validation")[0]  # no row of the tables of equal time
    system, _ = tables.longer_row()
    mean = tables.final.means.set_index(["variant", "ranking", "metric"])["value"]
    for ranking in ("10+1", "full"):
        assert f"{mean[longer_name(system['variant']), ranking, 'ndcg']:.4f} [" in apart
    loaded = SystemTables.load(run.folder)
    assert system_page(run.experiment, loaded).rstrip("\n") == final.rstrip("\n")
    assert f"--longer {TIMES} --final" in (run.folder / "report.html").read_text()
    openings = json.loads((run.folder / "openings.json").read_text())
    assert all(len(openings[name]) == 1 for name in ("sasrec-own", longer_name(system["variant"])))


def test_it_is_compared_with_its_own_row_alone_and_changes_no_other_family(tuned):
    run, _, _, tables = tuned
    differences, cells = tables.final.differences, tables.final.cells
    apart = differences[differences["variant"].str.endswith("-longer")]
    assert (apart["against"] == apart["variant"].str.removesuffix("-longer")).all()
    assert apart["family"].str.startswith("1 difference of").all()
    others = differences.drop(apart.index)
    assert others["family"].str.startswith("4 differences").all()  # five systems
    assert not others["against"].str.endswith("-longer").any()

    def per_user(variant):
        rows = cells[(cells["variant"] == variant) & (cells["ranking"] == "full")].sort_values("seed")
        assert rows["seed"].tolist() == [1, 2, 3]
        paths = [evaluation_path(run.folder / r / EVALUATION_FOLDER, part="test", ranking="full") for r in rows["run"]]
        return np.mean([Evaluation.load(path).ndcg for path in paths], axis=0)

    [row] = apart[(apart["ranking"] == "full") & (apart["metric"] == "ndcg")].to_dict("records")
    expected = (per_user(row["variant"]) - per_user(row["against"])).mean()
    assert row["difference"] == pytest.approx(expected, abs=1e-9)


def test_without_the_option_what_is_there_stays_and_another_multiple_is_refused(tuned, log):
    run, _, _, tables = tuned
    again = open_table(log, run.folder)
    again.tune()
    kept = again.finish()
    pd.testing.assert_frame_equal(kept.final.differences, tables.final.differences)
    assert kept.has_longer()
    with pytest.raises(ConfigError, match=f"has {TIMES} times the seconds; got --longer {TIMES + 1}"):
        open_table(log, run.folder, longer=TIMES + 1)


def test_a_longer_run_of_another_trial_than_the_chosen_one_is_not_shown(tuned, tmp_path):
    run, _, _, tables = tuned
    moved = SystemTables(tables.systems.assign(trial=7), tables.search, tables.final, tables.longer)
    assert moved.longer_row() is None
    assert "With more time" not in system_page(run.experiment, moved)
    later = run.search.tables()
    later.trials["trial"] = 7
    assert run._longer_variants(later) == {}
    # Its picture does not outlive it, nor do its numbers once they are gone.
    for name in ("longer_curves.png", "longer_curves.csv", "longer_trials.csv"):
        (tmp_path / name).write_bytes((run.folder / name).read_bytes())
    moved.save(tmp_path)
    assert {path.name for path in tmp_path.glob("longer*")} == {"longer_curves.csv", "longer_trials.csv"}
    replace(moved, longer=SearchTables.empty()).save(tmp_path)
    assert not list(tmp_path.glob("longer*"))


def test_its_test_is_shown_only_if_it_is_of_the_settings_that_would_be_tested_now(tuned):
    run, _, _, tables = tuned
    name = longer_name(tables.longer_row()[0]["variant"])
    assert name in set(tables.final.cells["variant"])
    path = run.folder / "openings.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), name: ["another"]}))
    shown = run._without_stale(tables.final, run.search.tables())
    path.write_text(before)
    assert name not in set(shown.cells["variant"])
    assert name in set(run._without_stale(tables.final, run.search.tables()).cells["variant"])


def test_the_figures_show_the_rows_of_equal_time_alone(tuned):
    run, _, _, tables = tuned
    label = f"{tables.longer_row()[0]['label']}, {TIMES}× the time"
    assert label in set(tables.final.means["label"])
    assert label not in set(pd.read_csv(run.folder / "figure.csv")["label"])
    assert label not in (run.folder / "report.html").read_text()
    assert "--final" in (run.folder / "report.html").read_text()


def test_fewer_trials_than_the_folder_has_leave_the_winner(tuned):
    run, before, _, _ = tuned
    later = before.systems.assign(trial=before.systems["trial"] + 3)
    [(system, index, settings)] = longer_trial(later, run.systems, seed=0)
    assert index == 3
    assert settings == system.trials(9, seed=0)[3]


def test_the_figure_has_both_curves(tuned):
    run, _, _, tables = tuned
    drawn = longer_figure(run.experiment, tables)
    ax = drawn.figure.axes[0]
    system, row = tables.longer_row()
    curves = [list(line.get_ydata()) for line in ax.get_lines()]
    for table in (tables.search.curves, tables.longer.curves):
        is_of = (table["model"] == row["model"]) & (table["column"] == row["column"])
        assert table.loc[is_of & (table["trial"] == row["trial"]), "ndcg"].tolist() in curves
    assert [text.get_text() for text in line_labels(ax)] == [system["label"]]
    assert_print_ready(drawn.figure, 178)
    assert (run.folder / "longer_curves.pdf").stat().st_size > 0


def test_a_longer_run_that_fails_is_said_and_has_its_code(log, tmp_path, monkeypatch):
    from frellm4rec.tuning import search

    run = open_table(log, tmp_path)
    run.tune()
    longer = open_table(log, tmp_path, longer=TIMES)

    def broken(*args, **options):
        raise NonFiniteStateError("The loss is not finite.")

    monkeypatch.setattr(search, "train_recipe", broken)
    tables = longer.tune()
    assert longer.exit_code == NonFiniteStateError.exit_code
    assert not tables.has_longer()
    assert "with more time: NonFiniteStateError: The loss is not finite." in (tmp_path / "table.md").read_text()


def test_a_call_that_is_stopped_in_the_longer_run_leaves_the_table(log, tmp_path, monkeypatch):
    from frellm4rec.tuning import search

    open_table(log, tmp_path).tune()
    (tmp_path / "table.md").unlink()
    longer = open_table(log, tmp_path, longer=TIMES)

    def stopped(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "train_recipe", stopped)
        with pytest.raises(KeyboardInterrupt):
            longer.tune()
    assert "Validation, and what it cost" in (tmp_path / "table.md").read_text()
    assert open_table(log, tmp_path, longer=TIMES).tune().has_longer()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table2", "--longer", "1"], "from 2 to"),
        (["table2", "--longer", "900", "--seconds", "2000"], "from 2 to 500"),
        (["table2", "--longer", "4", "--variants", "sasrec"], "Leave out --variants"),
        (["table2", "--final", "--variants", "sasrec"], "Leave out --variants"),
        (["ablation", "--seconds", "60"], "--seconds is of tuned tables"),
        (["ablation", "--longer", "4"], "--longer is of tuned tables"),
    ],
)
def test_the_command_refuses_what_does_not_fit(words, message, log, tmp_path, monkeypatch, capsys):
    code, _, err = command(
        monkeypatch, capsys, "experiment", *words, "--dataset", str(log), "--out", str(tmp_path / "out")
    )
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()
