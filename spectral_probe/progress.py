"""Stages and counted work: whoever does them names them here, and whoever called decides how they are shown.

A command line shows them as a status line. Without one, counted work has a bar of tqdm where its caller asks for it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

#: Sets how much is done, with a word on how it goes.
Advance = Callable[[int, str], None]


class Reporter(Protocol):
    """Shows what is being done."""

    def stage(self, text: str) -> None:
        """Show a stage, such as ``graph``; counted work that goes on belongs to it."""

    def start(self, text: str, total: int, done: int, unit: str) -> None:
        """Begin counted work: a text such as ``training sasrec``, how much there is of a unit, and how much is done."""

    def advance(self, done: int, note: str) -> None:
        """Show how much of the counted work is done, and a note such as its best validation."""

    def end(self) -> None:
        """End the counted work."""


_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def reported_by(reporter: Reporter) -> Iterator[None]:
    """Send what is named inside to a reporter."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


def stage(text: str) -> None:
    """Name what begins now, if somebody shows it."""
    if (reporter := _reporter.get()) is not None:
        reporter.stage(text)


@contextmanager
def counted(text: str, total: int, *, unit: str, done: int = 0, bar: bool | None = False) -> Iterator[Advance]:
    """Name counted work, and yield a function that is called with how much is done, and a note.

    Parameters
    ----------
    text : str
        What is done: ``training sasrec``.
    total, done : int
        How much there is, and how much of it is done before it begins.
    unit : str
        In the plural: ``steps``.
    bar : bool or None
        Where nobody shows a status: whether there is a bar of tqdm; see :func:`progress_bar`.
    """
    if (reporter := _reporter.get()) is not None:
        reporter.start(text, total, done, unit)
        try:
            yield reporter.advance
        finally:
            reporter.end()
        return
    with progress_bar(shown=bar, total=total, initial=done, desc=text, unit=f" {unit}") as shown:

        def advance(now: int, note: str) -> None:
            shown.update(now - shown.n)
            if note:
                shown.set_postfix_str(note)

        yield advance


def in_notebook() -> bool:
    """Tell whether this runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def progress_bar(*, shown: bool | None, **options: Any) -> Any:
    """Return a bar of tqdm: that of notebooks in a notebook, else one on stderr.

    Parameters
    ----------
    shown : bool or None
        None: only in a notebook.
    **options
        Of :class:`tqdm.tqdm`. The bar is shown after two seconds, and removed at its end in a notebook.
    """
    from tqdm import TqdmWarning, tqdm

    is_notebook = in_notebook()
    options = {
        "delay": 2,
        "leave": not is_notebook,
        "disable": not (is_notebook if shown is None else shown),
        **options,
    }
    if not is_notebook:
        return tqdm(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # without ipywidgets the bar is one of text
        from tqdm.auto import tqdm as notebook_tqdm

        return notebook_tqdm(**options)
