"""Committed tables that can be measured again in seconds come out equal, number for number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.calibration.__main__ import TABLE, load_log
from benchmarks.calibration.study import FIXED, KEY, Cell, Setting, Study, read_table
from benchmarks.pages.theory import FIGURES
from frellm4rec.theory.rayleigh import temporal_locality
from spectral_probe import Dataset, ItemGraph
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.bootstrap import percentile_interval, resampled_means


@pytest.fixture(scope="module")
def lastfm(shared_dir) -> Dataset:
    return load_log(shared_dir / "data" / "LastFM" / "LastFM.txt")


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a cell without a signal divides nothing by nothing
@pytest.mark.parametrize("cell", [Cell("e", "one axis", FIXED, 0, 0.0, 30), Cell("f", "own graph", FIXED, 0, 0.0, 50)])
def test_a_cell_of_the_calibration_is_measured_again(cell, lastfm, tmp_path) -> None:
    """Everything below the verdict: graphs, energies, the swap null, bootstrap, retention and its words."""
    committed = read_table(TABLE)
    is_cell = np.logical_and.reduce([committed[name] == getattr(cell, name) for name in KEY])
    expected = committed[is_cell].reset_index(drop=True)
    with threadpool_limits(1):  # a retention of nothing over nothing shows the rounding of every product
        Study(Setting(lastfm), tmp_path / "cells.csv", seed=0).run([cell])
    table = read_table(tmp_path / "cells.csv")
    assert len(table) == len(expected) >= 8
    pd.testing.assert_frame_equal(table, expected[table.columns], check_dtype=False, rtol=1e-3)


@pytest.mark.shared
def test_the_locality_of_lastfm_is_measured_again(lastfm) -> None:
    probe = probe_sequences(lastfm)
    graph = ItemGraph.from_interactions(lastfm.train.user_items)
    adjacency = graph.local_adjacency(probe.targets, probe.lengths, users=probe.users, own_user="drop")
    values = temporal_locality(adjacency, probe.lengths)
    known = values[~np.isnan(values)]
    committed = pd.read_csv(Path(FIGURES) / "locality.csv").iloc[0]
    low, high = percentile_interval(resampled_means(known, n_bootstrap=1000, seed=0))
    assert len(known) == committed["n_users"]
    np.testing.assert_allclose(
        [known.mean(), low, high, (known > 0).mean()],
        committed[["correlation", "low", "high", "share_positive"]].astype(float),
        rtol=1e-5,
    )
