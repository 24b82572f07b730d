"""Tables whose rows are tuned: equal trials, chosen on validation, test opened once and only when asked."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from frellm4rec.evaluation import Evaluation
from frellm4rec.experiments import runner
from frellm4rec.experiments.definitions import read_definition
from frellm4rec.experiments.grid import ExperimentRequest
from frellm4rec.experiments.paper import paper_value
from frellm4rec.experiments.system_page import outside_numbers, system_page
from frellm4rec.experiments.system_tables import SystemTables, best_baseline
from frellm4rec.experiments.systems import TunedExperiment, load_definition
from frellm4rec.experiments.tuned import TunedRun
from frellm4rec.models.registry import model_names
from frellm4rec.tuning.search import Budget
from frellm4rec.tuning.tables import SearchTables
from spectral_probe.errors import ConfigError
from spectral_probe.figure_style import line_labels
from tests.conftest import assert_print_ready
from tests.frellm4rec.tiny_recommenders import run as command
from tests.frellm4rec.tiny_recommenders import write_log

SMALL = {"architecture.n_features": 8}
TOY = {
    "title": "Toys",
    "source": "Table 2",
    "reference": "sasrec",
    "systems": [
        {"model": "gru4rec", "base": SMALL},
        {"model": "sasrec", "label": "Small SASRec", "base": SMALL},
        {"model": "itemknn"},
        {"model": "popularity"},
    ],
}


def svg_width(path):
    """Width of a picture in mm."""
    return float(re.search(r'<svg [^>]*width="([\d.]+)pt"', path.read_text())[1]) / 72 * 25.4


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("data") / "log.csv", n_users=40)


@pytest.fixture
def opened(log, tmp_path):
    def make(folder="table", n_trials=2, seconds=0.1, content=TOY, n_seeds=3, **changes):
        experiment = TunedExperiment.from_dict(content, "toys")
        request = ExperimentRequest(str(log), n_seeds=n_seeds, rankings=("10+1", "full"), **changes)
        budget = Budget(seconds, n_validations=2)
        return TunedRun.open(experiment, request, tmp_path / folder, n_trials=n_trials, budget=budget)

    return make


@pytest.fixture(scope="module")
def finished(log, tmp_path_factory):
    """A table whose test items are opened."""
    folder = tmp_path_factory.mktemp("toys")
    experiment = TunedExperiment.from_dict(TOY, "toys")
    request = ExperimentRequest(str(log), n_seeds=3, rankings=("10+1", "full"))
    run = TunedRun.open(experiment, request, folder, n_trials=2, budget=Budget(0.1, n_validations=2))
    run.tune()
    return run, run.finish()


def test_a_search_does_not_open_the_test_items(opened, monkeypatch):
    parts = []
    original = runner.evaluate_trained
    monkeypatch.setattr(runner, "evaluate_trained", lambda *a, **o: parts.append(1) or original(*a, **o))
    run = opened()
    tables = run.tune()
    assert parts == []
    assert not list(run.folder.rglob("evaluation"))
    assert "have not been opened" in (run.folder / "table.md").read_text()
    assert tables.systems["n_openings"].tolist() == [0] * 6
    assert set(tables.systems["variant"]) == {
        *("sasrec-own", "gru4rec-own", "itemknn-own", "popularity-own", "sasrec-same", "gru4rec-same"),
    }


def test_the_chosen_settings_are_trained_with_fresh_seeds_and_compared(finished):
    _, tables = finished
    cells = tables.final.cells
    assert set(cells.loc[cells["variant"] == "sasrec-own", "seed"]) == {1, 2, 3}
    assert set(cells.loc[cells["variant"] == "itemknn-own", "seed"]) == {1}  # counted: one result
    assert cells["status"].eq("finished").all()
    assert tables.systems["n_openings"].tolist() == [1] * 6
    for row in tables.systems[tables.systems["is_trained"]].to_dict("records"):
        trials = tables.search.trials
        mine = trials[(trials["model"] == row["model"]) & (trials["column"] == row["column"])]
        assert row["validation_ndcg"] == mine["validation_ndcg"].max()
        # The final training has the epochs and the settings of the chosen trial.
        chosen = mine[mine["trial"] == row["trial"]].iloc[0]
        final = cells[cells["variant"] == row["variant"]]
        assert (final["n_epochs"] <= chosen["epochs_given"]).all()
        assert set(final["n_parameters"]) == {chosen["n_parameters"]}
    best = best_baseline(tables.systems, "sasrec")
    assert set(tables.final.differences["against"]) == {"sasrec-own", best}
    family = tables.final.differences["family"].unique()
    assert all(text.startswith("5 differences") for text in family)


def test_the_best_baseline_is_chosen_by_validation_among_published_losses():
    rows = pd.DataFrame(
        [
            ("a", "own", "a-own", 0.3),
            ("b", "own", "b-own", 0.2),
            ("c", "same", "c-same", 0.9),
            ("ref", "own", "ref-own", 0.8),
            ("broken", "own", "broken-own", float("nan")),
        ],
        columns=["model", "column", "variant", "validation_ndcg"],
    )
    assert best_baseline(rows, "ref") == "a-own"
    assert best_baseline(rows[rows["model"] == "ref"], "ref") == ""


def test_the_same_settings_again_are_no_further_opening_and_others_are(opened):
    run = opened(content={**TOY, "systems": TOY["systems"][1:2]}, n_seeds=1)
    run.tune()
    run.finish()
    assert run.finish().systems["n_openings"].max() == 1
    path = run.folder / "openings.json"
    path.write_text(json.dumps({"sasrec-own": ["another"]}))
    openings = run.finish().systems.set_index("variant")["n_openings"]
    assert openings["sasrec-own"] == 2


def test_test_is_opened_after_equal_trials_only(opened):
    run = opened(n_trials=1)
    run.tune()
    more = opened(n_trials=2)
    with pytest.raises(ConfigError, match=r"1 have ended, and 2 are asked for\. Run the same command without --final"):
        more.finish()
    assert not list(run.folder.rglob("evaluation"))


def test_fewer_trials_than_there_are_is_answered_with_their_number(opened):
    run = opened(n_trials=2)
    run.tune()
    with pytest.raises(ConfigError, match=r"2 have ended, and 1 are asked for\. Give --trials 2"):
        opened(n_trials=1).finish()


def test_test_is_opened_for_all_systems_or_none(opened):
    run = opened(n_trials=1)
    run.tune()
    with pytest.raises(ConfigError, match="Leave out --variants"):
        opened(n_trials=1, variants=("sasrec", "popularity")).finish()
    assert not (run.folder / "openings.json").exists()


def test_after_other_settings_are_chosen_nothing_of_the_old_ones_is_averaged_in(opened, monkeypatch):
    """More trials choose others: the page says so, and the next opening has trainings of one setting only."""
    few = {**TOY, "systems": [TOY["systems"][1], TOY["systems"][3]]}
    run = opened(content=few, n_trials=1, n_seeds=2)
    run.tune()
    first = run.finish()
    assert "chosen before the latest trials" not in (run.folder / "table.md").read_text()
    assert first.systems["is_tested"].tolist() == [True] * 3
    old = set(first.final.cells["recipe_hash"])

    original = SearchTables.winner
    last = lambda self, system: original(  # noqa: E731
        replace(self, trials=self.trials[self.trials["trial"] == self.rows_of(system)["trial"].max()]), system
    )
    monkeypatch.setattr(SearchTables, "winner", last)
    more = opened(content=few, n_trials=3, n_seeds=1)
    more.tune()
    text = (more.folder / "table.md").read_text()
    assert (
        "**Test is of settings chosen before the latest trials**: validation now chooses others for Small SASRec"
        in text
    )
    second = more.finish()
    cells = second.final.cells
    trained = cells[cells["variant"] != "popularity-own"]
    assert set(trained["seed"]) == {1}  # the old seed 2 had other settings
    assert not old & set(trained["recipe_hash"])
    assert second.final.means["n_seeds"].eq(1).all()
    openings = second.systems.set_index("variant")["n_openings"]
    assert openings.to_dict() == {"sasrec-own": 2, "sasrec-same": 2, "popularity-own": 1}
    assert "chosen before the latest trials" not in (more.folder / "table.md").read_text()


def test_counted_systems_alone_have_a_page(opened):
    content = {**TOY, "reference": "popularity", "systems": TOY["systems"][2:]}
    run = opened(content=content)
    run.tune()
    assert "ItemKNN" in (run.folder / "table.md").read_text()


def test_the_final_trainings_are_on_the_device_of_the_search(finished):
    run, _ = finished
    for path in (run.folder / "runs").glob("*/config.yaml"):
        assert yaml.safe_load(path.read_text())["device"] == "cpu"


def test_the_columns_choose_the_loss(opened):
    with pytest.raises(ConfigError, match="columns of 'toys' choose the loss"):
        opened(settings={"architecture.loss": "bce"})


def test_the_page_follows_from_the_tables(finished):
    run, tables = finished
    text = (run.folder / "table.md").read_text().rstrip("\n")
    assert system_page(run.experiment, SystemTables.load(run.folder)).rstrip("\n") == text
    assert "Small SASRec" in text
    for ranking in ("10+1 candidates", "full ranking"):
        assert f"Test, {ranking}" in text
    means = tables.final.means
    value = means[(means["variant"] == "sasrec-own") & (means["ranking"] == "full") & (means["metric"] == "ndcg")]
    assert f"{value['value'].iloc[0]:.4f}" in text
    for suffix in ("png", "pdf", "svg", "csv", "txt", "tex"):
        assert (run.folder / f"curves.{suffix}").stat().st_size > 0


def test_the_curves_show_every_validation_of_the_chosen_trials(finished):
    from frellm4rec.experiments.system_figure import learning_curves

    run, tables = finished
    figure = learning_curves(run.experiment, tables)
    titles = [ax.get_title("left").splitlines()[1] for ax in figure.axes]
    assert titles == ["loss of its paper", "softmax over all items"]
    chosen = tables.systems[tables.systems["is_trained"]]
    for ax, column in zip(figure.axes, ("own", "same"), strict=True):
        lines = {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
        assert set(lines) == {"Small SASRec", "GRU4Rec"} == {text.get_text() for text in line_labels(ax)}
        row = chosen[(chosen["model"] == "sasrec") & (chosen["column"] == column)].iloc[0]
        curves = tables.search.curves
        expected = curves[
            (curves["model"] == "sasrec") & (curves["column"] == column) & (curves["trial"] == row["trial"])
        ]
        assert lines["Small SASRec"].get_ydata().tolist() == expected["ndcg"].tolist()
    assert_print_ready(figure, 178)


def test_an_opening_is_noted_before_test_is_read(opened, monkeypatch):
    """A call that is stopped between the two has opened them too."""
    run = opened(content={**TOY, "systems": TOY["systems"][1:2]}, n_seeds=1)
    run.tune()

    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "evaluate_trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert len(json.loads((run.folder / "openings.json").read_text())["sasrec-own"]) == 1


def test_a_system_that_cannot_be_trained_is_a_row_with_its_reason(opened, monkeypatch):
    from frellm4rec.tuning import search

    train = search.train_recipe

    def broken(recipe, **options):
        if recipe.model == "gru4rec":
            raise ConfigError("no titles here")
        return train(recipe, **options)

    monkeypatch.setattr(search, "train_recipe", broken)
    run = opened(n_trials=1, n_seeds=1)
    run.tune()
    assert run.exit_code == 0
    tables = run.finish()
    row = tables.systems.set_index("variant").loc["gru4rec-own"]
    assert (row["n_failed"], row["n_trials"]) == (1, 1)
    assert "gru4rec-own" not in set(tables.final.cells["variant"])
    assert "no titles here" in (run.folder / "table.md").read_text()


def test_a_search_without_any_finished_trial_ends_with_the_code_of_its_error(opened, monkeypatch):
    from frellm4rec.tuning import search

    def broken(recipe, **options):
        raise ConfigError("k is too large")

    monkeypatch.setattr(search, "train_recipe", broken)
    run = opened(content={**TOY, "systems": TOY["systems"][:2]}, n_trials=1)
    run.tune()
    assert run.exit_code == ConfigError.exit_code
    assert "k is too large" in (run.folder / "table.md").read_text()


def test_an_interrupted_final_leaves_the_page_of_the_table(opened, monkeypatch):
    run = opened(content={**TOY, "systems": TOY["systems"][1:2]}, n_trials=1, n_seeds=2)
    run.tune()
    evaluate, calls = runner.evaluate_trained, []

    def stopped(*args, **options):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return evaluate(*args, **options)

    monkeypatch.setattr(runner, "evaluate_trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    text = (run.folder / "table.md").read_text()
    assert "Validation, and what it cost" in text
    assert "Test, full ranking" in text
    assert "--final" in (run.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"systems": []}, "list of models"),
        ({"systems": [{"label": "x"}]}, "names its model"),
        ({"systems": [{"model": "sasrex"}]}, "sasrec"),
        ({"systems": [{"model": "sasrec"}, {"model": "sasrec"}]}, "different models"),
        ({"reference": "markov"}, "the reference"),
        ({"trials": 3}, "trials"),
        ({"title": [1]}, "title of 'toys' must be text"),
        ({"systems": [{"model": 5}]}, "model of a system of 'toys' must be text; got 5"),
        ({"systems": [{"model": "sasrec", "label": 5}]}, "label of a system"),
        ({"systems": [{"model": "sasrec", "base": 5}]}, "base of a system of 'toys' must be a mapping"),
        ({"systems": [{"model": "sasrec", "base": {5: 1}}]}, "base of a system of 'toys' must be a mapping"),
        ({"systems": [{"model": "sasrec", "paper": 5}]}, "paper of a system of 'toys' must be a mapping"),
    ],
)
def test_a_definition_checks_itself(change, message):
    with pytest.raises(ConfigError, match=message):
        TunedExperiment.from_dict({**TOY, **change}, "toys")


def test_table_2_holds_every_registered_recommender_and_the_papers_numbers():
    experiment = load_definition("table2")
    assert {row.model for row in experiment.rows} == set(model_names())
    for system in experiment.systems():
        assert len(system.trials(12)) >= 1
    labels = {"dataset": "lastfm", "metric": "ndcg", "backbone": ""}
    for row in experiment.rows:
        assert (paper_value(row.printed, **labels) is None) == (row.model in ("itemknn", "markov", "popularity"))
    printed = {row.printed["model"] for row in experiment.rows}
    assert set(outside_numbers()["model"]) <= printed
    assert "systems" in read_definition("table2")


def test_the_reference_may_have_another_backbone_and_mode():
    experiment = load_definition("table2").over("/somewhere/stories260K", "causal")
    row = experiment.row("frellm4rec")
    assert row.label == "FreLLM4Rec (stories260K, causal)"
    assert row.base == {"architecture.backbone": "/somewhere/stories260K", "architecture.mode": "causal"}
    assert experiment.row("morec") == load_definition("table2").row("morec")
    assert load_definition("table2").over("", "") == load_definition("table2")
    without = experiment.without_titles().row("frellm4rec")
    assert without.title == "FreLLM4Rec (stories260K, causal), ids alone"
    assert without.base == {**experiment.row("frellm4rec").base, "architecture.inputs": "id"}
    assert TunedExperiment.from_dict(TOY, "toys").without_titles() == TunedExperiment.from_dict(TOY, "toys")
    with pytest.raises(ConfigError, match="no setting"):
        TunedExperiment.from_dict(TOY, "toys").over("minilm", "")


def test_the_command_plans_searches_and_opens(log, tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "toys.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump({**TOY, "systems": TOY["systems"][1:]}))
    words = ["experiment", "toys", str(path), "--dataset", str(log), "--trials", "1", "--seconds", "0.1"]
    words += ["--ranking", "10+1", "--seeds", "1", "--figure-width", "85", "--out", str(out)]
    code, text, _ = command(monkeypatch, capsys, *words, "--dry-run")
    assert code == 0
    assert "4 trials, 4 to run, about 0.0 hours" in text
    assert "the winner again" not in text
    assert (
        "then the winner again, with 0.2 seconds"
        in command(monkeypatch, capsys, *words, "--longer", "2", "--dry-run")[1]
    )
    assert not out.exists()
    code, text, err = command(monkeypatch, capsys, *words)
    assert (code, "have not been opened" in text) == (0, True), err
    assert svg_width(out / "curves.svg") == pytest.approx(85, abs=0.1)
    code, text, err = command(monkeypatch, capsys, *words, "--final", "--json")
    assert code == 0, err
    values = {row["variant"]: row["n_openings"] for row in json.loads(text)["systems"]}
    assert set(values.values()) == {1}
    assert svg_width(out / "figure.svg") == pytest.approx(85, abs=0.1)
    assert "--figure-width 85" in (out / "report.html").read_text()
    run = next((out / "runs").glob("*sasrec*"))
    assert Evaluation.load(next(run.glob("evaluation/test-*.npz"))).n_users == 40


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table2", "--beside", "sasrec"], "Leave out --beside"),
        (["table2", "--backbone", "minilm", "--backbone", "smollm2"], "Leave out --beside"),
        (["table2", "--variants", "nothing"], "nothing"),
        (["ablation", "--final"], "--final is of tuned tables"),
        (["table2", "--jobs", "0"], "--jobs"),
    ],
)
def test_the_command_refuses_what_does_not_fit(words, message, log, tmp_path, monkeypatch, capsys):
    code, _, err = command(
        monkeypatch, capsys, "experiment", *words, "--dataset", str(log), "--out", str(tmp_path / "out")
    )
    assert code == 2
    assert message in err


def test_a_ranking_that_the_data_do_not_allow_is_refused_before_the_search(log, tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "toys.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(TOY))
    words = ["experiment", "toys", str(path), "--dataset", str(log), "--trials", "1", "--seconds", "0.1", "--final"]
    code, _, err = command(monkeypatch, capsys, *words, "--out", str(out))  # 99+1 of 25 items
    assert code == 3
    assert "99 negatives cannot be drawn" in err
    assert not (out / "search" / "runs").exists()
