"""The closed-form nulls against enumeration, random draws, and loops over users with matrix exponentials."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest

from spectral_probe.errors import ConfigError
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from spectral_probe.spectrum.gram_algebra import energies
from spectral_probe.spectrum.nulls import SwapReferences, cyclic_gram, permutation_energy
from tests.spectral_probe.worlds import (
    World,
    grams_of,
    make_world,
    slow_by_eigenspace,
    slow_eigenspaces,
    slow_heat,
    slow_swap_null,
    slow_treated,
)

TAU = 5.0
TREATMENTS = list(itertools.product((1, 0), (True, False), (False, True)))


def random_gram(T: int, seed: int) -> np.ndarray:
    H = np.random.default_rng(seed).normal(size=(T, 3)) + 1.0
    return H @ H.T


def random_basis(T: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed + 99).normal(size=(T, T)))[0]


def bases_of(world: World, **options) -> GraphBases:
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    return graph.local_bases(world.probe.targets, world.probe.lengths, users=world.probe.users, **options)


# --- permutation and cyclic ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 6])
def test_the_permutation_null_is_the_mean_over_all_orders_of_the_positions(T):
    G, U = random_gram(T, T), random_basis(T, T)
    orders = [np.array(order) for order in itertools.permutations(range(T))]
    expected = [np.mean([U[:, k] @ G[np.ix_(o, o)] @ U[:, k] for o in orders]) for k in range(T)]
    np.testing.assert_allclose(permutation_energy(G, U), expected, rtol=1e-10)


def test_the_permutation_null_is_the_mean_of_random_orders_within_their_error():
    T, n_draws = 12, 20_000
    G, U = random_gram(T, 0), random_basis(T, 0)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(T), (n_draws, 1)), axis=1)
    shuffled = G[orders[:, :, None], orders[:, None, :]]
    draws = np.einsum("sk,nst,tk->nk", U, shuffled, U, optimize=True)
    error = draws.std(axis=0, ddof=1) / np.sqrt(n_draws)
    z = (permutation_energy(G, U) - draws.mean(axis=0)) / error
    assert np.abs(z).max() < 4
    assert (error < 0.02 * permutation_energy(G, U)).all(), "the draws must be able to tell"


@pytest.mark.parametrize("T", [2, 3, 4, 5, 8])
def test_the_cyclic_null_is_the_mean_over_the_true_rotations(T):
    G, U = random_gram(T, T), random_basis(T, T)
    rotations = [np.roll(np.arange(T), shift) for shift in range(1, T)]
    averaged = np.mean([G[np.ix_(r, r)] for r in rotations], axis=0)
    np.testing.assert_allclose(cyclic_gram(G), averaged, atol=1e-12)
    expected = [np.mean([U[:, k] @ G[np.ix_(r, r)] @ U[:, k] for r in rotations]) for k in range(T)]
    np.testing.assert_allclose(energies(cyclic_gram(G), U), expected, rtol=1e-10)


def test_one_position_has_no_true_rotation_and_stays():
    assert cyclic_gram(np.array([[3.0]])).tolist() == [[3.0]]


def test_nulls_of_a_batch_are_those_of_its_members():
    G = np.stack([random_gram(5, s) for s in range(3)])
    U = np.stack([random_basis(5, s) for s in range(3)])
    for i in range(3):
        np.testing.assert_allclose(permutation_energy(G, U)[i], permutation_energy(G[i], U[i]))
        np.testing.assert_allclose(cyclic_gram(G)[i], cyclic_gram(G[i]))


@pytest.mark.parametrize(("drop_first", "center", "normalize_rows"), TREATMENTS)
def test_permutation_and_cyclic_nulls_of_treated_users_equal_enumeration(drop_first, center, normalize_rows):
    world = make_world(11, n_users=25)
    short = np.flatnonzero(world.probe.lengths <= 5)[:6]
    assert len(short) == 6
    treatment = {"drop_first": drop_first, "center": center, "normalize_rows": normalize_rows}
    bases = bases_of(world)
    result = spectral_energy(world.grams(), bases, **treatment)
    for u in short[result.is_valid[short]]:
        T, m = int(world.probe.lengths[u]), int(world.probe.lengths[u]) - drop_first
        A = bases.adjacency[u, drop_first:T, drop_first:T]
        P = slow_heat(A, TAU)
        orders = [np.array(o) for o in itertools.permutations(range(m))]
        rotations = [np.roll(np.arange(m), shift) for shift in range(1, m)]
        for layer in range(world.states.shape[1]):
            G = slow_treated(world.states[u, layer, :T], **treatment)
            for name, family in (("permutation", orders), ("cyclic", rotations)):
                averaged = np.mean([G[np.ix_(o, o)] for o in family], axis=0)
                expected = [np.trace(projector @ averaged) for _, projector in slow_eigenspaces(A)]
                actual = slow_by_eigenspace(A, result.null_energy[name][u, layer, :m])
                np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-9 * np.trace(G))
                low = np.trace(P @ averaged) / np.trace(G)
                np.testing.assert_allclose(result.null_low[name][u, layer], low, rtol=1e-9)


# --- swap ----------------------------------------------------------------------------------------------------------


def check_swap(world: World, result: SpectralEnergy, bases: GraphBases, treatment: dict, references_of, tau=TAU) -> int:
    """Compare every user and layer with the loops; return how many users were compared."""
    drop_first = treatment["drop_first"]

    @functools.cache
    def heat_of(v: int, T: int) -> np.ndarray:
        return slow_heat(bases.adjacency[v][:T, :T][drop_first:, drop_first:], tau)

    @functools.cache
    def treated(layer: int, v: int, T: int) -> np.ndarray:
        return slow_treated(world.states[v, layer, :T], **treatment)

    compared = 0
    for u in np.flatnonzero(result.is_valid).tolist():
        T = int(world.probe.lengths[u])
        references = references_of(u, T)
        if len(set(references) - {u}) < 20:
            assert np.isnan(result.null_low["swap"][u]).all()
            assert np.isnan(result.null_energy["swap"][u, :, : T - drop_first]).all()
            continue
        compared += 1
        A = bases.adjacency[u, drop_first:T, drop_first:T]
        for layer in range(world.states.shape[1]):
            gram_of = functools.partial(treated, layer)
            g_bar, null_low = slow_swap_null(gram_of, heat_of, u, T, references)
            np.testing.assert_allclose(result.null_low["swap"][u, layer], null_low, rtol=1e-9, atol=1e-12)
            total = np.trace(gram_of(u, T))
            expected = [np.trace(projector @ g_bar) * total for _, projector in slow_eigenspaces(A)]
            actual = slow_by_eigenspace(A, result.null_energy["swap"][u, layer, : T - drop_first])
            np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-10 * total)
    return compared


def at_least_as_long(world: World):
    lengths = world.probe.lengths
    return lambda u, T: [v for v in range(len(lengths)) if lengths[v] >= T]


@pytest.mark.parametrize(("drop_first", "center", "normalize_rows"), TREATMENTS)
def test_the_swap_null_equals_the_loop_over_users_of_unequal_length(world, drop_first, center, normalize_rows):
    treatment = {"drop_first": drop_first, "center": center, "normalize_rows": normalize_rows}
    bases = bases_of(world)
    result = spectral_energy(world.grams(), bases, **treatment)
    lengths, counted = world.probe.lengths, at_least_as_long(world)
    assert len(np.unique(lengths)) >= 5
    assert not bases.has_edges.all(), "an edgeless user must serve as reference"
    compared = check_swap(world, result, bases, treatment, counted)
    assert 20 <= compared < result.is_valid.sum(), "some lengths must have fewer than 20 references"


def test_the_swap_null_with_the_own_user_kept_uses_the_same_graphs_for_the_references(world):
    treatment = {"drop_first": 1, "center": True, "normalize_rows": False}
    bases = bases_of(world, own_user="keep")
    result = spectral_energy(world.grams(), bases, whole_tau=2.0)
    assert check_swap(world, result, bases, treatment, at_least_as_long(world), tau=2.0) >= 20


def test_a_null_of_too_few_references_is_nan_for_swap_alone(world):
    result = spectral_energy(world.grams(), bases_of(world))
    few = result.is_valid & np.isnan(result.null_low["swap"]).all(axis=1)
    assert few.any()
    for other in ("permutation", "cyclic"):
        assert np.isfinite(result.null_low[other][few]).all()
    assert np.isfinite(result.low[few]).all()


@pytest.mark.parametrize(("n_users", "is_known"), [(20, False), (21, True)])
def test_twenty_other_users_are_enough_and_nineteen_are_not(n_users, is_known):
    rng = np.random.default_rng(0)
    bases = complete_graphs(n_users, 6, rng)
    result = spectral_energy(grams_of(rng.normal(size=(n_users, 1, 6, 3)), bases.lengths), bases)
    assert np.isfinite(result.null_low["swap"]).all() == is_known
    assert np.isnan(result.null_low["swap"]).all() != is_known


def complete_graphs(n: int, T: int, rng: np.random.Generator) -> GraphBases:
    """Return complete graphs of random weights: valid for every user, no two alike."""
    A = rng.integers(1, 9, size=(n, T, T)).astype(float)
    A = np.triu(A, 1)
    return GraphBases.from_adjacency(A + A.transpose(0, 2, 1), np.full(n, T))


def test_a_user_whose_states_do_not_vary_over_the_positions_in_question_is_no_reference():
    """Users 4 (everywhere) and 5 (in their first five targets) have nothing to divide by at the second layer."""
    rng = np.random.default_rng(1)
    bases = complete_graphs(40, 8, rng)
    lengths = np.where(np.arange(40) < 25, 8, 5)
    bases = GraphBases.from_adjacency(bases.adjacency, lengths)
    states = rng.normal(size=(40, 2, 8, 3))
    states[4, 1] = states[4, 1, :1]
    states[5, 1, :5] = states[5, 1, :1]
    result = spectral_energy(grams_of(states, lengths), bases)
    assert result.is_valid.tolist() == [u != 4 for u in range(40)]
    for T, without in ((8, [4]), (5, [4, 5])):
        rest = np.delete(np.arange(40), without)
        clean = spectral_energy(
            grams_of(states[rest], lengths[rest]), GraphBases.from_adjacency(bases.adjacency[rest], lengths[rest])
        )
        of_length = lengths[rest] == T
        expected = clean.null_low["swap"][of_length]
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(result.null_low["swap"][rest][of_length], expected, rtol=1e-10)


def test_a_model_that_is_not_causal_is_swapped_among_equal_lengths_only(world):
    bases = bases_of(world)
    lengths = world.probe.lengths
    n_alike = np.bincount(lengths)
    assert n_alike.max() < 20, "the shared world has no length with twenty users"
    result = spectral_energy(world.grams(is_causal=False), bases)
    assert np.isnan(result.null_low["swap"]).all()

    bigger = make_world(3, n_users=150)
    bases, lengths = bases_of(bigger), bigger.probe.lengths
    result = spectral_energy(bigger.grams(is_causal=False), bases)
    treatment = {"drop_first": 1, "center": True, "normalize_rows": False}
    equal = lambda u, T: [v for v in range(len(lengths)) if lengths[v] == T]  # noqa: E731
    assert check_swap(bigger, result, bases, treatment, equal) >= 21


def test_of_more_users_than_n_references_one_draw_per_length_serves_all_layers(world):
    bases = bases_of(world)
    repeated = replace(world, states=np.repeat(world.states[:, :1], 3, axis=1))
    drawn = spectral_energy(repeated.grams(), bases, n_references=25, seed=5)
    for null in (drawn.null_low["swap"], drawn.null_energy["swap"]):
        np.testing.assert_allclose(null[:, 1], null[:, 0], rtol=1e-12)
        np.testing.assert_allclose(null[:, 2], null[:, 0], rtol=1e-12)

    usable = np.ones((len(world.probe), 9), dtype=bool)
    options = {"is_causal": True, "drop_first": 1, "tau": TAU, "n_references": 25, "seed": 5}
    references = SwapReferences.draw(bases, usable, world.probe.lengths, **options)
    for length, rows in references.rows.items():
        pool = set(np.flatnonzero(world.probe.lengths >= length).tolist())
        assert set(rows.tolist()) <= pool
        assert len(set(rows.tolist())) == len(rows) == min(25, len(pool))
    treatment = {"drop_first": 1, "center": True, "normalize_rows": False}
    result = spectral_energy(world.grams(), bases, n_references=25, seed=5)
    rows_of = lambda u, T: references.rows[T].tolist()  # noqa: E731
    assert check_swap(world, result, bases, treatment, rows_of) >= 20


def test_the_draw_is_fixed_by_the_seed(world):
    bases, grams = bases_of(world), world.grams()
    first, again, other = (spectral_energy(grams, bases, n_references=25, seed=s).null_low["swap"] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.nanmax(np.abs(first - other)) > 1e-4
    everyone = [spectral_energy(grams, bases, n_references=256, seed=s).null_low["swap"] for s in (5, 6)]
    np.testing.assert_array_equal(*everyone)


def test_fewer_references_than_the_null_needs_are_refused(world):
    with pytest.raises(ConfigError, match=r"n_references must be at least 20; got 19"):
        spectral_energy(world.grams(), bases_of(world), n_references=19)


def test_the_excess_over_swap_is_zero_on_average_when_every_user_gets_every_state_once():
    """Over a Latin square of users and states the excess cancels exactly, one-sided and two-sided."""
    rng = np.random.default_rng(2)
    n, T = 22, 5
    bases = complete_graphs(n, T, rng)
    states = rng.normal(size=(n, 1, T, 3))
    low, by_band, largest = np.zeros(n), np.zeros((n, T - 1)), 0.0
    for shift in range(n):
        result = spectral_energy(grams_of(np.roll(states, shift, axis=0), bases.lengths), bases)
        excess = (result.low - result.null_low["swap"])[:, 0]
        largest = max(largest, np.abs(excess).max())
        low += excess / n
        by_band += ((result.energy - result.null_energy["swap"])[:, 0] / result.total) / n
    assert largest > 0.01
    np.testing.assert_allclose(low, 0, atol=1e-12)
    np.testing.assert_allclose(by_band, 0, atol=1e-12)


def test_the_two_sided_excess_is_zero_when_all_users_have_the_same_graph():
    """P_u equals P̄, so no state can fit its own items better than those of others."""
    rng = np.random.default_rng(3)
    adjacency = complete_graphs(1, 6, rng).adjacency
    bases = GraphBases.from_adjacency(np.repeat(adjacency, 30, axis=0), np.full(30, 6))
    result = spectral_energy(grams_of(rng.normal(size=(30, 2, 6, 4)), bases.lengths), bases)
    np.testing.assert_allclose(result.low, result.null_low["swap"], atol=1e-12)


def test_averaged_heat_kernels_are_kept_and_read_back_for_the_same_graphs_only(world, tmp_path):
    bases, grams = bases_of(world), world.grams()
    fresh = spectral_energy(grams, bases, n_references=30)
    for expected_files in (1, 1):
        cached = spectral_energy(grams, bases, n_references=30, cache_dir=tmp_path / "heat")
        np.testing.assert_array_equal(cached.null_low["swap"], fresh.null_low["swap"])
        assert len(list((tmp_path / "heat").iterdir())) == expected_files
    for change in ({"whole_tau": 2.0}, {"seed": 1}, {"drop_first": 0}):
        options = {"n_references": 30, **change}
        cached = spectral_energy(grams, bases, cache_dir=tmp_path / "heat", **options)
        np.testing.assert_array_equal(
            cached.null_low["swap"], spectral_energy(grams, bases, **options).null_low["swap"]
        )
    other = bases_of(world, own_user="keep")
    cached = spectral_energy(grams, other, n_references=30, cache_dir=tmp_path / "heat")
    fresh = spectral_energy(grams, other, n_references=30)
    np.testing.assert_array_equal(cached.null_low["swap"], fresh.null_low["swap"])
    assert len(list((tmp_path / "heat").iterdir())) == 5


def test_a_damaged_cache_is_computed_anew(world, tmp_path):
    bases, grams = bases_of(world), world.grams()
    fresh = spectral_energy(grams, bases, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    for damage in (file.read_bytes()[:100], b""):
        file.write_bytes(damage)
        again = spectral_energy(grams, bases, cache_dir=tmp_path)
        np.testing.assert_array_equal(again.null_low["swap"], fresh.null_low["swap"])
