"""The page of an experiment in Chromium: means, forest plot, learning curves, table, files and command."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from frellm4rec.experiments.curves import CURVE_COLUMNS
from frellm4rec.experiments.definitions import load_experiment
from frellm4rec.experiments.grid import ExperimentRequest
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.page import command_of, experiment_page, tuned_curves
from frellm4rec.experiments.system_page import system_page
from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.systems import load_definition
from frellm4rec.experiments.tables import ExperimentTables
from spectral_probe.report.page import write_page

FIGURES = Path(__file__).resolve().parents[3] / "figures" / "lastfm"
HOSTILE = '</script><script>document.title = "ran"</script>'
REQUEST = ExperimentRequest("lastfm", n_seeds=3, settings={"training.patience": None})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    folder = shutil.copytree(FIGURES / "table2", tmp_path_factory.mktemp("page") / "table2")
    experiment, tables = load_definition("table2"), SystemTables.load(folder)
    command = command_of("table2", REQUEST, ["--trials", "3"])
    curves = tuned_curves(tables)
    page = experiment_page(system_page(experiment, tables), tables.final_of_systems, curves, folder, command=command)
    return write_page(folder / "report.html", page)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory) -> Path:
    """An experiment with a hostile label, and two trainings of two epochs."""
    folder = tmp_path_factory.mktemp("ablation")
    tables = ExperimentTables.load(FIGURES / "recommender").select(experiment="ablation")
    renamed = (table.assign(label=table["label"] + HOSTILE) for table in (tables.means, tables.differences))
    tables = ExperimentTables(tables.cells, *renamed)
    rows = [(f"Full {HOSTILE}", f"seed {n % 2}", True, n // 2 + 1, 1.0 + n, 3.0 - n, 0.1 * n) for n in range(4)]
    text = markdown(load_experiment("ablation"), tables)
    page = experiment_page(text, tables, pd.DataFrame(rows, columns=CURVE_COLUMNS), folder)
    return write_page(folder / "report.html", page)


def drawn(browser, chart: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getAttribute('aria-label'))"
    return browser.run(script, f"#chart-{chart} .mark-symbol path")


def test_a_forest_plot_shows_every_difference_and_its_effect(browser, tuned) -> None:
    browser.open(tuned)
    table = pd.read_csv(tuned.parent / "differences.csv", keep_default_na=False)
    for metric, ranking, against in (("ndcg", "99+1", "frellm4rec-own"), ("recall", "full", "bsarec-own")):
        for name, value in (("metric", metric), ("ranking", ranking), ("against", against)):
            browser.choose(name, value)
        rows = table.query("metric == @metric and ranking == @ranking and against == @against")
        labels = [label.replace("−", "-") for label in drawn(browser, "differences")]
        assert len(labels) == len(rows) > 5
        for row in rows.to_dict("records"):
            (label,) = [text for text in labels if text.startswith(f"{row['label']} minus ")]
            assert f"{row['difference']:.4f} [{row['low']:.4f}, {row['high']:.4f}]" in label
            assert label.endswith(row["effect"])
    assert len(drawn(browser, "means")) == pd.read_csv(tuned.parent / "systems.csv")["is_tested"].sum()


def test_learning_curves_are_chosen_by_line_trial_quantity_and_time(browser, tuned) -> None:
    browser.open(tuned)
    curves, systems = (pd.read_csv(tuned.parent / f"{name}.csv") for name in ("curves", "systems"))
    row = systems[systems["variant"] == "sasrec-own"].iloc[0]
    browser.choose("lines", [row["label"]])
    own = curves[(curves["model"] == row["model"]) & (curves["column"] == row["column"])]
    assert len(drawn(browser, "curves")) == (own["trial"] == row["trial"]).sum() > 3
    browser.choose("trials", "all")
    assert len(drawn(browser, "curves")) == len(own)
    before = drawn(browser, "curves")
    browser.choose("quantity", "loss")
    assert drawn(browser, "curves") != before
    browser.choose("time", "epoch")
    assert "against epoch" in " ".join(browser.texts("#chart-curves .role-title text"))


def test_the_page_holds_the_text_files_and_command(browser, tuned) -> None:
    browser.open(tuned)
    words = " ".join(browser.run("return document.body.textContent").split())
    for line in system_page(load_definition("table2"), SystemTables.load(tuned.parent)).splitlines():
        for part in re.split(r"[|`*#]|\\", line):
            assert part.strip(" -") in words, line
    links = {a.get_attribute("href").removeprefix(tuned.parent.as_uri() + "/") for a in browser.all(".files a")}
    tables = {
        f"{name}.csv" for name in ("cells", "means", "differences", "systems", "trials", "curves", "longer_trials")
    }
    assert links == {*tables, "curves.pdf"}
    assert browser.texts("pre") == [
        "frellm4rec experiment table2 --dataset lastfm --ranking 99+1 --ranking full --set training.patience=null "
        "--seeds 3 --trials 3"
    ]


def test_it_fits_the_screen_and_asks_for_nothing(browser, tuned, ablation) -> None:
    for path, width, scheme in ((tuned, 420, "light"), (ablation, 1400, "dark")):
        browser.open(path, width=width, scheme=scheme)
        asked, errors = browser.logs()
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert errors == []
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.violations() == []
        assert len(path.read_bytes()) < 3_000_000


def test_no_script_of_a_label_runs(browser, ablation) -> None:
    browser.open(ablation)
    assert browser.driver.title != "ran"
    assert len(drawn(browser, "curves")) == 4
    assert all(HOSTILE in label for label in drawn(browser, "curves"))
    assert all(f"{HOSTILE} minus " in label for label in drawn(browser, "differences"))
    assert len(drawn(browser, "differences")) > 2
