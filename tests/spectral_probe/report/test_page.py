"""The page of a run in Chromium: what a person does with it, what it asks the network for, and without scripts."""

from __future__ import annotations

import gzip
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.comparison.comparison import compare
from spectral_probe.errors import DataError
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report import html
from spectral_probe.report.folder import write_overlay
from spectral_probe.report.layer_chart import DEPTH_DOMAIN, NORM_AT, layer_panel
from spectral_probe.report.user_charts import MOST_SHOWN
from spectral_probe.runs.analysis_run import AnalysisRun
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world

HOSTILE = '</script><img src=x onerror="document.title=1"><script>document.title = "ran"</script>'
N_USERS = 230
POINTS = "document.querySelectorAll('#chart-layers .mark-symbol path')"
SCHEMES = [(width, scheme) for width in (420, 1400) for scheme in ("light", "dark")]


class Tasteful(MixingModel):
    """Its items lie where their users put them, so that the input carries taste."""

    def __init__(self, dataset, name: str) -> None:
        super().__init__(dataset.n_items)
        items = np.linalg.svd(dataset.train.user_items.toarray().astype(float), full_matrices=False)[2][:12].T
        self.table = torch.nn.Embedding.from_pretrained(torch.tensor(items, dtype=torch.float32))
        self.name = name


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    dataset = make_world(1, n_users=N_USERS).dataset
    dataset = replace(
        dataset,
        item_titles=[f"{HOSTILE} {item}" for item in range(dataset.n_items)],
        user_ids=np.array([f"u{user} {HOSTILE}" for user in range(dataset.n_users)]),
        name=f"world {HOSTILE}",
    )
    options = AnalysisOptions(n_bootstrap=100, preset="paper")
    out = tmp_path_factory.mktemp("runs")
    models = (Tasteful(dataset, f"tasteful {HOSTILE}"), MixingModel(dataset.n_items))
    return [run_analysis(model, dataset, options, out=out).run.path for model in models]


@pytest.fixture(scope="module")
def page(runs) -> Path:
    return runs[0] / "report.html"


@pytest.fixture(scope="module")
def comparison(runs, tmp_path_factory) -> Path:
    profiles = [DecayProfile.load(run) for run in runs]
    return write_overlay(tmp_path_factory.mktemp("both"), profiles, compare(profiles), runs=runs).path / "report.html"


def drawn(browser, chart: str = "layers") -> list[str]:
    """Return the label of each point of a chart, as a screen reader says it."""
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getAttribute('aria-label'))"
    return browser.run(script, f"#chart-{chart} .mark-symbol path, #chart-{chart} .mark-rect path")


def hover(browser, element) -> str:
    from selenium.webdriver import ActionChains

    ActionChains(browser.driver).move_to_element(element).perform()
    browser.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    return browser.all("#vg-tooltip-element")[0].text


def test_the_page_asks_the_network_for_nothing_and_runs_no_script_of_a_label(browser, page, comparison) -> None:
    for path in (page, comparison):
        browser.open(path)
        for menu in ("user", "user_layer"):
            options = browser.all(f"[data-signal={menu}] option")
            browser.choose(menu, options[-1].get_attribute("value"))
        hover(browser, browser.all("#chart-layers .mark-symbol path")[1])
        asked, errors = browser.logs()
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert errors == []
        assert HOSTILE in browser.driver.title
        assert HOSTILE in browser.texts("h1")[0]
        assert HOSTILE in browser.texts(".history li")[0]
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"""(src|href|action)\s*=\s*["']?\s*(https?:)?//""", re.sub(r"(?s)<script>.*?</script>", "", text)
        )
        assert "default-src 'none'" in text
        assert len(text.encode()) < 3_000_000


def test_a_point_shows_its_numbers(browser, page) -> None:
    browser.open(page)
    shown = hover(browser, browser.all("#chart-layers .mark-symbol path")[2])
    for part in ("layer", "low-pass share", "share under the null", "excess", "taste", "retention", "users", "["):
        assert part in shown
    rows = pd.read_csv(page.parent / "bands.csv")
    row = rows.query("component == 'taste' and layer == 2 and control == 'none' and nodes == 'carried'").iloc[0]
    assert f"{row['excess']:.4f} [{row['excess_low']:.4f}, {row['excess_high']:.4f}]" in shown.replace("−", "-")
    assert f"{row['retention']:.2f} [{row['retention_low']:.2f}" in shown.replace("−", "-")
    assert "block 2" in shown


