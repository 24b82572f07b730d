"""Make every figure and table of the paper from the committed CSVs, and the page that lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.figures import curves, tables
from benchmarks.figures.items import DATASETS, ITEMS, DataSet, Item, published, stem
from benchmarks.figures.tables import PaperTable
from benchmarks.pages import curves as probed_curves
from benchmarks.pages import reprobe
from benchmarks.pages.claims import read_claims
from frellm4rec.experiments.tables import ExperimentTables
from spectral_probe.errors import ConfigError
from spectral_probe.figure_style import DEFAULT_WIDTH, PaperFigure
from spectral_probe.runs.analysis_run import COMPARISON, AnalysisRun
from spectral_probe.storage.atomic import write_text

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures"
PAGE = ROOT / "docs" / "paper_figures.md"
#: Returns a figure or a table of the folder of a data set; None where its runs are not there.
Make = Callable[[Path, DataSet, int], PaperFigure | PaperTable | None]
SWEEPS = {"fig3": "kept", "fig5": "alpha", "fig6": "cutoff"}


def _curve(make: Callable[[Path, int], PaperFigure | None], folder: Path, _: DataSet, width: int) -> PaperFigure | None:
    return make(folder, width)


def _sweep(name: str, folder: Path, data: DataSet, width: int) -> PaperFigure | None:
    return tables.sweep(name, folder, data, width)


def _table(
    make: Callable[[Path, DataSet], PaperTable | None], folder: Path, data: DataSet, _: int
) -> PaperTable | None:
    return make(folder, data)


MAKERS: dict[str, Make] = {
    **{name: partial(_curve, getattr(curves, name)) for name in ("fig1a", "fig1b", "fig4", "fig8")},
    **{name: partial(_sweep, experiment) for name, experiment in SWEEPS.items()},
    **{name: partial(_table, getattr(tables, name)) for name in ("table1", "table2", "table3", "table4", "table5")},
}


@dataclass(frozen=True)
class Made:
    """An item on a data set: the figure or table with its caption, or None and the command of its runs."""

    item: Item
    data: DataSet
    content: PaperFigure | PaperTable | None

    @property
    def command(self) -> str:
        """Commands that make its runs."""
        return self.item.command(self.data)


def make_all(
    figures: Path = FIGURES,
    *,
    width: int = DEFAULT_WIDTH,
    datasets: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Iterator[Made]:
    """Yield every figure and table on every data set, in the order of the paper.

    Parameters
    ----------
    figures : Path
        Folder with a folder for each data set.
    width : int
        85 or 178, in mm.
    datasets, names : sequence of str
        Only these folders, and these items; empty: all.
    """
    claims = read_claims()
    for data in DATASETS:
        for item in ITEMS:
            if (datasets and data.folder not in datasets) or (names and item.name not in names):
                continue
            content = MAKERS[item.name](figures / data.folder, data, width)
            if content is not None:
                words = f"{item.title}; {data.caption}. {content.caption}".strip()
                content = replace(content, caption=f"{words} The paper: {published(item, claims)}")
            yield Made(item, data, content)


def write_all(figures: Path = FIGURES, **options: object) -> list[Made]:
    """Write every figure and table whose CSVs are there, beside them; return all."""
    made = list(make_all(figures, **options))  # type: ignore[arg-type]
    for entry in made:
        if entry.content is not None:
            entry.content.save(stem(figures, entry.data, entry.item))
    return made


def data_set(folder: str) -> DataSet:
    """Return the data set of a folder.

    Raises
    ------
    ConfigError
        If there is none.
    """
    known = {data.folder: data for data in DATASETS}
    if folder not in known:
        raise ConfigError(f"The data sets of the figures are {', '.join(known)}; got {folder!r}.")
    return known[folder]


def collect(folder: str, runs: Sequence[Path], figures: Path = FIGURES) -> None:
    """Copy the tables of finished runs into the folder of a data set.

    Experiments have a folder of their own; comparisons go to ``reprobe/``; analyses, given together, become the curves.

    Raises
    ------
    ConfigError
        If the folder is none of the data sets.
    """
    data_set(folder)
    target, analyses, comparisons = figures / folder, [], []
    for path in runs:
        if (path / "cells.csv").exists():
            loaded = ExperimentTables.load(path)
            loaded.save(target / str(loaded.cells["experiment"].iloc[0]))
        elif AnalysisRun.open(path).state().get("kind") == COMPARISON:
            comparisons.append(path)
        else:
            analyses.append(path)
    if analyses:
        probed_curves.collect(analyses, target)
    if comparisons:
        reprobe.collect(comparisons, target / "reprobe")


def page(made: Sequence[Made]) -> str:
    """Return the text of the page: every figure and table, or the command whose runs make it."""
    lines = [
        "# The paper's figures and tables",
        "",
        "<!-- Written by `make figures` from figures/; do not edit by hand. -->",
        "",
        "Each is made from the committed CSVs and stands beside its published form: the published quantity, the "
        "printed number, or, where the paper draws a curve without numbers, what it says of it. `make figures` makes "
        "them again; beside each picture lie the PDF, the SVG, the numbers (CSV), the caption (txt) and a LaTeX table "
        "(tex).",
        "",
    ]
    for data in DATASETS:
        entries = [entry for entry in made if entry.data == data]
        lines += [f"## {data.title}", ""]
        for entry in entries:
            if entry.content is not None:
                lines += _entry(entry)
        missing = [entry for entry in entries if entry.content is None]
        if missing:
            lines += ["Not run yet:", "", "| | what | command |", "|---|---|---|"]
            lines += [f"| {e.item.name} | {e.item.title} | `{e.command.replace('|', '/')}` |" for e in missing]
            lines.append("")
    return "\n".join(lines).rstrip("\n")


def _entry(entry: Made) -> list[str]:
    name, content = entry.item.name, entry.content
    assert content is not None
    lines = [f"### {entry.data.title}, {name}: {entry.item.title}", ""]
    if isinstance(content, PaperFigure):
        lines += [f"![{entry.item.title}](../figures/{entry.data.folder}/{name}.png)", ""]
    table = content.table.fillna(tables.ABSENT)
    lines += ["| " + " | ".join(table.columns) + " |", "|" + "---|" * table.shape[1]]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in table.itertuples(index=False)]
    return [*lines, "", content.caption, ""]


def write_page(made: Sequence[Made], path: Path = PAGE) -> None:
    """Write the page."""
    write_text(path, page(made))
