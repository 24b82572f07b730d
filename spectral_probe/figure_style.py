"""What all figures share: palette, size in print, labels at the ends of lines, and how a figure is written.

A figure is 85 mm wide (one column of a paper) or 178 mm (both), and all its text is 8 pt. The functions that return a
whole figure draw inside :func:`paper_style` and end with :func:`finish`; functions that draw on the caller's axes leave
the caller's style alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from spectral_probe.errors import ConfigError
from spectral_probe.storage.atomic import whole_file, write_csv, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, told apart by every common kind of colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Marks of the first, second, … seven models, whose colours repeat.
SHAPES = ("o", "s", "^", "v")
#: The colour of reference lines, and of marks in a legend that stand for every model.
NULL_GREY = "#8A8A8A"
GRID = "#E4E4E4"
#: Widths of a figure in mm: one column, both columns.
WIDTHS = (85, 178)
DEFAULT_WIDTH = 178
FONT_SIZE = 8.0
#: Settings of matplotlib in which figures are drawn and written: 8 pt, TrueType fonts in PDF, outlines in SVG.
STYLE: dict[str, Any] = {
    **dict.fromkeys(
        ("font.size", "axes.titlesize", "axes.labelsize", "figure.titlesize", "legend.fontsize"), FONT_SIZE
    ),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.title_fontsize"), FONT_SIZE),
    **{"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "axes.titlelocation": "left"},
    **{"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "spectral_probe"},
    **{"lines.linewidth": 1.2, "lines.markersize": 3.0, "axes.linewidth": 0.6, "axes.titlepad": 5.0},
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5},
    **{"legend.frameon": False, "legend.handlelength": 1.6, "legend.columnspacing": 1.2},
}
#: Characters of a label at the end of a line, before it is broken.
LABEL_WIDTH = 15
#: Group of the labels at the ends of lines; they are written into the SVG under it.
LINE_LABEL = "line-label"
_MM = 1 / 25.4
#: Distance of a label from its axes, in points.
_LABEL_GAP = 5.0
_PNG_DPI = 200
#: Signs that a plain LaTeX has no letter for.
_LATEX = {
    **{"−": "$-$", "τ": r"$\tau$", "λ": r"$\lambda$", "α": r"$\alpha$", "×": r"$\times$", "±": r"$\pm$"},
    **{"–": "--", "↑": r"$\uparrow$"},
}


@dataclass(frozen=True)
class PaperFigure:
    """A figure with what lies beside it in print.

    Attributes
    ----------
    figure : Figure
    data : DataFrame
        The numbers behind it.
    caption : str
        Caption in plain text.
    table : DataFrame
        Its main numbers as texts, for a table of a paper.
    """

    figure: Figure
    data: pd.DataFrame
    caption: str
    table: pd.DataFrame

    def save(self, stem: Path) -> None:
        """Write ``stem.png``, ``.pdf``, ``.svg``, ``.csv``, the caption ``.txt`` and the table ``.tex``."""
        save_figure(self.figure, stem, self.data)
        write_caption(stem, self.caption, self.table)


def check_width(width: int) -> int:
    """Return a width of a figure in mm.

    Raises
    ------
    ConfigError
        If it is not one of :data:`WIDTHS`.
    """
    if width not in WIDTHS:
        raise ConfigError(
            f"A figure is {WIDTHS[0]} mm wide (one column of a paper) or {WIDTHS[1]} mm (both); got {width}. "
            f"Choose --figure-width {WIDTHS[0]} or {WIDTHS[1]}."
        )
    return width


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and write in the size and the fonts of a paper; the settings before come back at the end."""
    import matplotlib

    settings: Any = STYLE
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: int, height: float) -> Figure:
    """Return an empty figure of a width and a height in mm, whose panels share the room between their labels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=1.2 / 72, h_pad=1.2 / 72)
    return Figure(figsize=(check_width(width) * _MM, height * _MM), layout=layout)


def panel_height(labels: Sequence[str], least: float = 40.0) -> float:
    """Return the height in mm of a panel in which these labels fit beside the lines."""
    lines = sum(wrapped(label).count("\n") + 1 for label in labels)
    return max(least, lines * FONT_SIZE * 1.25 / 72 / _MM + 6.0)


def model_styles(models: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the colour and the mark of each model; after seven models the colours come again with another mark."""
    n = len(PALETTE)
    return {model: (PALETTE[i % n], SHAPES[i // n % len(SHAPES)]) for i, model in enumerate(dict.fromkeys(models))}


def style_axes(ax: Axes, *, grid: str = "y") -> None:
    """Leave the axes their left and lower line, with a light grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)
    ax.grid(axis=grid, color=GRID, linewidth=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=FONT_SIZE)


def ink(color: str) -> tuple[float, ...]:
    """Return a darker shade of a colour, which can be read as text on white."""
    from matplotlib.colors import to_rgb

    return tuple(0.68 * part for part in to_rgb(color))


def wrapped(label: str, width: int = LABEL_WIDTH) -> str:
    """Return a label in lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(label, width)) or label


def label_line_end(ax: Axes, x: float, y: float, label: str, color: str) -> None:
    """Write a label right of the axes, with a thin line to the point (x, y); :func:`finish` moves labels apart."""
    if not np.isfinite(y):
        return
    ax.annotate(
        wrapped(label),
        xy=(x, y),
        xytext=(1.0, y),
        textcoords=_right_edge(ax),
        color=ink(color),
        va="center",
        linespacing=1.0,
        annotation_clip=False,
        parse_math=False,
        gid=LINE_LABEL,
        arrowprops={
            **{"arrowstyle": "-", "color": color, "linewidth": 0.5, "alpha": 0.7},
            **{"shrinkA": 1.0, "shrinkB": 2.0, "relpos": (0.0, 0.5)},
        },
    )


def line_labels(ax: Axes) -> list[Any]:
    """Return the labels at the ends of the lines of the axes."""
    return [text for text in ax.texts if text.get_gid() == LINE_LABEL]


def say_where_it_starts(ax: Axes, axis: str = "y", factor: float = 1.0) -> None:
    """Write on an axis that does not include 0 where it starts; its labels are the values times ``factor``."""
    low, high = sorted(ax.get_ylim() if axis == "y" else ax.get_xlim())
    if low <= 0 <= high:
        return
    label = f"axis starts at {low * factor:.2g}"
    if axis == "x":
        ax.set_xlabel(f"{ax.get_xlabel()} ({label})" if ax.get_xlabel() else label)
    else:
        ax.set_ylabel("\n".join(part for part in (ax.get_ylabel(), label) if part))


def finish(figure: Figure) -> Figure:
    """Lay the figure out and freeze the layout; move labels of lines apart, leave out those of ticks that overlap."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        _spread_labels(ax)
        for axis in (ax.xaxis, ax.yaxis):
            _thin_labels(axis)
    return figure


def proxy(**style: Any) -> Any:
    """Return a grey legend handle."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=NULL_GREY, **{"linestyle": "none", **style})


def band_proxy() -> Any:
    """Return the legend handle of a ribbon."""
    from matplotlib.patches import Patch

    return Patch(facecolor=NULL_GREY, alpha=0.3, linewidth=0)


def save_figure(figure: Figure, stem: Path, data: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> None:
    """Write ``stem.png``, ``stem.pdf``, ``stem.svg`` and the numbers behind them, ``stem.csv``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png: Any = FigureCanvasAgg
    pdf: Any = FigureCanvasPdf
    svg: Any = FigureCanvasSVG
    # The canvases write a figure that is laid out as it is; figure.savefig would lay it out again for each format.
    if figure.get_layout_engine() is not None:
        finish(figure)
    with paper_style():
        dpi = figure.dpi
        figure.set_dpi(_PNG_DPI)
        with whole_file(stem.with_suffix(".png")) as partial:
            png(figure).print_png(partial)
        figure.set_dpi(dpi)
        # Without a date the same figure is the same file.
        with whole_file(stem.with_suffix(".pdf")) as partial:
            pdf(figure).print_pdf(partial, metadata={"CreationDate": None, **(metadata or {})})
        with whole_file(stem.with_suffix(".svg")) as partial:
            svg(figure).print_svg(partial, metadata={"Date": None})
    write_csv(stem.with_suffix(".csv"), data, float_format="%.10g")


def write_caption(stem: Path, caption: str, table: pd.DataFrame) -> None:
    """Write the caption of a figure, ``stem.txt``, and its numbers as a LaTeX table (booktabs), ``stem.tex``."""
    write_text(stem.with_suffix(".txt"), textwrap.fill(caption, 100))
    write_text(stem.with_suffix(".tex"), booktabs(table))


def save_table(stem: Path, caption: str, table: pd.DataFrame) -> None:
    """Write a table of texts, ``stem.csv``, with its caption, ``.txt``, and as a LaTeX table, ``.tex``."""
    write_csv(stem.with_suffix(".csv"), table)
    write_caption(stem, caption, table)


def booktabs(table: pd.DataFrame) -> str:
    """Return a table of texts as LaTeX for the package booktabs, the first column left and the others right."""
    columns = "l" + "r" * (table.shape[1] - 1)
    text = table.to_latex(index=False, escape=True, column_format=columns, na_rep="n/a").rstrip("\n")
    for sign, command in _LATEX.items():
        text = text.replace(sign, command)
    return f"% needs \\usepackage{{booktabs}}\n{text}"


def _right_edge(ax: Axes) -> Any:
    """Return the coordinates of a label: the right edge of the axes and a gap, and data units upwards."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    scale = ax.figure.dpi_scale_trans
    return blended_transform_factory(ax.transAxes + ScaledTranslation(_LABEL_GAP / 72, 0, scale), ax.transData)


def _spread_labels(ax: Axes) -> None:
    """Move the labels of the axes up and down until none overlaps another, as little as that takes.

    The least squares of all moves, under the condition that neighbours keep their distance, is an isotonic regression
    of the heights less the room that the labels below take.
    """
    labels = line_labels(ax)
    if not labels:
        return
    transform = ax.transData
    labels.sort(key=lambda text: transform.transform(text.xy)[1])
    heights = np.array([_text_height(text) for text in labels])
    wanted = np.array([transform.transform(text.xy)[1] for text in labels])
    distances = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2 + 1.0)])
    box = ax.get_window_extent()
    low, high = box.y0 + heights[0] / 2, box.y1 - heights[-1] / 2 - distances[-1]
    low = min(low, (low + high) / 2) if high < low else low
    free = np.clip(isotonic_regression(wanted - distances).x, low, max(low, high))
    for text, height in zip(labels, free + distances, strict=True):
        text.set_position((1.0, transform.inverted().transform((box.x1, height))[1]))


def _thin_labels(axis: Any) -> None:
    """Hide the labels of ticks that overlap another one; the first and the last stay."""
    ticks = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
    boxes = [label.get_window_extent().padded(1.0) for label in ticks]
    shown: list[int] = []
    for number in dict.fromkeys((0, len(ticks) - 1, *range(len(ticks)))) if ticks else ():
        if any(boxes[number].overlaps(boxes[other]) for other in shown):
            ticks[number].set_visible(False)
        else:
            shown.append(number)


def _text_height(text: Any) -> float:
    """Return the height in pixels of the text of an annotation, without its line."""
    from matplotlib.text import Text

    return float(Text.get_window_extent(text).height)
