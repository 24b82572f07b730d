"""The paper's figures and tables, made from the committed CSVs and beside their published form."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from benchmarks.figures import build, curves, tables
from benchmarks.figures.__main__ import main
from benchmarks.figures.items import DATASETS, ITEMS, published
from frellm4rec.data.counts import PAPER_TABLE_1
from frellm4rec.experiments.definitions import load_experiment
from frellm4rec.experiments.paper import paper_numbers
from frellm4rec.experiments.tables import ExperimentTables
from spectral_probe.errors import ConfigError
from spectral_probe.figure_style import PaperFigure, line_labels
from spectral_probe.profiles.tables import select_curve
from tests.conftest import assert_print_ready

LASTFM = build.FIGURES / "lastfm"
DATA = DATASETS[0]


def lines_of(ax, label):
    return [line for line in ax.lines if line.get_label() == label]


def test_every_figure_and_table_of_the_paper_that_has_numbers_is_there() -> None:
    names = [item.name for item in ITEMS]
    assert names == ["fig1a", "fig1b", *(f"fig{n}" for n in (3, 4, 5, 6, 8)), *(f"table{n}" for n in range(1, 6))]
    assert set(build.MAKERS) == set(names)
    assert {data.title for data in DATASETS if data.is_of_paper} == set(paper_numbers()["dataset"])
    for item in ITEMS:
        assert "§" in published(item) or "appendix" in published(item) or "Table" in published(item)


@pytest.mark.parametrize("width", [85, 178])
def test_the_published_form_and_what_is_carried_are_the_committed_curves(width) -> None:
    made = curves.fig8(LASTFM, width)
    panels = {ax.get_label(): ax for ax in made.figure.axes}
    assert set(panels) == {"published", "taste", "popularity"}
    committed = pd.read_csv(LASTFM / "curves.csv", keep_default_na=False, na_values=[""], dtype={"band": str})
    models = [model for model in committed["model"].unique() if model != "sasrec"]
    for model in models:
        rows = committed[committed["model"] == model]
        raw = select_curve(rows, band="1", null=None, control="paper")["share"]
        np.testing.assert_allclose(lines_of(panels["published"], model)[0].get_ydata(), raw / raw.iloc[0])
        taste = select_curve(rows, component="taste", nodes="carried").query("state == 'block'")["retention"]
        np.testing.assert_allclose(lines_of(panels["taste"], model)[0].get_ydata(), taste)
    assert len(line_labels(panels["published"])) == len(models)
    assert "number of entries" in panels["published"].get_xlabel()
    assert "number of blocks" in panels["popularity"].get_xlabel(), "another axis than that of the panel below"
    assert made.table["model"].tolist() == models
    (grey,) = [patch for patch in panels["published"].patches if patch.get_alpha()]
    assert grey.get_y() + grey.get_height() == pytest.approx(1 - curves.PUBLISHED_LOSS), "what the paper says of Fig. 4"
    assert_print_ready(made.figure, width)


def test_fig_1b_is_of_sasrec_which_the_paper_says_does_not_fall() -> None:
    made = curves.fig1b(LASTFM)
    assert set(made.data["model"]) == {"sasrec"}
    assert not [patch for patch in made.figure.axes[0].patches if patch.get_alpha()]
    assert_print_ready(made.figure, 178)


@pytest.mark.parametrize("width", [85, 178])
def test_fig_4_shows_every_comparison(width) -> None:
    made = curves.fig4(LASTFM, width)
    labels = sorted(path.name for path in (LASTFM / "reprobe").iterdir())
    assert sorted(set(made.data["comparison"])) == labels
    for label in labels:
        table = pd.read_csv(LASTFM / "reprobe" / label / "comparison.csv", dtype={"band": str})
        rows = table.query("control == 'paper' and band == '1' and model == 'frellm4rec full'")["share"]
        (ax,) = [ax for ax in made.figure.axes if ax.get_label() == f"published {label}"]
        np.testing.assert_allclose(lines_of(ax, "frellm4rec full")[0].get_ydata(), rows / rows.iloc[0])
    assert_print_ready(made.figure, width)


def test_the_tables_hold_our_means_beside_the_printed_numbers() -> None:
    means = ExperimentTables.load(LASTFM / "recommender").select(experiment="ablation").means
    mean = means.query("variant == 'wo-tfm' and backbone == 'stories260K' and mode == 'causal' and ranking == '99+1'")
    mean = mean[mean["metric"] == "ndcg"].iloc[0]
    table = tables.table3(LASTFM, DATA).table
    row = table[(table["variant"] == "w/o TFM") & (table["mode"] == "causal")].iloc[0]
    assert row["NDCG@10"] == f"{mean['value']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}]"
    assert (row["the paper: NDCG@10"], row["the paper: Recall@10"]) == ("0.2507", "0.4468")

    systems = tables.table2(LASTFM, DATA).table
    systems = systems.set_index(systems["system"].str.removesuffix(f" {tables.RISING}")).drop(columns="system")
    assert systems.loc["LLM2Rec", ["NDCG@10", "the paper: NDCG@10"]].tolist() == [tables.ABSENT, "0.3097"]
    assert systems.loc["SASRec", "the paper: NDCG@10"] == "0.1996"
    assert len(systems) == len(set(systems.index)) >= paper_numbers().query("table == 2")["model"].nunique()

    backbones = tables.table4(LASTFM, DATA).table
    mistral = backbones[backbones["backbone"] == "Mistral-7B-v0.3"].iloc[0]
    assert mistral["Base: the paper"] == "0.1776"
    assert mistral["Base: NDCG@10"] == tables.ABSENT
    counts = tables.table1(LASTFM, DATA).table.set_index("quantity")
    assert counts.loc["items"].tolist() == ["3,646", "3,646"]


def test_a_caption_says_whose_excess_is_beside_the_published_share(tmp_path) -> None:
    caption = curves.fig4(LASTFM).caption
    assert (
        "whole excess of the items that the rows predict (heat kernel τ = 5, every user with equal weight)" in caption
    )
    assert "carried" not in caption
    assert "carried of the items that the rows read" in curves.fig1b(LASTFM).caption


def test_the_users_of_a_caption_are_those_of_the_trained_models_that_are_drawn() -> None:
    made = curves.fig8(build.FIGURES / "luxury-beauty")
    trained = made.data[made.data["control"].isin(["none", "paper"])]["n_users"]
    assert trained.min() < trained.max() < made.data["n_users"].max() + 1
    assert made.caption.endswith(f" {trained.min():,} to {trained.max():,} users.")


def test_a_tuned_table_beside_the_paper_says_in_what_it_differs() -> None:
    data = build.data_set("luxury-beauty")
    (made,) = build.make_all(datasets=[data.folder], names=["table2"])
    systems = pd.read_csv(build.FIGURES / data.folder / "table2" / "systems.csv")
    row = systems[systems["model"] == "gru4rec"].iloc[0]
    caption = made.content.caption
    assert f"({data.note})" in caption
    assert f"{row['n_trials']} trials of about {row['budget_seconds']:g} seconds" in caption
    assert f"The paper has {PAPER_TABLE_1[data.name].users:,} users." in caption
    marked = made.content.table["system"].str.endswith(tables.RISING).sum()
    own = systems[(systems["column"] == "own") & (systems["is_still_rising"].astype(str) == "True")]
    assert marked == len(own) > 0
    assert "The paper has" not in tables.table2(LASTFM, DATA).caption


def made_up(name: str, folder, keep) -> None:
    """Write the tables of an experiment that was not run yet, with the numbers of another one."""
    tables_of = ExperimentTables.load(LASTFM / "recommender").select(experiment="ablation")
    names = [variant.name for variant in load_experiment(name).variants]
    parts = []
    for table in (tables_of.cells, tables_of.means, tables_of.differences):
        rows = table[(table["mode"] == "causal") & table["variant"].isin(keep)].assign(experiment=name)
        parts.append(rows.assign(variant=rows["variant"].map(dict(zip(keep, names, strict=False)))))
    ExperimentTables(*parts).save(folder / name)


def test_a_sweep_is_drawn_once_its_tables_are_there_with_the_printed_number_in_its_table(tmp_path) -> None:
    assert tables.sweep("alpha", tmp_path, DATA) is None
    (tmp_path / "alpha").mkdir()
    made_up("alpha", tmp_path, ["wo-glpf", "full", "base"])
    made = tables.sweep("alpha", tmp_path, DATA)
    off = made.table[made.table["variant"] == "0 (off)"].iloc[0]
    assert off["the paper: NDCG@10"] == "0.2524"
    assert set(made.table["the paper: NDCG@10"]) == {"0.2524", tables.ABSENT}
    assert_print_ready(made.figure, 178)


def test_what_was_not_run_is_named_with_its_command_and_the_exit_is_clean(tmp_path, monkeypatch, capsys) -> None:
    folder = tmp_path / "figures" / "lastfm"
    folder.mkdir(parents=True)
    for name in ("curves.csv", "foreseen.csv", "settings.json"):
        shutil.copy(LASTFM / name, folder / name)
    monkeypatch.setattr("benchmarks.figures.__main__.FIGURES", tmp_path / "figures")
    main(["--only", "fig1b,fig5,table2", "--data", "lastfm", "--figure-width", "85"])
    out = capsys.readouterr().out
    assert "fig1b   figures/lastfm/fig1b" in out
    assert "fig5    not run yet: frellm4rec experiment alpha --dataset lastfm --from-dir DIR --seeds 3" in out
    assert "--final && python -m benchmarks.figures --collect lastfm RUN" in out
    written = sorted(path.suffix for path in folder.glob("fig1b.*"))
    assert written == [".csv", ".pdf", ".png", ".svg", ".tex", ".txt"]
    assert "The paper: In SASRec" in " ".join((folder / "fig1b.txt").read_text(encoding="utf-8").split())
    with pytest.raises(SystemExit) as stop:
        main(["--only", "fig2"])
    assert stop.value.code == 2
    with pytest.raises(ConfigError, match="The data sets of the figures are lastfm"):
        build.collect("lastfn", [])


def test_the_committed_figures_and_the_page_are_those_of_the_tables(monkeypatch) -> None:
    monkeypatch.setattr(curves, "panels_figure", lambda *arguments, **options: None)  # their numbers alone
    made = list(build.make_all())
    assert build.PAGE.read_text(encoding="utf-8") == build.page(made) + "\n"
    for entry in made:
        if entry.content is None:
            continue
        path = build.FIGURES / entry.data.folder / f"{entry.item.name}.csv"
        committed = pd.read_csv(path, dtype=str, keep_default_na=False)
        data = entry.content.data if isinstance(entry.content, PaperFigure) else entry.content.table
        assert len(committed) == len(data), path
        assert list(committed) == list(data), path
        numeric = data.select_dtypes("number")
        for column in numeric:
            values = pd.to_numeric(committed[column])
            np.testing.assert_allclose(values, numeric[column].astype(float), rtol=1e-8)


def test_collect_copies_an_experiment_into_a_folder_of_its_own(tmp_path) -> None:
    run = tmp_path / "runs" / "alpha"
    run.mkdir(parents=True)
    made_up("alpha", tmp_path / "runs", ["wo-glpf", "full"])
    build.collect("lastfm", [run], figures=tmp_path)
    assert tables.experiment_tables(tmp_path / "lastfm", "alpha") is not None
