"""Temporal frequency modulation: a low-pass along the history, after the blocks of a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from frellm4rec.modules.butterworth import causal_operator, check_filter, two_sided_operator
from spectral_probe.backbones import HFDecoder, LayeredModel
from spectral_probe.errors import ConfigError, ModelError, ShapeError, check_choice

Mode = Literal["prefix", "causal", "two_sided_leaky"]
MODES: tuple[Mode, ...] = ("prefix", "causal", "two_sided_leaky")


class TemporalFrequencyModulation(nn.Module):
    r"""Low-pass states along time, :math:`H' = M_T H`, with M_T the operator of the history's own length.

    Parameters
    ----------
    cutoff : float or None
        Fraction of the Nyquist frequency in (0, 1] where the gain is :math:`1/\sqrt 2`; None switches the filter off,
        and the states are returned unchanged.
    order : int
        Order n of the Butterworth gain.
    mode : {"prefix", "causal", "two_sided_leaky"}
        ``prefix`` and ``two_sided_leaky`` apply the paper's two-sided filter. In ``prefix`` a model is trained and
        probed on prefixes, and only the last row of each is used. In ``two_sided_leaky`` row t already contains the
        item to be predicted. ``causal`` is one-sided. See ``docs/theory.md``.
    layers : sequence of int, optional
        Blocks after which to filter, counted from 1; all of them when left out.
    learnable : bool
        Fit the cutoff, kept in (0, 1) by a sigmoid.
    n_layers : int, optional
        Number of blocks; a learnable cutoff is then one for each block instead of one for all.

    Notes
    -----
    Source: FreLLM4Rec Eqs. (8) and (9). The learnable cutoff is beyond the paper.
    """

    def __init__(
        self,
        cutoff: float | None = 0.3,
        order: int = 2,
        mode: Mode = "prefix",
        *,
        layers: Sequence[int] | None = None,
        learnable: bool = False,
        n_layers: int | None = None,
    ) -> None:
        super().__init__()
        check_filter(cutoff, order)
        check_choice("mode", mode, MODES)
        if learnable and (cutoff is None or cutoff == 1.0):
            raise ConfigError(f"A learnable cutoff starts inside (0, 1); got {cutoff}. Start at 0.3.")
        self.cutoff, self.order, self.mode = cutoff, order, mode
        self.layers = None if layers is None else tuple(layers)
        if self.layers is not None and (not self.layers or min(self.layers) < 1):
            raise ConfigError(f"layers are block numbers from 1 on; got {list(self.layers)}. None filters after each.")
        self.logit: nn.Parameter | None = None
        if learnable:
            assert cutoff is not None
            self.logit = nn.Parameter(torch.full((n_layers or 1,), float(cutoff)).logit())
        self._operators: dict[int, torch.Tensor] = {}
        self._stack: tuple[object, torch.Tensor] | None = None

    @property
    def is_causal(self) -> bool:
        """Whether row t of the result depends only on rows up to t."""
        return self.cutoff is None or self.mode == "causal"

    def cutoffs(self) -> torch.Tensor | None:
        """Return the learnable cutoffs, one for all blocks or one each; None where the cutoff is fixed."""
        return None if self.logit is None else self.logit.sigmoid()

    def operator(self, T: int, layer: int = 1) -> torch.Tensor:
        """Return the (T, T) matrix for a history of length T in float64; cached where the cutoff is fixed."""
        if self.cutoff is None:
            return torch.eye(T, dtype=torch.float64)
        build = causal_operator if self.mode == "causal" else two_sided_operator
        if self.logit is not None:
            return build(T, self.logit[min(layer, len(self.logit)) - 1].sigmoid(), self.order)
        if T not in self._operators:
            self._operators[T] = build(T, self.cutoff, self.order)
        return self._operators[T]

    def forward(self, states: torch.Tensor, lengths: torch.Tensor, layer: int = 1) -> torch.Tensor:
        """Return the filtered states.

        Parameters
        ----------
        states : (batch, position, feature) float
        lengths : (batch,) int
            Valid positions of each row, 1…n_positions.
        layer : int
            Block whose output this is, counted from 1; only a learnable cutoff depends on it.

        Returns
        -------
        (batch, position, feature) float, in the dtype of ``states``
            Positions from a row's length on are returned unchanged. Their values, NaN included, do not affect the
            others.

        Raises
        ------
        ShapeError
            If the shapes do not fit together or a length is out of range.
        """
        if self.cutoff is None or (self.layers is not None and layer not in self.layers):
            return states
        if states.ndim != 3 or lengths.shape != states.shape[:1]:
            raise ShapeError(
                f"States are (batch, position, feature) with (batch,) lengths; got {tuple(states.shape)} and "
                f"{tuple(lengths.shape)}."
            )
        distinct = sorted(set(lengths.tolist()))
        T = states.shape[1]
        if not distinct or distinct[0] < 1 or distinct[-1] > T:
            raise ShapeError(f"Lengths must lie in 1…{T}; got {distinct[:8]}. Leave out empty histories.")
        operators = self._batch_operators(tuple(lengths.tolist()), distinct, T, states, layer)
        if distinct == [T]:
            return operators @ states
        is_valid = (torch.arange(T, device=states.device) < lengths.to(states.device)[:, None])[..., None]
        return torch.where(is_valid, operators @ states.masked_fill(~is_valid, 0.0), states)

    def _batch_operators(
        self, lengths: tuple[int, ...], distinct: list[int], T: int, states: torch.Tensor, layer: int
    ) -> torch.Tensor:
        """Return (batch, T, T), or (T, T) if all lengths are T; those of a fixed filter are cached."""
        key = (lengths, T, states.device, states.dtype)
        if self.logit is None and self._stack is not None and self._stack[0] == key:
            return self._stack[1]
        if distinct == [T]:
            operators = self.operator(T, layer).to(states.device, states.dtype)
        else:
            stack = torch.stack(
                [nn.functional.pad(self.operator(n, layer), (0, T - n, 0, T - n)) for n in distinct]
            ).to(states.device, states.dtype)
            row_of = {n: row for row, n in enumerate(distinct)}
            operators = stack[torch.tensor([row_of[n] for n in lengths], device=states.device)]
        if self.logit is None:
            self._stack = (key, operators)
        return operators

    def attach(self, model: LayeredModel) -> Attachment:
        """Filter the output of a model's blocks until the returned handle is removed.

        Parameters
        ----------
        model : LayeredModel
            Any decoder of the instrument (lengths are read from its attention mask), or another module whose
            ``forward(inputs, lengths)`` takes them.

        Raises
        ------
        ConfigError
            If ``layers`` names a block that the model does not have.
        ModelError
            If the model is not a torch module.
        """
        return Attachment(self, model)


class Attachment:
    """Hooks that filter the output of a model's blocks, until :meth:`remove` or the end of a ``with`` block.

    The filter runs before every other hook of a block, whenever that was registered. A recorder therefore gets the
    filtered states: it records of block i what block i + 1 reads. Recomputation under gradient checkpointing filters
    with the lengths of the last forward pass, so run the backward pass before the next forward pass.
    """

    def __init__(self, tfm: TemporalFrequencyModulation, model: LayeredModel) -> None:
        self._tfm = tfm
        self._lengths: torch.Tensor | None = None
        self._handles: list[Any] = []
        blocks = [module for _, state, module in model.layers() if state == "block"]
        if tfm.layers is not None and max(tfm.layers) > len(blocks):
            raise ConfigError(f"{model.name!r} has {len(blocks)} blocks; layers names {list(tfm.layers)}.")
        root = model.model if isinstance(model, HFDecoder) else model
        if not isinstance(root, nn.Module):
            raise ModelError(f"{model.name!r} is not a torch module, so no filter can be attached to it.")
        if tfm.cutoff is None:
            return
        try:
            read = self._read_mask if isinstance(model, HFDecoder) else self._read_arguments
            self._handles.append(root.register_forward_pre_hook(read, with_kwargs=True))
            for number, block in enumerate(blocks, start=1):
                if tfm.layers is None or number in tfm.layers:
                    self._handles.append(block.register_forward_hook(self._filter(number), prepend=True))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the hooks; may be called again."""
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _read_mask(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
            actual = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise ShapeError(
                f"A filtered decoder reads the lengths from attention_mask=(batch, position); got {actual}. Pass a "
                "mask of ones if nothing is padded."
            )
        lengths = mask.long().sum(1)
        if bool((mask.bool() != (torch.arange(mask.shape[1], device=mask.device) < lengths[:, None])).any()):
            raise ShapeError(
                "A filtered decoder needs right-padded histories; this mask has gaps or left padding. Pad on the right."
            )
        self._lengths = lengths

    def _read_arguments(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._lengths = kwargs["lengths"] if "lengths" in kwargs else args[1]

    def _filter(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if self._lengths is None:
                raise ModelError("A filtered block ran outside its model, so the lengths are unknown. Run the model.")
            if isinstance(output, (tuple, list)):
                return type(output)((self._tfm(output[0], self._lengths, number), *output[1:]))
            return self._tfm(output, self._lengths, number)

        return hook
