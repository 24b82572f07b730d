"""Where a decoder keeps its blocks and its final norm: found by structure, verified by one small forward pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from spectral_probe.backbones.configs import OWN_CLASS, check_config, refuse
from spectral_probe.backbones.trial_pass import Record, run_once


class LayerPaths(NamedTuple):
    """Where one architecture keeps its layers, as attribute paths from the model without its head."""

    blocks: str
    final_norm: str | None


#: ``config.model_type`` → where the layers sit, for families whose structure is not enough. A row is verified like what
#: is found by structure; a final norm of None there means that the norm cannot be recorded.
OVERRIDES: dict[str, LayerPaths] = {
    # One norm module is applied to the inputs and to the last state; a recorded module must run once.
    "nanochat": LayerPaths("layers", None),
}

#: Largest change of an earlier state, relative to its norm, when a later input changes: in float32, and otherwise. Both
#: sequences are in one batch, so that rounding treats them alike.
_CAUSAL_TOLERANCE, _CAUSAL_TOLERANCE_HALF = 1e-4, 5e-3
#: Largest relative change of a norm's output when its input is multiplied by 4.
_NORM_TOLERANCE = 0.05


@dataclass(frozen=True)
class Layout:
    """Where a decoder keeps its layers, and what its forward pass showed.

    Attributes
    ----------
    blocks : str
        Path of the list of blocks.
    final_norm : str or None
        Path of the norm after the last block; None if the model's output is that of the last block.
    n_blocks : int
    width : int
        Width d of the states, and of the vectors that the model reads.
    is_causal : bool
        Whether no state changed when a later input changed.
    """

    blocks: str
    final_norm: str | None
    n_blocks: int
    width: int
    is_causal: bool


def discover(model: nn.Module) -> Layout:
    r"""Return where a decoder keeps its layers, verified by one small forward pass.

    .. math:: x_{i+1} = y_i, \qquad h_0 = x_1, \quad h_i = y_i \ (i < n), \quad h_n = \mathrm{norm}(y_n)

    with :math:`x_i` and :math:`y_i` the input and the output of block i, and :math:`h` what the model returns for
    ``output_hidden_states=True``. The blocks are the longest ``nn.ModuleList`` for which this holds; the final norm is
    the module that turns the output of the last block into the last hidden state.

    Parameters
    ----------
    model : PreTrainedModel
        The body, without a head; on one device, spread, offloaded, quantised, or with adapters in it.

    Raises
    ------
    ModelError
        If a check fails; the message names the check, the value seen, and the next step.

    Notes
    -----
    Values are compared for equality, on copies that are taken when a module runs. The model is run in evaluation mode
    and without gradients; mode, hooks and the global random state are afterwards what they were. Cost: one forward
    pass over eight positions.
    """
    family = _family(model)
    check_config(getattr(model, "config", None), family)
    candidates = _candidates(model, family)
    outside = _outside(model, candidates.values())
    modules = [block for blocks in candidates.values() for block in blocks] + list(outside.values())
    records, output, shape = run_once(model, family, modules)
    path = _longest_chain(family, candidates, records, shape)
    blocks = list(candidates[path])
    states = _states(blocks, records)
    last = _last_state(family, output, states[-1])
    final_norm = _final_norm(family, states[-1], last, outside, records)
    _check_hidden_states(family, states, last, getattr(output, "hidden_states", None))
    return Layout(path, final_norm, len(blocks), int(states[0].shape[-1]), _is_causal(model, states))


def block_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Return the lists of modules of a model by their paths, without those inside an element of another list."""
    lists: dict[str, nn.ModuleList] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and not any(path.startswith(f"{p}.") for p in lists):
            lists[path] = module
    return lists


