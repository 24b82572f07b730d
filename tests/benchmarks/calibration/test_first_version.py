import numpy as np

from benchmarks.calibration import worlds
from benchmarks.calibration.first_version import FirstVersion
from spectral_probe import spectral_energy


def test_the_fast_first_version_is_spectral_energy(small_probe) -> None:
    s = small_probe.sequences
    bases = small_probe.graph.local_bases(s.targets, s.lengths, users=s.users, own_user="drop")
    rng = np.random.default_rng(1)
    states = worlds.artefacts(rng, worlds.taste(small_probe, rng, popularity=(1.0, 0.3)), "mean vector", "AR(1)")
    grams = small_probe.grams([states[:, 0], states[:, 1]], ["embed", "block 1"])
    slow = spectral_energy(grams, bases, nulls=("swap",), whole_tau=5.0)
    expected = slow.low - slow.null_low["swap"]
    fast = FirstVersion(bases).excess(grams.grams)
    assert np.isfinite(expected).all(axis=1).sum() > 60
    assert np.nanmax(np.abs(expected)) > 0.01
    np.testing.assert_allclose(fast, expected, atol=1e-6)
