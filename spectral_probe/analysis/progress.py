"""Progress bars: in a notebook always, in a script where they are asked for."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from tqdm import TqdmWarning, tqdm


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
