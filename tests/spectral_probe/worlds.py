"""Small made-up worlds in which every confound is present: sink, mean, causal averaging, repeats, odd graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import ProbeSequences, probe_sequences

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class ArrayGrams:
    """Grams in float64, so that comparisons need not forgive the float32 of stored ones."""

    grams: Array
    lengths: Array
    layer_names: tuple[str, ...]
    layer_states: tuple[str, ...]
    is_causal: bool = True


@dataclass(frozen=True, eq=False)
class World:
    dataset: Dataset
    probe: ProbeSequences
    states: Array
    """(n, n_layers, T, d), zero where padded."""

    @property
    def train_sets(self) -> list[set[int]]:
        return [set(s.tolist()) for s in self.dataset.train.sequences()]

    @property
    def targets(self) -> list[list[int]]:
        return [row[:n].tolist() for row, n in zip(self.probe.targets, self.probe.lengths, strict=True)]

    def grams(self, **changes: object) -> ArrayGrams:
        return grams_of(self.states, self.probe.lengths, **changes)


def layer_labels(n_layers: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and states of ``embed``, the blocks between, and ``final_norm``."""
    names = ("embed", *(f"block {i}" for i in range(1, n_layers - 1)), "final_norm")
    states = ("embed", *(["block"] * (n_layers - 2)), "final_norm")
    return names[:n_layers], states[:n_layers]


def grams_of(states: Array, lengths: Array, *, is_causal: bool = True) -> ArrayGrams:
    """Return the Gram of every layer of states (n, n_layers, T, d)."""
    names, kinds = layer_labels(states.shape[1])
    real = np.arange(states.shape[2]) < np.asarray(lengths)[:, None]
    clean = np.where(real[:, None, :, None], states, 0.0)
    return ArrayGrams(np.einsum("nlsd,nltd->nlst", clean, clean), np.asarray(lengths), names, kinds, is_causal)


def make_world(seed: int, *, n_users: int = 60, n_items: int = 40, n_layers: int = 4, d: int = 6) -> World:
    """Return users with tastes, whose histories repeat items, and states with a sink and causal averaging.

    The last six items belong to one user alone, whose graph therefore has no edge of others' making.
    """
    rng = np.random.default_rng(seed)
    taste_of_item = rng.integers(0, 3, n_items - 6)
    histories = []
    for _ in range(n_users):
        liked = np.flatnonzero(taste_of_item == rng.integers(0, 3))
        own = rng.choice(liked, size=int(rng.integers(4, 11)))
        other = rng.integers(0, n_items - 6, size=2)
        histories.append(rng.permutation(np.concatenate([own, other])))
    histories[3] = np.arange(n_items - 6, n_items)
    data = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=n_items))
    probe = probe_sequences(data)
    n, T = probe.targets.shape
    item_states = rng.normal(size=(n_items, d)) + 2.0 * rng.normal(size=(4, d))[np.append(taste_of_item, [3] * 6)]
    states = np.zeros((n, n_layers, T, d))
    states[:, 0] = item_states[probe.targets] + rng.normal(size=(n, T, d))
    for layer in range(1, n_layers):
        before = states[:, layer - 1]
        average = np.cumsum(before, axis=1) / np.arange(1, T + 1)[:, None]
        states[:, layer] = 0.8 * before + 0.4 * average + rng.normal(size=(n, T, d)) + 0.5
    states[:, 1:, 0] *= 30.0
    real = np.arange(T) < probe.lengths[:, None]
    return World(data, probe, states * real[:, None, :, None])
