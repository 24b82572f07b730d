"""The interactive chart: its numbers are those of the table, and it loads nothing."""

from __future__ import annotations

import html
import re
import sys

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
