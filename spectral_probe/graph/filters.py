"""Frequency responses on a graph and the operators they define."""

from __future__ import annotations

import numpy as np

from spectral_probe.errors import ConfigError
from spectral_probe.types import FloatArray


def heat_kernel(eigenvalues: FloatArray, tau: float) -> FloatArray:
    r"""Return the low-pass response :math:`h(\lambda) = e^{-\tau\lambda}`; 0 where the eigenvalue is NaN (padding).

    It is a function of L, so repeated eigenvalues and band edges do not affect it, and graphs of any size compare.

    Raises
    ------
    ConfigError
        If ``tau`` is not a positive finite number.
    """
    if not (np.isfinite(tau) and tau > 0):
        raise ConfigError(f"tau must be a positive number; got {tau}. The default is 5.")
    return np.nan_to_num(np.exp(-tau * eigenvalues), nan=0.0)


def graph_operator(eigenvectors: FloatArray, response: FloatArray) -> FloatArray:
    r"""Return :math:`U h(\Lambda) U^\top`, (…, T, T), from eigenvectors (…, T, T) and a response (…, T)."""
    return np.asarray(np.matmul(eigenvectors * response[..., None, :], np.swapaxes(eigenvectors, -1, -2)))
