import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frellm4rec.data import k_core
from spectral_probe.errors import ConfigError, DataError


def slow_core(rows, k, iterative):
    """Drop rows of rare users and items, by counting anew each time."""
    while True:
        users = [u for u, _ in rows]
        items = [i for _, i in rows]
        remaining = [(u, i) for u, i in rows if users.count(u) >= k and items.count(i) >= k]
        if not iterative or len(remaining) == len(rows):
            return remaining
        rows = remaining


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcdef")), min_size=1, max_size=60),
    st.integers(1, 4),
    st.booleans(),
)
def test_matches_a_slow_loop(rows, k, iterative):
    df = pd.DataFrame(rows, columns=["user_id", "item_id"])
    expected = slow_core(rows, k, iterative)
    if not expected:
        with pytest.raises(DataError, match="None of the"):
            k_core(df, k, iterative=iterative)
        return
    result = k_core(df, k, iterative=iterative)
    assert list(result.itertuples(index=False, name=None)) == expected


def test_single_pass_leaves_rows_that_iteration_drops():
    # Item z is rare; without it user 2 is too.
    rows = [(1, "x"), (1, "y"), (3, "x"), (3, "y"), (2, "x"), (2, "z")]
    df = pd.DataFrame(rows, columns=["user_id", "item_id"])
    assert set(k_core(df, 2)["user_id"]) == {1, 3}
    assert set(k_core(df, 2, iterative=False)["user_id"]) == {1, 2, 3}


def test_names_a_close_column():
    df = pd.DataFrame({"user": [1], "item_id": [1]})
    with pytest.raises(DataError, match="Did you mean 'user'"):
        k_core(df, 1)


def test_refuses_k_below_one():
    with pytest.raises(ConfigError, match="k=0"):
        k_core(pd.DataFrame({"user_id": [1], "item_id": [1]}), 0)


def test_keeps_index_and_other_columns():
    df = pd.DataFrame({"user_id": [1, 2, 1], "item_id": [1, 1, 1], "time": [3, 2, 1]}, index=[10, 11, 12])
    result = k_core(df, 2)
    assert result.index.tolist() == [10, 12]
    np.testing.assert_array_equal(result["time"], [3, 1])
