"""Filters along a frame against sums written out, and the state of the newest item alone against all of them."""

import cmath
import math

import pytest
import torch

from frellm4rec.modules.frame import Frame
from frellm4rec.modules.frequency import FrequencyFilter, FrequencyRescaler, circular_convolution

LENGTHS = torch.tensor([3, 6, 1, 5])


def random_states(n_frame, width=3, dtype=torch.float32):
    """States of histories of the lengths above on as many positions as the longest, 0 at the padding."""
    frame = Frame.of(LENGTHS, 6, n_frame)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 6, width, generator=generator, dtype=dtype) * frame.is_valid[..., None], frame


def make(kind, n_frame, width=3):
    """A filter with random weights."""
    module = FrequencyFilter(n_frame, width) if kind == "filter" else FrequencyRescaler(n_frame, width, 3)
    module.draw(torch.Generator().manual_seed(1))
    if kind == "filter":
        module.weight.data *= 50
    return module


def right_aligned(states, lengths, n_frame):
    """Each history at the end of a frame of full length, zeros before it."""
    aligned = states.new_zeros(len(states), n_frame, states.shape[2])
    for row, length in enumerate(lengths.tolist()):
        aligned[row, n_frame - length :] = states[row, :length]
    return aligned


@pytest.mark.parametrize("n_frame", [6, 7, 10])
def test_the_filter_is_a_circular_sum_over_the_right_aligned_frame(n_frame):
    """The kernel is the inverse transform of W; the sum is written out for every position of every history."""
    module, (states, _) = make("filter", n_frame), random_states(n_frame)
    filtered, kernel = module(states).detach(), torch.fft.irfft(torch.view_as_complex(module.weight), n=n_frame, dim=0)
    aligned = right_aligned(states, LENGTHS, n_frame)
    for row, length in enumerate(LENGTHS.tolist()):
        for position in range(length):
            t = n_frame - length + position
            for feature in range(3):
                expected = sum(
                    float(kernel[m, feature].detach() * aligned[row, (t - m) % n_frame, feature])
                    for m in range(n_frame)
                )
                assert float(filtered[row, position, feature]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("n_frame", [6, 7])
def test_the_filter_is_the_published_one(n_frame):
    """With transforms of norm "ortho" in both directions, as the paper's code has them."""
    module, (states, _) = make("filter", n_frame), random_states(n_frame)
    aligned = right_aligned(states, LENGTHS, n_frame)
    frequencies = torch.fft.rfft(aligned, dim=1, norm="ortho") * torch.view_as_complex(module.weight)
    published = torch.fft.irfft(frequencies, n=n_frame, dim=1, norm="ortho")
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(module(states)[row, :length], published[row, n_frame - length :])


@pytest.mark.parametrize(("n_frame", "without"), [(8, (0, 4)), (7, (0,))])
def test_imaginary_parts_at_both_ends_have_no_effect(n_frame, without):
    module, (states, _) = make("filter", n_frame), random_states(n_frame)
    before = module(states)
    before.square().sum().backward()
    gradient = module.weight.grad[..., 1]
    has_effect = gradient.abs().max(1).values > 1e-3
    assert [k for k in range(n_frame // 2 + 1) if not has_effect[k]] == list(without)
    assert gradient[list(without)].abs().max() < 1e-4
    with torch.no_grad():
        module.weight[list(without), :, 1] += 10.0
    torch.testing.assert_close(module(states), before)


@pytest.mark.parametrize("n_frame", [6, 7, 9])
def test_gradients_of_the_convolution(n_frame):
    states, _ = random_states(n_frame, dtype=torch.float64)
    kernel = torch.randn(n_frame, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(circular_convolution, (states.requires_grad_(), kernel.requires_grad_()))


@pytest.mark.parametrize("n_frame", [6, 7, 10])
@pytest.mark.parametrize("kind", ["filter", "rescaler"])
def test_the_newest_item_alone_equals_its_row(kind, n_frame):
    module, (states, frame) = make(kind, n_frame), random_states(n_frame)
    every, newest = frame.newest(module(states)), module.newest(states, frame)
    torch.testing.assert_close(newest, every, rtol=1e-5, atol=1e-5)
    weights = next(module.parameters())
    expected, got = (torch.autograd.grad(x.square().sum(), weights)[0] for x in (every, newest))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["filter", "rescaler"])
def test_every_position_reads_every_other_circularly(kind):
    module = make(kind, 7)  # with 6 positions, one weight of the rescaling is 0
    impulse = torch.zeros(1, 7, 3)
    impulse[0, 0] = 1.0
    moved = module(impulse)[0]
    assert (moved.abs().max(1).values > 1e-3).all()
    torch.testing.assert_close(module(impulse.roll(2, 1))[0], moved.roll(2, 0))


# The rescaling of BSARec


def test_low_frequencies_by_complex_exponentials():
    """c 3 keeps the mean and one oscillation, the latter with both signs; β² weighs the rest."""
    n_frame, generator = 6, torch.Generator().manual_seed(3)
    states = torch.randn(1, n_frame, 2, generator=generator)
    module = FrequencyRescaler(n_frame, 2, 3)
    module.draw(generator)
    rescaled = module(states).detach()
    for feature in range(2):
        x = states[0, :, feature].tolist()
        for t in range(n_frame):
            low = 0.0
            for k in (-1, 0, 1):
                coefficient = sum(x[s] * cmath.exp(-2j * math.pi * k * s / n_frame) for s in range(n_frame)) / n_frame
                low += (coefficient * cmath.exp(2j * math.pi * k * t / n_frame)).real
            expected = low + float(module.beta[feature].detach()) ** 2 * (x[t] - low)
            assert float(rescaled[0, t, feature]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("c", "n_kept"), [(1, 1), (2, 2), (3, 2), (5, 3), (9, 5), (50, 26), (99, 26)])
def test_c_counts_frequencies_of_both_signs(c, n_kept):
    """As many of the 26 frequencies of 50 positions as ⌊c/2⌋ + 1, and no more than all."""
    low_pass = FrequencyRescaler(50, 1, c).low_pass
    assert int(torch.linalg.matrix_rank(low_pass)) == min(50, 2 * n_kept - 1)
    torch.testing.assert_close(low_pass @ low_pass, low_pass, rtol=0, atol=1e-5)
    torch.testing.assert_close(low_pass, low_pass.T)


def test_low_and_high_add_up_and_the_sign_of_beta_has_no_effect():
    states, _ = random_states(8)
    module = make("rescaler", 8)
    rescaled = module(states)
    with torch.no_grad():
        module.beta.neg_()
    torch.testing.assert_close(module(states), rescaled)
    with torch.no_grad():
        module.beta.fill_(1.0)
    torch.testing.assert_close(module(states), states)


@pytest.mark.parametrize("n_frame", [6, 7])
def test_where_all_frequencies_are_low_beta_has_no_effect(n_frame):
    states, _ = random_states(n_frame)
    module = FrequencyRescaler(n_frame, 3, n_frame)
    module.draw(torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(states), states)


def test_the_matrix_of_the_rescaling_is_no_weight():
    assert list(FrequencyRescaler(6, 3, 3).state_dict()) == ["beta"]


@pytest.mark.parametrize("kind", ["filter", "rescaler"])
def test_half_precision(kind):
    module, (states, frame) = make(kind, 7), random_states(7)
    expected = module(states)
    module, states = module.to(torch.bfloat16), states.to(torch.bfloat16)
    for got, wanted in ((module(states), expected), (module.newest(states, frame), frame.newest(expected))):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), wanted, rtol=0.1, atol=0.1)