def _family(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def _correct_row(family: str) -> str:
    return f"Correct the row of {family!r} in spectral_probe.backbones.discovery.OVERRIDES, or take it out."


def _candidates(model: nn.Module, family: str) -> Mapping[str, nn.ModuleList]:
    """Return the lists that may hold the blocks: that of the override, or every list that is in no other."""
    paths = OVERRIDES.get(family)
    if paths is None:
        lists = block_lists(model)
        if not lists:
            refuse(family, "the blocks are in an nn.ModuleList", f"no such list in {type(model).__name__}")
        return lists
    try:
        blocks = model.get_submodule(paths.blocks)
        _ = paths.final_norm and model.get_submodule(paths.final_norm)
    except AttributeError as error:
        refuse(family, f"the override {tuple(paths)} names modules of the model", str(error), _correct_row(family))
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        check = f"the override's blocks {paths.blocks!r} are an nn.ModuleList"
        refuse(family, check, type(blocks).__name__, _correct_row(family))
    return {paths.blocks: blocks}


def _outside(model: nn.Module, lists: Collection[nn.ModuleList]) -> dict[str, nn.Module]:
    """Return the modules outside the candidate lists that hold none of them: where the final norm can be."""
    inside = {id(part) for blocks in lists for part in blocks.modules()}
    return {
        path: module
        for path, module in model.named_modules()
        if path and id(module) not in inside and not any(id(part) in inside for part in module.modules())
    }


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """Tell whether two states are equal to the bit; a NaN equals a NaN."""
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.isclose(a, b.to(a.device), rtol=0, atol=0, equal_nan=True).all())


def _broken_link(
    blocks: Sequence[nn.Module], records: Mapping[int, Record], shape: tuple[int, ...]
) -> tuple[str, str] | None:
    """Return the check that a list fails as a chain of blocks and the value seen; None if it is one."""
    for number, block in enumerate(blocks, start=1):
        record = records[id(block)]
        if len(record.inputs) != 1:
            return "each block runs once in a forward pass", f"block {number} ran {len(record.inputs)} times"
        state, result = record.inputs[0], record.outputs[0]
        seen = [None if tensor is None else tuple(tensor.shape) for tensor in (state, result)]
        if seen != [shape, shape]:
            check = f"a block reads and returns a state with the shape of the inputs, {shape}"
            return check, f"block {number} read {seen[0]} and returned {seen[1]}"
        previous = records[id(blocks[number - 2])].outputs[0] if number > 1 else state
        if not _same(previous, state):
            check = f"the output of block {number - 1} is the input of block {number}"
            return check, f"a largest difference of {_difference(previous, state):.3g}"
    return None


def _difference(a: torch.Tensor | None, b: torch.Tensor | None) -> float:
    if a is None or b is None or a.shape != b.shape:
        return float("nan")
    return float((a.float() - b.to(a.device).float()).abs().max())


def _longest_chain(
    family: str, lists: Mapping[str, nn.ModuleList], records: Mapping[int, Record], shape: tuple[int, ...]
) -> str:
    """Return the path of the longest list that is a chain of blocks."""
    by_length = sorted(lists, key=lambda path: len(lists[path]), reverse=True)
    failures: dict[str, tuple[str, str]] = {}
    for path in by_length:
        failure = _broken_link(list(lists[path]), records, shape)
        if failure is None:
            return path
        failures[path] = failure
    # The message is about the longest list that was run at all.
    path = next((path for path in by_length if records[id(lists[path][0])].inputs), by_length[0])
    check, seen = failures[path]
    others = "; no other list is a chain" if len(lists) > 1 else ""
    refuse(family, f"{check}, in the list {path!r} of {len(lists[path])}", f"{seen}{others}")


def _states(blocks: Sequence[nn.Module], records: Mapping[int, Record]) -> list[torch.Tensor]:
    """Return the input of the first block and the outputs of all blocks."""
    chain = [records[id(blocks[0])].inputs[0], *(records[id(block)].outputs[0] for block in blocks)]
    return [state for state in chain if state is not None]


def _last_state(family: str, output: Any, raw: torch.Tensor) -> torch.Tensor:
    """Return the last hidden state in the output of a model; it must have the shape of the last block's output."""
    last: Any = output if isinstance(output, torch.Tensor) else output[0]
    if not isinstance(last, torch.Tensor) or last.shape != raw.shape:
        seen = str(tuple(last.shape)) if isinstance(last, torch.Tensor) else type(last).__name__
        refuse(family, f"the first output of the model has the shape of a block's, {tuple(raw.shape)}", seen)
    return last


