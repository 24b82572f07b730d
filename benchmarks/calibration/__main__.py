"""Run the calibration and write the tables in ``figures/calibration/`` and ``docs/calibration.md``."""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

from benchmarks.calibration.contrasts import read_contrasts, write_contrasts
from benchmarks.calibration.probes import MAX_LENGTH, Probe, load_dataset
from benchmarks.calibration.report import write_markdown
from benchmarks.calibration.study import DATASETS, Study, cells, read_table

ROOT = Path(__file__).resolve().parents[2]
DOCS, TABLE = ROOT / "docs", ROOT / "figures" / "calibration" / "cells.csv"
CONTRASTS = TABLE.with_name("contrasts.csv")


def main() -> None:
    """Parse the arguments, run the missing cells if there is data, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--data", type=Path, help=f"folder with {', '.join(DATASETS)}; without it only the page")
    parser.add_argument("--csv", type=Path, default=TABLE, help="results; finished cells are kept")
    parser.add_argument("--markdown", type=Path, default=DOCS / "calibration.md")
    parser.add_argument("--null-draws", type=int, default=40, help="draws of worlds without taste (default 40)")
    parser.add_argument("--taste-draws", type=int, default=40, help="draws of worlds with taste (default 40)")
    parser.add_argument("--dataset", action="append", choices=DATASETS, help="only these")
    parser.add_argument("--world", action="append", help="only these")
    parser.add_argument("--cache", type=Path, help="folder for what depends on the data sets alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contrasts", action="store_true", help="measure the intervals between models again")
    options = parser.parse_args()

    @cache
    def probe(name: str) -> Probe:
        return Probe.of(load_dataset(options.data, name), max_length=MAX_LENGTH[name], cache_dir=options.cache)

    if options.data is not None:
        wanted = [
            cell
            for cell in cells(null_draws=options.null_draws, taste_draws=options.taste_draws)
            if cell.dataset in (options.dataset or DATASETS) and cell.world in (options.world or [cell.world])
        ]
        Study(probe, options.csv, seed=options.seed).run(wanted)
    if options.contrasts:
        write_contrasts(CONTRASTS)
    write_markdown(read_table(options.csv), read_contrasts(CONTRASTS), options.markdown)


if __name__ == "__main__":
    main()
