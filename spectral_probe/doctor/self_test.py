"""The whole pipeline on synthetic data with a known verdict: states that fit the graph, and states that do not."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from spectral_probe.backbones import load_backbone
from spectral_probe.doctor.check import Check
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import ProbeSequences, probe_sequences
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.verdict import NOT_MEASURABLE
from spectral_probe.recording.capture import capture
from spectral_probe.spectrum.energy import spectral_energy

_N_USERS, _N_TASTES, _ITEMS_PER_TASTE, _WIDTH = 80, 5, 9, 64


def self_test(seconds: float = 5.0) -> list[Check]:
    """Run data, graph, capture, nulls and verdict once, and check each result against the known answer.

    Users draw items of two tastes. A tiny random decoder reads (a) vectors shared by the items of one taste, which
    fit the graph, and (b) noise drawn for each position, which does not. The data are seeded, so results repeat.

    Parameters
    ----------
    seconds : float
        Time limit, without imports; a longer run is a warning.
    """
    model = load_backbone("tiny-random:qwen2", device="cpu")
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    dataset, taste = _world(rng)
    probe = probe_sequences(dataset)
    n, T = probe.inputs.shape
    noise = rng.standard_normal((n, T, _WIDTH)).astype(np.float32)
    smooth = rng.standard_normal((_N_TASTES, _WIDTH)).astype(np.float32)[taste[probe.inputs]] + 0.5 * noise
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    bases = graph.local_bases(probe.inputs, probe.lengths, users=probe.users)
    matched = PopularityMatch.draw(graph, probe.inputs, probe.lengths, probe.users, n_pseudo=8)
    checks = []
    for name, vectors, is_signal in (("graph-smooth states", smooth, True), ("random states", noise, False)):
        grams = capture(
            *(model, vectors, probe.lengths),
            targets=probe.targets,
            items=probe.inputs,
            users=probe.users,
            item_counts=graph.item_counts,
        )
        if is_signal:
            checks.append(_exact(grams.grams[:, 0], vectors, probe))
        energy = spectral_energy(grams, bases, matched=matched, nulls=("swap",))
        profile = DecayProfile.from_energy(energy, n_bootstrap=200)
        has_signal = not profile.verdict.label.startswith(NOT_MEASURABLE)
        excess = profile.summary()["embed_excess"]["taste"]
        checks.append(
            Check(
                f"self-test: {name}",
                "ok" if has_signal == is_signal else "fail",
                f"{'a' if has_signal else 'no'} signal: excess {excess['value']:+.3f} "
                f"[{excess['low']:+.3f}, {excess['high']:+.3f}]",
                ""
                if has_signal == is_signal
                else f"Expected {'a' if is_signal else 'no'} signal: the instrument does not work on this machine. "
                "Reinstall the package and the versions in constraints.txt.",
            )
        )
    elapsed = time.perf_counter() - start
    checks.append(
        Check(
            "self-test: time",
            "ok" if elapsed <= seconds else "warn",
            f"{elapsed:.1f} s of {seconds:g} s",
            "" if elapsed <= seconds else "The machine is slow or busy; use fewer users (--users) for a first run.",
        )
    )
    return checks


def _world(rng: np.random.Generator) -> tuple[Dataset, npt.NDArray[np.int64]]:
    """Return a data set whose users have two of five tastes, and the taste of each item."""
    n_items = _N_TASTES * _ITEMS_PER_TASTE
    taste = np.arange(n_items) % _N_TASTES
    histories = []
    for _ in range(_N_USERS):
        liked = np.flatnonzero(np.isin(taste, rng.choice(_N_TASTES, size=2, replace=False)))
        histories.append(rng.choice(liked, size=int(rng.integers(9, 15)), replace=False))
    log = Interactions.from_sequences(histories, n_items=n_items)
    return Dataset.from_interactions(log, name="self-test"), taste


def _exact(grams: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], probe: ProbeSequences) -> Check:
    """Compare the Grams of ``embed`` with the vectors that were fed in."""
    valid = np.arange(vectors.shape[1]) < probe.lengths[:, None]
    states = np.where(valid[..., None], vectors, 0).astype(np.float64)
    expected = states @ states.transpose(0, 2, 1)
    error = float(np.abs(grams - expected).max() / np.abs(expected).max())
    return Check(
        "self-test: Gram matrices",
        "ok" if error < 1e-5 else "fail",
        f"relative error {error:.1e}",
        "" if error < 1e-5 else "Matrix products are wrong on this machine; install another build of PyTorch.",
    )
