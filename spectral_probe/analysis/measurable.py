"""Whether anybody can be measured, known from the histories alone: before a model is loaded, trained or run."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, sparray

from spectral_probe.analysis.node_graphs import N_DROPPED
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.sequences import HELD_OUT, ProbeSequences, SequencePart, probe_sequences
from spectral_probe.spectrum.energy import EDGELESS, nobody_measured, too_short
from spectral_probe.spectrum.nodes import MeasuredNodes
from spectral_probe.types import IntArray

#: Most items of a history that are held out; nothing is of a shorter one.
MOST_HELD_OUT = max(HELD_OUT.values())


def probe_of(dataset: Dataset, options: AnalysisOptions, part: SequencePart | None = None) -> ProbeSequences:
    """Return the histories that an analysis probes, of ``part`` if it is given; see :func:`probe_sequences`."""
    return probe_sequences(
        dataset,
        part=options.sequence if part is None else part,
        max_length=options.max_length,
        max_users=options.users,
        seed=options.seed,
    )


def n_drawable(dataset: Dataset) -> int:
    """Return the number of users that :func:`probe_sequences` draws from: those with held-out items."""
    return sum(len(sequence) > MOST_HELD_OUT for sequence in dataset.sequences)


def truncated(options: AnalysisOptions, n: int) -> tuple[str, ...]:
    """Return the caveat ``truncated-users`` where the options draw fewer than the ``n`` users that could be drawn."""
    return ("truncated-users",) if options.users is not None and options.users < n else ()


def check_measurable(probe: ProbeSequences, user_items: sparray, options: AnalysisOptions) -> None:
    """Refuse histories that are all too short, or whose local graphs all have no edge.

    States that do not vary are known only once the model has run. Where rows may see later items (``prefixes=False``),
    other nodes are measured, and nothing is checked.

    Parameters
    ----------
    probe : ProbeSequences
    user_items : (n_users, n_items) sparse
        The training interactions.
    options : AnalysisOptions

    Raises
    ------
    DataError
        If no user is left, of the items that are read or of those that are predicted.
    """
    if options.prefixes is False:
        return
    columns, least = csc_array(user_items), options.min_targets - N_DROPPED
    for items in (probe.inputs, probe.targets):
        nodes = MeasuredNodes.of(items, probe.lengths, drop_first=N_DROPPED, min_nodes=least)
        is_long = nodes.lengths >= least
        if not any(
            _has_edge(columns, nodes.items[row, : nodes.lengths[row]], int(probe.users[row]), options.own_user)
            for row in np.flatnonzero(is_long)
        ):
            counts = {too_short(options.min_targets): int((~is_long).sum()), EDGELESS: int(is_long.sum())}
            raise nobody_measured(len(probe), counts)


def _has_edge(columns: csc_array, items: IntArray, user: int, own_user: str) -> bool:
    """Tell whether somebody, other than the user where ``own_user`` is ``drop``, has two of the items."""
    users, n_items = np.unique(columns[:, items].indices, return_counts=True)
    has_two = n_items > 1
    return bool((has_two & (users != user)).any() if own_user == "drop" else has_two.any())
