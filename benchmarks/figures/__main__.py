"""Write the paper's figures and tables from the committed CSVs.

::

    python -m benchmarks.figures                              # all, and docs/paper_figures.md
    python -m benchmarks.figures --only fig1a,table3 --data lastfm --figure-width 85
    python -m benchmarks.figures --collect lastfm RUN…        # first copy the tables of finished runs
    python -m benchmarks.figures --count all-beauty DIR       # first count a data set from its raw files
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.figures.build import FIGURES, PAGE, collect, data_set, write_all, write_page
from benchmarks.figures.items import DATASETS, ITEMS, stem
from benchmarks.figures.tables import count
from spectral_probe.errors import SpectralProbeError
from spectral_probe.figure_style import DEFAULT_WIDTH, WIDTHS


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, folders = [item.name for item in ITEMS], [data.folder for data in DATASETS]
    parser.add_argument("--only", default="", metavar="NAMES", help=f"of {', '.join(names)}")
    parser.add_argument("--data", default="", metavar="NAMES", help=f"of {', '.join(folders)}")
    parser.add_argument("--figure-width", type=int, choices=WIDTHS, default=DEFAULT_WIDTH, help="in mm")
    parser.add_argument("--collect", nargs="+", metavar=("DATA", "RUN"), help="copy the tables of finished runs first")
    parser.add_argument("--count", nargs=2, metavar=("DATA", "DIR"), help="count a data set from its raw files first")
    options = parser.parse_args(arguments)
    try:
        _collect(options)
    except SpectralProbeError as error:
        parser.error(str(error))
    only, data = (_names(parser, text, known) for text, known in ((options.only, names), (options.data, folders)))
    made = write_all(FIGURES, width=options.figure_width, datasets=data, names=only)
    for entry in made:
        path = stem(FIGURES, entry.data, entry.item)
        if entry.content is not None:
            print(f"{entry.data.folder:14} {entry.item.name:7} {path.relative_to(FIGURES.parent)}")
    missing = [entry for entry in made if entry.content is None]
    for entry in missing:
        print(f"{entry.data.folder:14} {entry.item.name:7} not run yet: {entry.command}")
    if not only and not data and options.figure_width == DEFAULT_WIDTH:
        write_page(made)
        print(f"page: {PAGE.relative_to(FIGURES.parent)}")


def _collect(options: argparse.Namespace) -> None:
    """Copy tables of runs, and count a data set, if that is asked."""
    if options.collect:
        folder, *runs = options.collect
        collect(folder, [Path(run) for run in runs])
    if options.count:
        folder, raw = options.count
        count(FIGURES / folder, data_set(folder), Path(raw))


def _names(parser: argparse.ArgumentParser, text: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    return names


if __name__ == "__main__":
    main()
