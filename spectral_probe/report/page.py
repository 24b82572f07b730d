"""The page of a result: sections of text, tables, pictures and charts, written as one file without outside parts."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spectral_probe.figure_style import PALETTE
from spectral_probe.report.vega import chart_library
from spectral_probe.storage.atomic import write_text
from spectral_probe.storage.hashing import digest

#: A page is at most this large, in bytes.
MOST_BYTES = 3_000_000
#: The palette where the background is dark: the same hues, light enough to be told from it.
DARK_PALETTE = ("#56B4E9", "#F08A4B", "#2FBF92", "#E394C1", "#F0C04A", "#8FB8FF", "#E8E8E8")

#: A cell that is a number, with or without its interval, or the lack of one.
_NUMBER = re.compile(r"–|n/a||[+−-]?\d[\d.,]*( ± [\d.]+)?( \[[^\]]*\])?")
#: How a chart is read without a mouse.
KEYS = "Arrow keys step through the points; Enter chooses one where it can be chosen."


@dataclass(frozen=True)
class Words:
    """A paragraph.

    Attributes
    ----------
    text : str
    look : {"plain", "caveat", "item", "note"}
    lead, code : str
        Bold words before the text; a code after it.
    """

    text: str
    look: str = "plain"
    lead: str = ""
    code: str = ""
    kind: ClassVar[str] = "words"


@dataclass(frozen=True)
class Mark:
    """A verdict in one line: what it is about, its glyph, its look (a class of the style sheet) and its label."""

    about: str
    glyph: str
    look: str
    label: str


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of one model, or of one comparison: a mark for each, then sentences.

    Attributes
    ----------
    title : str
    marks : sequence of Mark
    sentences : str
    look : {"verdict", "comparison"}
    color : int or None
        Number of the model's colour in the palette, where the page has several models.
    """

    title: str
    marks: Sequence[Mark]
    sentences: str
    look: str = "verdict"
    color: int | None = None
    kind: ClassVar[str] = "verdicts"


@dataclass(frozen=True)
class Table:
    """A table; a click on the head of a column sorts it.

    Attributes
    ----------
    title : str
        Above the table; with ``is_open`` it folds and unfolds the table.
    head : sequence of str
    rows : sequence of sequences of str
    is_open : bool or None
        None for a table that does not fold.
    name : str
        Of a table without a title, for a reader who does not see it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_open: bool | None = None
    name: str = ""
    kind: ClassVar[str] = "table"

    @property
    def number_columns(self) -> list[bool]:
        """Whether each column holds numbers alone, with or without their intervals."""
        return [all(_NUMBER.fullmatch(cell) for cell in column) for column in zip(*self.rows, strict=True)]


@dataclass(frozen=True)
class Picture:
    """A picture as PNG, shown where no chart can be drawn and folded away where one is."""

    title: str
    caption: str
    png: bytes
    kind: ClassVar[str] = "picture"

    @property
    def content(self) -> str:
        """The picture in base64."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Choice:
    """A control that sets a signal of the charts of its panel.

    Attributes
    ----------
    signal : str
        Name of a parameter of the charts.
    label : str
    look : {"menu", "checks", "switch"}
        A menu of which one is chosen, boxes to check, or one box.
    options : sequence of (value, text)
    chosen : sequence of str
        The values that are set at first; a switch is on if this is not empty.
    is_legend : bool
        Checks that show the colour of each option, in the order of the palette.
    term : str
        Explained at the control, if the page has an explanation.
    """

    signal: str
    label: str
    look: str
    options: Sequence[tuple[str, str]] = ()
    chosen: Sequence[str] = ()
    is_legend: bool = False
    term: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart of a panel.

    Attributes
    ----------
    name : str
        Unique on the page.
    spec : dict
        A Vega-Lite specification whose data are named; see :class:`Page`.
    description : str
        What the chart shows, for a reader who does not see it.
    """

    name: str
    spec: Mapping[str, Any]
    description: str


@dataclass(frozen=True)
class Panel:
    """Charts that share their controls; shown only where they can be drawn.

    Attributes
    ----------
    title : str
    charts : sequence of Chart
    choices : sequence of Choice
    note : str
        Below the charts.
    is_side_by_side : bool
        Whether charts lie beside each other where the page is wide.
    picks : str
        The menu whose entry is chosen by a click on a point; the items of the entry are listed below the charts, from
        the data ``histories`` and ``items``.
    """

    title: str
    charts: Sequence[Chart]
    choices: Sequence[Choice] = ()
    note: str = ""
    picks: str = ""
    is_side_by_side: bool = False
    kind: ClassVar[str] = "panel"


@dataclass(frozen=True)
class Settings:
    """Settings that differ from the default, with the default, and the rest, folded."""

    changed: Sequence[tuple[str, str, str]]
    rest: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "settings"


@dataclass(frozen=True)
class Files:
    """Files beside the page, as links."""

    names: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "files"


@dataclass(frozen=True)
class Command:
    """Commands that make the result again."""

    lines: Sequence[str]
    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading; without a title its blocks follow what is above."""

    title: str
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Page:
    """Everything that is on a page.

    Attributes
    ----------
    title, heading : str
        Of the window and of the page.
    sections : sequence of Section
    data : {name: {column: values}}
        The data of the charts, as :func:`spectral_probe.report.columns.columns_of` returns them.
    terms : {term: text}
        Explanations, shown where a term is the head of a column, the first cell of a row, the name of a verdict, the
        code of a caveat, or at a control. Those that are not used are left out.
    """

    title: str
    heading: str
    sections: Sequence[Section]
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    terms: Mapping[str, str] = field(default_factory=dict)

    @property
    def panels(self) -> list[Panel]:
        """The panels of all sections."""
        return [block for section in self.sections for block in section.blocks if block.kind == "panel"]


