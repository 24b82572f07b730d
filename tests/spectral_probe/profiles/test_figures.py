"""Figures, read back from their artists."""

from __future__ import annotations

import re
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.figure import Figure

from spectral_probe.errors import ConfigError
from spectral_probe.figure_style import PALETTE, line_labels, save_figure
from spectral_probe.profiles.drawing import (
    EMBED_DEPTH,
    FINAL_NORM_DEPTH,
    excess_curve,
    foreseen_curve,
    published_curve,
    relative_depth,
    retention_curve,
    share_curve,
)
from spectral_probe.profiles.figures import (
    NULLS_IN_WORDS,
    decay_figure,
    excess_figure,
    foreseen_figure,
    heat_figure,
    published_figure,
)
from spectral_probe.profiles.profile import DecayProfile
from tests.conftest import assert_print_ready
from tests.spectral_probe.worlds import with_excess


@pytest.fixture(scope="module")
def profile() -> DecayProfile:
    return DecayProfile.from_energy(
        with_excess(1.0, 0.8, 0.6, 0.5, 0.3, noise=0.01),
        component="whole",
        n_bootstrap=100,
        labels={"model": "toy", "dataset": "toys", "inputs": "id"},
    )


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


@pytest.fixture(autouse=True)
def never_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("plt.show was called"))
    yield
    plt.close("all")


def low_curve(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["band"] == "low") & (table["null"] == "swap") & (table["control"] == "none")].set_index(
        "layer_name"
    )


def line_of(ax: Axes, label: str):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line


BLOCKS = ["block 1", "block 2", "block 3"]


