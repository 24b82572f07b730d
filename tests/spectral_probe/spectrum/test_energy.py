"""Energies from Gram matrices against energies from the states themselves, and who is left out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from spectral_probe.errors import ConfigError, DataError, NonFiniteStateError, ShapeError
from spectral_probe.graph.bases import GraphBases
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from spectral_probe.spectrum.gram_algebra import centre
from tests.spectral_probe.worlds import (
    ArrayGrams,
    World,
    grams_of,
    slow_by_eigenspace,
    slow_eigenspaces,
    slow_laplacian,
    slow_treated,
)

TREATMENTS = list(itertools.product((1, 0, 2), (True, False), (False, True)))


@pytest.fixture(scope="module")
def bases(world: World) -> GraphBases:
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    return graph.local_bases(world.probe.targets, world.probe.lengths, users=world.probe.users)


@pytest.fixture(scope="module")
def result(world: World, bases: GraphBases) -> SpectralEnergy:
    return spectral_energy(world.grams(), bases)


@pytest.mark.parametrize(("drop_first", "center", "normalize_rows"), TREATMENTS)
def test_energies_from_grams_equal_the_transform_of_the_treated_states(
    world, bases, drop_first, center, normalize_rows
):
    treatment = {"drop_first": drop_first, "center": center, "normalize_rows": normalize_rows}
    result = spectral_energy(world.grams(), bases, whole_tau=3.0, **treatment)
    assert result.is_valid.sum() >= 50
    for u in np.flatnonzero(result.is_valid):
        T = int(world.probe.lengths[u])
        A = bases.adjacency[u, drop_first:T, drop_first:T]
        spaces = slow_eigenspaces(A)
        low_pass = scipy.linalg.expm(-3.0 * slow_laplacian(A))
        for layer in range(world.states.shape[1]):
            H = world.states[u, layer, drop_first:T].copy()
            if normalize_rows:
                H = H / np.linalg.norm(H, axis=1, keepdims=True)
            if center:
                H = H - H.mean(axis=0)
            energy = result.energy[u, layer, : T - drop_first]
            expected = [(projector @ H * H).sum() for _, projector in spaces]
            total = (H * H).sum()
            np.testing.assert_allclose(slow_by_eigenspace(A, energy), expected, rtol=1e-7, atol=1e-10 * total)
            np.testing.assert_allclose(result.total[u, layer], total, rtol=1e-9)
            np.testing.assert_allclose(result.low[u, layer], np.trace(H.T @ low_pass @ H) / total, rtol=1e-8)
            rayleigh = np.trace(H.T @ slow_laplacian(A) @ H) / total
            np.testing.assert_allclose(result.rayleigh[u, layer], rayleigh, rtol=1e-8)
            assert not result.energy[u, layer, T - drop_first :].any(), "padded frequencies hold 0"


def test_without_drop_and_centring_the_energy_is_equation_4(world, bases):
    raw = spectral_energy(world.grams(), bases, drop_first=0, center=False, nulls=())
    for layer in range(world.states.shape[1]):
        eq4 = (bases.gft(world.states[:, layer]) ** 2).sum(axis=2)
        np.testing.assert_allclose(raw.energy[raw.is_valid, layer], eq4[raw.is_valid], rtol=1e-8, atol=1e-6)
        norm = (world.states[:, layer] ** 2).sum(axis=(1, 2))
        np.testing.assert_allclose(raw.total[raw.is_valid, layer], norm[raw.is_valid], rtol=1e-10)


def test_stored_float32_grams_give_the_same_shares_to_their_precision(world, bases, result):
    names, states = world.grams().layer_names, world.grams().layer_states
    stored = LayerGrams.from_states(world.states, world.probe.lengths, names, layer_states=states)
    assert stored.grams.dtype == np.float32
    from_stored = spectral_energy(stored, bases)
    np.testing.assert_array_equal(from_stored.is_valid, result.is_valid)
    np.testing.assert_allclose(from_stored.low, result.low, atol=1e-5)
    assert from_stored.energy.dtype == np.float64


def test_row_normalisation_comes_before_centring(world, bases):
    grams = world.grams()
    both = spectral_energy(grams, bases, normalize_rows=True, nulls=())
    u = int(np.flatnonzero(both.is_valid)[0])
    T = int(world.probe.lengths[u])
    H = world.states[u, 1, 1:T]
    centred_first = H - H.mean(axis=0)
    centred_first = centred_first / np.linalg.norm(centred_first, axis=1, keepdims=True)
    assert both.total[u, 1] == pytest.approx(np.trace(slow_treated(world.states[u, 1, :T], 1, True, True)))
    assert abs(both.total[u, 1] - (centred_first**2).sum()) > 0.1


def test_centring_removes_the_mean_over_positions():
    H = np.random.default_rng(0).normal(size=(4, 7, 3)) + 5
    expected = [(h - h.mean(axis=0)) @ (h - h.mean(axis=0)).T for h in H]
    np.testing.assert_allclose(centre(H @ H.transpose(0, 2, 1)), expected, atol=1e-11)


def test_the_result_names_its_layers_and_settings(world, bases):
    result = spectral_energy(world.grams(), bases, whole_tau=2.0, seed=9, n_references=40, nulls=("cyclic",))
    assert result.layer_names == ("embed", "block 1", "block 2", "final_norm")
    assert result.layer_states == ("embed", "block", "block", "final_norm")
    assert result.layer_index == (0, 1, 2, 3)
    assert set(result.null_energy) == set(result.null_low) == {"cyclic"}
    expected = {
        "drop_first": 1,
        "center": True,
        "normalize_rows": False,
        "whole_tau": 2.0,
        "n_references": 40,
        "seed": 9,
    }
    assert expected.items() <= result.settings.items()
    assert result.energy.shape == (60, 4, 9)
    assert result.eigenvalues.shape == (60, 9)


def test_selected_layers_keep_their_depth(world, bases):
    grams = world.grams()
    selected = replace(grams, layer_names=("embed", "block 7", "block 28", "final_norm"))
    assert spectral_energy(selected, bases, nulls=()).layer_index == (0, 7, 28, 29)


def test_every_null_energy_sums_to_the_users_own_total(result):
    valid = result.is_valid
    for null in result.null_energy.values():
        sums = null.sum(axis=2)
        known = np.isfinite(sums)
        np.testing.assert_allclose(sums[known], result.total[known], rtol=1e-9)
        assert known[valid].mean() > 0.5


# --- who is left out ---------------------------------------------------------------------------------------------


def toy(n: int = 30, T: int = 6, d: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return states (n, 2, T, d), full lengths and complete graphs of random weights."""
    rng = np.random.default_rng(4)
    upper = np.triu(rng.integers(1, 9, size=(n, T, T)), 1).astype(float)
    return rng.normal(size=(n, 2, T, d)), np.full(n, T), upper + upper.transpose(0, 2, 1)


