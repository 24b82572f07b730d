"""How many groups are worked on at a time."""

import pytest

from spectral_probe.graph import threads


@pytest.mark.parametrize(
    ("text", "n"),
    [("3", 3), ("2,1", 2), (" 4 , 2", 4), ("", 0), ("abc", 0), ("-1", 0), ("0", 0), ("9" * 30, 0), ("\u00b2", 0)],
)
def test_a_list_of_nested_levels_is_legal_and_nonsense_is_ignored(text, n, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads._asked_for() == n
    done = []
    threads.for_each(done.append, range(5))
    assert sorted(done) == list(range(5))
