"""Bars: on in a notebook, off in a script that does not ask for them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from spectral_probe.progress import in_notebook, progress_bar


def shell(kernel: object) -> SimpleNamespace:
    """Return an IPython whose shell has a kernel, or none."""
    return SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel))


@pytest.mark.parametrize(
    ("ipython", "expected"),
    [(shell("kernel"), True), (shell(None), False), (SimpleNamespace(get_ipython=lambda: None), False), (None, False)],
)
def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch, ipython, expected) -> None:
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert in_notebook() is expected


@pytest.mark.parametrize(
    ("kernel", "shown", "is_on"),
    [(None, None, False), (None, True, True), (None, False, False), ("kernel", None, True), ("kernel", False, False)],
)
def test_a_bar_is_shown_where_it_is_asked_for(monkeypatch, kernel, shown, is_on) -> None:
    monkeypatch.setitem(sys.modules, "IPython", shell(kernel))
    monkeypatch.setattr("tqdm.auto.tqdm", SimpleBar)
    bar = progress_bar(shown=shown, total=2)
    assert bar.disable is not is_on
    assert isinstance(bar, SimpleBar) == (kernel is not None)


class SimpleBar:
    """Stands for the bar of notebooks."""

    def __init__(self, *, disable: bool, **_: object) -> None:
        self.disable = disable
