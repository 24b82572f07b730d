"""What the number format of a GGUF file leaves of the weights, in words and as a rounding error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: Significant bits of the formats that do not share a scale.
_FLOATS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}
#: Formats with equally spaced levels whose spacing is the float16 that a block begins with.
_SPACED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
#: A format with a smaller share of the weights than this is left out of the description: norms, mostly.
_SMALLEST_SHARE = 0.0005
#: Rows of a tensor that the rounding error is estimated from.
_ROWS = 64


def describe_formats(tensors: Sequence[Any]) -> str:
    """Return the number formats of a GGUF file in words, the most frequent first.

    Parameters
    ----------
    tensors : sequence of gguf.ReaderTensor

    Returns
    -------
    str
        For example ``GGUF Q8_0 (8 bits a weight in blocks of 32, rounding error about 0.6% of the weights' size),
        dequantised to float32``. Shares are shown if several formats have at least 0.05 % of the weights.
    """
    from gguf import GGML_QUANT_SIZES

    by_format: dict[str, list[Any]] = {}
    for tensor in tensors:
        by_format.setdefault(tensor.tensor_type.name, []).append(tensor)
    counts = {name: sum(int(tensor.n_elements) for tensor in group) for name, group in by_format.items()}
    total = sum(counts.values())
    shown = sorted((name for name in counts if counts[name] >= _SMALLEST_SHARE * total), key=lambda n: -counts[n])
    parts = []
    for name in shown:
        block = int(GGML_QUANT_SIZES[by_format[name][0].tensor_type][0])
        share = "" if len(shown) == 1 else f"{counts[name] / total:.1%} of the weights, "
        parts.append(f"{name} ({share}{_precision(name, block, by_format[name])})")
    is_exact = set(shown) <= {"F32"}
    return f"GGUF {', '.join(parts)}, {'read as' if is_exact else 'dequantised to'} float32"


def _precision(name: str, block: int, tensors: Sequence[Any]) -> str:
    if name in _FLOATS:
        return f"{_FLOATS[name]} significant bits"
    bits = re.search(r"\d+", name)
    stored = f"{bits.group() if bits else 'few'} bits a weight in blocks of {block}"
    error = relative_rounding_error(tensors) if name in _SPACED else None
    words = "" if error is None else f", rounding error about {error:.1%} of the weights' size"
    return stored + words


def relative_rounding_error(tensors: Sequence[Any]) -> float:
    r"""Return the expected rounding error of quantised tensors over the root mean square of their weights.

    .. math:: \sqrt{\sum_b n_b\, d_b^2 / 12 \;/\; \sum_i w_i^2}

    with the spacing :math:`d_b` of the levels of block b and its :math:`n_b` weights: an error that is uniform within
    half a spacing has this variance. The weights before rounding are not in the file. Of each tensor at most 64 rows,
    evenly spaced, are read; they stand for all.

    Parameters
    ----------
    tensors : sequence of gguf.ReaderTensor
        Of formats with equally spaced levels: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
    """
    from gguf import GGML_QUANT_SIZES, dequantize

    error = size = 0.0
    for tensor in tensors:
        n_block, n_bytes = (int(value) for value in GGML_QUANT_SIZES[tensor.tensor_type])
        rows: npt.NDArray[np.uint8] = tensor.data.reshape(-1, tensor.data.shape[-1])
        step = -(-len(rows) // _ROWS)
        rows = np.ascontiguousarray(rows[::step])
        spacing = rows.reshape(-1, n_bytes)[:, :2].copy().view(np.float16).astype(np.float64)
        error += step * n_block * float(np.square(spacing).sum()) / 12
        size += step * float(np.square(dequantize(rows, tensor.tensor_type), dtype=np.float64).sum())
    return float(np.sqrt(error / size)) if size > 0 else 0.0
