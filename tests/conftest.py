"""Fixtures shared by both packages' tests."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of real data and weights beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the real data beside the project is not here")
    return folder


def assert_print_ready(figure: Any, width: int) -> None:
    """Assert what holds of every figure for print: width, 8 pt, labels apart, marks in the legend, axes that begin."""
    from spectral_probe.figure_style import FONT_SIZE, line_labels

    assert figure.get_figwidth() * 25.4 == pytest.approx(width)
    assert figure.get_figheight() * 25.4 < 260, "higher than a page"
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    hidden = {id(label) for axis in axes for label in (*axis.get_majorticklabels(), *axis.get_minorticklabels())}
    hidden -= {id(label) for axis in axes for label in shown_labels(axis)}
    texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible() and id(t) not in hidden]
    assert {text.get_fontsize() for text in texts} == {FONT_SIZE}
    page = figure.bbox.padded(1.0)
    for text in texts:
        box = Text.get_window_extent(text)
        assert page.contains(box.x0, box.y0), text.get_text()
        assert page.contains(box.x1, box.y1), text.get_text()
    for ax in figure.axes:
        for labels in (line_labels(ax), shown_labels(ax.xaxis), shown_labels(ax.yaxis)):
            boxes = [Text.get_window_extent(text) for text in labels]
            assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), [t.get_text() for t in labels]
        low, high = sorted(ax.get_ylim())
        is_measured = (
            not ax.images and len(ax.get_yticks()) and not isinstance(ax.yaxis.get_major_formatter(), FixedFormatter)
        )
        assert not is_measured or low <= 0 <= high or "starts at" in ax.get_ylabel(), ax.get_title("left")
    titles = {ax.get_title("left") for ax in figure.axes} - {""}
    boxes = [Text.get_window_extent(text) for text in texts if text.get_text() in titles]
    assert len(boxes) >= len(titles)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), titles
    for legend in figure.legends:
        assert all(has_mark(handle) for handle in legend.legend_handles)


def shown_labels(axis: Any) -> list[Any]:
    """Return the labels of the ticks that are shown within the limits of an axis."""
    low, high = sorted(axis.get_view_interval())
    pairs = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
    return [label for tick, label in pairs if label.get_text() and label.get_visible() and low <= tick <= high]


def has_mark(handle: Any) -> bool:
    """Return whether a handle of a legend shows a line, a mark or an area."""
    if not hasattr(handle, "get_linestyle") or not hasattr(handle, "get_marker"):
        return bool(handle.get_alpha() != 0 and handle.get_visible())
    return handle.get_linestyle() not in ("None", "none", "") or handle.get_marker() not in ("None", "none", "", None)
