"""The figure, table and report of a comparison, and the command that makes them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.comparison.comparison import compare
from spectral_probe.comparison.figure import ROWS, comparison_figure, comparison_table
from spectral_probe.comparison.paired import EXCESS, SHARE
from spectral_probe.errors import DataError
from spectral_probe.figure_style import PALETTE, line_labels
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve
from spectral_probe.runs.analysis_run import AnalysisRun
from tests.conftest import assert_print_ready
from tests.spectral_probe.tiny_models import MixingModel
from tests.spectral_probe.worlds import make_world, run_probe

LAST = "last block"


class TwoSided(MixingModel):
    """Averages over the whole history: probed prefix by prefix."""

    name = "two-sided"
    is_causal = False

    def forward_sequences(self, inputs, lengths):
        state = self.table(inputs)
        valid = np.arange(inputs.shape[1]) < lengths.numpy()[:, None]
        weights = state.new_tensor(valid)[..., None]
        state = state + (state * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
        for block in self.blocks:
            state = block(state)
        return self.norm(state)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_world(1, n_users=90).dataset


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory) -> list[str]:
    out = tmp_path_factory.mktemp("runs")
    options = AnalysisOptions(n_bootstrap=100)
    models = (MixingModel(dataset.n_items), TwoSided(dataset.n_items))
    return [str(run_analysis(model, dataset, options, out=out).run.path) for model in models]


@pytest.fixture(scope="module")
def profiles(runs) -> list[DecayProfile]:
    return [DecayProfile.load(run) for run in runs]


def panels(figure) -> dict:
    return {ax.get_label(): ax for ax in figure.axes}


def lines(ax, label):
    return [line for line in ax.lines if line.get_label() == label]


LABELS = ["mixing", "two-sided (prefix by prefix)"]


@pytest.mark.parametrize("width", [85, 178])
def test_what_is_carried_and_the_corrected_share_with_its_null_are_drawn_in_the_models_colour(profiles, width) -> None:
    figure = comparison_figure(profiles, compare(profiles), width=width)
    axes = panels(figure)
    assert set(axes) == {"taste", "popularity", "share", "changes"}
    for profile, label, color in zip(profiles, LABELS, PALETTE, strict=False):
        for component in ("taste", "popularity"):
            curve = select_curve(profile.table, component=component, nodes="carried").query("state == 'block'")
            (line,) = lines(axes[component], label)
            np.testing.assert_allclose(line.get_ydata(), curve["excess"])
        curve = select_curve(profile.table, null="swap").query("state == 'block'")
        np.testing.assert_allclose(lines(axes["share"], label)[0].get_ydata(), curve["share"])
        dashed = [line for line in axes["share"].lines if line.get_linestyle() == "--" and line.get_color() == color]
        np.testing.assert_allclose(dashed[0].get_ydata(), curve["null_share"])
    ends = [text.get_text().replace("\n", " ") for text in line_labels(axes["share"])]
    assert ends == LABELS  # that every prefix was run separately is said
    assert_print_ready(figure, width)


def test_profiles_without_components_are_compared_by_their_share(profiles) -> None:
    whole = [replace(p, table=p.table[p.table["component"] == "whole"]) for p in profiles]
    assert set(panels(comparison_figure(whole, compare(profiles)))) == {"share", "changes"}


def test_the_changes_are_drawn_with_their_intervals(profiles) -> None:
    comparisons = compare(profiles)
    ax = panels(comparison_figure(profiles, comparisons))["changes"]
    points = {float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"}
    at = comparisons[0].changes.at
    assert points == {at[key].difference.value for key in ROWS}
    intervals = {tuple(segment[:, 0]) for bars in ax.collections for segment in bars.get_segments()}
    assert intervals == {(at[key].difference.low, at[key].difference.high) for key in ROWS}
    assert {text.get_text() for text in ax.texts} == set(ROWS.values())
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_one_profile_alone_can_be_drawn(profiles) -> None:
    axes = panels(comparison_figure(profiles[:1], []))
    assert "nothing to compare with" in axes["changes"].get_title("left")
    assert lines(axes["share"], "mixing")


def test_the_table_holds_the_curves_and_the_changes(profiles) -> None:
    comparisons = compare(profiles)
    table = comparison_table(profiles, comparisons)
    curves, changes = table.query("part == 'curve'"), table.query("part == 'change'")
    assert set(curves["null"].dropna()) >= {"swap", "permutation", "cyclic"}
    assert set(curves["control"]) == {"none", "raw", "plain", "normalized-rows", "equal-weights"}
    row = changes[(changes["quantity"] == SHARE) & (changes["place"] == LAST)].iloc[0]
    assert row["difference_low"] == comparisons[0].changes.at[SHARE, LAST].difference.low
    assert (row["base_model"], row["other_model"]) == ("mixing", "two-sided")


def test_the_command_says_which_of_the_two_it_is(runs, profiles, tmp_path, monkeypatch, capsys) -> None:
    (expected,) = compare(profiles)
    code, out, err = run_probe(["compare", *runs, "--out", str(tmp_path)], monkeypatch, capsys)
    assert code == 0, err
    assert " ".join(expected.words.split()) in " ".join(out.split())
    assert "prefix by prefix" in expected.words
    (folder,) = tmp_path.iterdir()
    for ending in ("png", "pdf", "svg", "csv", "txt", "tex"):
        assert (folder / "figures" / f"comparison.{ending}").stat().st_size > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count('class="comparison"') == 1
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert page.count("data:image/png;base64,") == len(drawn)
    assert drawn >= {"comparison", "decay", "excess"}
    # Without a measurable taste at the input, what is foreseen has no unit.
    assert ("foreseen" in drawn) == any(profile.has_measurable_input("taste") for profile in profiles)
    assert "two-sided against mixing" in page
    stored = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert stored == [expected.to_dict()]
    swap = stored[0]["changes"][EXCESS["swap"]][LAST]["difference"]
    assert f"{swap['value']:+.4f} [{swap['low']:+.4f}, {swap['high']:+.4f}]" in page
    assert pd.read_csv(folder / "figures" / "comparison.csv")["part"].nunique() == 2
    # From the comparison the way leads back to its runs, wherever the folders are moved together.
    assert [run.path for run in AnalysisRun.open(folder).compared_runs()] == [Path(run).resolve() for run in runs]
    with pytest.raises(DataError, match="does not name the runs it compares"):
        AnalysisRun.open(Path(runs[0])).compared_runs()


def test_json_holds_the_words_and_the_numbers_and_runs_of_one_name_stay_two_curves(
    runs, tmp_path, monkeypatch, capsys
) -> None:
    code, out, _ = run_probe(["compare", runs[0], runs[0], "--out", str(tmp_path), "--json"], monkeypatch, capsys)
    output = json.loads(out)
    assert code == 0
    (comparison,) = output["comparisons"]
    assert (comparison["base"], comparison["other"]) == ("mixing (1)", "mixing (2)")
    assert comparison["label"] == "no measurable change"
    assert len(output["summaries"]) == 2
    table = pd.read_csv(next(tmp_path.iterdir()) / "bands.csv")
    assert table.groupby("model").size().to_dict() == {"mixing (1)": len(table) / 2, "mixing (2)": len(table) / 2}


def test_runs_measured_otherwise_are_refused(runs, tmp_path, monkeypatch, capsys) -> None:
    code, out, _ = run_probe(
        ["analyze", runs[1], "--tau", "2", "--out", str(tmp_path / "other"), "--json"], monkeypatch, capsys
    )
    other = json.loads(out)["run"]
    code, _, err = run_probe(["compare", runs[0], other, "--out", str(tmp_path / "both")], monkeypatch, capsys)
    assert code == 2
    assert "tau is 1.0 for mixing and 2.0 for two-sided" in err.replace("\n", " ")
    assert not (tmp_path / "both").exists()


def test_the_width_of_the_figures_is_an_option_of_the_commands_that_draw(runs, monkeypatch, capsys) -> None:
    code, _, err = run_probe(["report", runs[1], "--figure-width", "85"], monkeypatch, capsys)
    assert code == 0, err
    for name in ("decay", "excess", "heatmap"):
        svg = (Path(runs[1]) / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert 'width="240.9' in svg, f"85 mm in points, {name}"
        caption = (Path(runs[1]) / "figures" / f"{name}.txt").read_text(encoding="utf-8")
        assert "users" in caption
        assert "\\toprule" in (Path(runs[1]) / "figures" / f"{name}.tex").read_text(encoding="utf-8")
    for command in (["analyze", "-m", "absent"], ["report", runs[0]], ["compare", *runs]):
        code, _, err = run_probe([*command, "--figure-width", "90"], monkeypatch, capsys)
        assert code == 2
        assert "got 90. Choose --figure-width 85 or 178." in " ".join(err.split())


def test_only_a_comparison_writes_its_figure(runs) -> None:
    assert not (Path(runs[0]) / "figures" / "comparison.png").exists()
