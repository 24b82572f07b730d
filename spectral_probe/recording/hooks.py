"""Forward hooks that reduce each layer's state when it is computed; they are removed also after an exception."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from spectral_probe.backbones.protocol import LayeredModel
from spectral_probe.errors import ModelError
from spectral_probe.recording.pilot import PilotSums
from spectral_probe.recording.residuals import Residuals, RowBins, add_to_sums
from spectral_probe.types import LayerState

Layer = tuple[str, LayerState, nn.Module]


class LayerRecorder:
    """Runs a model and keeps, for every layer, only what is asked for: Grams, last states or sums for the pilot.

    Parameters
    ----------
    model : LayeredModel
    layers : list of (layer_name, layer_state, module)
        The layers to record; each must run exactly once in a forward pass.
    norm : nn.Module, optional
        Applied first to ``embed`` and block states.

    Notes
    -----
    Used as a context manager: the hooks exist only inside the ``with`` block.
    """

    def __init__(self, model: LayeredModel, layers: Sequence[Layer], norm: nn.Module | None = None) -> None:
        self._model, self._layers, self._norm = model, list(layers), norm
        self._handles: list[Any] = []
        self._lengths = torch.empty(0, dtype=torch.long)
        self._positions = 0
        self._grams: torch.Tensor | None = None
        self._treated: torch.Tensor | None = None
        self._residuals: Residuals | None = None
        self._sums: PilotSums | None = None
        self._rows: RowBins | None = None
        self._last: list[torch.Tensor] = []
        self._runs: list[int] = []

    def __enter__(self) -> LayerRecorder:
        try:
            for index, (_, state, module) in enumerate(self._layers):
                if state == "embed":
                    hook = module.register_forward_pre_hook(self._before(index), with_kwargs=True)
                else:
                    hook = module.register_forward_hook(self._after(index))
                self._handles.append(hook)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._grams, self._last = None, []

    def grams(
        self,
        inputs: torch.Tensor,
        lengths: torch.Tensor,
        residuals: Residuals | None = None,
        rows: RowBins | None = None,
    ) -> torch.Tensor:
        """Return the (n_kinds, n_layers, batch, position, position) Grams of one forward pass, in float32.

        Kind 0 are the states as they are; with ``residuals`` and the bins of the rows, kind 1 are the treated states.
        """
        batch, positions = inputs.shape[:2]
        n_kinds = 1 if residuals is None else 2
        # Allocated before the pass: small arrays that outlive the large ones around them would fragment memory.
        grams = torch.empty((n_kinds, len(self._layers), batch, positions, positions), device=inputs.device)
        self._grams, self._treated = grams[0], None if residuals is None else grams[1]
        self._residuals, self._rows = residuals, rows
        self._run(inputs, lengths)
        self._grams = self._treated = None
        valid = torch.arange(positions, device=grams.device) < lengths.to(grams.device)[:, None]
        # Filled, not multiplied by zero: a NaN that a model leaves at a padded position must not survive.
        return grams.masked_fill_(~(valid[:, :, None] & valid[:, None, :]), 0.0)

    def add_to_pilot(self, inputs: torch.Tensor, lengths: torch.Tensor, sums: PilotSums, rows: RowBins) -> None:
        """Add the states of one forward pass to the sums of the pilot."""
        self._sums, self._rows = sums, rows
        self._run(inputs, lengths)
        self._sums = None

    def last_states(self, inputs: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        """Return, for each layer, the (batch, feature) states at the last valid position, in float32."""
        self._last = [inputs] * len(self._layers)
        self._run(inputs, lengths)
        last, self._last = self._last, []
        return last

    def _run(self, inputs: torch.Tensor, lengths: torch.Tensor) -> None:
        self._lengths, self._positions = lengths, inputs.shape[1]
        self._runs = [0] * len(self._layers)
        self._model.forward_sequences(inputs, lengths)
        for (name, _, _), runs in zip(self._layers, self._runs, strict=True):
            if runs != 1:
                raise ModelError(
                    f"A layer must run exactly once in a forward pass; {name!r} of {self._model.name!r} ran "
                    f"{runs} times. List in layers() only modules that forward_sequences() runs once."
                )

    def _before(self, index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._reduce(index, args or (kwargs.get("hidden_states", next(iter(kwargs.values()), None)),))

        return hook

    def _after(self, index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._reduce(index, output)

        return hook

    def _reduce(self, index: int, value: Any) -> None:
        name, kind, _ = self._layers[index]
        state = value[0] if isinstance(value, (tuple, list)) and value else value  # transformers < 5 returns tuples
        expected = (len(self._lengths), self._positions)
        if not isinstance(state, torch.Tensor) or state.ndim != 3 or state.shape[:2] != expected:
            received = tuple(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
            raise ModelError(
                f"The state of a layer must be a (batch, position, feature) tensor with one row per input, here "
                f"{(*expected, 'd')}; {name!r} of {self._model.name!r} gave {received}. Correct its layers()."
            )
        self._runs[index] += 1
        is_last_only = self._grams is None and self._sums is None
        if is_last_only:
            rows = torch.arange(len(self._lengths), device=state.device)
            state = state[rows, self._lengths.to(state.device) - 1][:, None]
        if self._norm is not None and kind != "final_norm":
            # forward, not a call: a call would fire the hook that records the norm's own output.
            state = self._norm.forward(state)
        state = state.detach().float()
        if is_last_only:
            self._last[index] = state[:, 0]
        elif self._sums is not None:
            assert self._rows is not None
            add_to_sums(self._sums, index, state, self._rows)
        else:
            self._record(index, state)

    def _record(self, index: int, state: torch.Tensor) -> None:
        """Reduce one state to its Grams."""
        assert self._grams is not None
        _product(state, self._grams[index])
        if self._residuals is not None and self._treated is not None:
            assert self._rows is not None
            _product(self._residuals.treated(index, state, self._rows), self._treated[index])


def _product(state: torch.Tensor, gram: torch.Tensor) -> None:
    """Write the inner products of the rows of a state into ``gram``."""
    if state.device == gram.device:
        torch.bmm(state, state.mT, out=gram)
    else:  # a model spread over several devices
        gram.copy_(torch.bmm(state, state.mT))


@contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode inside the block, because dropout makes the states random."""
    training = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, flag in training:
            part.training = flag