def _final_norm(
    family: str,
    raw: torch.Tensor,
    last: torch.Tensor,
    outside: Mapping[str, nn.Module],
    records: Mapping[int, Record],
) -> str | None:
    """Return the path of the norm that turns the last block's output into the last hidden state, or None."""
    override = OVERRIDES.get(family)
    step = OWN_CLASS if override is None else _correct_row(family)
    between = [
        path
        for path, module in outside.items()
        if (record := records[id(module)]).inputs and _same(record.inputs[-1], raw) and _same(record.outputs[-1], last)
    ]
    changes = {path: _scale_dependence(outside[path], raw) for path in between}
    path = next((path for path in between if changes[path] <= _NORM_TOLERANCE), None)
    if path is None and not _same(raw, last):
        if between:
            check = f"{between[0]!r}, applied last, is a norm: 4 times its input gives the same output"
            refuse(family, check, f"a change of {changes[between[0]]:.2g}", step)
        check = "the last hidden state is the output of the last block, or of one norm applied to it"
        refuse(family, check, f"a difference of {_difference(raw, last):.3g}, and no module between the two", step)
    n_runs = len(records[id(outside[path])].inputs) if path is not None else 0
    if n_runs > 1:
        if override is None or override.final_norm is not None:
            refuse(family, "the final norm runs once in a forward pass", f"{path!r} ran {n_runs} times", step)
        path = None
    if override is not None and path != override.final_norm:
        refuse(family, f"the override's final norm {override.final_norm!r} is applied last", repr(path), step)
    return path


@torch.no_grad()
def _scale_dependence(norm: nn.Module, state: torch.Tensor) -> float:
    """Return how much the output of a module changes, relatively, when its input is multiplied by 4."""
    unit = state / state.float().square().mean().sqrt().clamp(min=1e-6).to(state.dtype)
    try:  # forward, not a call, so that hooks of the caller do not fire
        once, larger = (norm.forward(factor * unit).float() for factor in (1, 4))
    except TypeError:  # a module that reads more than a state
        return float("inf")
    return float((larger - once).norm() / once.norm())


def _check_hidden_states(family: str, states: Sequence[torch.Tensor], last: torch.Tensor, hidden: Any) -> None:
    """Refuse a model whose ``output_hidden_states`` are not the recorded states.

    Mamba and its relatives leave out the input of the first block and return the last block's raw output instead.
    """
    n = len(states) - 1
    check = f"output_hidden_states holds the input of block 1 and one state per block, here {n + 1}"
    if not isinstance(hidden, (tuple, list)):
        refuse(family, check, type(hidden).__name__)
    if len(hidden) != n + 1:
        refuse(family, check, str(len(hidden)))
    if all(_same(*pair) for pair in zip([*states[1:], last], hidden, strict=True)):
        return
    for i, (state, reference) in enumerate(zip([*states[:-1], last], hidden, strict=True)):
        if not _same(state, reference):
            what = "the last hidden state" if i == n else f"the output of block {i}" if i else "the input of block 1"
            seen = f"a largest difference of {_difference(state, reference):.3g}"
            refuse(family, f"output_hidden_states[{i}] is {what}", seen)


def _is_causal(model: nn.Module, states: Sequence[torch.Tensor]) -> bool:
    """Tell whether the states of earlier positions are the same in two sequences that differ at the last position."""
    weights = [parameter.dtype for parameter in model.parameters()]
    is_exact = all(dtype in (torch.float32, torch.float64) for dtype in weights)
    tolerance = _CAUSAL_TOLERANCE if is_exact else _CAUSAL_TOLERANCE_HALF
    for state in states:
        first, second = state[:, :-1].float()
        if bool(((first - second).norm(dim=-1) > tolerance * first.norm(dim=-1)).any()):
            return False
    return True