def render(page: Page) -> str:
    """Return a page as HTML; without the packages of the extra ``report`` it has no charts.

    Every text is escaped. The page names the only scripts that may run, by their hashes, and may load nothing.
    """
    library = chart_library() if page.panels else None
    scripts = [] if library is None else [library, _asset("explore.js")]
    environment = Environment(
        loader=PackageLoader("spectral_probe.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    charts = [chart for panel in page.panels for chart in panel.charts]
    content = {
        "data": page.data,
        "specs": {chart.name: {**chart.spec, "description": f"{chart.description} {KEYS}"} for chart in charts},
        "palettes": {"light": PALETTE, "dark": DARK_PALETTE},
    }
    text: str = environment.get_template("page.html.j2").render(
        page=page,
        content=content if scripts else None,
        scripts=[Markup(script) for script in scripts],
        hashes=[_integrity(f"\n{script}\n") for script in scripts],
        style=Markup(_asset("page.css")),
        palettes=list(zip(PALETTE, DARK_PALETTE, strict=True)),
        terms=_Terms(page.terms),
    )
    return text


class _Terms:
    """The explanations of a page, and which of them a template has used."""

    def __init__(self, terms: Mapping[str, str]) -> None:
        self._terms = {name.lower(): text for name, text in terms.items()}
        self.used: dict[str, int] = {}

    def find(self, name: str) -> dict[str, Any] | None:
        """Return number and text of the explanation of a term, whatever its case; None if there is none."""
        text = self._terms.get(name.lower())
        return None if text is None else {"number": self.used.setdefault(text, len(self.used)), "text": text}


def write_page(path: Path, page: Page) -> Path:
    """Write a page and return its path."""
    write_text(path, render(page).rstrip("\n"))
    return path


def _asset(name: str) -> str:
    return (resources.files("spectral_probe.report") / "templates" / name).read_text(encoding="utf-8")


def _integrity(script: str) -> str:
    return "sha256-" + base64.b64encode(bytes.fromhex(digest([script]))).decode()
