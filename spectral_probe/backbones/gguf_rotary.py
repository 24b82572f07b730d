"""Rotary frequencies of Llama 3 in GGUF files: a tensor of factors there, four settings in transformers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spectral_probe.types import FloatArray

FACTORS = "rope_freqs.weight"
#: What all published models that scale this way have in common; only ``factor`` differs (8, or 32 for the small ones).
_LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def llama3_settings(config: Any, factors: npt.NDArray[np.float32]) -> dict[str, Any] | None:
    r"""Return the ``rope_parameters`` that divide the rotary frequencies by given factors.

    Parameters
    ----------
    config : PretrainedConfig
        With unscaled frequencies :math:`\theta^{-2i/d}`.
    factors : (head_dim / 2,) float32
        The tensor ``rope_freqs.weight``.

    Returns
    -------
    dict or None
        None if no setting of Llama 3's kind gives these factors.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = copy.deepcopy(config)
    theta = float(config.rope_parameters["rope_theta"])
    settings = {**_LLAMA3, "rope_theta": theta, "factor": float(np.max(factors))}
    scaled.rope_parameters = settings
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, torch.device("cpu"))
    unscaled: FloatArray = theta ** -(np.arange(len(frequencies)) / len(frequencies))
    is_same = len(factors) == len(frequencies) and np.allclose(unscaled / frequencies.numpy(), factors, rtol=1e-4)
    return settings if is_same else None
