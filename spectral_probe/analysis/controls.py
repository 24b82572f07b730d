"""Controls: a model without training, and histories without order."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from spectral_probe.errors import ConfigError
from spectral_probe.interactions.sequences import ProbeSequences

ModelT = TypeVar("ModelT")
#: Names of position tables that are parameters of a module, not an ``nn.Embedding``.
_POSITION_TABLE = re.compile(r"^(pos|positions?|positional|wpe)(_|$)", re.IGNORECASE)


@torch.no_grad()
def random_weights(module: ModelT, seed: int = 0) -> ModelT:
    """Return a copy of a model with redrawn weight matrices, each with its own mean and standard deviation.

    Every parameter with two or more axes is redrawn from a normal distribution with the mean and standard deviation of
    its old values. Unchanged: input and position tables (``nn.Embedding``, or a parameter named like one), the weights
    of norms, biases and other vectors, and buffers, such as the item embeddings of an ``HFDecoder``. A model that
    computes its inputs lists the modules that do so in a method ``input_modules()``; these are unchanged too. The
    original model is not modified.

    Parameters
    ----------
    module : nn.Module
        An ``HFDecoder``, or any :class:`~spectral_probe.backbones.LayeredModel` that is a module.
    seed : int
        Values are drawn on the CPU from a separate generator, in the order of the names: the same on every device.

    Raises
    ------
    ConfigError
        If ``module`` is not a module, or has no weight matrix, so that the control would equal the model.

    Notes
    -----
    Source: none in the paper; the control tests whether a curve needs the trained weights.
    """
    control = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    for weight in redrawn_weights(control):
        values = weight.detach().float()
        mean, std = values.mean().item(), values.std(correction=0).item()
        weight.copy_(torch.empty(weight.shape).normal_(mean, std, generator=generator))
    return control


def redrawn_weights(module: object) -> list[nn.Parameter]:
    """Return the weight matrices that :func:`random_weights` redraws, in the order of their names.

    Raises
    ------
    ConfigError
        If ``module`` is not a module, or has none.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"random-weights redraws the parameters of an nn.Module; got a {type(module).__name__}. Leave out this "
            "control, or make the model an nn.Module."
        )
    unchanged = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) or "norm" in type(part).__name__.lower()
        for parameter in part.parameters(recurse=False)
    }
    input_modules: Callable[[], Iterable[nn.Module]] = getattr(module, "input_modules", lambda: ())
    unchanged |= {id(parameter) for part in input_modules() for parameter in part.parameters()}
    redrawn = [
        weight
        for name, weight in sorted(module.named_parameters())
        if weight.ndim >= 2
        and id(weight) not in unchanged
        and weight.is_floating_point()
        and _POSITION_TABLE.match(name.rpartition(".")[2]) is None
    ]
    if not redrawn:
        raise ConfigError(
            f"random-weights needs weight matrices to redraw; {type(module).__name__} has none among its parameters. "
            "Leave out this control."
        )
    return redrawn


def shuffle_history(probe: ProbeSequences, seed: int = 0) -> ProbeSequences:
    """Return the sequences with each user's steps in random order; each input keeps its target.

    One permutation of the valid positions moves a user's inputs and targets together, so graph nodes follow their rows
    and only the order in time is lost. It depends on the seed and the user only, not on the other users.
    """
    inputs, targets = probe.inputs.copy(), probe.targets.copy()
    for row, (user, length) in enumerate(zip(probe.users.tolist(), probe.lengths.tolist(), strict=True)):
        order = np.random.default_rng((seed, user)).permutation(length)
        inputs[row, :length] = probe.inputs[row, order]
        targets[row, :length] = probe.targets[row, order]
    return ProbeSequences(inputs, targets, probe.lengths.copy(), probe.users.copy())
