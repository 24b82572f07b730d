"""The T×T operators against the transform they replace, and the causal kernel against quadrature by another hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from frellm4rec.modules import butterworth, butterworth_gain, causal_operator, two_sided_operator
from frellm4rec.modules.butterworth import causal_kernel, check_filter
from spectral_probe.errors import ConfigError

LENGTHS = (1, 2, 3, 10, 11, 50, 512)
cutoffs = st.floats(0.01, 1.0)
orders = st.integers(1, 8)
lengths = st.integers(1, 40)


@given(cutoffs, orders)
def test_the_gain_is_1_at_dc_and_down_by_root_2_at_the_cutoff(cutoff, order):
    gain = butterworth_gain(torch.tensor([0.0, cutoff], dtype=torch.float64), cutoff, order)
    assert gain.tolist() == pytest.approx([1.0, 2**-0.5], abs=1e-14)


@given(cutoffs, orders)
def test_the_gain_falls_and_its_square_is_equation_9(cutoff, order):
    frequency = torch.linspace(0, 1, 101, dtype=torch.float64)
    gain = butterworth_gain(frequency, cutoff, order)
    assert (gain.diff() <= 0).all()
    np.testing.assert_allclose(gain**2, 1 / (1 + (frequency / cutoff) ** (2 * order)), rtol=1e-12)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize(("cutoff", "order"), [(0.05, 2), (0.3, 1), (0.3, 2), (1.0, 5)])
def test_the_two_sided_operator_is_transform_gain_and_transform_back(T, cutoff, order):
    states = np.random.default_rng(T).normal(size=(T, 4))
    gain = butterworth_gain(torch.from_numpy(np.fft.rfftfreq(T) * 2), cutoff, order).numpy()
    expected = np.fft.irfft(gain[:, None] * np.fft.rfft(states, axis=0), n=T, axis=0)
    np.testing.assert_allclose(two_sided_operator(T, cutoff, order).numpy() @ states, expected, atol=1e-12)


@given(lengths, cutoffs, orders)
@settings(deadline=None)
def test_the_two_sided_operator_is_symmetric_and_circulant(T, cutoff, order):
    M = two_sided_operator(T, cutoff, order)
    assert torch.allclose(M, M.T, atol=1e-14, rtol=0)
    assert torch.equal(M.roll((1, 1), (0, 1)), M)


@pytest.mark.parametrize(("cutoff", "order"), [(0.02, 2), (0.3, 1), (0.3, 2), (0.7, 8), (1.0, 2)])
def test_the_causal_kernel_equals_quadrature_with_a_cosine_weight(cutoff, order):
    kernel = causal_kernel(512, cutoff, order)
    assert kernel.shape == (512,)
    for lag in (0, 1, 2, 7, 50, 200, 511):
        pieces = [
            quad(lambda f: (1 + (f / cutoff) ** (2 * order)) ** -0.5, *ends, weight="cos", wvar=np.pi * lag, limit=400)
            for ends in ((0.0, cutoff), (cutoff, 1.0))
            if ends[0] < ends[1]
        ]
        assert float(kernel[lag]) == pytest.approx(sum(value for value, _ in pieces), abs=1e-9), lag


def test_the_causal_kernel_of_a_long_history_is_as_exact_as_that_of_a_short_one():
    long, short = causal_kernel(1500, 0.3), causal_kernel(50, 0.3)
    np.testing.assert_allclose(long[:50], short, atol=1e-14)
    exact = [quad(lambda f: (1 + (f / 0.3) ** 4) ** -0.5, a, b, weight="cos", wvar=np.pi * 1499)[0] for a, b in ENDS]
    assert float(long[1499]) == pytest.approx(sum(exact), abs=1e-11)


ENDS = ((0.0, 0.3), (0.3, 1.0))


@given(lengths, cutoffs, orders)
@settings(deadline=None)
def test_rows_sum_to_1_and_a_single_item_is_left_alone(T, cutoff, order):
    for build in (two_sided_operator, causal_operator):
        M = build(T, cutoff, order)
        assert M.shape == (T, T)
        assert M.dtype == torch.float64
        np.testing.assert_allclose(M.sum(1), 1.0, atol=1e-12)
    assert causal_operator(1, cutoff, order).tolist() == [[1.0]]
    assert two_sided_operator(1, cutoff, order).tolist() == [[1.0]]


def test_two_items_by_hand():
    gain = (1 + (1 / 0.3) ** 4) ** -0.5  # at Nyquist, the only frequency beside the mean
    expected = [[(1 + gain) / 2, (1 - gain) / 2], [(1 - gain) / 2, (1 + gain) / 2]]
    np.testing.assert_allclose(two_sided_operator(2, 0.3), expected, atol=1e-15)
    h = causal_kernel(2, 0.3)
    expected = [[1.0, 0.0], [float(h[1] / h.sum()), float(h[0] / h.sum())]]
    np.testing.assert_allclose(causal_operator(2, 0.3), expected, atol=1e-15)


@given(st.integers(1, 30), st.integers(0, 20), cutoffs, orders)
@settings(deadline=None)
def test_the_causal_operator_of_a_shorter_history_is_the_leading_block(T, more, cutoff, order):
    M = causal_operator(T + more, cutoff, order)
    assert not M.triu(1).any()
    assert torch.allclose(M[:T, :T], causal_operator(T, cutoff, order), atol=1e-14, rtol=0)


@given(st.floats(1e-3, 1.0), st.integers(1, 64))
@settings(deadline=None)
def test_no_legal_setting_has_a_row_that_cancels(cutoff, order):
    """The gain falls, so it is a mixture of ideal low-passes, whose sums are >= h_0 (Fejér, Jackson and Gronwall)."""
    kernel = causal_kernel(200, cutoff, order)
    assert (kernel.cumsum(0) >= kernel[0] * (1 - 1e-9)).all()


def test_a_row_that_cancels_is_an_error(monkeypatch):
    monkeypatch.setattr(
        butterworth, "causal_kernel", lambda T, *_: torch.tensor([1.0, 0.5, -1.499], dtype=torch.float64)
    )
    with pytest.raises(ConfigError, match=r"cutoff 0\.3 and order 2 cancels on a history of 3 items.*lower order"):
        causal_operator(3, 0.3)
    monkeypatch.setattr(butterworth, "causal_kernel", lambda T, *_: torch.tensor([1.0, 0.5, -1.4], dtype=torch.float64))
    np.testing.assert_allclose(causal_operator(3, 0.3).sum(1), 1.0)


@pytest.mark.parametrize("cutoff", [0.0, -0.1, 1.01, float("nan")])
def test_cutoffs_outside_the_band_are_refused(cutoff):
    with pytest.raises(ConfigError, match=r"\(0, 1\]; got"):
        check_filter(cutoff, 2)


@pytest.mark.parametrize("order", [0, 1.5, True])
def test_orders_that_are_no_count_are_refused(order):
    with pytest.raises(ConfigError, match="whole number of at least 1"):
        check_filter(0.3, order)


@pytest.mark.parametrize("build", [two_sided_operator, causal_operator])
def test_gradients_to_the_cutoff_equal_finite_differences(build):
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 7)))
    cutoff = torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
    (weight * build(7, cutoff)).sum().backward()
    ends = [float((weight * build(7, 0.37 + step)).sum()) for step in (-1e-6, 1e-6)]
    assert float(cutoff.grad) == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-6)


def test_cutoff_1_is_not_off():
    assert float(two_sided_operator(2, 1.0)[0, 0]) == pytest.approx((1 + 2**-0.5) / 2)
