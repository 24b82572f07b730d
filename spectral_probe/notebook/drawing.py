"""Figures as text that a page can hold."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def svg_source(figure: Figure) -> str:
    """Return a figure as a ``data:`` address of an SVG image: an image runs no script and loads nothing."""
    import matplotlib as mpl

    written = io.BytesIO()
    # Text as outlines: the same letters on every machine. Without a date and with one salt, the same figure is the
    # same text, so a notebook that is run again does not change.
    settings: Any = {"svg.fonttype": "path", "svg.hashsalt": "spectral-probe"}
    with mpl.rc_context(settings):
        figure.canvas.print_figure(written, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(written.getvalue()).decode()}"
