"""The glossary: one text for `explain`, the documents and the page, and a paragraph for everything that is printed."""

from __future__ import annotations

import inspect
import re

import pytest

from benchmarks.pages.glossary import PAGE
from spectral_probe.analysis.measure import _caveats
from spectral_probe.analysis.options import CONTROLS, FIXED_CONTROLS
from spectral_probe.analysis.pipeline import BY_POSITION
from spectral_probe.errors import ConfigError
from spectral_probe.report.glossary import anchor, find_term, glossary, glossary_page
from spectral_probe.report.words import CAVEATS, CONTROLS_IN_WORDS
from spectral_probe.spectrum.energy import NULLS


def test_the_page_of_the_documents_is_the_glossary() -> None:
    assert PAGE.read_text(encoding="utf-8") == glossary_page()


def test_every_term_of_the_issue_is_there_under_each_of_its_names() -> None:
    for name in ("excess", "taste", "popularity", "swap null", "τ", "tau", "retention", "Gram"):
        assert find_term(name).text.endswith(".")
    assert find_term("POPULARITY_match_poor") is glossary()["popularity-match-poor"]


def test_every_control_null_and_caveat_of_the_program_has_a_term() -> None:
    assert set(CONTROLS_IN_WORDS) == {*CONTROLS, *FIXED_CONTROLS, "paper"}
    assert {f"{null} null" for null in NULLS} <= set(glossary())
    assert {term.name for term in glossary().values() if term.kind == "caveat"} == set(CAVEATS)
    codes = set(re.findall(r'"([a-z-]+)": ', inspect.getsource(_caveats))) | {
        "truncated-users",
        "first-version",
        BY_POSITION,
    }
    assert codes == set(CAVEATS)


def test_a_term_has_a_paragraph_and_leads_to_terms_that_exist() -> None:
    names = set(glossary())
    for term in glossary().values():
        assert set(term.see) <= names - {term.name}, term.name
        assert "\n" not in term.text, term.name
        assert "  " not in term.text, term.name
        assert term.short.endswith("."), term.name


def test_no_two_terms_share_a_name() -> None:
    names = [name.casefold() for term in glossary().values() for name in (term.name, *term.aliases)]
    assert sorted(set(names)) == sorted(names)
    anchors = [anchor(name) for name in {*glossary(), *(term.heading for term in glossary().values())}]
    assert len(set(anchors)) == len(anchors)


def test_an_unknown_term_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no term 'retension'. Did you mean 'retention'\? .*explain"):
        find_term("retension")
