"""Frequency responses on a graph and the operators they define."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spectral_probe.errors import ConfigError
from spectral_probe.graph.bases import inverse_sqrt
from spectral_probe.types import FloatArray

#: Longest diffusion time: :func:`heat_operator` holds numbers up to e^τ, which leave float64 at τ = 709. Nothing longer
#: is of use: at 500 a frequency of 0.1, of the 2 that there are, is at e⁻⁵⁰.
MOST_TAU = 500.0


def heat_kernel(eigenvalues: FloatArray, tau: float) -> FloatArray:
    r"""Return the low-pass response :math:`h(\lambda) = e^{-\tau\lambda}`; 0 where the eigenvalue is NaN (padding).

    It is a function of L, so repeated eigenvalues and band edges do not affect it, and graphs of any size compare.

    Raises
    ------
    ConfigError
        If ``tau`` is not a positive number of at most :data:`MOST_TAU`.
    """
    if not 0 < tau <= MOST_TAU:
        raise ConfigError(f"tau must be a positive number of at most {MOST_TAU:g}; got {tau}. Try 1.")
    return np.nan_to_num(np.exp(-tau * eigenvalues), nan=0.0)


def graph_operator(eigenvectors: FloatArray, response: FloatArray) -> FloatArray:
    r"""Return :math:`U h(\Lambda) U^\top`, (…, T, T), from eigenvectors (…, T, T) and a response (…, T)."""
    return np.asarray(np.matmul(eigenvectors * response[..., None, :], np.swapaxes(eigenvectors, -1, -2)))


def heat_operator(adjacency: FloatArray, tau: float) -> FloatArray:
    r"""Return :math:`e^{-\tau L}` of each (…, T, T) adjacency, without its eigenvectors.

    With :math:`S = D^{-1/2} A D^{-1/2}`, whose eigenvalues lie in [−1, 1], :math:`e^{-\tau L} = e^{-\tau} e^{\tau S}`.
    The exponential is a Taylor polynomial of degree 15 in :math:`\tau S / 2^q`, with :math:`\tau / 2^q \le 1`, squared
    q times. Its error is below 1e-12.

    Raises
    ------
    ConfigError
        If ``tau`` is not a positive number of at most :data:`MOST_TAU`.
    """
    heat_kernel(np.empty(0), tau)
    n_squarings = max(0, int(np.ceil(np.log2(tau))))
    scale = inverse_sqrt(adjacency.sum(axis=-1))
    S = scale[..., :, None] * adjacency * scale[..., None, :] * (tau / 2**n_squarings)
    identity = np.eye(adjacency.shape[-1])
    powers = [identity, S, S @ S]
    powers.append(powers[2] @ S)
    powers.append(powers[2] @ powers[2])
    coefficients = [1.0 / math.factorial(k) for k in range(16)]
    # Four terms at a time: six products of matrices instead of fourteen.
    operator = np.zeros_like(S)
    for start in (12, 8, 4, 0):
        operator = operator @ powers[4] if start < 12 else operator
        operator = operator + sum(coefficients[start + k] * powers[k] for k in range(4))
    for _ in range(n_squarings):
        operator = operator @ operator
    return np.asarray(np.exp(-tau) * operator)


def heat_operators(adjacency: FloatArray, taus: Sequence[float]) -> FloatArray:
    r"""Return :math:`e^{-\tau L}` at several diffusion times, (n_taus, …, T, T).

    A time that is twice the one before it costs one product: :math:`e^{-2\tau L} = (e^{-\tau L})^2`.

    Raises
    ------
    ConfigError
        If a time is not a positive finite number.
    """
    operators: list[FloatArray] = []
    for at, tau in enumerate(taus):
        is_double = at > 0 and tau == 2 * taus[at - 1]
        operators.append(operators[-1] @ operators[-1] if is_double else heat_operator(adjacency, tau))
    return np.stack(operators)
