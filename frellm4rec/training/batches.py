"""The batches of training steps: windows of training items, in a seeded order, with the targets of the supervision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from frellm4rec.models.batch import Batch, Supervision
from frellm4rec.models.padding import pad_right
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.types import IntArray


@dataclass(frozen=True)
class Samples:
    """What an epoch goes through once, in a drawn order.

    Attributes
    ----------
    windows : list of (length,) int
        Consecutive training items of a user, at least two.
    users : (n,) int
        Row of each window in ``user_items``.
    user_items : csr_array (n_users, n_items)
        Training interactions.
    """

    windows: list[IntArray]
    users: IntArray
    user_items: csr_array

    def __len__(self) -> int:
        return len(self.windows)

    def select(self, rows: IntArray) -> Samples:
        """Return the samples of these rows."""
        return Samples([self.windows[row] for row in rows], self.users[rows], self.user_items)

    def drawn_prefixes(self, generator: torch.Generator) -> Samples:
        """Return one prefix of each window, its length uniform over 2…length, so that its last item is the target."""
        draws = torch.rand(len(self.windows), generator=generator, dtype=torch.float64).tolist()
        prefixes = [w[: 2 + int(draw * (len(w) - 1))] for w, draw in zip(self.windows, draws, strict=True)]
        return Samples(prefixes, self.users, self.user_items)

    def all_prefixes(self) -> Samples:
        """Return every prefix of every window with at least two items, the shortest of a window first."""
        prefixes = [window[:end] for window in self.windows for end in range(2, len(window) + 1)]
        users = np.repeat(self.users, [len(window) - 1 for window in self.windows])
        return Samples(prefixes, users, self.user_items)


def training_samples(dataset: Dataset, max_length: int, supervision: Supervision = "every") -> Samples:
    """Return the samples of an epoch: each user's most recent training items, or all prefixes of them.

    A window is the most recent ``max_length + 1`` items, of which the last is only predicted; with ``own`` supervision
    the model chooses what it hides of them. Users with one item have nothing to predict.

    Raises
    ------
    DataError
        If no user has two training items.
    """
    sequences = dataset.train.sequences()
    users = np.array([user for user, s in enumerate(sequences) if len(s) >= 2], dtype=np.int64)
    if not len(users):
        raise DataError(f"No user of {dataset.name!r} has two training items; nothing can be learned.")
    samples = Samples([sequences[user][-(max_length + 1) :] for user in users], users, dataset.train.user_items)
    return samples.all_prefixes() if supervision == "all-prefixes" else samples


def make_batch(
    samples: Samples, supervision: Supervision, device: torch.device, negatives: torch.Tensor | None = None
) -> Batch:
    """Return the tensors of some samples.

    All but the last item are read. With supervision ``every`` each next item is predicted, with ``prefix`` and
    ``all-prefixes`` only the last item. With ``own`` the whole windows are read, and the model hides what it predicts.
    """
    if supervision == "own":
        inputs, lengths = pad_right(samples.windows, device)
        targets = inputs
    else:
        inputs, lengths = pad_right([window[:-1] for window in samples.windows], device)
        targets, _ = pad_right([window[1:] for window in samples.windows], device)
    positions = torch.arange(inputs.shape[1], device=device)
    last = lengths[:, None] - 1
    counts = positions <= last if supervision in ("every", "own") else positions == last
    users = torch.from_numpy(samples.users)
    return Batch(inputs, lengths, targets, counts, users, samples.user_items, negatives)
