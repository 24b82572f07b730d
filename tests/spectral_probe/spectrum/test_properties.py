"""Laws that hold for every log, every graph and every set of states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.log import Interactions
from spectral_probe.profiles.bootstrap import ROUNDING, Interval
from spectral_probe.profiles.verdict import judge
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from tests.spectral_probe.worlds import grams_of, slow_laplacian, slow_local_adjacency, slow_rank_weights

#: Reproducible, and without a clock: the machines that run this are shared.
LAW = settings(max_examples=25, deadline=None, derandomize=True)
N_ITEMS = 9


@dataclass(frozen=True, eq=False)
class Sample:
    """A log, some sequences of its users, and states on them."""

    histories: list[list[int]]
    targets: np.ndarray
    lengths: np.ndarray
    users: np.ndarray
    states: np.ndarray
    own_user: str
    self_loops: bool

    def graph(self, relabel: np.ndarray | None = None) -> ItemGraph:
        names = np.arange(N_ITEMS) if relabel is None else relabel
        log = Interactions.from_sequences([names[h] for h in self.histories], n_items=N_ITEMS)
        return ItemGraph.from_interactions(log.user_items, self_loops=self.self_loops)

    def bases(self) -> GraphBases:
        return self.graph().local_bases(self.targets, self.lengths, users=self.users, own_user=self.own_user)

    def energy(self, states: np.ndarray | None = None, **options) -> SpectralEnergy:
        chosen = self.states if states is None else states
        return spectral_energy(
            grams_of(chosen, self.lengths), self.bases(), **{"nulls": ("permutation", "cyclic"), **options}
        )


@st.composite
def samples(draw: st.DrawFn, min_length: int = 1, is_measurable: bool = False) -> Sample:
    histories = draw(st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=8), min_size=2, max_size=10))
    n = draw(st.integers(1, 4))
    T = draw(st.integers(min_length, 9))
    rows = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=T, max_size=T), min_size=n, max_size=n)
    targets = np.array(draw(rows))
    lengths = np.array(draw(st.lists(st.integers(min_length, T), min_size=n, max_size=n)))
    users = np.array(draw(st.lists(st.integers(0, len(histories) - 1), min_size=n, max_size=n)))
    states = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(size=(n, 2, T, 3))
    own_user = draw(st.sampled_from(["drop", "keep"]))
    sample = Sample(histories, targets, lengths, users, states, own_user, draw(st.booleans()))
    if is_measurable:
        assume(sample.bases().drop_first(1).has_edges.any())
    return sample


measurable = samples(min_length=4, is_measurable=True)


# --- transform ---------------------------------------------------------------------------------------------------


@LAW
@given(samples())
def test_the_inverse_transform_undoes_the_transform(sample: Sample):
    bases = sample.bases()
    real = np.arange(bases.eigenvalues.shape[1]) < sample.lengths[:, None]
    x = sample.states[:, 0] * real[..., None]
    np.testing.assert_allclose(bases.igft(bases.gft(x)), x, atol=1e-12)
    np.testing.assert_allclose(bases.gft(bases.igft(x)), x, atol=1e-12)


@LAW
@given(samples())
def test_the_transform_keeps_the_energy(sample: Sample):
    real = np.arange(sample.targets.shape[1]) < sample.lengths[:, None]
    x = sample.states[:, 0, :, 0] * real
    np.testing.assert_allclose((sample.bases().gft(x) ** 2).sum(axis=1), (x**2).sum(axis=1), rtol=1e-10)


@LAW
@given(samples())
def test_frequencies_ascend_from_zero_to_at_most_two(sample: Sample):
    bases = sample.bases()
    for values, length, A in zip(bases.eigenvalues, sample.lengths, bases.adjacency, strict=True):
        known = values[:length]
        assert known.min() >= 0
        assert known.max() <= 2
        assert (np.diff(known) >= 0).all()
        assert np.isnan(values[length:]).all()
        n_isolated = int((A[:length, :length].sum(axis=1) == 0).sum())
        assert (np.abs(known - 1) < 1e-9).sum() >= n_isolated
        if n_isolated < length:
            assert known[0] < 1e-9, "a component with an edge has frequency 0"
        else:
            assert (known == 1).all(), "without edges nothing is smooth"


@LAW
@given(samples())
def test_the_quadratic_form_is_the_frequency_weighted_energy_and_the_sum_over_edges(sample: Sample):
    bases = sample.bases()
    x = sample.states[:, 0, :, 0]
    x_hat = bases.gft(x)
    for u, length in enumerate(sample.lengths):
        A, f = bases.adjacency[u, :length, :length], x[u, :length]
        form = f @ slow_laplacian(A) @ f
        assert form == pytest.approx(np.nansum(bases.eigenvalues[u] * x_hat[u] ** 2), abs=1e-9)
        degree = A.sum(axis=1)
        scaled = np.array([f[t] / np.sqrt(degree[t]) if degree[t] else 0.0 for t in range(length)])
        edges = 0.5 * sum(A[s, t] * (scaled[s] - scaled[t]) ** 2 for s in range(length) for t in range(length))
        assert form == pytest.approx(edges + (f[degree == 0] ** 2).sum(), abs=1e-9)


@LAW
@given(samples(), st.permutations(range(N_ITEMS)))
def test_relabelling_items_changes_no_local_graph(sample: Sample, order):
    relabel = np.array(order)
    options = {"users": sample.users, "own_user": sample.own_user}
    before = sample.graph().local_adjacency(sample.targets, sample.lengths, **options)
    after = sample.graph(relabel).local_adjacency(relabel[sample.targets], sample.lengths, **options)
    np.testing.assert_array_equal(before, after)


@LAW
@given(samples(min_length=2))
def test_local_graphs_are_those_of_counting(sample: Sample):
    adjacency = sample.bases().adjacency
    sets = [set(h) for h in sample.histories]
    for u, (targets, length) in enumerate(zip(sample.targets.tolist(), sample.lengths, strict=True)):
        left_out = int(sample.users[u]) if sample.own_user == "drop" else None
        expected = slow_local_adjacency(sets, targets[:length], left_out, sample.self_loops)
        np.testing.assert_array_equal(adjacency[u, :length, :length], expected)
        assert (adjacency[u] >= 0).all()


@LAW
@given(samples(), st.permutations(range(N_ITEMS)))
def test_with_self_loops_the_whole_own_user_and_no_repeat_frequencies_stay_below_one(sample: Sample, order):
    log = Interactions.from_sequences(sample.histories, n_items=N_ITEMS)
    graph = ItemGraph.from_interactions(log.user_items, self_loops=True)
    bases = graph.local_bases(np.array(order)[None], [N_ITEMS], own_user="keep")
    assert bases.eigenvalues.max() <= 1 + 1e-9


# --- energies ----------------------------------------------------------------------------------------------------


@LAW
@given(measurable, st.sampled_from([0, 1]), st.booleans(), st.booleans())
def test_energies_and_their_nulls_sum_to_the_total_and_are_never_negative(sample, drop_first, center, normalize_rows):
    result = sample.energy(drop_first=drop_first, center=center, normalize_rows=normalize_rows)
    total = result.total[result.is_valid]
    for energy in (result.energy, *result.null_energy.values()):
        np.testing.assert_allclose(energy[result.is_valid].sum(axis=-1), total, rtol=1e-8)
        assert (energy[result.is_valid] >= -1e-9 * total.max()).all()


@LAW
@given(measurable, st.integers(1, 9))
def test_band_shares_sum_to_one_whatever_the_number_of_bands(sample, n_bands):
    result = sample.energy(nulls=())
    valid = result.is_valid
    share = result.energy[valid] / result.total[valid][..., None]
    for rule in (f"rank:{n_bands}", f"pooled:{n_bands}", "deciles"):
        weights = np.nan_to_num(Bands.parse(rule).weights(result.eigenvalues[valid]))
        bands = np.einsum("nlk,nkb->nlb", share, weights)
        np.testing.assert_allclose(bands.sum(axis=-1), 1.0, rtol=1e-9)


@LAW
@given(measurable)
def test_the_low_share_lies_between_the_gains_of_the_extreme_frequencies_and_falls_with_tau(sample):
    before = None
    for tau in (0.5, 5.0, 20.0):
        low = sample.energy(nulls=(), whole_tau=tau)
        share = low.low[low.is_valid]
        assert (share <= 1 + 1e-9).all()
        assert (share >= np.exp(-2 * tau) - 1e-12).all()
        if before is not None:
            assert (share <= before + 1e-12).all()
        before = share


@LAW
@given(measurable)
def test_the_rayleigh_quotient_lies_between_zero_and_two(sample):
    result = sample.energy(nulls=())
    assert (result.rayleigh[result.is_valid] >= -1e-9).all()
    assert (result.rayleigh[result.is_valid] <= 2 + 1e-9).all()


def assert_same_curve(a: SpectralEnergy, b: SpectralEnergy) -> None:
    np.testing.assert_array_equal(a.is_valid, b.is_valid)
    valid = a.is_valid
    np.testing.assert_allclose(a.low[valid], b.low[valid], atol=1e-8)
    np.testing.assert_allclose(a.rayleigh[valid], b.rayleigh[valid], atol=1e-7)
    for name in a.null_low:
        np.testing.assert_allclose(a.null_low[name][valid], b.null_low[name][valid], atol=1e-8)


@LAW
@given(measurable, st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_rotating_and_scaling_the_states_changes_no_share(sample, seed, scale):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    assert_same_curve(sample.energy(sample.states @ rotation * scale), sample.energy())


@LAW
@given(measurable, st.floats(-20, 20))
def test_a_common_vector_changes_nothing_once_centred(sample, shift):
    assert_same_curve(sample.energy(sample.states + shift), sample.energy())


@LAW
@given(measurable, st.floats(-100, 100))
def test_the_first_position_changes_nothing_once_dropped(sample, sink):
    states = sample.states.copy()
    states[:, :, 0] *= sink
    assert_same_curve(sample.energy(states), sample.energy())


@LAW
@given(measurable, st.floats(0.1, 10))
def test_norms_of_rows_change_nothing_once_normalised(sample, scale):
    norms = scale ** np.arange(sample.states.shape[2])[:, None]
    assert_same_curve(sample.energy(sample.states * norms, normalize_rows=True), sample.energy(normalize_rows=True))


@LAW
@given(measurable, st.integers(1, 3))
def test_wider_padding_changes_nothing(sample, extra):
    wider = Sample(
        sample.histories,
        np.pad(sample.targets, ((0, 0), (0, extra)), constant_values=5),
        sample.lengths,
        sample.users,
        np.pad(sample.states, ((0, 0), (0, 0), (0, extra), (0, 0)), constant_values=7.0),
        sample.own_user,
        sample.self_loops,
    )
    assert_same_curve(wider.energy(), sample.energy())


@LAW
@given(measurable, st.integers(0, 2**32 - 1))
def test_permuting_positions_of_graph_and_states_together_changes_neither_energy_nor_low_share(sample, seed):
    """With nothing dropped a position has no meaning but its item; cyclic rotations are of positions, so not they."""
    rng = np.random.default_rng(seed)
    targets, states = sample.targets.copy(), sample.states.copy()
    for u, length in enumerate(sample.lengths):
        order = rng.permutation(length)
        targets[u, :length] = targets[u, order]
        states[u, :, :length] = states[u][:, order]
    moved = Sample(sample.histories, targets, sample.lengths, sample.users, states, sample.own_user, sample.self_loops)
    options = {"drop_first": 0, "nulls": ("permutation",)}
    assert_same_curve(moved.energy(**options), sample.energy(**options))


@LAW
@given(measurable)
def test_a_user_has_the_same_curve_alone_as_among_others(sample):
    together = sample.energy()
    for u in np.flatnonzero(together.is_valid):
        row = [u]
        alone = Sample(
            sample.histories,
            sample.targets[row],
            sample.lengths[row],
            sample.users[row],
            sample.states[row],
            sample.own_user,
            sample.self_loops,
        ).energy()
        np.testing.assert_allclose(alone.low[0], together.low[u], atol=1e-9)
        for name in alone.null_low:
            np.testing.assert_allclose(alone.null_low[name][0], together.null_low[name][u], atol=1e-9)


@LAW
@given(measurable)
def test_states_that_are_orthonormal_hold_equal_energy_at_every_frequency(sample):
    T = sample.states.shape[2]
    identity = np.broadcast_to(np.eye(T), (len(sample.lengths), 2, T, T))
    result = sample.energy(identity, drop_first=0, center=False)
    for u in np.flatnonzero(result.is_valid):
        length = sample.lengths[u]
        np.testing.assert_allclose(result.energy[u, :, :length], 1.0, atol=1e-9)
        for null in result.null_energy.values():
            np.testing.assert_allclose(null[u, :, :length], 1.0, atol=1e-9)


# --- bands and verdict -------------------------------------------------------------------------------------------


@LAW
@given(st.lists(st.integers(0, 8), min_size=1, max_size=20), st.integers(1, 12))
def test_rank_weights_are_those_of_fractions_and_divide_every_frequency_and_fill_every_band(values, n_bands):
    eigenvalues = np.sort(np.array(values) / 4)
    weights = Bands.parse(n_bands).weights(eigenvalues[None])[0]
    np.testing.assert_allclose(weights, slow_rank_weights(eigenvalues.tolist(), n_bands), atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=0), len(values) / n_bands, atol=1e-12)


@LAW
@given(
    st.floats(-1, 1),
    st.floats(-3, 3),
    st.floats(0, 2),
    st.floats(0, 2),
    st.integers(20, 10_000),
)
def test_every_verdict_agrees_with_its_intervals(embed_low, rho, below, above, n_users):
    low, high = rho - below, rho + above
    label = judge(Interval(embed_low + 1, embed_low, embed_low + 2), Interval(rho, low, high), n_users).label
    has_signal = embed_low > ROUNDING
    assert (label == "no measurable excess") == (not has_signal)
    assert (label == "attenuated") == (has_signal and high < 1)
    assert (label == "amplified") == (has_signal and low > 1)
    assert (label == "preserved") == (has_signal and low <= 1 <= high and low >= 0.8 and high <= 1.25)
