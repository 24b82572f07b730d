"""The forward passes of one capture: batch by batch in one pass, or prefix by prefix; and the causality check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spectral_probe.backbones import LayeredModel
from spectral_probe.errors import ModelError, NonFiniteStateError, ResourceError
from spectral_probe.recording.hooks import Layer, LayerRecorder
from spectral_probe.types import Float32Array, IntArray

#: How far an earlier place may move, as a cosine, when a later item changes; half precision is that coarse.
_CAUSAL_TOLERANCE, _CAUSAL_TOLERANCE_HALF = 1e-4, 2e-2


@dataclass(frozen=True)
class Passes:
    """What the batches of one capture share.

    Attributes
    ----------
    inputs : (n, T) int or (n, T, d) float tensor, on the CPU
    lengths : (n,) int
    device : torch.device
        Where inputs go.
    batch_size : int
        Rows in one forward pass, be they sequences or prefixes.
    """

    model: LayeredModel
    recorder: LayerRecorder
    layers: list[Layer]
    inputs: torch.Tensor
    lengths: IntArray
    users: IntArray | None
    device: torch.device
    batch_size: int
    by_prefix: bool

    def grams(self, rows: IntArray) -> Float32Array:
        """Return the (batch, n_layers, position, position) Grams of some sequences."""
        try:
            found = self._by_prefix(rows) if self.by_prefix else self._one_pass(rows)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise ResourceError(
                f"The memory of {self.device} does not suffice for {self.model.name!r} with batches of "
                f"{self.batch_size}. Use a smaller batch_size, a smaller dtype, or another device."
            ) from error
        grams: Float32Array = found.transpose(0, 1).cpu().numpy()
        broken = np.logical_not(np.isfinite(grams).all(axis=(2, 3)))
        if broken.any():
            # The first layer to break is where to look; what comes after it has only inherited the NaN.
            layer = int(np.flatnonzero(broken.any(axis=0))[0])
            row = int(rows[np.flatnonzero(broken[:, layer])[0]])
            who = f"sequence {row}" if self.users is None else f"user {int(self.users[row])}"
            raise NonFiniteStateError(
                f"States must be finite; layer {self.layers[layer][0]!r} of {self.model.name!r} holds a NaN or an "
                f"infinity for {who}. Check the inputs, or run the model in float32 or bfloat16."
            )
        return grams

    def _batch(self, rows: IntArray, lengths: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs cut to the longest of ``lengths`` and emptied beyond each, and the lengths, on the device."""
        batch = self.inputs[torch.from_numpy(rows), : int(lengths.max())]
        ends = torch.from_numpy(lengths)
        padding = torch.arange(batch.shape[1]) >= ends[:, None]
        batch[padding] = 0  # indexed by a tensor above, so this is a copy
        dtype = dtype_of(self.layers) if batch.is_floating_point() else None
        return batch.to(self.device, dtype), ends.to(self.device)

    def _one_pass(self, rows: IntArray) -> torch.Tensor:
        return self.recorder.grams(*self._batch(rows, self.lengths[rows]))

    def _by_prefix(self, rows: IntArray) -> torch.Tensor:
        """Run every prefix of every sequence as a row of its own, and join their last states."""
        lengths = self.lengths[rows]
        grams = torch.zeros((len(self.layers), len(rows), *[int(lengths.max())] * 2), device=self.device)
        # Only the states of the sequences in hand are kept, so memory does not grow with the number of prefixes.
        together = max(1, self.batch_size // int(lengths.max()))
        for start in range(0, len(rows), together):
            group = slice(start, start + together)
            owner = np.repeat(np.arange(len(rows))[group], lengths[group])
            ends = np.concatenate([np.arange(1, length + 1) for length in lengths[group]])
            order = np.argsort(-ends, kind="stable")
            states: list[torch.Tensor] = []
            for chunk in np.split(order, range(self.batch_size, len(order), self.batch_size)):
                last = self.recorder.last_states(*self._batch(rows[owner[chunk]], ends[chunk]))
                states = states or [layer.new_empty(len(order), layer.shape[1]) for layer in last]
                for kept, layer in zip(states, last, strict=True):
                    kept[torch.from_numpy(chunk).to(kept.device)] = layer
            for sequence in np.unique(owner):
                mine = torch.from_numpy(np.flatnonzero(owner == sequence))
                for index, kept in enumerate(states):
                    H = kept[mine.to(kept.device)]
                    grams[index, sequence, : len(mine), : len(mine)] = (H @ H.T).to(grams.device)
        return grams

    def check_causality(self) -> None:
        """Change the last item of two sequences: if an earlier state moves, the model sees the answers.

        Raises
        ------
        ModelError
            If a state before the last one moves in a model that claims to be causal.
        """
        rows = np.flatnonzero(self.lengths >= 2)[:2]
        if not len(rows):
            return
        inputs, lengths = self._batch(np.concatenate([rows, rows]), self.lengths[np.concatenate([rows, rows])])
        for changed in range(len(rows), 2 * len(rows)):
            last = int(lengths[changed]) - 1
            inputs[changed, last] = self._another(inputs[changed, last])
        grams = self.recorder.grams(inputs, lengths).double()
        is_half = torch.finfo(dtype_of(self.layers)).bits < 32 or getattr(self.model, "quantization", None) is not None
        tolerance = _CAUSAL_TOLERANCE_HALF if is_half else _CAUSAL_TOLERANCE
        for index, (name, _, _) in enumerate(self.layers):
            for first in range(len(rows)):
                end = int(lengths[first]) - 1
                before, after = (grams[index, row, :end, :end] for row in (first, first + len(rows)))
                norms = before.diagonal().clamp(min=torch.finfo(torch.float32).tiny).sqrt()
                # As a cosine: an attention sink's huge norm must not hide what happens elsewhere.
                moved = float(((after - before).abs() / (norms[:, None] * norms)).max())
                if not moved <= tolerance and np.isfinite(moved):
                    raise ModelError(
                        f"A causal model's state at t depends on items 1…t alone, but changing item {end + 1} of "
                        f"sequence {int(rows[first])} moved earlier states of {name!r} in {self.model.name!r} by "
                        f"{moved:.2g} (cosine; {tolerance:g} allowed). Its curve would show it its own answers. Set "
                        "is_causal = False, so that it is probed prefix by prefix."
                    )

    def _another(self, item: torch.Tensor) -> torch.Tensor:
        """Return something else that the model could have read in place of an item."""
        if item.is_floating_point():
            # Negated, not shifted: the norm at a model's entrance takes a shift away again.
            return -item if bool(item.any()) else torch.linspace(-1, 1, len(item)).to(item)
        low, high = self.inputs.min().to(item), self.inputs.max().to(item)
        return high if bool(item != high) else low


def dtype_of(layers: Sequence[Layer]) -> torch.dtype:
    """Return the number type of the first block, float32 if it has no weights."""
    for _, _, module in layers:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return torch.float32


def _is_out_of_memory(error: Exception) -> bool:
    """Tell a full memory from other errors: on the CPU, PyTorch reports it as a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)
