"""The page of a run in Chromium: what a person does with it, what it asks the network for, and without scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world

HOSTILE = '</script><img src=x onerror="document.title=1"><script>document.title = "ran"</script>'


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    dataset = make_world(1, n_users=90).dataset
    dataset = replace(
        dataset,
        item_titles=[f"{HOSTILE} {item}" for item in range(dataset.n_items)],
        user_ids=np.array([f"u{user} {HOSTILE}" for user in range(dataset.n_users)]),
        name=f"world {HOSTILE}",
    )
    model = MixingModel(dataset.n_items)
    model.name = f"mixing {HOSTILE}"
    return run_analysis(model, dataset, AnalysisOptions(n_bootstrap=100), out=tmp_path_factory.mktemp("runs")).run.path


def test_the_page_asks_the_network_for_nothing_and_runs_no_script_of_a_label(browser, run) -> None:
    browser.open(run / "report.html")
    asked, errors = browser.logs()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert [url for url in asked if url.startswith("file:")] == [(run / "report.html").as_uri()]
    assert errors == []
    assert "mixing" in browser.driver.title
    assert browser.texts("h1") == [f"What do the layers carry? mixing {HOSTILE} on world {HOSTILE}"]


def test_a_point_shows_its_numbers(browser, run) -> None:
    from selenium.webdriver import ActionChains

    browser.open(run / "report.html")
    points = browser.all("#chart-layers .mark-symbol path")
    ActionChains(browser.driver).move_to_element(points[1]).perform()
    browser.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    shown = browser.all("#vg-tooltip-element")[0].text
    for part in ("layer", "low-pass share", "share under the null", "excess", "taste", "retention", "users", "["):
        assert part in shown
    assert HOSTILE in shown
