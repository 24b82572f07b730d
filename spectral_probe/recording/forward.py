"""The forward passes of one capture, in one pass per batch or prefix by prefix, and the causality check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spectral_probe.backbones import LayeredModel
from spectral_probe.errors import ModelError, NonFiniteStateError, ResourceError
from spectral_probe.recording.hooks import Layer, LayerRecorder
from spectral_probe.recording.pilot import Pilot, PilotSums, read_items
from spectral_probe.recording.residuals import Residuals, RowBins, add_to_sums, count_positions
from spectral_probe.types import Float32Array, IntArray

#: Largest change of an earlier state, as a cosine, when a later item changes: in float32 and in half precision.
_CAUSAL_TOLERANCE, _CAUSAL_TOLERANCE_HALF = 1e-4, 2e-2


@dataclass(frozen=True)
class Passes:
    """The model, the inputs and the settings that all batches of one capture share.

    Attributes
    ----------
    inputs : (n, T) int or (n, T, d) float tensor, on the CPU
    lengths : (n,) int
    device : torch.device
        Where inputs go.
    batch_size : int
        Rows in one forward pass; a row is a sequence or a prefix.
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
    targets: IntArray | None = None
    items: IntArray | None = None

    def grams(self, rows: IntArray, residuals: Residuals | None = None) -> Float32Array:
        """Return the (n_kinds, batch, n_layers, position, position) Grams of some sequences.

        Kind 0 are the states as they are; with ``residuals``, kind 1 are the treated states.
        """
        try:
            layer_grams = self._by_prefix(rows, residuals) if self.by_prefix else self._one_pass(rows, residuals)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise ResourceError(
                f"Out of memory on {self.device} while running {self.model.name!r} with batch_size="
                f"{self.batch_size}. Use a smaller batch_size, a smaller dtype, or another device."
            ) from error
        grams: Float32Array = layer_grams.transpose(1, 2).cpu().numpy()
        broken = np.logical_not(np.isfinite(grams[0]).all(axis=(2, 3)))
        if broken.any():
            # Name the first layer that is not finite; later layers inherit its NaN.
            layer = int(np.flatnonzero(broken.any(axis=0))[0])
            row = int(rows[np.flatnonzero(broken[:, layer])[0]])
            owner = f"sequence {row}" if self.users is None else f"user {int(self.users[row])}"
            raise NonFiniteStateError(
                f"States must be finite; layer {self.layers[layer][0]!r} of {self.model.name!r} holds a NaN or an "
                f"infinity for {owner}. Check the inputs, or run the model in float32 or bfloat16."
            )
        return grams

    def _batch(self, rows: IntArray, lengths: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs, cut to the longest of ``lengths`` and 0 beyond each, and the lengths, on the device."""
        batch = self.inputs[torch.from_numpy(rows), : int(lengths.max())]
        ends = torch.from_numpy(lengths)
        padding = torch.arange(batch.shape[1]) >= ends[:, None]
        batch[padding] = 0  # indexed by a tensor above, so this is a copy
        dtype = dtype_of(self.layers) if batch.is_floating_point() else None
        return batch.to(self.device, dtype), ends.to(self.device)

    def pilot(self, rows: IntArray, bins: IntArray) -> Pilot:
        """Run the sequences of the pilot, and return the mean states of the popularity bins."""
        sums = PilotSums(bins, len(self.layers))
        order = rows[np.argsort(-self.lengths[rows], kind="stable")]
        for batch in np.split(order, range(self.batch_size, len(order), self.batch_size)):
            of_batch = self._row_bins(batch, bins)
            count_positions(sums, of_batch)
            if self.by_prefix:
                for sequence, states in self._states_by_prefix(batch):
                    of_sequence = of_batch.sequence(sequence, len(states[0]))
                    for layer, H in enumerate(states):
                        add_to_sums(sums, layer, H[None], of_sequence)
            else:
                self.recorder.add_to_pilot(*self._batch(batch, self.lengths[batch]), sums, of_batch)
        return sums.fit(rows)

    def _row_bins(self, rows: IntArray, bins: IntArray) -> RowBins:
        """Return the popularity bins of the rows of some sequences, cut to the longest."""
        assert self.targets is not None
        longest = int(self.lengths[rows].max())
        targets, items = self.targets[rows, :longest], None if self.items is None else self.items[rows, :longest]
        return RowBins.of(bins, targets, read_items(items, targets), self.lengths[rows])

    def _one_pass(self, rows: IntArray, residuals: Residuals | None) -> torch.Tensor:
        of_rows = None if residuals is None else self._row_bins(rows, residuals.pilot.bins)
        return self.recorder.grams(*self._batch(rows, self.lengths[rows]), residuals, of_rows)

    def _by_prefix(self, rows: IntArray, residuals: Residuals | None) -> torch.Tensor:
        """Run every prefix of every sequence as a row of its own, and reduce their joined last states to Grams."""
        n_kinds, longest = 1 if residuals is None else 2, int(self.lengths[rows].max())
        grams = torch.zeros((n_kinds, len(self.layers), len(rows), longest, longest), device=self.device)
        of_rows = None if residuals is None else self._row_bins(rows, residuals.pilot.bins)
        for sequence, states in self._states_by_prefix(rows):
            for index, H in enumerate(states):
                length = len(H)
                grams[0, index, sequence, :length, :length] = (H @ H.T).to(grams.device)
                if residuals is not None and of_rows is not None:
                    X = residuals.treated(index, H[None], of_rows.sequence(sequence, length))[0]
                    grams[1, index, sequence, :length, :length] = (X @ X.T).to(grams.device)
        return grams

    def _states_by_prefix(self, rows: IntArray) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Yield, for each sequence of a batch, its place and the (position, feature) states of every layer."""
        lengths = self.lengths[rows]
        # Only the states of one group of sequences are kept, so memory does not grow with the number of prefixes.
        group_size = max(1, self.batch_size // int(lengths.max()))
        for start in range(0, len(rows), group_size):
            group = slice(start, start + group_size)
            owner = np.repeat(np.arange(len(rows))[group], lengths[group])
            ends = np.concatenate([np.arange(1, length + 1) for length in lengths[group]])
            order = np.argsort(-ends, kind="stable")
            states: list[torch.Tensor] = []
            for chunk in np.split(order, range(self.batch_size, len(order), self.batch_size)):
                last = self.recorder.last_states(*self._batch(rows[owner[chunk]], ends[chunk]))
                states = states or [layer.new_empty(len(order), layer.shape[1]) for layer in last]
                for layer_states, layer in zip(states, last, strict=True):
                    layer_states[torch.from_numpy(chunk).to(layer_states.device)] = layer
            for sequence in np.unique(owner).tolist():
                prefixes = torch.from_numpy(np.flatnonzero(owner == sequence))
                yield sequence, [layer_states[prefixes.to(layer_states.device)] for layer_states in states]

    def check_causality(self) -> None:
        """Change the last item of two sequences and check that no earlier state changes.

        Raises
        ------
        ModelError
            If a state before the last one changes in a model that claims to be causal, or that mixes users.
        """
        rows = np.flatnonzero(self.lengths >= 2)[:2]
        if not len(rows):
            return
        inputs, lengths = self._batch(np.concatenate([rows, rows]), self.lengths[np.concatenate([rows, rows])])
        for changed in range(len(rows), 2 * len(rows)):
            last = int(lengths[changed]) - 1
            inputs[changed, last] = self._another(inputs[changed, last])
        grams = self.recorder.grams(inputs, lengths)[0].double()
        is_half = torch.finfo(dtype_of(self.layers)).bits < 32 or getattr(self.model, "quantization", None) is not None
        tolerance = _CAUSAL_TOLERANCE_HALF if is_half else _CAUSAL_TOLERANCE
        for index, (name, _, _) in enumerate(self.layers):
            for first in range(len(rows)):
                end = int(lengths[first]) - 1
                before, after = (grams[index, row, :end, :end] for row in (first, first + len(rows)))
                norms = before.diagonal().clamp(min=torch.finfo(torch.float32).tiny).sqrt()
                # As a cosine: the large norm of an attention sink must not hide changes at other positions.
                change = float(((after - before).abs() / (norms[:, None] * norms)).max())
                if not change <= tolerance and np.isfinite(change):
                    self._refuse_mixed_users(inputs, lengths, tolerance)
                    raise ModelError(
                        f"A causal model's state at t depends on items 1…t alone, but changing item {end + 1} of "
                        f"sequence {int(rows[first])} changed earlier states of {name!r} in {self.model.name!r} by "
                        f"{change:.2g} (cosine; {tolerance:g} allowed). Its states at t would already contain the item "
                        "to be predicted. Set is_causal = False, so that it is probed prefix by prefix."
                    )

    def _refuse_mixed_users(self, inputs: torch.Tensor, lengths: torch.Tensor, tolerance: float) -> None:
        """Refuse a model whose states of a sequence change with the other sequences of a batch.

        The first half of ``inputs`` are sequences; the second half are the same with another last item.
        """
        n = len(inputs) // 2
        same = torch.cat([inputs[:n], inputs[:n]])
        reference = self.recorder.grams(same, lengths)[0].double()
        for half, other in ((slice(0, n), slice(n, None)), (slice(n, None), slice(0, n))):
            changed = same.clone()
            changed[other] = inputs[n:]
            before, after = reference[:, half], self.recorder.grams(changed, lengths)[0].double()[:, half]
            norms = before.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(torch.float32).tiny).sqrt()
            change = float(((after - before).abs() / (norms[..., :, None] * norms[..., None, :])).max())
            if change > tolerance:
                raise ModelError(
                    f"The states of a sequence must not depend on the other sequences of a batch; in "
                    f"{self.model.name!r} they change by {change:.2g} (cosine; {tolerance:g} allowed) when another "
                    "sequence changes. Sequences are on the first axis: build the model with batch_first=True."
                )

    def _another(self, item: torch.Tensor) -> torch.Tensor:
        """Return a different input that the model could read instead of an item."""
        if item.is_floating_point():
            # Negated, not shifted: a norm layer at the input would remove a shift.
            return -item if bool(item.any()) else torch.linspace(-1, 1, len(item)).to(item)
        low, high = self.inputs.min().to(item), self.inputs.max().to(item)
        return high if bool(item != high) else low


def dtype_of(layers: Sequence[Layer]) -> torch.dtype:
    """Return the dtype of the first block, float32 if it has no weights."""
    for _, _, module in layers:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return torch.float32


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error means out of memory; on the CPU, PyTorch raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)
