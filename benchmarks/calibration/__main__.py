"""Run the calibration and write ``figures/calibration/cells.csv`` and ``docs/calibration.md``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.calibration.report import write_markdown
from benchmarks.calibration.study import Setting, Study, cells, read_table
from frellm4rec.data.lastfm import load_lastfm
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions

ROOT = Path(__file__).resolve().parents[2]
DOCS, TABLE = ROOT / "docs", ROOT / "figures" / "calibration" / "cells.csv"


def load_log(path: Path) -> Dataset:
    """Read ``LastFM.txt`` in S3-Rec's format (``user item item …``, numbers from 1), or HetRec's raw folder or zip."""
    if path.suffix != ".txt":
        return load_lastfm(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    sequences = [np.array(line.split()[1:], dtype=np.int64) - 1 for line in lines if line.strip()]
    return Dataset.from_interactions(Interactions.from_sequences(sequences), name="lastfm")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--log", type=Path, help="LastFM.txt, or HetRec's folder or zip; without it only the report")
    parser.add_argument("--csv", type=Path, default=TABLE, help="results; finished cells are kept")
    parser.add_argument("--markdown", type=Path, default=DOCS / "calibration.md")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the repetitions (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.log is not None:
        setting = Setting(load_log(options.log))
        Study(setting, options.csv, seed=options.seed).run(cells(options.scale, setting.n_users))
    write_markdown(read_table(options.csv), options.markdown)


if __name__ == "__main__":
    main()