def test_quantities_components_nulls_controls_and_models_are_chosen(browser, comparison, runs) -> None:
    browser.open(comparison)
    n_layers = 4
    browser.choose("quantity", "excess")
    assert len(drawn(browser)) == 2 * n_layers
    browser.choose("models", ["mixing"])
    assert len(drawn(browser)) == n_layers
    assert not any(HOSTILE in label for label in drawn(browser))
    browser.choose("component", "whole")
    browser.choose("nulls", ["swap", "cyclic", "permutation"])
    assert len(drawn(browser)) == 3 * n_layers
    browser.choose("nulls", [])
    assert drawn(browser) == []
    assert "There are no values" in browser.texts("#point-layers")[0]
    browser.choose("nulls", ["swap"])
    browser.choose("control", "equal-weights")
    assert len(drawn(browser)) == 2 * n_layers
    assert "raw (foreseen only)" in browser.texts("[data-signal=control] option")
    browser.choose("nodes", "foreseen")
    browser.choose("quantity", "share")
    browser.choose("control", "paper")
    assert len(drawn(browser)) == 2 * n_layers - 1  # the published curve has no state after the final norm
    browser.choose("control", "none")
    browser.choose("quantity", "retention")
    browser.choose("component", "taste")
    assert drawn(browser) == []  # its input carries no measurable taste
    browser.choose("models", [f"tasteful {HOSTILE}"])
    foreseen = DecayProfile.load(runs[0]).foreseen.query("component == 'taste'")
    assert {label.partition("retention: ")[2].partition(" [")[0].replace("−", "-") for label in drawn(browser)} == {
        f"{value:.2f}" for value in foreseen["value"]
    }


def test_depth_is_linear_or_logarithmic(browser, page) -> None:
    browser.open(page)
    # Retention is drawn with the lines of nothing left and of all that the input carries.
    assert len(browser.all("#chart-layers .layer_0_marks line")) == 2
    where = f"return [...{POINTS}].map(e => e.getBoundingClientRect().x)"
    linear = browser.run(where)
    browser.choose("log_depth", True)
    logarithmic = browser.run(where)
    assert linear[0] == pytest.approx(logarithmic[0], abs=1)
    assert logarithmic[1] > linear[1] + 50


def test_tables_are_sorted_by_a_click(browser, page) -> None:
    browser.open(page)
    table = "table.sortable:has(td.number)"
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    column = f"[...document.querySelector('{table}').tBodies[0].rows].map(r => parseFloat(r.cells[1].textContent))"
    button = browser.all(f"{table} th:nth-child(2) .sort")[0]
    button.click()
    upwards = browser.run(f"return {column}")
    assert upwards == sorted(upwards)
    assert browser.all(f"{table} th:nth-child(2)")[0].get_attribute("aria-sort") == "ascending"
    button.click()
    assert browser.run(f"return {column}") == sorted(upwards, reverse=True)


def test_a_click_on_a_user_shows_history_and_curve(browser, page) -> None:
    from selenium.webdriver import ActionChains

    browser.open(page)
    dots = browser.all("#chart-distribution .mark-symbol path")
    assert len(dots) == MOST_SHOWN
    users = browser.texts("[data-signal=user] option")
    assert [sum(f"({group}," in user for user in users) for group in ("largest", "smallest", "drawn")] == [60, 60, 80]
    before = drawn(browser, "user")
    ActionChains(browser.driver).move_to_element(dots[150]).click().perform()
    browser.wait("document.documentElement.dataset.drawing === '0'")
    chosen = int(browser.run("return document.querySelector('[data-signal=user]').value"))
    assert chosen != 0
    assert drawn(browser, "user") != before
    values = pd.read_csv(page.parent / "per_user.csv.gz", dtype={"user_id": "string"})
    values = values[values["nodes"] == "carried"]
    of_user = values[values["user_id"] == users[chosen].rpartition(" (")[0]]
    assert len(of_user) == 4
    assert sorted(
        float(label.rpartition(" ")[2].replace("−", "-")) for label in drawn(browser, "user")
    ) == pytest.approx(sorted(of_user["taste"]), abs=6e-5)
    assert len(browser.texts(".history li")) >= of_user["measured"].iloc[0]
    assert f"{MOST_SHOWN} of {values['user_id'].nunique()} users" in browser.texts(".panel .note")[1]


def test_the_bars_count_all_users(browser, page) -> None:
    browser.open(page)
    labels = [label for label in drawn(browser, "distribution") if label and "users: " in label]
    counts = [int(re.search(r"users: (\d+)", label).group(1)) for label in labels]
    assert sum(counts) == pd.read_csv(page.parent / "per_user.csv.gz").query("nodes == 'carried'")["user_id"].nunique()


def test_the_heat_maps_share_one_scale(browser, comparison) -> None:
    browser.open(comparison)
    assert len(browser.all("[id^=chart-heat] svg")) == 2
    legends = [browser.texts(f"#chart-heat-{n} .role-legend-label text") for n in (0, 1)]
    assert legends[0] == legends[1] != []
    assert all(len(drawn(browser, f"heat-{n}")) >= 4 * 16 for n in (0, 1))


