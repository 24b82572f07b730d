"""What the small forward passes over a wrapped module must show: users apart, and which items a state depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from spectral_probe.errors import ConfigError, ModelError, NonFiniteStateError

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
    known : (n,) int tensor
        Items that the passes may use; the module sees different vectors or numbers for all of them.
    states : callable
        ``states(items)`` or ``states(items, lengths=n)`` runs the module on (batch, position) items.
    """

    name: str
    known: torch.Tensor
    states: Callable[..., States]

    def run(self, is_causal: bool | None) -> bool:
        """Return whether the module is causal; ``is_causal`` is what the user says, None for nothing.

        Raises
        ------
        ConfigError
            If fewer than two items differ.
        ModelError
            If the module keeps states between calls, gives no finite states, does not read the last item, mixes the
            sequences of a batch, is not causal against ``is_causal``, or reads padding.
        """
        if len(self.known) < 2:
            raise ConfigError(
                f"Two items with different vectors are needed to try out whether {self.name!r} is causal; all its "
                "items look the same. Give embed= or item_rows= with rows that differ."
            )
        items = self._items(torch.arange(N_SEQUENCES * N_POSITIONS).reshape(N_SEQUENCES, -1))
        before = self.states(items)
        self._check_repeated(before, self.states(items))
        others = self._items(torch.arange(1, N_SEQUENCES * N_POSITIONS + 1).reshape(N_SEQUENCES, -1))
        self._check_users(items, others, before)
        changed = items.clone()
        changed[:, -1] = others[:, -1]
        after = self.states(changed)
        self._check_last_items(before, after)
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

    def _items(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return a known item for every number; successive numbers give different items."""
        return self.known[numbers % len(self.known)]

    def _check_repeated(self, before: States, again: States) -> None:
        """Compare two passes over the same items."""
        for layer, state in before.items():
            if not bool(state.isfinite().all()):
                raise NonFiniteStateError(
                    f"States must be finite; {layer!r} of {self.name!r} holds a NaN or an infinity in a pass over "
                    f"{N_SEQUENCES} short sequences. Check the weights of the module."
                )
            if not (change := _change(state, again[layer])) <= _TOLERANCE:
                raise ModelError(
                    f"The same items must give the same states; in {self.name!r} the states of {layer!r} change by "
                    f"{change:.2g} (relative) from one call to the next. Give call= that empties what the module keeps "
                    "between calls (a cache of keys and values, a recurrent state) and that draws no random numbers."
                )

    def _check_last_items(self, before: States, after: States) -> None:
        """Compare the states at the last position of every sequence, whose item was changed."""
        for layer, state in before.items():
            is_same = (state[:, -1] == after[layer][:, -1]).all(dim=-1)
            if bool(is_same.any()):
                raise ModelError(
                    f"Another last item must change the last state in every layer; in {self.name!r} the state of "
                    f"{layer!r} stays the same. Either the module keeps states between calls (give call= that empties "
                    "what it keeps), or the layer does not read the items (name one that does), or its items have the "
                    "same vectors."
                )

    def _check_users(self, items: torch.Tensor, others: torch.Tensor, before: States) -> None:
        """Change all items of one sequence; no state of the other may change."""
        for row in range(N_SEQUENCES):
            changed = items.clone()
            changed[row] = others[row]
            after = self.states(changed)
            for layer, state in before.items():
                rest = torch.arange(N_SEQUENCES) != row
                change = _change(state[rest], after[layer][rest])
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


def different_rows(values: torch.Tensor) -> torch.Tensor:
    """Return the first index of every different row of (n,) numbers or (n, d) vectors, at most as many as are tried."""
    rows = values.reshape(len(values), -1)
    is_new = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    first: list[int] = []
    while len(first) < N_SEQUENCES * N_POSITIONS and bool(is_new.any()):
        first.append(int(is_new.long().argmax()))
        is_new &= (rows != rows[first[-1]]).any(dim=-1)
    return torch.tensor(first)


def _largest_change(before: States, after: States, positions: slice) -> float:
    """Return the largest change of a state in any layer at some positions, relative to its norm."""
    return max(_change(state[:, positions], after[layer][:, positions]) for layer, state in before.items())


def _change(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return the largest distance of two (batch, position, feature) states, relative to the norm of the first."""
    first, second = before.float(), after.float()
    norm = first.norm(dim=-1).clamp(min=1e-12)
    return float(((first - second).norm(dim=-1) / norm).max())
