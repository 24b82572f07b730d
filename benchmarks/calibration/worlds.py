r"""Made-up states with a known truth, on real histories.

The state of row t is a function of the item that the row reads, of the user and of the position, plus noise; in one
world of the item that it predicts. Every world has two layers, ``embed`` and one block, which share part of their noise
as a residual stream does. States are (n, 2, T, d), float32.

Null worlds hold no taste. Most hold popularity at ``embed`` and less of it at the block, which the first version of the
measure calls attenuated. Worlds of taste hold item vectors of an SVD with popularity divided out; their retention is
known, or is the ratio of the mean excess over all draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.calibration.probes import REPEATS, REWIRED, WIDTH, Probe

States = npt.NDArray[np.float32]
#: Correlation of the noise of the block with that of ``embed``.
SHARED_NOISE = 0.7
#: Amplitude of popularity at ``embed`` and at the block; the noise has 1.
FADES, GROWS = (1.0, 0.3), (0.3, 1.0)
#: Amplitude of the strong axes, in units of the noise.
STRONG = 6.0
AXIS_PER_USER = "popularity axis per user"
#: Bins of popularity with a vector each.
N_BINS = 20
#: Effects of each artefact at ``embed`` and at the block.
MEAN_NORM, FIRST_ROW, NORM_GROWTH = (1.0, 5.0), (3.0, 100.0), (1.0, 4.0)
AR_COEFFICIENT, RUNNING_SHARE, DEPTH_SCALE = (0.5, 0.9), (0.3, 0.9), 20.0
#: Amplitude of the item vectors: for power, and where retention is measured.
POWER, TASTE = 0.2, 0.3
#: Energy of popularity that makes a share of 6 % and 60 % beside noise 1 and taste ``TASTE``².
TENTH, TENFOLD = (0.06 / 0.94 * (1 + TASTE**2), 0.6 / 0.4 * (1 + TASTE**2))


@dataclass(frozen=True)
class World:
    """Made-up states and their truth.

    Attributes
    ----------
    name : str
    make : callable
        States (n, 2, T, d) of a draw.
    has_taste : bool
    retention : float
        True retention of taste; NaN where the draws tell it.
    shares_items : bool
        Whether one item has one random vector for all users, as in the control ``exchanged-items``.
    variant : {"", "repeats", "rewired log"}
        Of the probe: histories that repeat items, or a log that keeps counts alone.
    """

    name: str
    make: Callable[[Probe, np.random.Generator], States]
    has_taste: bool = False
    retention: float = np.nan
    shares_items: bool = False
    variant: str = ""


def noise(probe: Probe, rng: np.random.Generator) -> States:
    """Return white noise of unit variance."""
    n, T = probe.shape
    H = rng.standard_normal((n, 2, T, WIDTH), dtype=np.float32)
    H[:, 1] = np.float32(SHARED_NOISE) * H[:, 0] + np.float32(np.sqrt(1 - SHARED_NOISE**2)) * H[:, 1]
    return H


def axis(
    probe: Probe, rng: np.random.Generator, feature: States, amplitudes: tuple[float, float], *, per_user: bool = False
) -> States:
    """Return a feature (n, T) of the positions along a random direction, of all users or of each."""
    directions = rng.standard_normal((probe.shape[0] if per_user else 1, 1, 1, WIDTH), dtype=np.float32)
    return np.asarray(feature[:, None, :, None] * directions * _by_layer(amplitudes))


def artefacts(rng: np.random.Generator, H: States, *names: str) -> States:
    """Return the states with the named artefacts, each far stronger at the block."""
    H = H.copy()
    T = H.shape[2]
    for layer in range(2):
        X = H[:, layer]
        if "AR(1)" in names:
            autoregress(X, np.full(len(X), AR_COEFFICIENT[layer]))
        if "running mean" in names:
            share = np.float32(RUNNING_SHARE[layer])
            count = np.arange(1, T + 1, dtype=np.float32)[:, None]
            X[:] = (1 - share) * X + share * np.cumsum(X, axis=1) / count
        if "norm" in names:
            position = np.arange(T, dtype=np.float32)[:, None] / T
            X *= (1 + NORM_GROWTH[layer] * position) * np.float32(DEPTH_SCALE**layer)
        size = np.float32(np.sqrt((X**2).mean()))
        if "mean vector" in names:
            X += np.float32(MEAN_NORM[layer]) * size * rng.standard_normal(WIDTH).astype(np.float32)
        if "first row" in names:
            X[:, 0] += np.float32(FIRST_ROW[layer]) * size * rng.standard_normal(WIDTH).astype(np.float32)
    return H


def autoregress(X: States, coefficients: npt.NDArray[np.floating]) -> None:
    """Make states (n, T, d) an AR(1) over positions in place, with one coefficient per user; the variance stays 1."""
    phi = coefficients.astype(np.float32)[:, None]
    innovation = np.sqrt(1 - phi**2)
    for t in range(1, X.shape[1]):
        X[:, t] = phi * X[:, t - 1] + innovation * X[:, t]


def taste(
    probe: Probe,
    rng: np.random.Generator,
    *,
    amplitudes: tuple[float, float] = (TASTE, TASTE),
    popularity: tuple[float, float] = (0.0, 0.0),
    noises: tuple[float, float] = (1.0, 1.0),
) -> States:
    """Return item vectors, a popularity axis and noise with the given amplitudes at the two layers."""
    H = noise(probe, rng) * _by_layer(noises)
    H += probe.item_vectors[probe.sequences.inputs][:, None] * _by_layer(amplitudes)
    return np.asarray(H + axis(probe, rng, probe.popularity, popularity))


def _by_layer(amplitudes: tuple[float, float]) -> States:
    return np.array(amplitudes, dtype=np.float32)[:, None, None]


def _axis_world(
    name: str, feature: Callable[[Probe], States], strength: float = 1.0, *, per_user: bool = False, variant: str = ""
) -> World:
    amplitudes = (strength * FADES[0], strength * FADES[1])

    def make(probe: Probe, rng: np.random.Generator) -> States:
        return noise(probe, rng) + axis(probe, rng, feature(probe), amplitudes, per_user=per_user)

    return World(name, make, variant=variant)


def _bin_world(name: str, strength: float) -> World:
    def make(probe: Probe, rng: np.random.Generator) -> States:
        vectors = rng.standard_normal((N_BINS, WIDTH), dtype=np.float32)[probe.popularity_bins(N_BINS)]
        return np.asarray(noise(probe, rng) + vectors[:, None] * _by_layer(FADES) * np.float32(strength))

    return World(name, make)


def _norm_world(name: str, exponents: tuple[float, float]) -> World:
    def make(probe: Probe, rng: np.random.Generator) -> States:
        return np.asarray(noise(probe, rng) * np.exp(probe.popularity[:, None, :, None] * _by_layer(exponents)))

    return World(name, make)


def _artefact_world(name: str) -> World:
    return World(name, lambda probe, rng: artefacts(rng, noise(probe, rng), name))


def _smooth_world(name: str, by: Callable[[Probe], npt.NDArray[np.floating]]) -> World:
    def make(probe: Probe, rng: np.random.Generator) -> States:
        H = noise(probe, rng)
        for layer in range(2):
            autoregress(H[:, layer], AR_COEFFICIENT[1] * by(probe))
        return H

    return World(name, make)


def _all_at_once(probe: Probe, rng: np.random.Generator) -> States:
    H = noise(probe, rng) + axis(probe, rng, probe.popularity, FADES)
    H *= np.exp(-0.3 * probe.popularity[:, None, :, None])
    return artefacts(rng, H, "AR(1)", "norm", "mean vector", "first row")


def _random_items(probe: Probe, rng: np.random.Generator) -> States:
    vectors = rng.standard_normal((probe.graph.n_items, WIDTH), dtype=np.float32)[probe.sequences.inputs]
    return np.asarray(vectors[:, None] * _by_layer(FADES) + noise(probe, rng) * _by_layer((0.0, 1.0)))


def _taste_world(name: str, retention: float = np.nan, **amplitudes: tuple[float, float]) -> World:
    return World(name, lambda probe, rng: taste(probe, rng, **amplitudes), has_taste=True, retention=retention)


def _squared(probe: Probe) -> States:
    return probe.standardised(probe.popularity.astype(float) ** 2)


def _exponential(probe: Probe) -> States:
    return probe.standardised(np.exp(probe.popularity.astype(float)))


WORLDS: tuple[World, ...] = (
    World("noise", noise),
    _axis_world("popularity", lambda probe: probe.popularity),
    _axis_world("popularity of the item predicted", lambda probe: probe.predicted_popularity),
    _axis_world("popularity squared", _squared),
    _axis_world("popularity exponential", _exponential),
    _bin_world("vector per popularity bin", 1.0),
    _bin_world("vector per popularity bin, x 3", 3.0),
    _axis_world("popularity, strong axis", lambda probe: probe.popularity, STRONG),
    _axis_world("popularity exponential, strong", _exponential, STRONG),
    _axis_world(AXIS_PER_USER, lambda probe: probe.popularity, per_user=True),
    _axis_world(f"{AXIS_PER_USER}, {REWIRED}", lambda probe: probe.popularity, per_user=True, variant=REWIRED),
    _norm_world("norm rises with popularity", (0.5, 0.15)),
    _norm_world("norm falls with popularity", (-0.5, -0.15)),
    *(_artefact_world(name) for name in ("mean vector", "first row", "norm", "AR(1)", "running mean")),
    _smooth_world("AR(1) by density", lambda probe: probe.density),
    _smooth_world("AR(1) by locality", lambda probe: probe.locality),
    World("popularity, norm, AR(1), sink, mean", _all_at_once),
    World("random item vectors", _random_items, shares_items=True),
    World("random item vectors, repeats", _random_items, shares_items=True, variant=REPEATS),
    _taste_world("item vectors, weak", 1.0, amplitudes=(POWER, POWER)),
    _taste_world("nothing changes", 1.0),
    _taste_world("popularity lost", 1.0, popularity=FADES),
    _taste_world("popularity gained", 1.0, popularity=GROWS),
    _taste_world("popularity share x 10", 1.0, popularity=(TENTH**0.5, TENFOLD**0.5)),
    _taste_world("popularity share / 10", 1.0, popularity=(TENFOLD**0.5, TENTH**0.5)),
    _taste_world("taste halved", amplitudes=(TASTE, TASTE * 0.5**0.5)),
    _taste_world("unrelated noise grows", noises=(1.0, 2**0.5)),
    _taste_world(
        "popularity replaces noise",
        amplitudes=(0.1**0.5, 0.1**0.5),
        popularity=(0.05**0.5, 0.5**0.5),
        noises=(0.85**0.5, 0.4**0.5),
    ),
)


def world(name: str) -> World:
    """Return a world by its name."""
    return next(w for w in WORLDS if w.name == name)
