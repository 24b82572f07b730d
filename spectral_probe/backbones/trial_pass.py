"""One small forward pass that records what every module reads and returns, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from spectral_probe.backbones.configs import refusal, refuse
from spectral_probe.backbones.devices import execution_device, has_no_values
from spectral_probe.errors import ResourceError

#: Positions of the two sequences of the forward pass; they differ at the last one only.
_N_POSITIONS = 4
#: Forward hooks of a module, as torch keeps them.
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
)
#: How transformers marks a model that has its recording hooks.
_HOOKED_FLAG = "_output_capturing_hooks_installed"


@dataclass
class Record:
    """Inputs and outputs of one module, (batch, position, feature) or None, in the order of its calls."""

    inputs: list[torch.Tensor | None] = field(default_factory=list)
    outputs: list[torch.Tensor | None] = field(default_factory=list)


@torch.no_grad()
def run_once(
    model: nn.Module, family: str, modules: Sequence[nn.Module]
) -> tuple[dict[int, Record], Any, tuple[int, ...]]:
    """Run the model once; return what each module read and returned, by ``id``, its output, the shape of the inputs."""
    records = {id(module): Record() for module in modules}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = state_of(args or (kwargs.get("hidden_states", next(iter(kwargs.values()), None)),))
        records[id(module)].inputs.append(None if state is None else state.clone())

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        state = state_of(output)
        records[id(module)].outputs.append(None if state is None else state.clone())

    with unchanged(model):
        vectors = _vectors(model, family)
        inputs = vectors.clone()
        for module in {id(module): module for module in modules}.values():
            module.register_forward_pre_hook(before, with_kwargs=True)
            module.register_forward_hook(after)
        mask = torch.ones(vectors.shape[:2], dtype=torch.long, device=vectors.device)
        versions = [(name, weight, weight._version) for name, weight in model.named_parameters()]
        try:
            output = model(
                inputs_embeds=inputs,
                attention_mask=mask,
                use_cache=False,
                output_hidden_states=True,
                return_dict=True,
            )
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"Out of memory on {vectors.device} in a forward pass over eight positions.") from error
        except Exception as error:  # models raise many types
            reason = str(error).strip().splitlines()
            seen = f"{type(error).__name__}: {reason[0] if reason else 'without a message'}"
            check = "a forward pass with inputs_embeds, attention_mask, use_cache and output_hidden_states runs"
            raise refusal(family, check, seen) from error
    changed = [name for name, weight, version in versions if weight._version != version]
    if changed:
        refuse(family, "a forward pass changes no weight", f"{len(changed)} changed (first: {changed[0]})")
    if not torch.equal(inputs, vectors):
        refuse(family, "a forward pass does not change the vectors it reads", "other values in inputs_embeds")
    return records, output, tuple(vectors.shape)


def _vectors(model: nn.Module, family: str) -> torch.Tensor:
    """Return (2, 4, d) random inputs of the scale of the token vectors; the sequences differ at the last position."""
    try:
        embed: Any = model.get_input_embeddings()  # type: ignore[operator]
        n_tokens = min(16, int(embed.num_embeddings))
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise refusal(
            family, "get_input_embeddings() returns the token table", f"{type(error).__name__}: {error}"
        ) from error
    device = execution_device(embed)
    if has_no_values(embed):
        refuse(family, "the model has weights", "a token table on no device", "Load the weights.")
    tokens = embed(torch.arange(n_tokens, device=device)[None])
    rms = float(tokens.float().square().mean().sqrt())
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, _N_POSITIONS, tokens.shape[-1], generator=generator) * (rms or 1.0)
    vectors[1, :-1] = vectors[0, :-1]
    return vectors.to(device=device, dtype=next(model.parameters()).dtype)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block; afterwards restore mode and hooks of every module.

    transformers installs hooks of its own on the first ``output_hidden_states=True`` and leaves them there; they are
    taken off too.
    """
    before = [
        (module, module.training, _HOOKED_FLAG in module.__dict__, [set(getattr(module, name)) for name in _HOOKS])
        for module in model.modules()
    ]
    try:
        model.eval()
        yield
    finally:
        for module, is_training, has_flag, hook_ids in before:
            module.training = is_training
            for name, ids in zip(_HOOKS, hook_ids, strict=True):
                hooks = getattr(module, name)
                for new in set(hooks) - ids:
                    del hooks[new]
            if not has_flag:
                module.__dict__.pop(_HOOKED_FLAG, None)


def state_of(value: Any) -> torch.Tensor | None:
    """Return the (batch, position, feature) tensor in what a module reads or returns; None if there is none."""
    state = value[0] if isinstance(value, (tuple, list)) and value else value
    return state if isinstance(state, torch.Tensor) and state.ndim == 3 else None
