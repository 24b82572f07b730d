import numpy as np
import pytest

from benchmarks.calibration.probes import REWIRED, load_dataset, rewired_log


def test_made_repeats_leave_graph_and_lengths(small_probe) -> None:
    before, after = small_probe.sequences, small_probe.with_repeats().sequences
    np.testing.assert_array_equal(before.lengths, after.lengths)
    n_repeats = n_positions = 0
    for u, length in enumerate(after.lengths):
        history = np.append(after.inputs[u, :length], after.targets[u, length - 1])
        np.testing.assert_array_equal(history[1:], after.targets[u, :length])
        known = np.append(before.inputs[u, :length], before.targets[u, length - 1])
        assert set(history) <= set(known)
        n_repeats += length + 1 - len(set(history))
        n_positions += length + 1
    assert 0.2 < n_repeats / n_positions < 0.35
    assert len(set(map(tuple, small_probe.with_repeats().sequences.inputs)) & set(map(tuple, after.inputs))) > 80


def test_a_rewired_log_keeps_the_counts_and_loses_the_communities(small_log, small_probe) -> None:
    made = rewired_log(small_log.sequences, np.random.default_rng(0))
    assert [len(s) for s in made] == [len(s) for s in small_log.sequences]
    assert all(len(set(s)) == len(s) for s in made)
    counts = [np.bincount(np.concatenate(log), minlength=60) for log in (made, list(small_log.sequences))]
    np.testing.assert_array_equal(*counts)

    def mixing(log: list[np.ndarray]) -> float:
        share = np.array([np.mean(s < 30) for s in log])
        return float(np.abs(share - share.mean()).mean())

    assert mixing(made) < mixing(list(small_log.sequences)) / 2
    probe = small_probe.variant(REWIRED)
    assert probe.shape == small_probe.shape
    np.testing.assert_array_equal(probe.sequences.lengths, small_probe.sequences.lengths)


def test_popularity_is_of_the_item_read_and_standardised(small_probe) -> None:
    known = small_probe.popularity[small_probe.valid]
    assert known.mean() == pytest.approx(0, abs=1e-5)
    assert known.std() == pytest.approx(1, abs=1e-5)
    counts = small_probe.graph.item_counts[small_probe.sequences.inputs[small_probe.valid]]
    assert np.corrcoef(known, np.log1p(counts))[0, 1] == pytest.approx(1, abs=1e-5)
    predicted = small_probe.graph.item_counts[small_probe.sequences.targets[small_probe.valid]]
    assert np.corrcoef(small_probe.predicted_popularity[small_probe.valid], np.log1p(predicted))[0, 1] > 0.999
    bins = small_probe.popularity_bins(4)[small_probe.valid]
    assert set(bins) == {0, 1, 2, 3}
    assert all(len(set(bins[counts == count])) == 1 for count in np.unique(counts))


def test_item_vectors_know_co_occurrence_and_have_equal_norms(small_probe) -> None:
    X = small_probe.item_vectors
    norms = np.sqrt((X**2).mean(axis=1))
    assert np.all(np.isclose(norms, norms.max(), atol=1e-4) | (norms == 0))
    alike = X @ X.T
    assert alike[:30, :30].mean() + alike[30:, 30:].mean() > 2 * alike[:30, 30:].mean()


def test_density_and_locality_rank_the_users(small_probe) -> None:
    n = small_probe.shape[0]
    for ranks in (small_probe.density, small_probe.locality):
        np.testing.assert_allclose(np.sort(ranks), np.arange(n) / (n - 1))
    adjacency, m = small_probe.nodes.bases.adjacency, small_probe.nodes.bases.lengths
    densest, sparsest = np.argmax(small_probe.density), np.argmin(small_probe.density)
    mean = [adjacency[u, : m[u], : m[u]].sum() / (m[u] * (m[u] - 1)) for u in (densest, sparsest)]
    assert mean[0] > mean[1]


@pytest.mark.shared
def test_the_data_sets_are_found_by_their_names(shared_dir) -> None:
    assert len(load_dataset(shared_dir / "data", "LastFM").sequences) == 1090
    assert len(load_dataset(shared_dir / "data", "Luxury_Beauty").sequences) == 3811
