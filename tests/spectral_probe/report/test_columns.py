"""Tables as a page holds them: nothing is lost but digits that no tooltip shows."""

import numpy as np
import pandas as pd

from spectral_probe.report.columns import columns_of, grid_of


def test_columns_are_short_and_hold_what_the_table_holds():
    table = pd.DataFrame(
        {
            "name": pd.Series(["b", "a", "b", None], dtype="string"),
            "value": [0.1234567, np.nan, -2.0, np.inf],
            "n": pd.Series([1, 2, None, 4], dtype="Int64"),
            "is_last": [True, False, True, True],
        }
    )
    columns = columns_of(table)
    assert [columns["name"]["names"][at] for at in columns["name"]["at"]] == ["b", "a", "b", ""]
    assert columns["value"] == {"at": [123457, None, -2000000, None], "unit": 1000000}
    assert columns["n"] == [1, 2, None, 4]
    assert columns["is_last"] == [True, False, True, True]


def test_a_number_keeps_its_two_and_four_decimals():
    values = np.array([-0.0385499, 0.01324996, 1.12499999, 0.9949999996, -2.00005001, 1e-9])
    column = columns_of(pd.DataFrame({"value": values}))["value"]
    for whole, value in zip(column["at"], values, strict=True):
        for decimals in (2, 4):
            assert f"{whole / column['unit']:.{decimals}f}" == f"{value:.{decimals}f}"
        assert abs(whole / column["unit"] - value) < 1.5e-6


def test_a_grid_names_its_keys_once():
    table = pd.DataFrame({"point": [7, 7, 3], "user": [1, 0, 1], "taste": [0.25, 0.5, 0.75]})
    grid = grid_of(table, ("point", "user"), decimals=2)
    assert grid == {"grid": [["point", [3, 7]], ["user", [0, 1]]], "taste": {"at": [None, 75, 50, 25], "unit": 100}}
