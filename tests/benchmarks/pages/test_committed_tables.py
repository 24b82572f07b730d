"""Committed tables that can be measured again in seconds come out equal, number for number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.calibration.__main__ import TABLE
from benchmarks.calibration.probes import MAX_LENGTH, Probe, load_dataset
from benchmarks.calibration.study import Cell, Study, read_table
from benchmarks.pages.theory import FIGURES
from frellm4rec.theory.rayleigh import ROUNDING, temporal_locality
from spectral_probe import Dataset, ItemGraph
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.bootstrap import percentile_interval, resampled_means


@pytest.fixture(scope="module")
def lastfm(shared_dir) -> Dataset:
    return load_dataset(shared_dir / "data", "LastFM")


@pytest.mark.slow
@pytest.mark.shared
def test_a_cell_of_the_calibration_is_measured_again(shared_dir, tmp_path) -> None:
    """The whole way: graphs, matching, pilot, treated Grams, components, weights, bootstrap, words; and the measure
    of the first version."""
    name, world = "Luxury_Beauty", "popularity"
    committed = read_table(TABLE)
    expected = committed[(committed["dataset"] == name) & (committed["world"] == world)].reset_index(drop=True)
    probe = Probe.of(load_dataset(shared_dir / "data", name), max_length=MAX_LENGTH[name], cache_dir=tmp_path / "cache")
    Study(lambda _: probe, tmp_path / "cells.csv").run([Cell(name, world, int(expected["draws"].max()))])
    table = read_table(tmp_path / "cells.csv")
    measured_once = ["threads", "seconds"]
    pd.testing.assert_frame_equal(
        table.drop(columns=measured_once), expected.drop(columns=measured_once), check_dtype=False, rtol=1e-3
    )


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
        [known.mean(), low, high, (known > ROUNDING).mean()],
        committed[["correlation", "low", "high", "share_positive"]].astype(float),
        rtol=1e-5,
    )
