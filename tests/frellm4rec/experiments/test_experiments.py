"""Experiments on a tiny made-up log: the grid, what is skipped, resumed and recorded, tables and figures."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml

from frellm4rec.data import DemoConfig, make_demo
from frellm4rec.evaluation import Evaluation, ModelValues, holm
from frellm4rec.evaluation.contrasts import contrasts
from frellm4rec.experiments import runner
from frellm4rec.experiments.curves import training_curves
from frellm4rec.experiments.definitions import (
    Experiment,
    Variant,
    baseline,
    experiment_names,
    load_experiment,
    read_definition,
)
from frellm4rec.experiments.figures import experiment_caption, experiment_figure
from frellm4rec.experiments.grid import ExperimentRequest, cells_of, short_name
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.paper import paper_numbers, paper_value
from frellm4rec.experiments.runner import ExperimentRun
from frellm4rec.experiments.tables import ExperimentTables, join_folders, read_table
from frellm4rec.models import FreLLM4Rec
from frellm4rec.runs import pretrained
from frellm4rec.runs.train import train_recipe
from frellm4rec.training import TrainingConfig
from spectral_probe.errors import ConfigError, DataError
from tests.conftest import assert_print_ready
from tests.frellm4rec.tiny_recommenders import run as command

SASREC = "sasrec"
SETTINGS = {"training.n_epochs": 2, "training.validate_every": 1}
OWN = {
    "title": "Tiny",
    "source": "Table 3",
    "reference": "full",
    "backbones": ["tiny-random:llama"],
    "base": {"architecture.inputs": "id"},
    "variants": [
        {"name": "full", "label": "Full", "paper": {"table": 3, "variant": "full"}},
        {"name": "1", "label": "No TFM", "leaves_out": "TFM", "overrides": {"architecture.cutoff": None}},
        {"name": "untitled", "overrides": {"architecture.inputs": "text"}},
        {"name": "elsewhere", "needs_input": "nowhere", "overrides": {"architecture.id_source": "nowhere"}},
    ],
}
UNTUNED = [name for name in experiment_names() if "systems" not in read_definition(name)]


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A cache of our own, and a SASRec of two epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path_factory.mktemp("cache")))
        short = TrainingConfig(n_epochs=2, validate_every=1)
        quick = partial(pretrained.pretrained, training=short)
        patch.setattr(pretrained, "pretrained", quick)
        patch.setattr(runner, "pretrained", quick)
        yield patch


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    world = make_demo(DemoConfig(n_users=50, n_items=96, min_length=5, max_length=12))
    path = tmp_path_factory.mktemp("data") / "shop.csv"
    world.to_frame().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def request_of(log):
    def make(**changes):
        usual = {"n_seeds": 2, "settings": SETTINGS, "baselines": ("sasrec",), "rankings": ("20+1", "full")}
        return ExperimentRequest(str(log), **{**usual, **changes})

    return make


@pytest.fixture
def trainings(monkeypatch):
    """Names of the variants that are trained from now on."""
    names = []

    def counted(recipe, **options):
        names.append(recipe.name)
        return train_recipe(recipe, **options)

    monkeypatch.setattr(runner, "train_recipe", counted)
    return names


@pytest.fixture(scope="module")
def finished(patched, request_of, tmp_path_factory):
    """The experiment of OWN, run once: folder, tables, exit code, lines of the report."""
    lines = []
    run = ExperimentRun.open(Experiment.from_dict(OWN, "tiny"), request_of(), tmp_path_factory.mktemp("tiny"))
    tables = run.run(report=lines.append)
    return run, tables, lines


def test_every_published_recipe_is_one_that_can_be_trained(request_of):
    for name in UNTUNED:
        experiment = load_experiment(name)
        run = ExperimentRun(experiment, request_of(settings={}), None, None)
        configs = {cell.variant.name: run.recipe(cell).config(9) for cell in run.cells if not cell.is_baseline}
        assert len(set(configs.values())) == len(configs) >= 2
        if experiment.sweep is not None:
            values = [experiment.swept_value(variant.name) for variant in experiment.variants]
            on = [value for value in values if value is not None]
            assert on == sorted(on)
            field = experiment.sweep.key.removeprefix("architecture.")
            assert [getattr(config, field) for config in configs.values()] == values
    assert {"ablation", "alpha", "cutoff", "kept", "backbones", "table5"} == set(UNTUNED)


def test_the_rows_of_the_ablation_are_what_they_are_called():
    run = ExperimentRun(load_experiment("ablation"), ExperimentRequest("lastfm", n_seeds=1), None, None)
    configs = {cell.variant.name: run.recipe(cell).config(9) for cell in run.cells}
    settings = {name: (c.alpha, c.cutoff, c.inputs) for name, c in configs.items()}
    assert settings == {
        "full": (0.3, 0.3, "id+text"),
        "wo-glpf": (0.0, 0.3, "id+text"),
        "wo-tfm": (0.3, None, "id+text"),
        "base": (0.0, None, "id+text"),
        "wo-id": (0.3, 0.3, "text"),
        "wo-text": (0.3, 0.3, "id"),
    }


def test_the_order_is_seed_by_seed(request_of):
    experiment = Experiment.from_dict(OWN, "tiny")
    cells = cells_of(experiment, request_of(modes=("prefix", "causal"), variants=("full", "1")))
    assert [(c.seed, c.mode, c.variant.name) for c in cells[:6]] == [
        (0, "", SASREC),
        (0, "prefix", "full"),
        (0, "prefix", "1"),
        (0, "causal", "full"),
        (0, "causal", "1"),
        (1, "", SASREC),
    ]
    assert len(cells) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("fulll",)}, "Did you mean 'full'"),
        ({"settings": {"architecture.cutoff": 0.1}}, "variants of 'tiny' set it"),
        ({"backbones": ("a/b/one", "/c/one", "/d/one")}, "need different names"),
    ],
)
def test_a_grid_that_would_mislead_is_refused(request_of, changes, message):
    with pytest.raises(ConfigError, match=message):
        cells_of(Experiment.from_dict(OWN, "tiny"), request_of(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_seeds": 0}, "at least 1"),
        ({"settings": {"seed": 3}}, "the grid sets it"),
        ({"rankings": ("99",)}, "99+1"),
        ({"rankings": ()}, "At least one"),
        ({"baselines": ("sasrek",)}, "Did you mean 'sasrec'"),
    ],
)
def test_a_request_checks_itself(request_of, changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        request_of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refrence": "full"}, "Did you mean 'reference'"),
        ({"reference": "none"}, "the reference among them"),
        ({"backbones": []}, "names no backbone"),
        ({"variants": [{"name": "full", "overides": {}}]}, "Did you mean 'overrides'"),
        ({"variants": [{"name": 3}]}, "quotation marks"),
        ({"variants": None}, "not complete"),
        ({"baselines": ["sasrek"]}, "Did you mean 'sasrec'"),
        ({"variants": [*OWN["variants"], {"name": "sasrec"}]}, "may not be called like a model"),
        ({"sweep": {"key": "architecture.alpha", "label": "α"}}, "Every variant of a sweep"),
    ],
)
def test_a_definition_checks_itself(changes, message):
    with pytest.raises(ConfigError, match=message):
        Experiment.from_dict({**OWN, **changes}, "tiny")


def test_a_backbone_is_named_without_its_path(tmp_path, monkeypatch):
    (tmp_path / "stories").mkdir()
    monkeypatch.chdir(tmp_path)
    assert short_name(str(tmp_path / "stories")) == short_name("stories") == short_name("./stories/") == "stories"
    assert short_name("/gone/away/stories/") == "stories"
    assert short_name("Qwen/Qwen2.5-7B") == "Qwen/Qwen2.5-7B"
    assert short_name("tiny-random:llama") == "tiny-random:llama"
    assert short_name("") == ""


def test_every_cell_is_recorded_and_a_failure_stops_only_itself(finished):
    run, tables, lines = finished
    assert run.exit_code == 4
    assert len(lines) == len(run.cells) == 10
    status = tables.cells.groupby("variant", sort=False)["status"].agg(lambda values: sorted(set(values)))
    expected = {SASREC: "finished", "full": "finished", "1": "finished", "untitled": "failed", "elsewhere": "absent"}
    assert status.map(lambda values: values[0]).to_dict() == expected
    failed = tables.cells[tables.cells["status"] == "failed"]
    assert len(failed) == 2
    assert failed["error"].str.contains("ModelError.*tokenizer").all()
    done = tables.cells[tables.cells["status"] == "finished"]
    assert len(done) == 3 * 2 * 2
    assert done.groupby("ranking")["n_users"].unique().map(list).to_dict() == {"20+1": [50], "full": [50]}
    trained = done[done["variant"] != SASREC]
    assert trained["n_epochs"].eq(2).all()
    assert trained["best_epoch"].isin([1, 2]).all()
    assert trained["seconds"].gt(0).all()
    assert trained["recipe_hash"].nunique() == trained["revision"].nunique() == 4
    assert done["protocol"].str.startswith("shop ").all()


def test_what_is_finished_is_not_trained_again(finished, trainings):
    run, tables, _ = finished
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.*")}
    again = ExperimentRun.open(run.experiment, run.request, run.folder)
    assert [again.state(cell) for cell in again.cells[:5]] == ["finished", "finished", "finished", "run", "absent"]
    pd.testing.assert_frame_equal(again.run().differences, tables.differences)
    assert trainings == ["untitled", "untitled"]
    assert again.exit_code == 4
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.*")} == before


def test_fewer_seeds_leave_the_other_cells_in_the_tables(finished, trainings, tmp_path):
    run, tables, _ = finished
    shutil.copytree(run.folder, tmp_path / "copy")
    again = ExperimentRun.open(run.experiment, replace(run.request, n_seeds=1, variants=("1",)), tmp_path / "copy")
    again_tables = again.run()
    assert trainings == []
    pd.testing.assert_frame_equal(
        again_tables.means.sort_values(["variant", "ranking", "metric"], ignore_index=True),
        tables.means.sort_values(["variant", "ranking", "metric"], ignore_index=True),
    )
    shutil.rmtree(next((tmp_path / "copy" / "runs").glob("*-full-*")))
    assert len(again.run().cells) == len(again_tables.cells) - 2


def test_cells_of_an_earlier_definition_are_not_averaged_in(finished, trainings, tmp_path):
    run, _, _ = finished
    shutil.copytree(run.folder, tmp_path / "copy")
    other = {**OWN["variants"][1], "overrides": {"architecture.cutoff": 0.4}}
    content = {**OWN, "variants": [OWN["variants"][0], other]}
    changed = ExperimentRun.open(
        Experiment.from_dict(content, "tiny"), replace(run.request, n_seeds=1, baselines=()), tmp_path / "copy"
    )
    tables = changed.run()
    assert trainings == ["1"]
    seeds = tables.cells[tables.cells["ranking"] == "full"].groupby("variant")["seed"].agg(set)
    assert seeds["1"] == {0}
    assert seeds["full"] == {0, 1}


def test_an_interrupted_cell_is_resumed_to_the_same_numbers(finished, trainings, tmp_path, monkeypatch):
    run, tables, _ = finished
    request = replace(run.request, n_seeds=1, variants=("full", "1"))
    interrupted = ExperimentRun.open(run.experiment, request, tmp_path)
    check = FreLLM4Rec.check_frozen_parts

    def stop(self):
        if self.config.cutoff is None:
            raise KeyboardInterrupt
        check(self)

    with monkeypatch.context() as patch:
        patch.setattr(FreLLM4Rec, "check_frozen_parts", stop)
        with pytest.raises(KeyboardInterrupt):
            interrupted.run()
    assert read_table(tmp_path / "cells.csv")["variant"].unique().tolist() == [SASREC, "full"]
    again = ExperimentRun.open(run.experiment, request, tmp_path)
    assert [again.state(cell) for cell in again.cells] == ["finished", "finished", "resume"]
    again_tables = again.run()
    assert trainings == ["full", "1", "1"]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    columns = ["variant", "seed", "ranking", "ndcg", "recall", "revision", "recipe_hash"]
    first = tables.cells[(tables.cells["seed"] == 0) & (tables.cells["status"] == "finished")]
    pd.testing.assert_frame_equal(again_tables.cells[columns], first[columns].reset_index(drop=True))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero"),
        (MemoryError("3 GB"), 6, "ResourceError: Out of memory (MemoryError: 3 GB). "),
    ],
)
def test_what_stops_one_cell_is_recorded(error, code, line, finished, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise error

    run, _, _ = finished
    monkeypatch.setattr(runner, "train_recipe", stop)
    broken = ExperimentRun.open(run.experiment, replace(run.request, n_seeds=1, variants=("full",)), tmp_path)
    tables = broken.run()
    assert broken.exit_code == code
    assert tables.cells["status"].tolist() == ["finished", "finished", "failed"]
    assert tables.cells["error"].iloc[-1].startswith(line)
    assert "No cell has finished" not in (tmp_path / "table.md").read_text()


def test_a_finished_run_without_its_record_is_an_error_of_that_cell(finished, tmp_path):
    run, tables, _ = finished
    shutil.copytree(run.folder, tmp_path / "copy")
    trained = tables.cells.query("variant == 'full' and seed == 0")["run"].iloc[0]
    (tmp_path / "copy" / trained / "summary.json").write_text("{}")
    again = ExperimentRun.open(run.experiment, replace(run.request, n_seeds=1, variants=("full",)), tmp_path / "copy")
    again.run()
    assert again.exit_code == DataError.exit_code


def test_means_and_differences_are_those_of_the_users(finished):
    run, tables, _ = finished

    def values(variant):
        rows = tables.cells[(tables.cells["variant"] == variant) & (tables.cells["ranking"] == "20+1")]
        return np.stack([Evaluation.load(run.folder / r / "evaluation" / "test-20+1.npz").ndcg for r in rows["run"]])

    mean = tables.means.query("variant == '1' and ranking == '20+1' and metric == 'ndcg'").iloc[0]
    assert mean["value"] == pytest.approx(values("1").mean())
    assert mean["std"] == pytest.approx(values("1").mean(axis=1).std(ddof=1))
    assert mean["low"] < mean["value"] < mean["high"]
    for against in ("full", SASREC):
        row = tables.differences.query("variant == '1' and ranking == '20+1' and metric == 'ndcg'")
        row = row[row["against"] == against].iloc[0]
        pair = (ModelValues("1", values("1"), (0, 1)), ModelValues(against, values(against), (0, 1)))
        expected = contrasts([pair], "x")[0]
        assert (row["difference"], row["low"], row["high"], row["p_value"]) == pytest.approx(
            (expected.difference, expected.low, expected.high, expected.p_value)
        )
        assert (row["covers"], row["effect"]) == ("users, these trainings", "no detectable difference")
    families = tables.differences.groupby(["ranking", "metric", "against"])
    assert {len(rows) for _, rows in families} == {1, 2}
    for _, rows in families:
        np.testing.assert_allclose(rows["p_holm"], holm(rows["p_value"].to_numpy()))
    labels = dict(zip(tables.differences["against"], tables.differences["family"], strict=True))
    setting = "on shop, full, tiny-random:llama prefix, training.n_epochs=2 training.validate_every=1"
    assert labels == {
        "full": f"1 difference of Recall@10 from Full {setting}",
        SASREC: f"2 differences of Recall@10 from SASRec {setting}",
    }


def test_the_page_and_the_figure_are_written_from_the_tables_alone(finished):
    run, _, _ = finished
    tables = ExperimentTables.load(run.folder)
    text = markdown(run.experiment, tables)
    assert text.rstrip() == (run.folder / "table.md").read_text().rstrip()
    mean = tables.means.query("variant == 'full' and ranking == 'full' and metric == 'recall'").iloc[0]
    row = next(line for line in text.split("## shop, full ranking")[1].splitlines() if line.startswith("| Full"))
    assert f"{mean['value']:.4f} ± {mean['std']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}]" in row
    assert "- untitled: failed: ModelError" in text
    assert "(2 cells)" in text
    assert "paper" not in text.split("\n", 2)[2]
    assert "95 % intervals are of these trainings: users are resampled, not trainings." in text
    for family in tables.differences.loc[tables.differences["metric"] == "ndcg", "family"]:
        assert family in text
    figure = experiment_figure(run.experiment, tables)
    dots = {line.get_label(): line for line in figure.axes[0].lines if line.get_marker() == "o"}
    expected = tables.means.query("ranking == '20+1' and metric == 'ndcg' and variant != 'sasrec'")
    np.testing.assert_allclose(dots["prefix"].get_xdata(), expected["value"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Full", "No TFM"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SASRec", "prefix"]
    for width in (85, 178):
        assert_print_ready(experiment_figure(run.experiment, tables, width=width), width)
    for ending in ("png", "pdf", "svg", "csv", "txt", "tex"):
        assert (run.folder / f"figure.{ending}").stat().st_size > 0
    caption = " ".join((run.folder / "figure.txt").read_text(encoding="utf-8").split())
    assert caption == experiment_caption(run.experiment, tables)
    first = expected.iloc[0]
    cell = f"{first['value']:.4f} [{first['low']:.4f}, {first['high']:.4f}]"
    assert cell in (run.folder / "figure.tex").read_text(encoding="utf-8")
    for name in ("figure.png", "figure.pdf", "figure.csv"):
        assert (run.folder / name).stat().st_size > 0
    page = (run.folder / "report.html").read_text()
    assert f"{mean['value']:.4f} ± {mean['std']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}]" in page
    assert "frellm4rec experiment tiny tiny.yaml --dataset" in page
    curves = training_curves(run.folder, tables.cells)
    assert curves.groupby(["line", "run"]).size().to_dict() == {
        (line, f"seed {seed}"): 2 for line in ("Full", "No TFM") for seed in (0, 1)
    }


def renamed(tables, **values):
    """The tables with other labels, as another data set or mode would have them."""
    parts = [table.copy() for table in (tables.cells, tables.means, tables.differences)]
    for table in parts:
        for column, value in values.items():
            if column in table.columns:
                table.loc[table["variant"] != SASREC, column] = value
            if column in ("dataset", "ranking"):
                table[column] = value
    return ExperimentTables(*parts)


def test_the_papers_numbers_stand_beside_ours_with_the_difference_in_setting(finished):
    run, tables, _ = finished
    lastfm = renamed(tables.select(ranking="20+1"), dataset="lastfm", ranking="99+1")
    text = markdown(run.experiment, lastfm)
    assert next(line for line in text.splitlines() if line.startswith("| Full")).endswith("| 0.3327 | 0.5462 |")
    assert next(line for line in text.splitlines() if line.startswith("| SASRec")).endswith("| 0.1996 | 0.3502 |")
    assert "The setting here differs** (backbone tiny-random:llama)" in text
    same = markdown(run.experiment, renamed(lastfm, backbone="qwen2.5-7b"))
    assert "0.3327" in same
    assert "setting here differs" not in same
    assert "paper: " not in markdown(run.experiment, renamed(lastfm, ranking="full"))


def test_the_leaky_mode_is_called_so(finished):
    run, tables, _ = finished
    leaky = renamed(tables, mode="two_sided_leaky", note="trained with later items in view")
    assert "| Full | two-sided (leaky) |" in markdown(run.experiment, leaky)
    assert "- tiny-random:llama two-sided (leaky): trained with later items in view." in markdown(run.experiment, leaky)
    assert "leaky" not in markdown(run.experiment, tables)
    legend = [text.get_text() for text in experiment_figure(run.experiment, leaky).legends[0].get_texts()]
    assert legend == ["SASRec", "two-sided (leaky)"]


def test_a_sweep_is_drawn_over_its_setting_with_off_at_the_end(finished):
    _, tables, _ = finished
    sweep = {
        **OWN,
        "sweep": {"key": "architecture.cutoff", "label": "cutoff"},
        "variants": [
            {"name": "full", "overrides": {"architecture.cutoff": 0.3}},
            {"name": "1", "label": "off", "overrides": {"architecture.cutoff": None}},
        ],
    }
    ax = experiment_figure(Experiment.from_dict(sweep, "tiny"), tables).axes[0]
    points = {line.get_marker(): line for line in ax.lines if line.get_marker() in ("o", "D")}
    means = tables.means.query("ranking == '20+1' and metric == 'ndcg'").set_index("variant")
    assert points["o"].get_xdata().tolist() == [0.3]
    assert points["o"].get_ydata().tolist() == [means.loc["full", "value"]]
    assert points["D"].get_ydata() == [means.loc["1", "value"]]
    assert points["D"].get_xdata()[0] > 0.3
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.3", "off"]


def test_tables_read_back_as_they_were_written(finished):
    run, tables, _ = finished
    for name in ("cells", "means", "differences"):
        table, expected = read_table(run.folder / f"{name}.csv"), getattr(tables, name)
        pd.testing.assert_frame_equal(table, expected, rtol=1e-8)
    assert (tables.cells["variant"] == "1").sum() == 4
    with pytest.raises(DataError, match="not a table of an experiment"):
        read_table(run.folder / "absent.csv")


def test_tables_of_an_earlier_version_are_read(finished, trainings, tmp_path):
    run, tables, _ = finished
    shutil.copytree(run.folder, tmp_path / "old")
    new = {"cells": ["note"], "means": ["covers"], "differences": ["effect", "covers", "family"]}
    for name, columns in new.items():
        path = tmp_path / "old" / f"{name}.csv"
        pd.read_csv(path).drop(columns=columns).to_csv(path, index=False)
    old = ExperimentTables.load(tmp_path / "old")
    for name, columns in new.items():
        assert getattr(old, name)[columns].eq("").all(axis=None)
    text = markdown(run.experiment, old)
    assert "95 % bootstrap intervals are over users" in text
    assert "Families" not in text
    # What it says of itself is read from the stored evaluations again.
    joined = join_folders([tmp_path / "old"], lambda _: load_experiment("ablation"))
    pd.testing.assert_frame_equal(joined.differences, tables.differences)
    assert joined.cells["note"].tolist() == tables.cells["note"].tolist()


def test_both_commands_give_one_answer(finished, monkeypatch, capsys):
    run, tables, _ = finished
    cells = tables.cells.query("ranking == '20+1' and status == 'finished'")
    runs = [run.folder / cell for name in ("full", "1") for cell in cells.loc[cells["variant"] == name, "run"]]
    expected = tables.differences.query("variant == '1' and against == 'full' and ranking == '20+1'")
    for metric in ("ndcg", "recall"):
        code, out, _ = command(monkeypatch, capsys, "compare", *runs, "--ranking", "20+1", "--metric", metric, "--json")
        row, ours = json.loads(out)["table"][1], expected[expected["metric"] == metric].iloc[0]
        assert code == 0
        for column in ("difference", "low", "high", "p_value", "p_holm"):
            assert row[column] == pytest.approx(ours[column], abs=1e-9), column
        assert (row["effect"], row["covers"]) == (ours["effect"], ours["covers"])


def test_nothing_that_is_written_names_a_path(finished, log):
    run, _, _ = finished
    for path in run.folder.glob("*.*"):
        if path.suffix in (".csv", ".md"):
            assert str(log.parent) not in path.read_text(), path
            assert str(run.folder) not in path.read_text(), path


def test_the_command(finished, patched, log, tmp_path, monkeypatch, capsys, trainings):
    run, _, _ = finished
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(OWN, sort_keys=False))
    arguments = ["experiment", "tiny", file, "--dataset", log, "--seeds", 1, "--ranking", "20+1", "--out", run.folder]
    arguments += [text for key, value in SETTINGS.items() for text in ("--set", f"{key}={value}")]
    code, out, _ = command(monkeypatch, capsys, *arguments, "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["finished", "finished", "run", "absent", "4"]
    code, out, err = command(monkeypatch, capsys, *arguments, "--variants", "full,1", "--json")
    assert (code, trainings) == (0, [])
    printed = json.loads(out)
    assert printed["experiment"] == "tiny"
    assert {row["variant"] for row in printed["means"]} == {SASREC, "full", "1"}
    assert {row["effect"] for row in printed["differences"]} <= {"higher", "lower", "no detectable difference"}
    assert {(row["part"], row["effect"]) for row in printed["parts"]} == {("TFM", "no detectable difference")}
    assert "[2/2] 1, prefix" in err
    code, out, _ = command(monkeypatch, capsys, *arguments, "--variants", "full,untitled")
    assert code == 4
    assert out.startswith("# Tiny (Table 3 of the paper)")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ablatoin", "--dataset", "demo"), 2, "Did you mean 'ablation'"),
        (("ablation",), 2, "needs a data set"),
        (("own", "absent.yaml", "--dataset", "demo"), 3, "cannot be read"),
        (("ablation", "--dataset", "demo", "--set", "training.n_epoch=1"), 2, "training.n_epochs"),
        (("ablation", "--dataset", "demo", "--set", "seed=1", "--set", "seed=2"), 2, "seed is named twice"),
        (("ablation", "--dataset", "demo", "--mode", "causl"), 2, "causal"),
        (("ablation", "--dataset", "demo", "--ranking", "best"), 2, "99+1"),
        (("ablation", "--dataset", "demmo"), 2, "Did you mean 'demo'"),
        (("ablation", "--dataset", "demo", "--beside", "sasrek"), 2, "Did you mean 'sasrec'"),
    ],
)
def test_failures_of_the_command(monkeypatch, capsys, tmp_path, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    exit_code, out, err = command(monkeypatch, capsys, "experiment", *arguments)
    assert (exit_code, out) == (code, "")
    assert message in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


def test_the_command_lists_what_there_is(monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "experiment")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:]] == list(experiment_names())


def test_the_papers_tables_agree_where_they_print_the_same_number():
    numbers = paper_numbers()
    assert numbers.groupby("table").size().to_dict() == {2: 120, 3: 36, 4: 12, 5: 18}
    assert not numbers.duplicated(["table", "model", "variant", "backbone", "id_network", "dataset", "metric"]).any()
    in_table_2 = numbers[numbers["table"] == 2].set_index(["model", "dataset", "metric"])["value"]
    alone = numbers[(numbers["table"] == 5) & (numbers["variant"] == "")]
    full = numbers[numbers["table"].isin([3, 5]) & (numbers["variant"] == "full") & (numbers["id_network"] == "SASRec")]
    assert (len(alone), len(full)) == (9, 9)
    for row in pd.concat([alone, full]).itertuples():
        assert in_table_2[row.model, row.dataset, row.metric] == row.value


def test_a_number_of_the_paper_is_found_by_our_names():
    full, base = ({"table": [3, 4], "variant": name} for name in ("full", "base"))
    labels = {"dataset": "lastfm", "metric": "ndcg"}
    assert paper_value(full, backbone="qwen2.5-7b", **labels) == 0.3327
    assert paper_value(full, backbone="llama3.1-8b", **labels) == 0.3174
    assert paper_value(base, backbone="mistral-7b-v0.3", **labels) == 0.1776
    assert paper_value(base, backbone="minilm", **labels) is None
    assert paper_value(full, backbone="llama3.1-8b", dataset="lastfm", metric="recall") is None
    assert paper_value({"table": 3, "variant": "wo-tfm"}, backbone="minilm", **labels) == 0.2507
    assert paper_value(full, dataset="amazon:All_Beauty,core=single", metric="ndcg", backbone="llama3.1-8b") == 0.5886
    assert paper_value(full, dataset="demo", metric="ndcg", backbone="qwen2.5-7b") is None
    assert paper_value(Variant("v").paper, backbone="qwen2.5-7b", **labels) is None
    for name in UNTUNED:
        for variant in load_experiment(name).variants:
            if variant.paper:
                assert paper_value(variant.paper, backbone="qwen2.5-7b", **labels) is not None
    assert paper_value(baseline(SASREC).paper, backbone="minilm", **labels) == 0.1996


@pytest.mark.shared
def test_every_number_is_printed_in_its_place(shared_dir):
    text = (shared_dir / "paper" / "frellm4rec_v1_zh.txt").read_text(encoding="utf-8")
    numbers = paper_numbers().assign(text=lambda df: df["value"].map("{:.4f}".format))
    rows = {2: ["model"], 4: ["backbone"], 5: ["id_network"]}
    for table, keys in rows.items():
        block = re.split(r"\nTable \d: |\n###", text.split(f"\nTable {table}: ")[1])[0]
        part = numbers[numbers["table"] == table]
        if table == 5:  # a row holds the network alone, then FreLLM4Rec on it
            part = part.assign(id_network=part["id_network"].where(part["id_network"] != "", part["model"]))
        for key, row in part.groupby(keys, sort=False):
            printed = [line.split("\t") for line in block.splitlines() if line.startswith(key[0])]
            assert [cells[1:] for cells in printed] == [row["text"].tolist()], key
    block = re.split(r"\n###", text.split("\nTable 3: ")[1])[0]
    part = numbers[numbers["table"] == 3]
    for names in (["full"], ["wo-glpf", "wo-tfm", "base"], ["wo-id", "wo-text"]):
        columns = zip(*(part.loc[part["variant"] == name, "text"] for name in names), strict=True)
        assert "\t".join(" ".join(column) for column in columns) in block