@pytest.mark.parametrize(("draw", "value"), [(share_curve, "share"), (excess_curve, "excess")])
def test_the_line_joins_the_blocks_and_nothing_else(profile, ax, draw, value):
    curve = low_curve(profile.table)
    assert draw(profile.to_frame(), null="swap", ax=ax) is ax
    line = line_of(ax, "toy")
    np.testing.assert_allclose(line.get_xdata(), [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(line.get_ydata(), curve.loc[BLOCKS, value])
    assert line.get_linestyle() == "-"


@pytest.mark.parametrize(("draw", "value"), [(share_curve, "share"), (excess_curve, "excess")])
def test_embed_and_final_norm_are_single_marks_that_no_line_touches(profile, ax, draw, value):
    curve = low_curve(profile.table)
    draw(profile.to_frame(), null="swap", ax=ax)
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    where = {line.get_marker(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in marks}
    assert where["D"] == ([EMBED_DEPTH], [curve.loc["embed", value]])
    (x,), (y,) = where["X"]
    assert (x > 1, y) == (True, curve.loc["final_norm", value])
    joined = [line for line in ax.lines if line.get_linestyle() != "None" and line.get_label() == "toy"]
    for line in joined:
        assert min(line.get_xdata()) > 0.0
        assert max(line.get_xdata()) <= 1.0


@pytest.mark.parametrize(("draw", "value"), [(share_curve, "share"), (excess_curve, "excess")])
def test_ribbon_and_whiskers_are_the_intervals(profile, ax, draw, value):
    curve = low_curve(profile.table)
    draw(profile.to_frame(), null="swap", ax=ax)
    (ribbon,) = [artist for artist in ax.collections if isinstance(artist, FillBetweenPolyCollection)]
    corners = ribbon.get_paths()[0].vertices
    for x, name in zip([1 / 3, 2 / 3, 1], BLOCKS, strict=True):
        ends = corners[np.isclose(corners[:, 0], x), 1]
        np.testing.assert_allclose([ends.min(), ends.max()], curve.loc[name, [f"{value}_low", f"{value}_high"]])
    assert corners[:, 0].min() > 0.3
    assert corners[:, 0].max() <= 1.0
    whiskers = [artist.get_segments()[0] for artist in ax.collections if isinstance(artist, LineCollection)]
    for name, segment in zip(["embed", "final_norm"], whiskers, strict=True):
        np.testing.assert_allclose(segment[:, 1], curve.loc[name, [f"{value}_low", f"{value}_high"]])


def test_the_null_is_a_dashed_line_in_the_colour_of_its_model(profile, ax):
    share_curve(profile.to_frame(), null="swap", ax=ax)
    (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed.get_color() == line_of(ax, "toy").get_color() == PALETTE[0]
    np.testing.assert_allclose(dashed.get_xdata(), [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(dashed.get_ydata(), low_curve(profile.table).loc[BLOCKS, "null_share"])


def test_a_curve_without_null_is_drawn_without_one(profile, ax):
    bare = profile.table.query("band == 'low'").assign(null="none", null_share=np.nan, excess=np.nan)
    share_curve(bare, null=None, ax=ax)
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(line_of(ax, "toy").get_ydata(), low_curve(profile.table).loc[BLOCKS, "share"])


def test_zero_excess_is_marked(profile, ax):
    excess_curve(profile.to_frame(), null="swap", ax=ax)
    assert any(list(line.get_ydata()) == [0.0, 0.0] for line in ax.lines)


def test_selected_layers_stand_at_their_depth_and_not_at_equal_steps(profile):
    curve = profile.table.query("band == 'low'").copy()
    curve["layer"] = curve["layer"].map({0: 0, 1: 2, 2: 8, 3: 32, 4: 33})
    np.testing.assert_allclose(relative_depth(curve), [EMBED_DEPTH, 2 / 32, 8 / 32, 1, FINAL_NORM_DEPTH])


def test_embed_alone_has_a_depth(profile):
    embed = profile.table.query("band == 'low' and state == 'embed'")
    assert relative_depth(embed).tolist() == [EMBED_DEPTH]


def test_layers_are_drawn_in_their_order_whatever_the_order_of_the_rows(profile, ax):
    shuffled = profile.to_frame().sample(frac=1, random_state=1)
    share_curve(shuffled, null="swap", ax=ax)
    np.testing.assert_allclose(line_of(ax, "toy").get_ydata(), low_curve(profile.table).loc[BLOCKS, "share"])


def test_curves_of_controls_are_not_mixed_into_the_headline(profile, ax):
    raw = profile.table.assign(control="raw", share=0.999)
    share_curve(pd.concat([raw, profile.table]), null="swap", ax=ax)
    np.testing.assert_allclose(line_of(ax, "toy").get_ydata(), low_curve(profile.table).loc[BLOCKS, "share"])


@pytest.mark.parametrize("draw", [share_curve, excess_curve])
@pytest.mark.parametrize("n_models", [2, 7, 9])
def test_every_model_is_drawn_however_many_there_are(profile, ax, draw, n_models):
    tables = [profile.table.assign(model=f"model {i}") for i in range(n_models)]
    draw(pd.concat(tables), null="swap", ax=ax)
    labels = [line.get_label() for line in ax.lines if str(line.get_label()).startswith("model")]
    assert labels == [f"model {i}" for i in range(n_models)]
    colors = [line_of(ax, label).get_color() for label in labels]
    assert len(set(colors)) == min(n_models, len(PALETTE))


def test_a_profile_draws_on_the_axes_it_is_given_and_opens_no_other_figure(profile, ax):
    before = plt.get_fignums()
    assert profile.plot(ax) is ax
    assert line_of(ax, "toy")
    assert plt.get_fignums() == before


def test_without_axes_a_profile_draws_on_the_current_ones(profile):
    current = plt.figure().gca()
    assert profile.plot() is current
    assert line_of(current, "toy")


def test_the_published_curve_joins_every_entry_of_the_lowest_decile(profile, ax):
    paper = profile.table.query("band == '1'").assign(control="paper", null="none")
    published_curve(pd.concat([profile.table, paper]), ax=ax)
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(line.get_ydata(), paper["share"])


@pytest.mark.parametrize("width", [85, 178])
def test_without_components_the_figure_of_a_run_shows_shares_and_excess(profile, width):
    figure = decay_figure([profile.table], null="swap", width=width)
    panels = {panel.get_label(): panel for panel in figure.axes}
    assert set(panels) == {"share", "excess"}
    for name in panels:
        np.testing.assert_allclose(line_of(panels[name], "toy").get_ydata(), low_curve(profile.table).loc[BLOCKS, name])
    assert legend_texts(figure) == ["95 % interval over users", "swap null"]
    assert plt.get_fignums() == [], "the figure belongs to the caller, not to pyplot"
    assert_print_ready(figure, width)


def legend_texts(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def component_rows(table: pd.DataFrame, component: str, factor: float = 1.0, control: str = "none") -> pd.DataFrame:
    """Return the low-pass curve as that of a component, with its excess and retention times a factor."""
    rows = table.query("band == 'low' and null == 'swap'").copy()
    for name in ("retention", "retention_low", "retention_high", "excess", "excess_low", "excess_high"):
        rows[name] *= factor
    return rows.assign(component=component, nodes="carried", treatment="rows", control=control, share=np.nan)


@pytest.fixture(scope="module")
def components(profile) -> pd.DataFrame:
    """A table with taste, popularity, their random-weights control, and the whole over every null."""
    table = profile.table
    parts = [component_rows(table, "taste"), component_rows(table, "popularity", 0.7)]
    parts += [component_rows(table, name, 0.3, "random-weights") for name in ("taste", "popularity")]
    nulls = [table.assign(null=null, excess=table["excess"] * k) for k, null in enumerate(NULLS_IN_WORDS, start=1)]
    return pd.concat([*parts, *nulls], ignore_index=True)


@pytest.mark.parametrize(("component", "factor"), [("taste", 1.0), ("popularity", 0.7)])
def test_a_component_is_drawn_as_part_of_the_inputs_with_random_weights_dashed(
    profile, components, ax, component, factor
):
    curve = low_curve(profile.table)
    assert retention_curve(components, component=component, ax=ax) is ax
    np.testing.assert_allclose(line_of(ax, "toy").get_ydata(), factor * curve.loc[BLOCKS, "retention"])
    (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed.get_xdata(), [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(dashed.get_ydata(), 0.3 * curve.loc[BLOCKS, "retention"])
    assert dashed.get_color() == line_of(ax, "toy").get_color()
    marked = [list(line.get_ydata()) for line in ax.lines if len(set(line.get_ydata())) == 1]
    assert [0.0, 0.0] in marked
    assert [1.0, 1.0] in marked
    assert component in ax.get_ylabel()


def test_what_is_foreseen_has_its_own_unit(ax):
    rows = {"layer": [0, 1, 2], "layer_name": ["embed", "block 1", "block 2"], "state": ["embed", "block", "block"]}
    values = {"value": [0.0, 0.1, 0.2], "low": [-0.1, 0.05, 0.1], "high": [0.1, 0.2, 0.3]}
    frame = pd.DataFrame({"component": "taste", **rows, **values})
    other = frame.assign(component="popularity", value=9.0)
    foreseen_curve({"toy": pd.concat([other, frame])}, ax=ax)
    np.testing.assert_allclose(line_of(ax, "toy").get_ydata(), [0.1, 0.2])
    (ribbon,) = [artist for artist in ax.collections if isinstance(artist, FillBetweenPolyCollection)]
    assert (ribbon.get_paths()[0].vertices[:, 1].min(), ribbon.get_paths()[0].vertices[:, 1].max()) == (0.05, 0.3)
    assert "carried at the input" in ax.get_ylabel()


@pytest.mark.parametrize("width", [85, 178])
def test_every_null_has_a_panel_on_one_scale(profile, components, width):
    figure = excess_figure(components, width=width)
    panels = {panel.get_label(): panel for panel in figure.axes}
    assert list(panels) == list(NULLS_IN_WORDS)
    curve = low_curve(profile.table)
    for factor, ax in enumerate(panels.values(), start=1):
        np.testing.assert_allclose(line_of(ax, "toy").get_ydata(), factor * curve.loc[BLOCKS, "excess"])
        assert ax.get_ylim() == panels["swap"].get_ylim()
    assert_print_ready(figure, width)


@pytest.mark.parametrize("width", [85, 178])
def test_the_main_figure_of_a_run_shows_taste_and_popularity_on_one_scale(profile, components, width):
    figure = decay_figure([components], width=width)
    panels = {panel.get_label(): panel for panel in figure.axes}
    assert set(panels) == {"taste", "popularity"}
    curve = low_curve(profile.table)
    for name, factor in (("taste", 1.0), ("popularity", 0.7)):
        np.testing.assert_allclose(line_of(panels[name], "toy").get_ydata(), factor * curve.loc[BLOCKS, "retention"])
    assert panels["taste"].get_ylim() == panels["popularity"].get_ylim()
    assert legend_texts(figure) == ["95 % interval over users", "random weights"]
    without = decay_figure([components[components["control"] != "random-weights"]])
    assert legend_texts(without) == ["95 % interval over users"]
    assert plt.get_fignums() == []
    assert_print_ready(figure, width)


def test_the_published_curve_and_what_is_foreseen_have_figures_of_their_own(profile):
    paper = profile.table.query("band == '1'").assign(control="paper", null="none")
    published = published_figure(pd.concat([profile.table, paper]))
    np.testing.assert_allclose(published.axes[0].lines[0].get_ydata(), paper["share"])
    blocks = {"layer": [0, 1], "layer_name": ["embed", "block 1"], "state": ["embed", "block"], "component": "taste"}
    curve = pd.DataFrame({**blocks, "value": [0.0, 0.2], "low": [-0.1, 0.1], "high": [0.1, 0.3]})
    foreseen = foreseen_figure({"toy": curve})
    np.testing.assert_allclose(line_of(foreseen.axes[0], "toy").get_ydata(), [0.2])
    assert published.get_figheight() < foreseen.get_figheight(), "the published curve is the smaller one"
    for figure in (published, foreseen):
        assert_print_ready(figure, 178)
    with_foreseen = decay_figure([component_rows(profile.table, "taste")], foreseen={"toy": curve})
    assert "foreseen" in {panel.get_label() for panel in with_foreseen.axes}


def many_models(profile: DecayProfile, n_blocks: int, n_models: int) -> pd.DataFrame:
    """Return curves of taste and popularity of models that end at nearly the same height."""
    names = ["embed", *(f"block {i}" for i in range(1, n_blocks + 1)), "final_norm"]
    rows = profile.table.query("band == 'low' and null == 'swap'").iloc[[0]]
    parts = []
    for number in range(n_models):
        curve = pd.concat([rows] * len(names), ignore_index=True)
        curve = curve.assign(layer=range(len(names)), layer_name=names, model=f"model {number} of a long name")
        curve["state"] = ["embed", *["block"] * n_blocks, "final_norm"]
        value = np.linspace(1, 0.5 + 0.001 * number, len(names))
        curve = curve.assign(retention=value, retention_low=value - 0.01, retention_high=value + 0.01)
        parts += [curve.assign(component=name, nodes="carried") for name in ("taste", "popularity")]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("width", [85, 178])
def test_labels_of_many_lines_stand_apart_beside_their_lines_in_the_order_of_their_ends(profile, width):
    table = many_models(profile, 30, 9)
    figure = decay_figure([table], width=width)
    ax = figure.axes[0]
    labels = line_labels(ax)
    assert len(labels) == 9
    heights = [text.get_window_extent().y0 for text in sorted(labels, key=lambda text: text.xy[1])]
    assert heights == sorted(heights)
    assert all(text.arrow_patch is not None for text in labels), "a thin line leads to the end of the line"
    assert_print_ready(figure, width)


def test_marks_at_the_input_stand_side_by_side(profile):
    figure = decay_figure([many_models(profile, 30, 5)], width=178)
    ax = figure.axes[0]
    marks = [line for line in ax.lines if line.get_marker() == "D"]
    x = sorted(ax.transData.transform((line.get_xdata()[0], 1))[0] for line in marks)
    sizes = {line.get_markersize() * figure.dpi / 72 for line in marks}
    assert len(marks) == 5
    assert all(right - left >= 0.95 * max(sizes) for left, right in pairwise(x))
    assert ax.transData.transform((1 / 30, 1))[0] > x[-1] + max(sizes), "clear of the first block"
    ticks = dict(zip(ax.get_xticks(), (label.get_text() for label in ax.get_xticklabels()), strict=True))
    assert (ticks[EMBED_DEPTH], ticks[FINAL_NORM_DEPTH]) == ("input", "norm")


def test_a_model_without_a_measurable_input_has_no_curve_and_an_empty_panel_says_so(components):
    noise = components.assign(excess_low=-1.0)
    figure = decay_figure([noise])
    for ax in figure.axes:
        assert not line_labels(ax)
        assert "no model's input carries" in ax.texts[0].get_text()
    assert_print_ready(figure, 178)


def test_the_share_of_a_component_is_what_is_left_of_its_input(components, ax):
    share_curve(components, null="swap", component="popularity", ax=ax)
    other = Figure().subplots()
    retention_curve(components, component="popularity", ax=other)
    np.testing.assert_allclose(line_of(ax, "toy").get_ydata(), line_of(other, "toy").get_ydata())


def test_the_numbers_of_a_figure_lie_beside_it_and_equal_figures_are_equal_files(profile, tmp_path):
    figure = decay_figure([profile.table], null="swap")
    for folder in ("a", "b"):
        save_figure(figure, tmp_path / folder / "decay", profile.table)
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert written == ["decay.csv", "decay.pdf", "decay.png", "decay.svg"]
    numbers = pd.read_csv(tmp_path / "a" / "decay.csv", dtype={"band": str})
    for column in ("share", "share_low", "excess", "retention"):
        np.testing.assert_allclose(numbers[column], profile.table[column], rtol=1e-9)
    assert numbers["band"].tolist() == profile.table["band"].tolist()
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_fonts_of_the_files_are_embedded_and_their_size_is_that_of_the_figure(profile, tmp_path):
    save_figure(decay_figure([profile.table], null="swap", width=85), tmp_path / "decay", profile.table)
    pdf = (tmp_path / "decay.pdf").read_bytes()
    assert b"/FontFile2" in pdf, "TrueType, embedded"
    assert b"/Type3" not in pdf, "journals refuse Type 3 fonts"
    assert re.search(rb"/MediaBox \[ 0 0 240\.9\d* ", pdf), "85 mm in points"
    svg = (tmp_path / "decay.svg").read_text(encoding="utf-8")
    assert "<text" not in svg, "text is outlines, so that no font is needed"
    assert 'width="240.9' in svg


@pytest.mark.parametrize("width", [85, 178])
def test_maps_share_one_scale_of_colours_and_the_layers_of_a_deep_one_can_be_read(width):
    names = ["embed", *(f"block {i}" for i in range(1, 31)), "final_norm"]
    deep = pd.DataFrame(np.zeros((32, 4)), index=names, columns=["0.1", "0.4", "0.6", "0.9"])
    deep.iloc[0, 0] = 1.0
    figure = heat_figure({"deep": deep, "flat": 0.1 * deep.iloc[:3]}, null="swap", width=width)
    maps = [ax for ax in figure.axes if ax.images]
    assert {ax.images[0].get_clim() for ax in maps} == {(-1.0, 1.0)}
    labels = [text.get_text() for text in maps[0].get_yticklabels() if text.get_visible()]
    assert (labels[0], labels[-1]) == ("embed", "final_norm")
    assert 5 <= len(labels) <= 12
    assert [text.get_text() for text in maps[1].get_yticklabels()] == names[:3]
    assert_print_ready(figure, width)


def test_another_width_is_refused_with_the_two_that_there_are(profile):
    with pytest.raises(ConfigError, match=r"85 mm .* or 178 mm .*got 90.*--figure-width 85 or 178"):
        decay_figure([profile.table], width=90)
