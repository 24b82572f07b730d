"""What is written beside a result: a comparison that ends early, and a heat map that is read back."""

from __future__ import annotations

import pandas as pd
import pytest

from spectral_probe.errors import ResourceError
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report import folder
from spectral_probe.report.heatmap_file import read_heatmap
from spectral_probe.runs.analysis_run import AnalysisRun
from tests.spectral_probe.worlds import with_excess


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, "interrupted"),
        (OSError(28, "No space left on device"), ResourceError, "failed"),
    ],
)
def test_a_comparison_that_ends_early_says_so(error, raised, status, tmp_path, monkeypatch) -> None:
    def stopped(*_args, **_kwargs):
        raise error

    labels = {"model": "m", "dataset": "d"}
    energy = with_excess(1.0, 0.5, 0.4, n=30)
    profile = DecayProfile.from_energy(energy, component="whole", n_bootstrap=100, labels=labels)
    monkeypatch.setattr(folder, "write_figures", stopped)
    with pytest.raises(raised):
        folder.write_overlay(tmp_path, [profile, profile])
    (path,) = tmp_path.iterdir()
    state = AnalysisRun.open(path).state()
    assert (state["status"], state["kind"]) == (status, "comparison")
    assert state["error"]


def test_a_damaged_heat_map_is_no_map(tmp_path) -> None:
    path = tmp_path / "heatmap.csv"
    whole = pd.DataFrame({"model": ["007", "NA"], "layer": ["embed", "embed"], "0.25": [0.1, 0.2], "0.75": [0.3, 0.4]})
    whole.to_csv(path, index=False)
    maps = folder._saved_maps(path)
    assert {name: table.to_numpy().tolist() for name, table in maps.items()} == {
        "007": [[0.1, 0.3]],
        "NA": [[0.2, 0.4]],
    }
    damaged = [whole.drop(columns="model"), whole.drop(columns="layer"), whole.assign(**{"0.25": "x"}), whole[:0]]
    damaged.append(whole[["model", "layer"]])
    for table in damaged:
        table.to_csv(path, index=False)
        assert (folder._saved_maps(path), read_heatmap(path)) == ({}, None)
    path.write_bytes(b"\xff\xfe\x00")
    assert folder._saved_maps(path) == {}
    path.unlink()
    assert folder._saved_maps(path) == {}
