import numpy as np
import pandas as pd
import pytest

from benchmarks.calibration import worlds
from benchmarks.calibration.measures import FIRST, TASTE, Judged
from benchmarks.calibration.study import (
    DATASETS,
    NULL_ONLY,
    Cell,
    Study,
    cells,
    false_verdicts,
    read_table,
    statistics,
)

SMALL = [
    Cell("LastFM", "popularity", 6),
    Cell("LastFM", "random item vectors, repeats", 2),
    Cell("LastFM", "taste halved", 6),
    Cell("ml-100k", "noise", 3),
]


def _run(small_probe, path, cells) -> pd.DataFrame:
    return Study(lambda _: small_probe, path, n_bootstrap=100).run(cells)


def test_an_interrupted_study_in_another_order_ends_in_the_same_table(small_probe, tmp_path) -> None:
    straight, halted = tmp_path / "straight.csv", tmp_path / "halted.csv"
    _run(small_probe, straight, SMALL)
    _run(small_probe, halted, [SMALL[3], SMALL[1]])
    started = read_table(halted)
    _run(small_probe, halted, SMALL[::-1])
    tables = [read_table(path) for path in (straight, halted)]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))
    kept = tables[1].merge(started, on=["dataset", "world", "measure", "seconds"])
    assert len(kept) == len(started) == 4  # cells in the table were not run again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["halted.csv", "straight.csv"]

    table = tables[0].set_index(["dataset", "world", "measure"])
    assert table.loc[("LastFM", "popularity", FIRST), "draws"] == 6
    rates = table[["attenuated", "amplified", "preserved", "inconclusive", "none"]]
    np.testing.assert_allclose(rates.sum(axis=1), 1, atol=1e-5)
    halved = table.loc[("LastFM", "taste halved", TASTE)]
    assert halved["truth"] == halved["ratio_of_means"]
    assert 0 <= halved["coverage"] <= 1
    assert np.isnan(table.loc[("LastFM", "taste halved", FIRST), "truth"])
    assert np.isfinite(table.loc[("LastFM", "random item vectors, repeats", TASTE), "exchanged_sd"])


def test_more_draws_replace_a_cell_and_begin_with_its_draws(small_probe, tmp_path) -> None:
    path = tmp_path / "t.csv"
    few = _run(small_probe, path, [Cell("LastFM", "noise", 2)])
    study = Study(lambda _: small_probe, path, n_bootstrap=100)
    probe = study.measures("LastFM").probe
    states = [study._states(Cell("LastFM", "noise", n), worlds.world("noise"), probe, 1) for n in (2, 4)]
    np.testing.assert_array_equal(*states)
    more = _run(small_probe, path, [Cell("LastFM", "noise", 4)])
    assert few["draws"].tolist() == [2, 2]
    assert more["draws"].tolist() == [4, 4]
    again = _run(small_probe, path, [Cell("LastFM", "noise", 2)])
    pd.testing.assert_frame_equal(again, read_table(path), check_dtype=False, rtol=1e-5)
    assert again["draws"].tolist() == [4, 4]


def test_only_null_worlds_run_on_the_data_set_of_null_worlds() -> None:
    wanted = cells(null_draws=3, taste_draws=5)
    assert {c.dataset for c in wanted} == set(DATASETS)
    for cell in wanted:
        has_taste = worlds.world(cell.world).has_taste
        assert cell.draws == (5 if has_taste else 3)
        assert not (has_taste and cell.dataset == NULL_ONLY)


@pytest.mark.parametrize(
    ("world", "truth", "label", "is_false"),
    [
        ("noise", np.nan, "no measurable taste", False),
        ("noise", np.nan, "inconclusive", True),
        ("nothing changes", 1.0, "attenuated", True),
        ("nothing changes", 1.0, "amplified", True),
        ("nothing changes", 1.0, "preserved", False),
        ("taste halved", 0.5, "attenuated", False),
        ("taste halved", 0.5, "preserved", True),
        ("taste halved", 0.5, "inconclusive", False),
    ],
)
def test_a_word_is_false_by_the_truth(world, truth, label, is_false) -> None:
    judged = [Judged(3.0, 3.0, 1.0, 0.9, 1.1, label)] * 2
    row = {**statistics(judged), "truth": truth}
    assert false_verdicts(judged, worlds.world(world), row) == float(is_false)
