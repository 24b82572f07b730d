from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.calibration.__main__ import CONTRASTS, DOCS, TABLE
from benchmarks.calibration.acceptance import failures
from benchmarks.calibration.contrasts import read_contrasts
from benchmarks.calibration.measures import TASTE
from benchmarks.calibration.report import markdown, write_markdown
from benchmarks.calibration.study import cells, read_table

MOST_LINES = 180


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    assert TABLE.exists(), f"{TABLE} is missing; run python -m benchmarks.calibration --data FOLDER."
    return read_table(TABLE)


def test_the_page_is_written_from_the_table_byte_for_byte(committed, tmp_path) -> None:
    write_markdown(committed, read_contrasts(CONTRASTS), tmp_path / "calibration.md")
    assert (tmp_path / "calibration.md").read_bytes() == (DOCS / "calibration.md").read_bytes()


def test_the_page_is_short_and_names_every_failing_cell(committed) -> None:
    page = Path(DOCS / "calibration.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= MOST_LINES
    for _, row in committed[committed["measure"] == TASTE].iterrows():
        for failure in failures(row):
            # A list item, or one of the cells within chance, which are one wrapped paragraph.
            _, _, rest = " ".join(page.split()).partition(f"{row['dataset']}, {row['world']}: ")
            assert failure.text in rest[:160]


def test_the_committed_study_is_complete(committed) -> None:
    done = committed.groupby(["dataset", "world"])["draws"].min()
    wanted = {(cell.dataset, cell.world): cell.draws for cell in cells()}
    assert set(done.index) == set(wanted)
    assert all(done[key] >= min(draws, 40) for key, draws in wanted.items())


def test_a_failing_cell_changes_the_page(committed) -> None:
    changed = committed.copy()
    is_cell = (changed["world"] == "noise") & (changed["measure"] == TASTE)
    changed.loc[is_cell, "mean_z"] = 7.7
    contrasts = read_contrasts(CONTRASTS)
    assert "noise: mean z +7.7" in markdown(changed, contrasts)
    assert "noise: mean z +7.7" not in markdown(committed, contrasts)
    assert np.isfinite(committed["mean_z"]).all()