def test_files_settings_and_commands(browser, page, comparison, runs) -> None:
    browser.open(page)
    links = [a.get_attribute("href") for a in browser.all(".files a")]
    names = {"bands.csv", "per_user.csv.gz", "figures/decay.pdf", "figures/decay.csv"}
    assert names <= {link.removeprefix(page.parent.as_uri() + "/") for link in links}
    assert all((page.parent / link.removeprefix(page.parent.as_uri() + "/")).is_file() for link in links)
    rows = [row.text for row in browser.all("table:has(caption) tr") if "preset" in row.text]
    assert rows == ["preset paper not set"]
    assert any("Protocol" in text for text in browser.texts("details:not([open]) summary"))
    assert browser.texts("pre") == ["spectral_probe.analyze(model, dataset, preset='paper', n_bootstrap=100)"]
    browser.open(comparison)
    assert browser.texts("pre") == [f"spectral-probe compare {runs[0].name} {runs[1].name}"]


@pytest.mark.parametrize(("width", "scheme"), SCHEMES)
def test_it_fits_the_screen_and_has_no_serious_violation(browser, comparison, width, scheme) -> None:
    browser.open(comparison, width=width, scheme=scheme)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    for chart in browser.all(".chart svg"):
        box = chart.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    text, back = (
        browser.run(f"return getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
        for name in ("color", "backgroundColor")
    )
    assert (sum(text) > sum(back)) == (scheme == "dark")
    assert browser.violations() == []


def test_the_keyboard_reaches_every_point(browser, page) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    chart = browser.all("#chart-layers")[0]
    assert "Curves over the layers" in chart.get_attribute("aria-label")
    heard = []
    for _ in range(4):
        chart.send_keys(Keys.ARROW_RIGHT)
        heard.append(browser.texts("#point-layers")[0])
    assert len(set(heard)) == 4
    assert all("retention" in words and "layer" in words for words in heard)
    assert browser.all("#vg-tooltip-element.visible")
    dots = browser.all("#chart-distribution")[0]
    for _ in range(60):
        dots.send_keys(Keys.ARROW_LEFT)
    dots.send_keys(Keys.ENTER)
    assert browser.run("return document.querySelector('[data-signal=user]').value") != "0"


def test_without_javascript_it_is_the_static_page(browser, page) -> None:
    browser.open(page, scripts=False)
    shown = [element for element in browser.all("img, table, .verdict") if element.is_displayed()]
    assert [element.tag_name for element in shown].count("img") == 5
    assert [element.tag_name for element in shown].count("table") >= 2
    assert not any(element.is_displayed() for element in browser.all(".panel"))


def test_every_point_stands_on_the_axis(runs) -> None:
    pytest.importorskip("altair")
    _, _, points = layer_panel([DecayProfile.load(runs[0])], ["model"])
    assert points["depth"].between(*DEPTH_DOMAIN).all()
    depths = points.groupby("state")["depth"].unique()
    assert (list(depths["embed"]), list(depths["final_norm"])) == ([0.0], [NORM_AT])


@pytest.mark.parametrize(
    ("file", "n_lines", "says"),
    [("items.csv.gz", 3, "names 2 items"), ("per_user.csv.gz", 4, "users, and summary.json")],
)
def test_a_run_whose_files_were_cut_keeps_its_page(file, n_lines, says, runs, tmp_path) -> None:
    folder = Path(shutil.copytree(runs[0], tmp_path / "run"))
    lines = gzip.decompress((folder / file).read_bytes()).splitlines(keepends=True)
    (folder / file).write_bytes(gzip.compress(b"".join(lines[:n_lines])))
    before = (folder / "report.html").read_bytes()
    with pytest.raises(DataError, match=says):
        html.write_report(folder, [DecayProfile.load(folder)], runs=[AnalysisRun.open(folder)])
    assert (folder / "report.html").read_bytes() == before


def test_terms_are_explained_where_they_stand(browser, runs, tmp_path) -> None:
    path = html.write_report(
        tmp_path, [DecayProfile.load(runs[0])], terms={"Retention": f"What is left. {HOSTILE}", "x": "not used"}
    )
    browser.open(path)
    buttons = browser.all("button.term")
    assert len(buttons) >= 2
    buttons[0].click()
    assert len(browser.all(".explanation")) == 1
    assert browser.all(".explanation:popover-open")[0].text == f"What is left. {HOSTILE}"
    assert browser.logs()[1] == []


def test_without_the_extra_it_is_the_static_page(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(html, "has_charts", lambda: False)
    text = html.write_report(tmp_path, [DecayProfile.load(runs[0])]).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "script-src 'none'" in text
    assert "taste carried" in text
    assert len(text) < 200_000


def test_a_page_that_is_too_large_shows_fewer_users(runs, tmp_path, monkeypatch) -> None:
    pytest.importorskip("altair", reason="the extra report is not installed")
    profile = DecayProfile.load(runs[0])
    sizes = {}
    for most in (3_000_000, len(html.write_report(tmp_path, [profile]).read_bytes()) - 5_000):
        monkeypatch.setattr(html, "MOST_BYTES", most)
        text = html.write_report(tmp_path, [profile]).read_text(encoding="utf-8")
        sizes[most] = int(re.search(r"(\d+) of \d+ users", text).group(1))
    assert list(sizes.values()) == [MOST_SHOWN, MOST_SHOWN // 2]
