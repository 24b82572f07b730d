"""The interactive chart: its numbers are those of the table, and it loads nothing."""

from __future__ import annotations

import html
import re
import sys
from dataclasses import replace

import pytest

from spectral_probe.errors import ConfigError, MissingDependencyError
from spectral_probe.notebook.charts import chart_rows

pytest.importorskip("altair", reason="the extra report is not installed")
pytest.importorskip("vl_convert", reason="the extra report is not installed")


def test_the_rows_of_the_chart_are_those_of_the_curve(run) -> None:
    rows = chart_rows(run.profile, ("taste", "popularity"))
    for component, part in rows.groupby("component", sort=False):
        curve = run.profile.curve(component)
        assert part["layer_name"].tolist() == curve["layer_name"].tolist()
        assert part["excess_low"].tolist() == pytest.approx(curve["excess_low"].tolist())
        if run.profile.has_measurable_input(component):
            assert part["retention_high"].tolist() == pytest.approx(curve["retention_high"].tolist())
        else:
            assert part["retention_high"].isna().all()


def test_a_null_of_positions_is_that_of_the_whole_alone(run, cyclic) -> None:
    rows, before = (chart_rows(profile, ("taste", "whole")) for profile in (cyclic, run.profile))
    for component, is_same in (("taste", True), ("whole", False)):
        excess, swap = (part.loc[part["component"] == component, "excess"].tolist() for part in (rows, before))
        assert len(excess) == len(swap) > 0
        assert (excess == pytest.approx(swap)) is is_same


def test_random_weights_are_drawn_over_the_null_of_the_model(cyclic) -> None:
    swap_alone = replace(cyclic, null="swap", table=cyclic.table[cyclic.table["null"] == "swap"])
    rows = chart_rows(replace(cyclic, controls={"random-weights": swap_alone}), ("taste", "whole"))
    assert set(rows.query("states == 'random weights'")["component"]) == {"taste"}


def test_every_number_is_in_the_tooltip_and_the_quantity_can_be_chosen(run) -> None:
    spec = run.profile.chart(components=["taste"]).to_dict()
    (parameter,) = spec["params"]
    assert parameter["bind"]["options"] == ["retention", "excess"]
    (panel,) = spec["hconcat"]
    (points,) = [layer for layer in panel["layer"] if layer["mark"]["type"] == "point"]
    fields = [entry["field"] for entry in points["encoding"]["tooltip"]]
    assert {"layer_name", "retention", "retention_low", "excess", "excess_high", "n_users"} <= set(fields)


def test_a_notebook_shows_the_chart_without_network(run) -> None:
    bundle = run.profile.chart()._repr_mimebundle_()
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', bundle["text/html"]).group(1))
    assert not re.search(r"""<(script|link|img)[^>]*(src|href)=["']https?:""", page)
    assert "cdn.jsdelivr" not in page
    assert "vegaEmbed" in page


def test_an_unknown_component_is_refused(run) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'popularity'"):
        run.profile.chart(components=["populrity"])
    with pytest.raises(ConfigError, match="at least one"):
        run.profile.chart(components=[])


@pytest.mark.parametrize("missing", ["altair", "vl_convert"])
def test_without_the_extra_the_error_names_it(run, monkeypatch, missing) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spectral-probe\[report\]'") as caught:
        run.profile.chart()
    assert caught.value.exit_code == 5
    assert "<img" in run.profile._repr_html_()  # the page needs neither
