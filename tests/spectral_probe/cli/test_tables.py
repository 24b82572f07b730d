"""Tables and numbers on a terminal: columns go before digits do."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len

from spectral_probe.cli.layers import chosen_layers
from spectral_probe.cli.pages import print_page
from spectral_probe.cli.printing import print_profile
from spectral_probe.cli.tables import Column, fitting, print_table
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.numbers import decimals_for, fixed, interval
from spectral_probe.profiles.profile import DecayProfile
from tests.spectral_probe.worlds import with_excess

NUMBERS = ["-12.3456789", "0.0000123"]


@pytest.mark.parametrize("width", range(20, 130, 7))
def test_a_number_is_never_cut_and_no_line_is_too_wide(width, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ["a long text of many words", "short"]
    columns = [Column("name", names, is_text=True)]
    columns += [Column(f"number {rank}", NUMBERS, rank=rank) for rank in range(1, 6)]
    columns.append(Column("kept", ["1.5", "2.5"]))
    print_table(columns)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= width or width < 30
    shown = [line for line in lines if not line.startswith(("Left out", "─"))]
    numbers = re.findall(r"[-+]?\d+\.\d+", " ".join(shown))
    assert set(numbers) <= {*NUMBERS, "1.5", "2.5"}
    assert {"1.5", "2.5"} <= set(numbers)


def test_the_least_important_columns_are_left_out_first_and_named() -> None:
    columns = [Column("a", ["1"]), Column("b", ["2" * 30], rank=2), Column("c", ["3" * 30], rank=1)]
    assert [[column.title for column in fitting(columns, width)[0]] for width in (80, 40, 20)] == [
        ["a", "b", "c"],
        ["a", "c"],
        ["a"],
    ]
    assert fitting(columns, 20)[1] == ["b", "c"]


def test_a_pipe_gets_every_column_and_a_table_is_as_wide_as_text_at_least(monkeypatch, capsys) -> None:
    columns = [Column(letter, [letter * 50], rank=rank) for rank, letter in enumerate("abcd")]
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(columns)
    assert capsys.readouterr().out.split()[-4:] == [letter * 50 for letter in "abcd"]
    monkeypatch.setenv("COLUMNS", "3")
    print_table([Column("a", ["1" * 9]), Column("b", ["2" * 9], rank=1)])
    assert capsys.readouterr().out.split()[-2:] == ["1" * 9, "2" * 9]


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(-0.0001, 3, "0.000"), (-0.0, 1, "0.0"), (-1.25, 1, "-1.2"), (math.nan, 2, "n/a"), (1e-9, 2, "0.00")],
)
def test_a_zero_has_no_minus_and_nothing_stands_for_what_is_not_known(value, decimals, text) -> None:
    assert fixed(value, decimals) == text
    assert fixed(2.0, 1, sign=True) == "+2.0"
    assert "-0.000" not in str(Interval(-0.0001, -0.0002, 0.1))
    assert interval(math.nan, 1.0, 2) == "n/a"


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([91.3, 100], 0), ([8.84], 1), ([0.123], 2), ([0.0123, -0.001], 3), ([1e-9], 4), ([], 1), ([0.0], 1)],
)
def test_two_significant_digits(values, decimals) -> None:
    assert decimals_for(values) == decimals


def test_a_deep_model_shows_twelve_layers() -> None:
    curve = [1.0] * 20 + [0.2] * 12
    layers = chosen_layers(curve)
    assert len(layers) == len(set(layers)) == 12
    assert {0, 20, 30, 31} <= set(layers)
    assert max(np.diff(layers)) <= 6
    assert chosen_layers([1.0] * 12) == list(range(12))
    assert len(chosen_layers([math.nan] * 40)) == 12


def test_all_layers_are_printed_on_request(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    profile = DecayProfile.from_energy(with_excess(*np.linspace(1, 0.5, 32)), component="whole")
    print_profile(profile)
    text = capsys.readouterr().out
    assert len(re.findall(r"^block ", text, re.M)) == 10
    assert "12 of 32 layers are shown" in " ".join(text.split())
    print_profile(profile, all_layers=True)
    text = capsys.readouterr().out
    assert len(re.findall(r"^block ", text, re.M)) == 30
    assert "layers are shown" not in text


def test_a_retention_without_a_denominator_is_not_available(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    profile = DecayProfile.from_energy(with_excess(1.0, 0.5, 0.2, noise=0.01), component="whole")
    weak = replace(profile, embed_excess={"whole": Interval(0.1, -0.05, 0.15)})
    print_profile(weak)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("embed", "block 1"))]
    assert len(rows) == 2
    assert all(line.count("n/a") == 2 for line in rows)


def test_zeros_of_what_is_left_out_are_not_printed(monkeypatch, capsys) -> None:
    profile = DecayProfile.from_energy(with_excess(1.0, 0.5), component="whole")
    users = profile.user_counts | {"skipped": {"too short": 0, "without an edge": 3}}
    print_profile(replace(profile, user_counts=users))
    text = capsys.readouterr().out
    assert "left out: without an edge: 3." in text
    assert "too short" not in text
    assert "{" not in text


def test_text_is_broken_between_words_on_a_terminal_and_a_path_stays_whole(monkeypatch, capsys) -> None:
    path = "runs/" + "x" * 60
    monkeypatch.delenv("COLUMNS", raising=False)
    say_wrapped(f"a sentence of words and {path}")
    assert capsys.readouterr().out == f"a sentence of words and {path}\n"
    monkeypatch.setenv("COLUMNS", "30")
    say_wrapped(f"a sentence of words that go on and on, and {path}")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a sentence of words that go on", "and on, and", path]


def test_a_page_goes_to_a_file_as_it_is(monkeypatch, capsys) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    page = "# Title\n\n| a | b |\n| --- | --- |\n| **1** | 2 |\n"
    print_page(page)
    assert capsys.readouterr().out == page