def measured(states: np.ndarray, lengths: np.ndarray, adjacency: np.ndarray, **options) -> SpectralEnergy:
    real = np.arange(adjacency.shape[1]) < lengths[:, None]
    bases = GraphBases.from_adjacency(adjacency * (real[:, :, None] & real[:, None, :]), lengths)
    return spectral_energy(grams_of(states, lengths), bases, **options)


def test_users_are_left_out_for_the_first_reason_that_applies_and_counted():
    states, lengths, adjacency = toy()
    lengths[[0, 1]] = 3  # too short, one of them also without an edge
    adjacency[1] = 0
    lengths[2] = 4  # just long enough
    adjacency[3] = 0  # no edge
    adjacency[4, 1:, 1:] = 0  # no edge after the drop
    adjacency[5, 1:, 1:] = np.diag([1.0, 1, 1, 1, 1])  # a self-loop is no edge
    states[6, 1] = states[6, 1, :1]  # no variation at the second layer
    states[7, 0, 1:] = states[7, 0, 1:2]  # no variation at the first layer after the drop
    adjacency[8] = 0
    states[8] = 0.0  # edgeless and without variation: counted as edgeless
    result = measured(states, lengths, adjacency)
    assert np.flatnonzero(~result.is_valid).tolist() == [0, 1, 3, 4, 5, 6, 7, 8]
    assert result.skipped == {
        "fewer than 4 targets": 2,
        "local graph without an edge": 4,
        "no variation over positions at some layer": 2,
    }
    for values in (result.energy, result.total, result.low, *result.null_low.values(), *result.null_energy.values()):
        assert np.isnan(values[~result.is_valid]).all(), "who is not on the curve is NaN at every layer"
    assert np.isfinite(result.low[result.is_valid]).all()


def test_an_edge_to_the_first_position_counts_when_nothing_is_dropped():
    states, lengths, adjacency = toy()
    adjacency[4, 1:, 1:] = 0
    assert not measured(states, lengths, adjacency).is_valid[4]
    assert measured(states, lengths, adjacency, drop_first=0).is_valid[4]


