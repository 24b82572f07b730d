"""The pilot: who is in it, the popularity bins, the least-squares means, and the file."""

from __future__ import annotations

import numpy as np
import pytest

from spectral_probe.errors import DataError, ShapeError
from spectral_probe.recording.pilot import (
    Pilot,
    PilotSums,
    pilot_users,
    popularity_bins,
    position_bins,
    read_items,
)


def test_users_are_drawn_until_they_have_the_positions():
    lengths = np.random.default_rng(0).integers(1, 30, size=400)
    rows = pilot_users(lengths, seed=4, n_positions=1000)
    assert rows.tolist() == sorted(set(rows.tolist()))
    order = np.random.default_rng([4, 400]).permutation(400)
    drawn, positions = [], 0
    for user in order.tolist():
        drawn.append(user)
        positions += lengths[user] - 1  # the leading position is not in the pilot
        if positions >= 1000:
            break
    assert rows.tolist() == sorted(drawn)
    assert pilot_users(lengths, seed=4).tolist() == list(range(400))  # too few for 6,000: all of them
    assert pilot_users(lengths, seed=5, n_positions=1000).tolist() != rows.tolist()


def skewed(n_items: int, seed: int = 0) -> np.ndarray:
    """Return counts of items, many of which are equal."""
    return np.random.default_rng(seed).zipf(1.6, n_items).clip(max=3000)


@pytest.mark.parametrize(("n_items", "n_probed"), [(1000, 9000), (300, 4000), (60, 700), (25, 300), (9, 100)])
@pytest.mark.parametrize("seed", [0, 1])
def test_bins_have_ten_items_or_more_ties_together_and_the_popular_first(n_items, n_probed, seed):
    counts = skewed(n_items, seed)
    rng = np.random.default_rng(seed)
    items = rng.choice(n_items, size=n_probed, p=counts / counts.sum())
    bins = popularity_bins(counts, items, n_pilot_positions=n_probed)
    assert bins.shape == (n_items,)
    known = np.unique(items)
    n_of_bin = np.bincount(bins[known])
    assert n_of_bin[n_of_bin > 0].min() >= min(10, len(known))
    wanted = max(4, min(40, len(known) // 20, n_probed // 50))
    assert (n_of_bin > 0).sum() <= wanted
    for i in range(n_items):
        for j in rng.integers(0, n_items, 20):
            assert (bins[i] == bins[j]) or counts[i] != counts[j]
            assert (bins[i] <= bins[j]) or counts[i] < counts[j]


@pytest.mark.parametrize(
    ("n_items", "n_positions", "expected"),
    [(1000, 9000, 40), (300, 9000, 15), (300, 600, 12), (60, 9000, 4), (300, 100, 4), (2000, 1500, 30)],
)
def test_without_ties_there_are_as_many_bins_as_items_and_positions_allow(n_items, n_positions, expected):
    counts = np.random.default_rng(0).permutation(n_items) + 1
    items = np.tile(np.arange(n_items), 10)
    bins = popularity_bins(counts, items, n_pilot_positions=n_positions)
    assert bins.max() + 1 == expected
    sizes = np.bincount(bins)  # every item has ten positions, so equal shares of positions are equal numbers of items
    assert sizes.max() - sizes.min() <= 1


def test_few_items_are_one_bin_and_items_that_are_not_probed_have_one_too():
    counts = np.array([100, 100, 90, 80, 5, 4, 3, 2, 1])
    assert popularity_bins(counts, np.arange(9), n_pilot_positions=500).tolist() == [0] * 9
    counts = np.arange(100, 0, -1)
    bins = popularity_bins(counts, np.arange(40, 100), n_pilot_positions=10_000)  # the 40 most popular are not probed
    assert bins[:40].tolist() == [0] * 40
    assert (np.diff(bins) >= 0).all()


def test_leading_and_padded_positions_have_no_bin():
    bins = np.array([0, 1, 2, 2])
    items = np.array([[3, 2, 1, 0], [1, 1, 9, 9]])
    assert position_bins(bins, items, np.array([4, 2])).tolist() == [[-1, 2, 1, 0], [-1, 1, -1, -1]]
    assert read_items(None, items).tolist() == [[3, 3, 2, 1], [1, 1, 1, 9]]
    assert read_items(items + 1, items).tolist() == (items + 1).tolist()


def fitted(
    n: int = 200, d: int = 7, n_bins: int = 5, seed: int = 0
) -> tuple[Pilot, np.ndarray, np.ndarray, np.ndarray]:
    """Return a pilot with the states it was fitted on and their bins; the last bin is empty."""
    rng = np.random.default_rng(seed)
    target, read = rng.integers(0, n_bins - 1, n), rng.integers(0, n_bins - 1, n)
    states = rng.normal(size=(n, d)) + target[:, None] - 2 * (read == 1)[:, None]
    sums = PilotSums(np.arange(n_bins), 1)
    for part in np.split(np.arange(n), [50, 120]):  # whatever the batches
        sums.count(target[part], read[part])
        one_hot = np.eye(n_bins)
        sums.add(0, one_hot[target[part]].T @ states[part], one_hot[read[part]].T @ states[part])
    return sums.fit(np.arange(3)), states, target, read


def test_the_means_are_the_least_squares_fit_of_minimum_norm():
    pilot, states, target, read = fitted()
    design = np.zeros((len(states), 10))
    for row in range(len(states)):
        design[row, target[row]] = 1
        design[row, 5 + read[row]] = 1
    assert np.linalg.matrix_rank(design) == 7  # two empty bins, and a constant that both sides can take
    dense = np.linalg.lstsq(design, states, rcond=None)[0]
    np.testing.assert_allclose(pilot.target_means[0], dense[:5], atol=1e-5)
    np.testing.assert_allclose(pilot.input_means[0], dense[5:], atol=1e-5)
    assert (pilot.n_bins, pilot.n_positions) == (5, len(states))


def test_a_layer_without_states_is_refused():
    sums = PilotSums(np.arange(2), 2)
    sums.add(0, np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ShapeError, match="no states of layer 1"):
        sums.fit(np.arange(1))


def test_a_pilot_comes_back_from_its_file_and_its_hash_knows_every_number(tmp_path):
    pilot = fitted()[0]
    pilot.save(tmp_path / "a.safetensors")
    back = Pilot.load(tmp_path / "a.safetensors")
    for name in ("bins", "rows"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pilot, name))
    np.testing.assert_array_equal(back.target_means[0], pilot.target_means[0])
    np.testing.assert_array_equal(back.input_means[0], pilot.input_means[0])
    assert (back.n_positions, back.hash) == (pilot.n_positions, pilot.hash)
    back.input_means[0][0, 0] += 1e-3
    assert back.hash != pilot.hash
    pilot.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "without bins"])
def test_a_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / "pilot.safetensors"
    if damage != "missing":
        fitted()[0].save(path)
        content = path.read_bytes()
        renamed = content.replace(b'"bins"', b'"bans"')
        path.write_bytes({"truncated": content[:-40], "empty": b"", "without bins": renamed}[damage])
    with pytest.raises(DataError, match=r"pilot\.safetensors' cannot be read.*[Cc]apture again"):
        Pilot.load(path)
