"""Array types and the kinds of layer states, shared by all stages. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

#: Largest seed that all generators take.
MOST_SEED = 2**32 - 1
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
#: ``embed`` is the input of the first block, ``block`` the output of one, ``final_norm`` the state after the last norm.
LayerState = Literal["embed", "block", "final_norm"]
