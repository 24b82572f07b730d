r"""Theorem 1 where it holds, and where it does not: see ``docs/theory.md``.

The ring ↔ DFT, the corrected theorem as a law, counter-examples without its premises, and the one-sided filter.
"""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from frellm4rec.modules import butterworth_gain, causal_operator, two_sided_operator
from frellm4rec.modules.butterworth import causal_kernel
from spectral_probe.graph.bases import normalized_laplacian

cutoffs = st.floats(0.02, 1.0)
orders = st.integers(1, 6)
seeds = st.integers(0, 10**6)


def circulant(kernel):
    """Return the circulant matrix with this first column."""
    T = len(kernel)
    return np.asarray(kernel)[(np.arange(T)[:, None] - np.arange(T)) % T]


def ring(T):
    kernel = np.zeros(T)
    kernel[1 % T] += 1
    kernel[-1 % T] += 1
    return circulant(kernel * (np.arange(T) > 0))


def path(T):
    return np.eye(T, k=1) + np.eye(T, k=-1)


def rayleigh(L, H):
    """Return tr(HᵀLH) / tr(HᵀH) of states (T,) or (T, d)."""
    H = np.asarray(H).reshape(len(L), -1)
    return float((H * (L @ H)).sum() / (H * H).sum())


def by_frequency(kernel):
    r"""Return λ_k of the normalised Laplacian of a circulant graph, k = 0…⌊T/2⌋."""
    return 1 - np.fft.rfft(kernel).real / kernel.sum()


# Eq. (11): the ring and the discrete Fourier transform


@pytest.mark.parametrize("T", [3, 4, 10, 11, 50])
def test_the_dft_is_a_basis_of_eigenvectors_of_the_ring(T):
    """Asserted on eigenspaces: cosine and sine of one frequency share an eigenvalue."""
    L = normalized_laplacian(ring(T))
    values, U = np.linalg.eigh(L)
    expected = 1 - np.cos(2 * np.pi * np.arange(T) / T)
    np.testing.assert_allclose(values, np.sort(expected), atol=1e-12)
    # As the paper prints it, without the normalisation: every degree is 2.
    combinatorial = np.diag(ring(T).sum(0)) - ring(T)
    np.testing.assert_allclose(np.linalg.eigvalsh(combinatorial), np.sort(2 * expected), atol=1e-12)
    F = np.exp(2j * np.pi * np.outer(np.arange(T), np.arange(T)) / T) / np.sqrt(T)
    for value in np.unique(expected.round(9)):
        of_graph = U[:, np.abs(values - value) < 1e-6]
        of_dft = F[:, np.abs(expected - value) < 1e-6]
        np.testing.assert_allclose(of_graph @ of_graph.T, of_dft @ of_dft.conj().T, atol=1e-12)


@pytest.mark.parametrize("T", [3, 4, 10, 11, 50])
@given(cutoff=cutoffs, order=orders)
@settings(deadline=None, max_examples=20)
def test_the_two_sided_filter_is_a_graph_filter_on_the_ring(T, cutoff, order):
    r"""h(λ) = gain(f) with λ = 1 − cos(πf), so f = arccos(1 − λ)/π."""
    values, U = np.linalg.eigh(normalized_laplacian(ring(T)))
    frequency = torch.from_numpy(np.arccos(np.clip(1 - values, -1, 1)) / np.pi)
    response = butterworth_gain(frequency, cutoff, order).numpy()
    # The angle of an eigenvalue at an end of the spectrum is known to the root of its rounding only; the gain is flat
    # there to order 2·order, and order 1 is the one that shows it.
    np.testing.assert_allclose((U * response) @ U.T, two_sided_operator(T, cutoff, order), atol=1e-12)


# The corrected theorem


def local_kernels():
    r"""Kernels of circulant graphs: random mixtures of :math:`\rho^{|j|}` wrapped around the ring, and of the ring."""
    parts = st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.0, 0.97)), min_size=1, max_size=4)
    return st.tuples(st.integers(3, 30), parts, st.floats(0, 1), st.floats(0, 0.1), seeds).map(_kernel)


def _kernel(drawn):
    T, parts, ring_weight, noise, seed = drawn
    lag = np.arange(T)
    kernel = sum(weight * (rho**lag + rho ** (T - lag)) for weight, rho in parts)
    kernel[[1, -1]] += ring_weight
    rough = np.random.default_rng(seed).random(T)
    kernel = kernel + noise * (rough + np.roll(rough[::-1], 1))
    kernel[0] = 0  # no self loops
    return kernel


