"""What the small forward passes over a wrapped module must show: users apart, and which items a state depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from spectral_probe.errors import ModelError

#: Positions and sequences of the trial pass; different, so that a swap of the two shows.
N_POSITIONS, N_SEQUENCES = 5, 2
#: Largest relative change of a state that must not depend on what was changed.
_TOLERANCE = 1e-4

#: The states of every layer, (batch, position, feature), by the name of the layer.
States = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Trial:
    """The trial passes over a module.

    Attributes
    ----------
    name : str
        Name of the module in messages.
    n_known : int
        Items that the passes may use: 0 … n_known − 1.
    states : callable
        ``states(items)`` or ``states(items, lengths=n)`` runs the module on (batch, position) items.
    """

    name: str
    n_known: int
    states: Callable[..., States]

    def run(self, is_causal: bool | None) -> bool:
        """Return whether the module is causal; ``is_causal`` is what the user says, None for nothing.

        Raises
        ------
        ModelError
            If the module mixes the sequences of a batch, is not causal against ``is_causal``, or reads padding.
        """
        items = torch.arange(N_SEQUENCES * N_POSITIONS).reshape(N_SEQUENCES, -1) % self.n_known
        before = self.states(items)
        self._check_users(items, before)
        changed = items.clone()
        changed[:, -1] = self._others(items[:, -1])
        after = self.states(changed)
        seems_causal = _largest_change(before, after, slice(0, N_POSITIONS - 1)) <= _TOLERANCE
        if is_causal and not seems_causal:
            raise ModelError(
                f"is_causal=True, but the states of {self.name!r} at earlier positions change with a later item. "
                "Leave it out, so that the model is probed prefix by prefix, or give call= that passes the causal "
                "mask."
            )
        answer = seems_causal if is_causal is None else is_causal
        if not answer:
            self._check_padding(items)
        return answer

    def _others(self, items: torch.Tensor) -> torch.Tensor:
        """Return another item in the place of every item."""
        return (items + 1) % self.n_known

    def _check_users(self, items: torch.Tensor, before: States) -> None:
        """Change all items of one sequence; no state of the other may change."""
        for row in range(N_SEQUENCES):
            changed = items.clone()
            changed[row] = self._others(items[row])
            after = self.states(changed)
            for layer, state in before.items():
                others = torch.arange(N_SEQUENCES) != row
                change = _change(state[others], after[layer][others])
                if not change <= _TOLERANCE:
                    raise ModelError(
                        f"The states of a sequence must not depend on the other sequences of a batch; in {self.name!r} "
                        f"the states of {layer!r} change by {change:.2g} (relative) when another sequence changes. "
                        "Sequences are on the first axis: build the module with batch_first=True, or give call= that "
                        "swaps the axes."
                    )

    def _check_padding(self, items: torch.Tensor) -> None:
        shorter = self.states(items[:, :-1])
        padded = self.states(items, lengths=N_POSITIONS - 1)
        if not (change := _largest_change(shorter, padded, slice(0, N_POSITIONS - 1))) <= _TOLERANCE:
            raise ModelError(
                f"Padding must not change the states of items; in {self.name!r} they change by {change:.2g} "
                "(relative) when a sequence is padded. Give call=, a function that passes the module a mask made "
                "from the lengths."
            )


def _largest_change(before: States, after: States, positions: slice) -> float:
    """Return the largest change of a state in any layer at some positions, relative to its norm."""
    return max(_change(state[:, positions], after[layer][:, positions]) for layer, state in before.items())


def _change(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return the largest distance of two (batch, position, feature) states, relative to the norm of the first."""
    first, second = before.float(), after.float()
    norm = first.norm(dim=-1).clamp(min=1e-12)
    return float(((first - second).norm(dim=-1) / norm).max())
