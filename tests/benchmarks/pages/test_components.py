"""The section on taste and popularity: its tables come from saved Grams, its text from the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.pages import components
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.components import component_excess
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> tuple[Path, AnalysisRun]:
    folder = tmp_path_factory.mktemp("components")
    dataset = make_world(1, n_users=90).dataset
    options = AnalysisOptions(controls=("random-weights",), n_bootstrap=100)
    run = run_analysis(MixingModel(dataset.n_items), dataset, options, out=folder / "runs").run
    components.collect([run.path], folder)
    return folder, run


def test_the_tables_are_those_of_the_saved_grams(collected) -> None:
    folder, run = collected
    table = pd.read_csv(folder / "components.csv")
    assert len(table) == 2 * 2 * 4 * 4  # captures, nodes, components, layers
    captures, graph = run.load_captures(), run.load_graph()
    for (capture, nodes, component), rows in table.groupby(["capture", "nodes", "component"]):
        result = component_excess(captures[capture], graph, nodes=nodes)
        np.testing.assert_allclose(rows["mean"], result.mean(component), rtol=1e-5)
        assert (rows["low"] <= rows["mean"]).all()
        assert (rows["mean"] <= rows["high"]).all()
        assert set(rows["n_users"]) == {int(result.is_measured.sum())}
    paired = pd.read_csv(folder / "components_paired.csv").set_index("component")
    for component in ("taste", "popularity"):
        row = paired.loc[component]
        main, random = (component_excess(captures[name], graph).mean(component) for name in ("main", "random-weights"))
        assert row["retention"] == pytest.approx(main[2] / main[0], rel=1e-4)  # embed, block 1, block 2, final_norm
        assert row["random"] == pytest.approx(random[2] / random[0], rel=1e-4)
        assert row["difference"] == pytest.approx(row["retention"] - row["random"], rel=1e-3)
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_the_section_says_what_the_tables_hold(collected, tmp_path) -> None:
    folder, _ = collected
    text = "\n".join(components.section(folder))
    table = pd.read_csv(folder / "components.csv")
    paired = pd.read_csv(folder / "components_paired.csv")
    at_embed = table[(table["state"] == "embed") & (table["capture"] == "main") & (table["nodes"] == "carried")]
    mean = at_embed.set_index("component")["mean"]
    parts = [f"{mean[name] / mean['whole']:.0%}" for name in ("popularity", "lag", "taste")]
    assert f"| mixing | carried | {1000 * mean['whole']:.2f} | {' | '.join(parts)} |" in text
    assert f"| mixing | taste | {paired['retention'][0]:.2f} [" in text
    assert "without a verdict" in text
    assert components.section(tmp_path) == []
