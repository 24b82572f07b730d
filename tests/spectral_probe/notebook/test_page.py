"""A profile as the last line of a cell: text of eight lines, and HTML that is whole and harmless."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from spectral_probe.errors import ConfigError
from spectral_probe.notebook.page import MARKS, mark_of
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.verdict import Verdict

HOSTILE = "<script>alert(1)</script>\"&'{{ 7*7 }}"


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def named(profile: DecayProfile, name: str) -> DecayProfile:
    """Return the profile of a model with another name."""
    controls = {key: replace(c, table=c.table.assign(model=name)) for key, c in profile.controls.items()}
    return replace(profile, table=profile.table.assign(model=name, dataset=name), controls=controls)


def test_the_text_form_has_eight_lines_of_at_most_a_hundred_characters(run) -> None:
    for profile in (run.profile, named(run.profile, "m" * 300), *run.profile.controls.values()):
        lines = repr(profile).splitlines()
        assert len(lines) == 8
        assert max(len(line) for line in lines) <= 100
    lines = repr(run.profile).splitlines()
    assert str(run.profile.verdicts["taste"].label) in lines[1]
    assert f"{run.profile.n_users} users" in lines[0]


def test_the_page_shows_the_verdicts_the_table_and_the_chart(run) -> None:
    profile = run.profile
    page = Page(profile._repr_html_())
    assert page.open == []
    for component, verdict in profile.verdicts.items():
        assert component in page.text
        assert f"{mark_of(verdict.label)[0]} {verdict}" in page.text
    curve = profile.curve("taste")
    for row in curve.to_dict("records"):
        assert row["layer_name"] in page.text
        assert f"{1000 * row['excess']:+.2f} [{1000 * row['excess_low']:.2f}" in page.text
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert "taste" in image["alt"]
    svg = base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")).decode()
    assert svg.count("<svg") == 1
    assert "<script" not in svg
    assert "-0.000" not in page.text


def test_a_null_of_positions_leaves_the_table_of_layers(run, cyclic) -> None:
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", p._repr_html_()) for p in (run.profile, cyclic)]
    assert len(rows[1]) > 10
    assert rows[1] == rows[0]


def test_the_page_needs_nothing_from_outside_and_runs_nothing(run) -> None:
    html = run.profile._repr_html_()
    page = Page(html)
    assert "script" not in [tag for tag, _ in page.tags]
    addresses = [a.get("src") or a.get("href") or "" for _, a in page.tags]
    assert all(address.startswith("data:") for address in addresses if address)
    assert not re.search(r"https?:|url\(|@import", html)


def test_names_from_outside_are_text(run) -> None:
    html = named(run.profile, HOSTILE)._repr_html_()
    assert "<script>" not in html
    assert "49" not in Page(html).text.splitlines()[0]
    assert HOSTILE in Page(html).text


def test_the_page_opens_no_figure_and_is_the_same_again(run) -> None:
    before = plt.get_fignums()
    assert run.profile._repr_html_() == run.profile._repr_html_()
    assert plt.get_fignums() == before


def test_without_a_measurable_input_nothing_is_left_of_it(run) -> None:
    profile = run.profile
    verdicts = {name: Verdict(f"no measurable {name}", 90) for name in profile.verdicts}
    page = Page(replace(profile, verdicts=verdicts)._repr_html_())
    assert "n/a" in page.text
    assert "img" not in [tag for tag, _ in page.tags]
    assert "no taste to keep" in repr(replace(profile, verdicts=verdicts)).splitlines()[1]


def test_every_label_has_a_mark_of_its_own() -> None:
    assert len({glyph for label, (glyph, _) in MARKS.items()}) == len(MARKS)
    assert mark_of("no measurable taste") == MARKS["no measurable"]
    assert mark_of("something new") == MARKS["none"]


# --- tables and figure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["taste", "popularity", "lag", "whole"])
def test_the_weighted_mean_of_the_users_is_the_curve(run, component) -> None:
    users = run.profile.users(component)
    curve = run.profile.curve(component)
    assert users.index.name == "user_id"
    assert users.index.is_unique
    assert list(users.columns) == ["measured", "weight", *curve["layer_name"]]
    means = [np.average(users[layer], weights=users["weight"]) for layer in curve["layer_name"]]
    np.testing.assert_allclose(means, curve["excess"], rtol=1e-6, atol=1e-9)


def test_of_a_control_its_rows_alone(run) -> None:
    profile = run.profile
    assert set(profile.to_frame("raw")["control"]) == {"raw"}
    assert set(profile.to_frame("none")["control"]) == {"none"}
    everything = pd.concat([profile.to_frame(name) for name in ("none", *profile.controls)], ignore_index=True)
    pd.testing.assert_frame_equal(everything, profile.to_frame())
    with pytest.raises(ConfigError, match=r"got 'plian'\. Did you mean 'plain'"):
        profile.to_frame("plian")
    with pytest.raises(ConfigError, match="Did you mean 'taste'"):
        profile.users("tast")
    with pytest.raises(ConfigError, match="nodes must be one of"):
        profile.users(nodes="both")


def test_the_figure_has_taste_first_and_no_ratio_without_a_denominator(run) -> None:
    assert not run.profile.has_measurable_input("popularity")
    alone = run.profile.plot().figure
    assert [panel.get_title() for panel in alone.axes] == ["Taste carried"]
    plt.close(alone)
    excess = dict.fromkeys(("taste", "popularity"), Interval(0.02, 0.01, 0.03))
    verdicts = {name: Verdict("preserved", 90) for name in excess}
    ax = replace(run.profile, embed_excess=excess, verdicts=verdicts).plot()
    panels = ax.figure.axes
    assert ax is panels[0]
    assert [panel.get_title() for panel in panels] == ["Taste carried", "Popularity carried"]
    curve = run.profile.curve("taste").query("state == 'block'")
    line = next(line for line in panels[0].lines if line.get_label() == "mixing")
    np.testing.assert_allclose(line.get_ydata(), curve["retention"])
    # The curve of this run has no denominator, whatever the summary says.
    assert "carries\nmeasurable popularity" in panels[1].texts[0].get_text()
    plt.close(ax.figure)


@pytest.mark.parametrize(
    "call", [lambda p: p.plot(component="nope"), lambda p: p.plot("file.png"), lambda p: p.to_frame(control=[])]
)
def test_what_is_not_there_is_not_drawn(call, run) -> None:
    with pytest.raises(ConfigError, match="must be"):
        call(run.profile)
