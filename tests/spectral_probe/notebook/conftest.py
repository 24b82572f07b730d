"""One finished run for all tests of the notebook's views."""

from __future__ import annotations

import pytest

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import Analysis, run_analysis
from spectral_probe.analysis.reanalysis import reanalyze
from spectral_probe.profiles.profile import DecayProfile
from tests.spectral_probe.tiny_models import knowing
from tests.spectral_probe.worlds import tastes


@pytest.fixture(scope="package")
def run(tmp_path_factory) -> Analysis:
    """An analysis of ninety users with its run folder, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path_factory.mktemp("cache")))
        dataset, taste = tastes([8 + user % 7 for user in range(90)])
        options = AnalysisOptions(n_bootstrap=200, n_pseudo=4)
        yield run_analysis(knowing(dataset, taste, 4.0), dataset, options, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="package")
def cyclic(run) -> DecayProfile:
    """The same Grams with another null of the whole than that of its components."""
    return reanalyze(run.run.path, {"null": "cyclic"}).profile
