"""Filters in the frequency domain along a frame: a learned one, and a rescaling of high frequencies."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding

from frellm4rec.modules.frame import Frame


def circular_convolution(states: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    r"""Return :math:`y_t = \sum_m k_m \odot x_{(t-m) \bmod T}`, by real Fourier transforms; differentiable once.

    Parameters
    ----------
    states : (batch, position, feature) float
        Up to T positions; those left out are 0 in x, and are left out of y.
    kernel : (T, feature) float
    """
    convolved: torch.Tensor = _CircularConvolution.apply(states, kernel)  # type: ignore[no-untyped-call]
    return convolved


class _CircularConvolution(torch.autograd.Function):
    """Its gradients are real transforms too; PyTorch takes complex ones, and half as much time again for a step."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Return the convolution along dimension 1."""
        n_frame = len(kernel)
        of_states = torch.fft.rfft(states, n=n_frame, dim=1)
        of_kernel = torch.fft.rfft(kernel, dim=0)
        ctx.save_for_backward(of_states, of_kernel)
        ctx.shape = states.shape[1], n_frame
        convolved: torch.Tensor = torch.fft.irfft(of_states * of_kernel, n=n_frame, dim=1)
        return convolved[:, : states.shape[1]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the correlations of the gradient with the kernel and with the states."""
        (of_states, of_kernel), (n_positions, n_frame) = ctx.saved_tensors, ctx.shape
        of_grad = torch.fft.rfft(grad, n=n_frame, dim=1)
        of_kernel_grad = (of_states.conj() * of_grad).sum(0)
        states_grad = torch.fft.irfft(of_grad * of_kernel.conj(), n=n_frame, dim=1)[:, :n_positions]
        return states_grad, torch.fft.irfft(of_kernel_grad, n=n_frame, dim=0)


class FrequencyFilter(nn.Module):
    r"""The learned filter :math:`y = F^{-1}(W \odot F x)` of FMLP-Rec, F the real DFT along a frame of T positions.

    Per feature it is a circular convolution, :math:`y_t = \sum_m k_m x_{(t-m) \bmod T}` with :math:`k = F^{-1} W`.

    Parameters
    ----------
    n_frame : int
        T.
    width : int
        Features of a state.

    Notes
    -----
    Source: Zhou et al. 2022, Eqs. (4) to (6). The imaginary parts of W at frequency 0 and, for an even T, at the last
    frequency change nothing.
    """

    def __init__(self, n_frame: int, width: int) -> None:
        super().__init__()
        self.n_frame = n_frame
        # (frequency, feature, 2): real and imaginary parts, because optimizers and files take real tensors.
        self.weight = nn.Parameter(torch.zeros(n_frame // 2 + 1, width, 2))

    def draw(self, generator: torch.Generator) -> None:
        """Draw both parts of W, normal with standard deviation 0.02."""
        nn.init.normal_(self.weight, std=0.02, generator=generator)

    def kernel(self) -> torch.Tensor:
        """Return k, (T, feature), in float32."""
        kernel: torch.Tensor = torch.fft.irfft(torch.view_as_complex(self.weight.float()), n=self.n_frame, dim=0)
        return kernel

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the filtered states, (batch, position, feature), for up to T positions; those left out are 0."""
        # Half precision has no Fourier transform on the CPU.
        return circular_convolution(states.float(), self.kernel()).to(states.dtype)

    def newest(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the filtered state of the newest item alone, (batch, feature): the sum over ages of k · x."""
        weights = frame.unpack(embedding(frame.pack(frame.ages), self.kernel()))
        return (weights * states).sum(1).to(states.dtype)


class FrequencyRescaler(nn.Module):
    r"""The rescaling :math:`\mathrm{low} + \beta^2 \odot (x - \mathrm{low})` of BSARec along a frame of T positions.

    low keeps the first ⌊c/2⌋ + 1 frequencies of the real DFT of x. It is a product with a symmetric circulant T×T
    matrix, of which a history of fewer items reads the leading block.

    Parameters
    ----------
    n_frame : int
        T.
    width : int
        Features of a state.
    c : int
        Number of frequencies, those of both signs counted; from T on, all of them.

    Notes
    -----
    Source: Shin et al. 2024, section 4.1. The sign of :math:`\beta` has no effect.
    """

    low_pass: torch.Tensor

    def __init__(self, n_frame: int, width: int, c: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(width))
        passes = (torch.arange(n_frame // 2 + 1) <= c // 2).to(torch.complex128)
        kernel = torch.fft.irfft(passes, n=n_frame).float()
        steps = torch.arange(n_frame)
        self.register_buffer("low_pass", kernel[(steps[:, None] - steps) % n_frame], persistent=False)

    def draw(self, generator: torch.Generator) -> None:
        """Draw β, normal with standard deviation 1."""
        nn.init.normal_(self.beta, generator=generator)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the rescaled states, (batch, position, feature), for up to T positions; those left out are 0."""
        n_positions = states.shape[1]
        return self._rescaled(states, self.low_pass[:n_positions, :n_positions].to(states.dtype) @ states)

    def newest(self, states: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Return the rescaled state of the newest item alone, (batch, feature)."""
        weights = self.low_pass[0][frame.ages] * frame.is_valid
        low = (weights[:, None].to(states.dtype) @ states)[:, 0]
        return self._rescaled(frame.newest(states), low)

    def _rescaled(self, states: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        return low + self.beta.square() * (states - low)
