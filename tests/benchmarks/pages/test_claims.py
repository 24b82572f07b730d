"""Every claim of the paper has a row, every number its table, every verdict the conditions under which it stands."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.pages import claims, evidence
from frellm4rec.experiments.definitions import experiment_names
from spectral_probe.errors import DataError

ROOT = claims.ROOT


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return claims.read_claims()


@pytest.fixture
def changed(table, tmp_path):
    """Write a copy of the table with changes of its first row, or without some rows."""

    def write(row=None, *, without=None, **cells) -> Path:
        copy = table.copy()
        for column, value in cells.items():
            copy.loc[row, column] = value
        if without is not None:
            copy = copy[copy["id"] != without]
        path = tmp_path / "claims.csv"
        copy.to_csv(path, index=False)
        return path

    return write


def first_row(table: pd.DataFrame, **values: str) -> int:
    is_row = pd.Series(data=True, index=table.index)
    for column, start in values.items():
        is_row &= table[column].str.startswith(start)
    return int(table.index[is_row][0])


def test_the_page_is_written_from_the_tables_byte_for_byte() -> None:
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page()


def test_every_claim_of_the_issue_has_a_row(table) -> None:
    figures = {f"fig-{name}" for name in ("1a", "1b", "3", "4", "5", "6", "8")}
    tables = {f"table-{number}" for number in range(1, 6)}
    words = {"lost-70", "monotone", "sasrec-keeps", "pretraining", "assumption-1", "theorem-1", "up-to-8"}
    assert figures | tables | words == set(claims.CLAIMS) == set(table["id"])
    page = claims.PAGE.read_text(encoding="utf-8")
    for claim in claims.CLAIMS:
        assert f"\n## {claim}\n" in page
        assert f"](#{claim})" in page


@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_a_claim_without_a_row_is_refused(changed, claim) -> None:
    with pytest.raises(DataError, match=f"'{claim}' has none"):
        claims.page(changed(without=claim))


def straight(table: pd.DataFrame, reference: evidence.Reference, *, is_falling: bool) -> pd.DataFrame:
    """Let the column and its interval fall, or rise, in every step: steps are counted as all or none."""
    sign = -1 if is_falling else 1
    for name in (reference.column, f"{reference.column}_low", f"{reference.column}_high"):
        table[name] = [str(sign * int(layer)) for layer in table["layer"]]
    return table


def test_no_number_is_left_when_its_source_changes(table, monkeypatch) -> None:
    """Every column that a reference names is turned round, and every number of the page must change with it."""
    named = {reference: None for text in table["evidence"] for reference in evidence.references(text)}
    assert len(named) > 60
    before = {reference: reference.text() for reference in named}
    read = evidence._read

    def read_turned(path: Path) -> pd.DataFrame:
        turned = read(path).copy()
        if reference.action == "count":
            return pd.concat([turned, turned])
        if reference.action == "steps":
            return turned[turned["layer"] != "0"]
        if reference.action.endswith(("falls", "rises")):
            is_none = before[reference] == "0"
            return straight(turned, reference, is_falling=is_none == reference.action.endswith("falls"))
        values = turned[reference.column]
        turned[reference.column] = [str(1.7137 - float(value)) if value else value for value in values]
        return turned

    monkeypatch.setattr(evidence, "_read", read_turned)
    for reference in named:
        assert reference.text() != before[reference], reference


def test_a_verdict_must_follow_from_the_tables(table, changed) -> None:
    assert claims.refuted_verdicts(table) == []
    row = first_row(table, id="fig-1a", verdict="refuted")
    opposite = table.loc[row, "stands_if"].replace("> 0", "< 0")
    with pytest.raises(DataError, match=r"fig-1a .*'refuted' needs .* < 0: 0\.\d+ against 0"):
        claims.page(changed(row, stands_if=opposite))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"id": "fig-33"}, "Did you mean 'fig-3'"),
        ({"verdict": "confirmed"}, "a verdict starts with one of"),
        ({"model": ""}, "must not be empty"),
        ({"evidence": ""}, "needs evidence"),
        ({"command": ""}, "needs evidence and a command"),
        ({"stands_if": ""}, "needs conditions"),
    ],
)
def test_a_row_without_what_its_verdict_needs_is_refused(table, changed, cells, message) -> None:
    row = first_row(table, id="fig-1a", verdict="refuted") + 1
    with pytest.raises(DataError, match=rf"line {row + 2} .*{message}"):
        claims.page(changed(row, **cells))


def test_where_and_claim_stand_in_the_first_row(table, changed) -> None:
    with pytest.raises(DataError, match="'fig-3' where the paper claims it"):
        claims.page(changed(first_row(table, id="fig-3"), claim=""))


def test_no_number_is_typed_into_what_was_found(table) -> None:
    for column in ("run", "component", "verdict", "evidence"):
        for text in table[column]:
            typed = re.findall(r"\d+[.,]\d+|\d+\s?%", evidence.REFERENCE.sub("", text))
            assert typed == [], text


def test_what_is_open_says_what_will_decide_it(table) -> None:
    open_rows = table[table["verdict"].str.startswith("to come")]
    assert (open_rows["verdict"].str.len() > len("to come: ") + 8).all()
    for text in open_rows["evidence"]:
        assert not text or text.startswith("so far"), text


def test_named_tests_and_commands_exist(table) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", " ".join(table["evidence"]))
    assert named
    assert [name for name in named if f"def {name}(" not in sources] == []
    for command in {command for text in table["command"] for command in claims.commands_of(text)}:
        words = command.split()
        if words[0] == "python":
            assert importlib.util.find_spec(words[2]) is not None, command
        elif words[0] == "pytest":
            assert (ROOT / words[1]).is_file(), command
        else:
            assert words[0] in ("spectral-probe", "frellm4rec"), command
            module = f"{words[0].replace('-', '_')}.cli.{words[1]}"
            assert importlib.util.find_spec(module) is not None, command
        if words[:2] == ["frellm4rec", "experiment"]:
            assert words[2] in experiment_names(), command


@pytest.mark.shared
def test_the_counts_are_counted_again(shared_dir) -> None:
    committed = pd.read_csv(claims.COUNTS)
    counted = claims.count_datasets(shared_dir / "data")
    pd.testing.assert_frame_equal(committed, counted, check_dtype=False, rtol=1e-5)
