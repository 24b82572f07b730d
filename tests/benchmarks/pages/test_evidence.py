"""Numbers in a text come from the named rows of a table, or an error says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pages.evidence import Reference, broken_conditions, fill, references
from spectral_probe.errors import DataError

TABLE = """model,layer,state,value,value_low,value_high,low,high,gain,wide,wide_low,wide_high
a,2,block,0.25,0.2,0.3,1,2,-3,0.25,0.0,0.9
a,0,embed,1.0,0.9,1.1,1,2,-3,1.0,0.9,1.1
a,1,block,0.5,0.4,0.6,1,2,-3,0.5,0.4,0.6
a,10,final_norm,0.75,0.7,0.8,1,2,-3,0.75,0.7,0.8
FreLLM4Rec,0,embed,1.2,1,2,1,2,-0.001,1,1,1
"""


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("t.csv | model=a & layer=1 | value | .2f", "0.50"),
        ("t.csv | model=a & layer=1 | value | [.1f]", "0.5 [0.4, 0.6]"),
        ("t.csv | model=a & layer=1 | value | .0%", "50%"),
        ("t.csv | model=a & layer=1 | gain | +.1f", "−3.0"),
        ("t.csv | model=FreLLM4Rec | gain | .2f", "0.00"),
        ("t.csv | model=a & layer=0 | gain | [.0f]", "−3 [1, 2]"),
        ("t.csv | model=a & layer=0 | minus gain | [+.0f]", "+3 [−2, −1]"),
        # Layers are ordered as numbers: 10 is after 2.
        ("t.csv | model=a | value | →.2f", "1.00 → 0.75"),
        ("t.csv | model=a & state!=final_norm | value | →.2f", "1.00 → 0.25"),
        ("t.csv | model=a | first value | .2f", "1.00"),
        ("t.csv | model=a | last value | .2f", "0.75"),
        ("t.csv | model=a | change value | +.2f", "−0.25"),
        ("t.csv | model=a | falls value | .0f", "2"),
        # From layer 2 to layer 10 the interval rises as well.
        ("t.csv | model=a | rises value | .0f", "1"),
        ("t.csv | model=a | clear_rises value | .0f", "1"),
        ("t.csv | model=a | clear_falls value | .0f", "2"),
        ("t.csv | model=a | clear_rises gain | .0f", "0"),
        ("t.csv | model=a & layer!=0 | rises value | .0f", "1"),
        ("t.csv | model=a & layer!=10 | rises value | .0f", "0"),
        # The value rises, but its interval begins below the end of the one before.
        ("t.csv | model=a | rises wide | .0f", "1"),
        ("t.csv | model=a | clear_rises wide | .0f", "0"),
        ("t.csv | model=a | clear_falls wide | .0f", "1"),
        ("t.csv | model=a | steps value | .0f", "3"),
        ("t.csv | model=a | first value | [.1f]", "1.0 [0.9, 1.1]"),
        ("t.csv | model=a & state!=final_norm | last value | [.2f]", "0.25 [0.20, 0.30]"),
        ("t.csv | model=a | mean value | .3f", "0.625"),
        ("t.csv | model=a | count value", "4"),
        ("t.csv | | lead value | .0%", "20%"),
    ],
)
def test_a_reference_is_written_as_it_says(root, reference, text) -> None:
    assert fill(f"it is {{{reference}}}.", root) == f"it is {text}."


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("absent.csv | | value | .2f", "does not exist"),
        ("t.csv | model=a | valu | .2f", "Did you mean 'value'"),
        ("t.csv | modle=a | value | .2f", "Did you mean 'model'"),
        ("t.csv | model=a | value | .2f", r"must have one row where model=a; it has 4"),
        ("t.csv | model=b | mean value | .2f", r"must have rows where model=b; it has 0"),
        ("t.csv | layer=0 | steps value | .2f", "more than one row of a layer"),
        ("t.csv | model=a | lead value | .2f", "FreLLM4Rec once"),
        ("t.csv | model=a | change value | [.2f]", "Only the value of one row has an interval"),
        ("t.csv | model=a | mean value | [.2f]", "Only the value of one row has an interval"),
        ("t.csv | model=a | chnge value | .2f", "Did you mean 'change'"),
        ("t.csv | model | value | .2f", "column=value"),
        ("t.csv | model=a", "FILE . ROWS . QUANTITY . FORM"),
        ("t.csv | model=a | value | .2f | more", "FILE . ROWS . QUANTITY . FORM"),
    ],
)
def test_what_is_wrong_with_a_reference_is_named(root, reference, message) -> None:
    with pytest.raises(DataError, match=message):
        fill(f"{{{reference}}}", root)


def test_conditions_are_met_or_named_with_their_values(root) -> None:
    half = "{t.csv | model=a & layer=1 | value}"
    gain = "{t.csv | model=a & layer=1 | gain}"
    assert broken_conditions("", root) == []
    assert broken_conditions(f"{half} < 0.6; {half} > 0.4; {half} = 0.5; {gain} = -3; {half} > {gain}", root) == []
    broken = broken_conditions(f"{half} < 0.5; {half} > 0.4; {half} = {gain}", root)
    assert [entry.rpartition(": ")[2] for entry in broken] == ["0.5 against 0.5", "0.5 against -3"]
    for malformed in (f"{half}", f"{half} < ", f"{half} <= 1", "0.4 < 0.5"):
        with pytest.raises(DataError, match="A condition reads"):
            broken_conditions(malformed, root)


def test_references_are_listed_in_their_order() -> None:
    first, second = references("a {x.csv | k=v | c | .1f} b {y.csv | k!=v | mean d} c")
    assert first == Reference("x.csv", (("k", True, "v"),), "", "c", ".1f")
    assert second == Reference("y.csv", (("k", False, "v"),), "mean", "d", "")
