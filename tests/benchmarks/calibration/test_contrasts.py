"""Coverage of the interval between models: what the committed table says, and that it is measured again."""

import numpy as np
import pandas as pd

from benchmarks.calibration.__main__ import CONTRASTS
from benchmarks.calibration.contrasts import (
    METHODS,
    ContrastCell,
    contrast_cells,
    contrasts_section,
    measure_contrasts,
    read_contrasts,
)


def test_the_committed_table_is_complete_and_ours_covers() -> None:
    table = read_contrasts(CONTRASTS)
    assert len(table) == len(contrast_cells()) * len(METHODS)
    by_method = {method: part["coverage"] for method, part in table.groupby("method")}
    assert by_method["ours"].min() >= 0.93
    dominated = table[table["ratio"] == table["ratio"].max()].groupby("method")["coverage"].max()
    assert dominated["users"] < 0.5
    assert dominated["resampled_seeds"] < 0.93


def test_a_cell_is_measured_again() -> None:
    cell = ContrastCell(5.0, 3, True)
    lines: list[str] = []
    table = measure_contrasts([cell], n_draws=40, report=lines.append)
    assert table["method"].tolist() == list(METHODS)
    assert len(lines) == 1
    committed = read_contrasts(CONTRASTS).query("ratio == 5 and n_seeds == 3 and is_paired")
    # 40 of the same draws, against all of them: four standard errors.
    margin = 4 * np.sqrt(committed["coverage"] * (1 - committed["coverage"]) / 40) + 0.01
    assert (np.abs(table["coverage"].to_numpy() - committed["coverage"].to_numpy()) < margin.to_numpy()).all()
    pd.testing.assert_frame_equal(table, measure_contrasts([cell], n_draws=40, report=lines.append))


def test_the_section_shows_every_cell() -> None:
    table = read_contrasts(CONTRASTS)
    text = contrasts_section(table)
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(contrast_cells()) + 2
    assert f"{100 * table['coverage'].iloc[0]:.1f}" in text