@pytest.mark.parametrize(("part_left", "is_kept"), [(2e-5, True), (0.5e-5, False)])
def test_a_centred_gram_below_a_hundred_thousandth_of_the_energy_is_rounding(part_left, is_kept):
    states, lengths, adjacency = toy()
    H = states[0, 0, 1:] - states[0, 0, 1:].mean(axis=0)
    mean = np.array([1.0, 0.0, 0.0])
    # Energy after centring ‖H‖², before ‖H‖² + 5 c²: choose c so that the ratio is part_left.
    c = np.sqrt((H**2).sum() * (1 / part_left - 1) / 5)
    states[0, 0, 1:] = H + c * mean
    assert measured(states, lengths, adjacency).is_valid[0] == is_kept
    assert measured(states, lengths, adjacency, center=False).is_valid[0]


def test_without_anyone_left_there_is_an_error_that_says_why():
    states, lengths, adjacency = toy()
    with pytest.raises(DataError, match=r"None of the 30 users.*: local graph without an edge \(30\)\. .*robe longer"):
        measured(states, lengths, adjacency * 0)


# --- bad input ---------------------------------------------------------------------------------------------------


def test_grams_and_bases_of_other_sequences_are_refused(world, bases):
    grams = world.grams()
    fewer = ArrayGrams(grams.grams[:-1], grams.lengths[:-1], grams.layer_names, grams.layer_states)
    narrower = ArrayGrams(grams.grams[..., :9, :9], np.minimum(grams.lengths, 9), grams.layer_names, grams.layer_states)
    other_lengths = replace(grams, lengths=np.maximum(grams.lengths - 1, 1))
    for wrong in (fewer, narrower, other_lengths):
        with pytest.raises(ShapeError, match=r"Grams are for .* Build both from the same targets and lengths"):
            spectral_energy(wrong, bases)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nulls": ("swop",)}, r"one of swap, permutation, cyclic; got 'swop'\. Did you mean 'swap'\?"),
        ({"drop_first": 4}, r"drop_first must lie in 0…3; got 4"),
        ({"drop_first": -1}, r"drop_first must lie in 0…3; got -1"),
        ({"tau": 0.0}, r"tau must be a positive number of at most 500; got 0.0"),
        ({"n_references": 5}, r"n_references must be at least 20; got 5"),
    ],
)
def test_an_option_out_of_range_is_refused(world, bases, options, message):
    with pytest.raises(ConfigError, match=message):
        spectral_energy(world.grams(), bases, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_an_error_and_not_a_user_without_variation(world, bases, bad):
    states = world.states.copy()
    states[[5, 9], 1, 2, 0] = bad
    with pytest.raises(NonFiniteStateError, match=r"layer 'block 1' .* in 2 of 60 sequences, first in row 5\. Run"):
        spectral_energy(grams_of(states, world.probe.lengths), bases)


# --- controls ----------------------------------------------------------------------------------------------------


def test_on_the_path_graph_the_swap_excess_is_zero_and_the_others_see_smoothness_in_time():
    rng = np.random.default_rng(0)
    n, T = 40, 9
    smooth = np.cumsum(rng.normal(size=(n, 2, T, 3)), axis=2)
    result = spectral_energy(grams_of(smooth, np.full(n, T)), GraphBases.path(np.full(n, T), T))
    np.testing.assert_allclose(result.low, result.null_low["swap"], atol=1e-12)
    for null in ("permutation", "cyclic"):
        excess = (result.low - result.null_low[null])[:, 0]
        assert excess.mean() > 4 * excess.std() / np.sqrt(n)


# --- files -------------------------------------------------------------------------------------------------------


def test_the_saved_arrays_are_the_arrays(result, tmp_path):
    result.save(tmp_path / "spectrum.npz")
    with np.load(tmp_path / "spectrum.npz", allow_pickle=False) as stored:
        for name in ("energy", "total", "low", "eigenvalues", "lengths", "is_valid"):
            np.testing.assert_array_equal(stored[name], getattr(result, name))
        for null in ("swap", "permutation", "cyclic"):
            np.testing.assert_array_equal(stored[f"null_low.{null}"], result.null_low[null])
            np.testing.assert_array_equal(stored[f"null_energy.{null}"], result.null_energy[null])
        assert tuple(stored["layer_names"]) == result.layer_names
        assert tuple(stored["layer_index"]) == result.layer_index
        assert "allow_pickle" not in stored