@given(local_kernels(), cutoffs, orders, seeds, st.integers(1, 4))
@settings(deadline=None)
def test_corrected_theorem_1_the_quotient_does_not_rise(kernel, cutoff, order, seed, n_features):
    """Circulant L, λ_k non-decreasing in frequency, zero-phase non-increasing gain."""
    assume(kernel.sum() > 1e-6 and (np.diff(by_frequency(kernel)) >= 0).all())
    T = len(kernel)
    L = normalized_laplacian(circulant(kernel))
    H = np.random.default_rng(seed).normal(size=(T, n_features))
    before = rayleigh(L, H)
    assert rayleigh(L, two_sided_operator(T, cutoff, order).numpy() @ H) <= before + 1e-12
    # Also centred, as the headline takes states: the mean is the lowest frequency, so what is left is as before.
    centred = H - H.mean(0)
    assert rayleigh(L, two_sided_operator(T, cutoff, order).numpy() @ centred) <= rayleigh(L, centred) + 1e-12


@given(local_kernels(), seeds, seeds)
@settings(deadline=None)
def test_corrected_theorem_1_for_any_gain_that_falls(kernel, seed, gain_seed):
    assume(kernel.sum() > 1e-6 and (np.diff(by_frequency(kernel)) >= 0).all())
    T = len(kernel)
    gain = np.sort(np.random.default_rng(gain_seed).random(T // 2 + 1) + 1e-3)[::-1]
    H = np.random.default_rng(seed).normal(size=(T, 2))
    filtered = np.fft.irfft(gain[:, None] * np.fft.rfft(H, axis=0), n=T, axis=0)
    L = normalized_laplacian(circulant(kernel))
    assert rayleigh(L, filtered) <= rayleigh(L, H) + 1e-12


def test_most_drawn_graphs_meet_the_premise():
    """Else the law above would be empty."""
    rng = np.random.default_rng(0)
    drawn = [(int(rng.integers(3, 31)), [(rng.random() + 0.01, 0.97 * rng.random())], 0.5, 0.0, 0) for _ in range(200)]
    assert all((np.diff(by_frequency(_kernel(parameters))) >= -1e-12).all() for parameters in drawn)


def test_without_the_premise_the_quotient_rises_on_a_circulant_graph():
    """Every second item is linked and neighbours are not: the fastest oscillation is as smooth as the mean."""
    T = 8
    kernel = np.zeros(T)
    kernel[[2, -2]] = 1
    eigenvalues = by_frequency(kernel)
    assert not (np.diff(eigenvalues) >= 0).all()
    np.testing.assert_allclose(eigenvalues[[0, 2, 4]], [0, 2, 0], atol=1e-12)
    L = normalized_laplacian(circulant(kernel))
    signal = np.cos(np.pi * np.arange(T)) + np.cos(np.pi * np.arange(T) / 2)  # frequencies 1 (smooth here) and 1/2
    assert rayleigh(L, signal) == pytest.approx(2 / 3)
    assert rayleigh(L, two_sided_operator(T, 0.3).numpy() @ signal) > 1.5


def test_with_a_gain_that_rises_the_quotient_rises():
    T = 8
    L = normalized_laplacian(ring(T))
    signal = np.random.default_rng(0).normal(size=T)
    filtered = np.fft.irfft(np.linspace(0.1, 1, 5) * np.fft.rfft(signal), n=T)
    assert rayleigh(L, filtered) > rayleigh(L, signal) + 0.1


# Where the published theorem fails: graphs that are as local in time as can be


@pytest.mark.parametrize("cutoff", [0.1, 0.3, 0.5])
def test_on_a_path_the_filter_raises_even_the_quadratic_form(cutoff):
    """Only neighbours are linked, and yet a ramp comes out rougher: the transform joins its ends."""
    T = 24
    L = np.diag(path(T).sum(0)) - path(T)
    ramp = np.arange(T) - (T - 1) / 2
    filtered = two_sided_operator(T, cutoff).numpy() @ ramp
    assert ramp @ L @ ramp == pytest.approx(T - 1)
    assert filtered @ L @ filtered > 1.2 * (T - 1)
    assert rayleigh(L, filtered) > 2 * rayleigh(L, ramp)


@pytest.mark.parametrize("build", [two_sided_operator, causal_operator])
def test_on_a_path_the_smoothest_signal_is_not_a_constant_and_comes_out_rougher(build):
    """The normalised Laplacian is 0 on √degree, which every filter along time that keeps the mean disturbs."""
    L = normalized_laplacian(path(4))
    smoothest = np.sqrt([1, 2, 2, 1])
    assert rayleigh(L, smoothest) == pytest.approx(0, abs=1e-15)
    assert rayleigh(L, build(4, 0.3).numpy() @ smoothest) > 1e-3


def test_five_items_of_a_local_graph_by_hand():
    """Weights 4 between neighbours, 1 at distance two, 0 beyond; two tastes, one after the other: up by a tenth."""
    A = 4 * path(5) + np.eye(5, k=2) + np.eye(5, k=-2)
    first, second = np.triu_indices(5, 1)
    assert np.corrcoef(A[first, second], first - second)[0, 1] > 0.8
    L = normalized_laplacian(A)
    signal = np.array([1.0, 1.0, 0.0, -1.0, -1.0])
    before, after = rayleigh(L, signal), rayleigh(L, two_sided_operator(5, 0.3).numpy() @ signal)
    assert (before, after) == (pytest.approx(0.459, abs=1e-3), pytest.approx(0.509, abs=1e-3))


def test_jensens_step_needs_weights_that_the_filter_does_not_have():
    """The proof averages squared differences; the kernel has negative entries, so it is no average."""
    for build in (two_sided_operator, causal_operator):
        assert (build(50, 0.3) < -1e-3).any()
    # And the energy, which the proof takes for constant, is what a low-pass takes away.
    noise = np.random.default_rng(0).normal(size=50)
    assert np.square(two_sided_operator(50, 0.3).numpy() @ noise).sum() < 0.6 * np.square(noise).sum()


# The one-sided filter


def one_sided_gain(cutoff, order, n=1024):
    """Return the gain |Σ_j h_j exp(−iπjf)| of the one-sided kernel on an endless history, f = 0…1, 1 at DC."""
    gain = np.abs(np.fft.rfft(causal_kernel(n, cutoff, order).numpy(), 8 * n))
    return gain / gain[0]


@pytest.mark.parametrize("cutoff", [0.05, 0.1, 0.3, 0.7, 1.0])
def test_of_order_1_the_one_sided_gain_falls_so_the_theorem_holds_on_an_endless_path(cutoff):
    assert (np.diff(one_sided_gain(cutoff, 1)) < 0).all()


@pytest.mark.parametrize(("cutoff", "rise"), [(0.05, 0.0127), (0.1, 0.0092), (0.3, 0.0025), (0.7, 1e-4)])
def test_of_order_2_the_one_sided_gain_rises_a_little_below_the_cutoff(cutoff, rise):
    gain = one_sided_gain(cutoff, 2)
    top = gain.argmax() / (len(gain) - 1)
    assert 0 < top < cutoff
    assert gain.max() - 1 == pytest.approx(rise, rel=0.05)
    assert (np.diff(gain)[np.arange(len(gain) - 1) > gain.argmax() + 1] < 1e-7).all()


@pytest.mark.parametrize("cutoff", [0.1, 0.3, 0.5])
def test_so_on_a_ring_the_one_sided_filter_can_raise_the_quotient(cutoff):
    """One slow wave: the two-sided filter only scales it; the one-sided one starts up on it and adds other waves."""
    T = 24
    L = normalized_laplacian(ring(T))
    wave = np.cos(2 * np.pi * 4 * np.arange(T) / T)
    assert rayleigh(L, two_sided_operator(T, cutoff).numpy() @ wave) == pytest.approx(rayleigh(L, wave))
    assert rayleigh(L, causal_operator(T, cutoff).numpy() @ wave) > rayleigh(L, wave) + 2e-4


@pytest.mark.parametrize("graph", [ring, path])
@pytest.mark.parametrize("cutoff", [0.1, 0.3, 0.7])
def test_of_states_without_order_in_time_the_one_sided_filter_lowers_the_quotient(graph, cutoff):
    """On ring and path, of 2,000 draws of white noise; what fails above are special signals."""
    T = 24
    L, M = normalized_laplacian(graph(T)), causal_operator(T, cutoff).numpy()
    noise = np.random.default_rng(0).normal(size=(T, 2000))
    before, after = (np.square(x * 1.0).sum(0) for x in (noise, M @ noise))
    falls = (M @ noise * (L @ M @ noise)).sum(0) / after < (noise * (L @ noise)).sum(0) / before
    assert falls.mean() > 0.99
    # In expectation it is exact: tr(L M Mᵀ)/tr(M Mᵀ) against tr(L)/T.
    assert np.trace(L @ M @ M.T) / np.trace(M @ M.T) < 0.9 * np.trace(L) / T
