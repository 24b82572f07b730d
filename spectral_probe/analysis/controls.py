"""Controls: what a curve looks like without training, and without order."""

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
#: Position tables that are bare parameters rather than ``nn.Embedding``, by their own name.
_POSITION_TABLE = re.compile(r"^(pos|positions?|positional|wpe)(_|$)", re.IGNORECASE)


@torch.no_grad()
def random_weights(module: ModelT, seed: int = 0) -> ModelT:
    """Copy of a model whose weight matrices are drawn anew, each with the mean and the spread it had.

    Every parameter with two or more axes is redrawn from a normal distribution of its own mean and standard deviation.
    Kept: input and position tables (``nn.Embedding``, or a parameter named like one), the weights of norms, biases and
    other vectors, and buffers, such as the item embeddings of an ``HFDecoder``. A model that computes its inputs lists
    the modules that do so in a method ``input_modules()``, and these are kept too. The original is not touched.

    Parameters
    ----------
    module : nn.Module
        An ``HFDecoder``, or any :class:`~spectral_probe.backbones.LayeredModel` that is a module.
    seed : int
        Drawn on the CPU from a generator of its own, in the order of the names: the same on every device.

    Raises
    ------
    ConfigError
        If ``module`` is not a module, or has no weight matrix: then the control would be the model itself.

    Notes
    -----
    Source: none in the paper; the control asks whether a curve needs what the model has learned.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"random-weights redraws the parameters of an nn.Module; got a {type(module).__name__}. Leave this control "
            "out, or make the model a module."
        )
    control = copy.deepcopy(module)
    kept = {
        id(parameter)
        for part in control.modules()
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) or "norm" in type(part).__name__.lower()
        for parameter in part.parameters(recurse=False)
    }
    makes_inputs: Callable[[], Iterable[nn.Module]] = getattr(control, "input_modules", lambda: ())
    kept |= {id(parameter) for part in makes_inputs() for parameter in part.parameters()}
    generator = torch.Generator().manual_seed(seed)
    n_redrawn = 0
    for name, weight in sorted(control.named_parameters()):
        is_kept = id(weight) in kept or _POSITION_TABLE.match(name.rpartition(".")[2]) is not None
        if weight.ndim < 2 or is_kept or not weight.is_floating_point():
            continue
        values = weight.detach().float()
        mean, spread = values.mean().item(), values.std(correction=0).item()
        drawn = torch.empty(weight.shape).normal_(mean, spread, generator=generator)
        weight.copy_(drawn)
        n_redrawn += 1
    if not n_redrawn:
        raise ConfigError(
            f"random-weights needs weight matrices to redraw; {type(module).__name__} has none among its parameters."
        )
    return control


def shuffle_history(probe: ProbeSequences, seed: int = 0) -> ProbeSequences:
    """Return the sequences with each user's steps in random order; each input keeps its target.

    One permutation of the T valid places moves a user's inputs and targets together, so the nodes of the graph follow
    their rows and only the order in time is lost. It depends on the seed and the user alone, not on who else is
    probed.
    """
    inputs, targets = probe.inputs.copy(), probe.targets.copy()
    for row, (user, length) in enumerate(zip(probe.users.tolist(), probe.lengths.tolist(), strict=True)):
        order = np.random.default_rng((seed, user)).permutation(length)
        inputs[row, :length] = probe.inputs[row, order]
        targets[row, :length] = probe.targets[row, order]
    return ProbeSequences(inputs, targets, probe.lengths.copy(), probe.users.copy())
