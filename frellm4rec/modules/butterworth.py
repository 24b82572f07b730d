r"""The Butterworth gain along time, and the T×T matrices that apply it to a history of length T.

A fixed linear filter along a history of T items is a real T×T matrix M, :math:`H' = M H`. It is built once per length
and applied to the valid span alone, so that neither padding nor the rest of a batch can reach a state.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from spectral_probe.errors import ConfigError

#: Least number of quadrature nodes of :func:`causal_kernel` on each side of the cutoff; exact to 1e-12 for histories of
#: up to as many items. Longer histories use more nodes.
_NODES = 768
#: A row of the causal operator whose weights cancel to less than this part of the newest one cannot be normalised.
_SMALLEST_ROW_SUM = 1e-2


def check_filter(cutoff: float | None, order: int) -> None:
    """Refuse a cutoff outside (0, 1] and an order below 1; a cutoff of None switches the filter off."""
    if cutoff is not None and not 0.0 < cutoff <= 1.0:
        raise ConfigError(
            f"cutoff is a fraction of the Nyquist frequency in (0, 1]; got {cutoff}. None switches the filter off; 1.0 "
            "does not (its gain at Nyquist is 0.71)."
        )
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ConfigError(f"order must be a whole number of at least 1; got {order!r}. The paper's is 2.")


def butterworth_gain(frequency: torch.Tensor, cutoff: float | torch.Tensor, order: int = 2) -> torch.Tensor:
    r"""Return the gain :math:`|\mathcal B(f)| = (1 + (f/f_c)^{2n})^{-1/2}`, shaped like ``frequency``.

    Parameters
    ----------
    frequency : float tensor
        As a fraction of the Nyquist frequency: 0 is the mean, 1 changes sign at every item.
    cutoff : float or scalar tensor
        :math:`f_c`, where the gain is :math:`1/\sqrt 2`; a tensor may carry a gradient.
    order : int
        n; the larger, the steeper.

    Notes
    -----
    Source: FreLLM4Rec Eq. (9), which is the square. Deviation: the cutoff is continuous; the published code rounds it
    down to a bin.
    """
    return (1.0 + (frequency / cutoff) ** (2 * order)).rsqrt()


def two_sided_operator(T: int, cutoff: float | torch.Tensor, order: int = 2) -> torch.Tensor:
    r"""Return the paper's filter for a history of length T as a (T, T) matrix in float64.

    .. math:: M = F^{-1} \operatorname{diag}\big(|\mathcal B(f_k)|\big) F, \qquad f_k = 2k/T

    with F the discrete Fourier transform: a symmetric circulant matrix. Row t has weight on items after t, and wraps
    around from the last item to the first.

    Notes
    -----
    Source: FreLLM4Rec Eq. (8). Its rows sum to 1, and T = 1 is the identity.
    """
    bins = torch.arange(T // 2 + 1, dtype=torch.float64) * (2.0 / T)
    kernel = torch.fft.irfft(butterworth_gain(bins, _as_float64(cutoff), order).to(torch.complex128), n=T)
    positions = torch.arange(T)
    return kernel[(positions[:, None] - positions) % T]


def causal_kernel(T: int, cutoff: float | torch.Tensor, order: int = 2) -> torch.Tensor:
    r"""Return the weights at lags 0…T − 1 of the filter on an endless history, (T,) float64.

    .. math:: h_j = \int_0^1 |\mathcal B(f)| \cos(\pi j f)\, df
    """
    cutoff = _as_float64(cutoff)
    nodes, weights = _quadrature(max(_NODES, 256 * math.ceil(T / 256)))
    unit, half = (nodes + 1.0) / 2.0, weights / 2.0
    # Two pieces that meet at the cutoff, where the gain bends.
    frequency = torch.cat([cutoff * unit, cutoff + (1.0 - cutoff) * unit])
    measure = torch.cat([cutoff * half, (1.0 - cutoff) * half])
    lags = torch.arange(T, dtype=torch.float64)
    return torch.cos(math.pi * lags[:, None] * frequency) @ (measure * butterworth_gain(frequency, cutoff, order))


def causal_operator(T: int, cutoff: float | torch.Tensor, order: int = 2) -> torch.Tensor:
    r"""Return the one-sided filter for a history of length T as a lower-triangular (T, T) matrix in float64.

    .. math:: M_{ts} = h_{t-s} \Big/ \sum_{r \le t} h_{t-r} \quad (s \le t)

    with h of :func:`causal_kernel`. The operator of a shorter history is the leading block of that of a longer one.

    Raises
    ------
    ConfigError
        If the weights of a row cancel, so that they cannot be scaled to sum 1.

    Notes
    -----
    Source: the zero-phase kernel of FreLLM4Rec Eq. (9) without its wrap-around and without later items. Rows sum to 1,
    T = 1 is the identity. Its delay adds up over the layers, but is a fraction of that of a minimum-phase filter:
    ``docs/theory.md`` tabulates the weight left on the newest items.
    """
    kernel = causal_kernel(T, cutoff, order)
    sums = kernel.cumsum(0)
    worst = float((sums.detach() / kernel.detach()[0]).min())
    if worst < _SMALLEST_ROW_SUM:
        raise ConfigError(
            f"The causal filter of cutoff {float(cutoff)} and order {order} cancels on a history of {T} items: a row "
            f"sums to {worst:.2g} of its newest weight. Use a lower order or another cutoff."
        )
    positions = torch.arange(T)
    lags = positions[:, None] - positions
    weights = torch.where(lags >= 0, kernel[lags.clamp(min=0)], 0.0)
    return weights / sums[:, None]


@lru_cache(maxsize=4)
def _quadrature(n_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Gauss–Legendre nodes in [-1, 1] and their weights; cached, because computing them is slow."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def _as_float64(cutoff: float | torch.Tensor) -> torch.Tensor:
    """Return the cutoff as a float64 tensor on the CPU; gradients pass through."""
    # The dtype is given here: a Python number would pass through float32 otherwise.
    return torch.as_tensor(cutoff, dtype=torch.float64, device="cpu")
