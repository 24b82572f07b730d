import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frellm4rec.evaluation import metrics, ndcg_at_k, rank_metrics, recall_at_k, tie_rate
from frellm4rec.evaluation.metrics import best_first
from spectral_probe.errors import ConfigError, DataError, ShapeError


def test_hand_worked_example():
    # Ranks of the target: 1, 3 and 4; then 2, 1 and 2.
    scores = np.array([[9.0, 1, 2, 3], [5, 7, 6, 0], [0, 1, 2, 3]])
    np.testing.assert_allclose(ndcg_at_k(scores, [0, 0, 0], 3), [1.0, 1 / np.log2(4), 0.0])
    np.testing.assert_allclose(recall_at_k(scores, [0, 0, 0], 3), [1.0, 1.0, 0.0])
    np.testing.assert_allclose(ndcg_at_k(scores, [3, 1, 2], 2), [1 / np.log2(3), 1.0, 1 / np.log2(3)])


def test_ties_get_their_mean_over_random_orders():
    scores = np.array([[2.0, 2, 2, 5, 1]])
    # Ranks 2, 3 and 4 are equally likely.
    assert recall_at_k(scores, [0], 2)[0] == pytest.approx(1 / 3)
    assert ndcg_at_k(scores, [0], 3)[0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / 3)
    assert tie_rate(scores, [0]).tolist() == [1.0]
    assert tie_rate(scores, [3]).tolist() == [0.0]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=5), st.data())
def test_matches_every_order_of_ties(row, data):
    target = data.draw(st.integers(0, len(row) - 1))
    k = data.draw(st.integers(1, len(row)))
    gains = []
    for order in itertools.permutations(range(len(row))):
        # A stable sort of a permuted list breaks ties by that permutation.
        rank = sorted(order, key=lambda item: -row[item]).index(target) + 1
        gains.append([rank <= k, (rank <= k) / np.log2(rank + 1)])
    scores = np.array([row], dtype=float)
    np.testing.assert_allclose(
        [recall_at_k(scores, [target], k)[0], ndcg_at_k(scores, [target], k)[0]], np.mean(gains, axis=0)
    )


def test_scores_within_the_tolerance_are_tied():
    scores = np.array([[1.0, 1.0 + 1e-9, 1.0 - 1e-9, 1.1], [1.0, 1.0 + 1e-9, 1.0 - 1e-9, 0.9]])
    assert tie_rate(scores, 0).tolist() == [0.0, 0.0]
    assert tie_rate(scores, 0, tolerance=[1e-8, 0.0]).tolist() == [1.0, 0.0]
    assert recall_at_k(scores, 0, 2, tolerance=1e-8).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert ndcg_at_k(scores, 0, 1, tolerance=[np.nan, np.inf]).tolist() == [0.0, 0.0]
    assert tie_rate(np.array([[3, 3, 2]]), 0, tolerance=0.5).tolist() == [1.0]
    with pytest.raises(ConfigError, match="tolerance must be zero or more; seen -1"):
        tie_rate(scores, 0, tolerance=-1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 9), st.sampled_from([0.0, 1.0, 2.5]))
def test_best_first_against_a_slow_selection(row, k, tolerance):
    left, expected = list(range(len(row))), []
    while left:
        highest = max(row[j] for j in left)
        tied = [j for j in left if row[j] >= highest - tolerance]
        expected += tied
        left = [j for j in left if j not in tied]
    assert best_first(np.array(row, dtype=float), k, tolerance=tolerance).tolist() == expected[:k]


def test_best_first_takes_whole_numbers_and_refuses_a_negative_tolerance():
    assert best_first(np.array([3, 0, 1], dtype=np.uint8), 3).tolist() == [0, 2, 1]
    assert best_first([True, False, True], 2).tolist() == [0, 2]
    with pytest.raises(ConfigError, match="tolerance must be zero or more; got -1"):
        best_first([1.0, 2.0], 2, tolerance=-1.0)


def test_constant_scores_are_worth_chance():
    scores = np.zeros((1, 100))
    assert recall_at_k(scores, 0, 10)[0] == pytest.approx(0.1)


def test_excluded_candidates_do_not_count_but_targets_do():
    scores = np.array([[1.0, 5, 4, np.nan]])
    excluded = np.array([[True, True, False, True]])
    assert ndcg_at_k(scores, [0], 2, excluded=excluded)[0] == pytest.approx(1 / np.log2(3))


def test_nan_is_an_error():
    with pytest.raises(DataError, match="2 are NaN, first in row 1, candidate 0"):
        ndcg_at_k(np.array([[1.0, 2], [np.nan, np.nan]]), [0, 0], 1)


@pytest.mark.parametrize("with_excluded", [False, True])
def test_blocks_change_nothing(monkeypatch, with_excluded):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (50, 9)).astype(np.float32)
    targets = rng.integers(0, 9, 50)
    excluded = rng.random((50, 9)) < 0.3 if with_excluded else None
    if with_excluded:
        scores[excluded & (np.arange(9) != targets[:, None])] = np.nan
    whole = rank_metrics(scores, targets, 4, excluded=excluded)
    monkeypatch.setattr(metrics, "BLOCK_SIZE", 20)
    for values, blocks in zip(whole, rank_metrics(scores, targets, 4, excluded=excluded), strict=True):
        np.testing.assert_array_equal(values, blocks)
    for row, target in enumerate(targets):
        left = [j for j in range(9) if j == target or not (with_excluded and excluded[row, j])]
        better = sum(scores[row, j] > scores[row, target] for j in left)
        tied = sum(scores[row, j] == scores[row, target] for j in left) - 1
        hits = sum(rank <= 4 for rank in range(better + 1, better + tied + 2))
        assert whole.recall[row] == pytest.approx(hits / (tied + 1))
        assert whole.is_tied[row] == (tied > 0)


def test_the_row_of_a_nan_is_named_across_blocks(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK_SIZE", 2)
    scores = np.zeros((5, 2))
    scores[3, 1] = np.nan
    with pytest.raises(DataError, match="1 are NaN, first in row 3, candidate 1"):
        rank_metrics(scores, 0, 1)


def test_a_nan_target_is_an_error_even_where_it_is_excluded():
    with pytest.raises(DataError, match="row 0, candidate 1"):
        rank_metrics(np.array([[1.0, np.nan]]), [1], 1, excluded=np.array([[False, True]]))


def test_infinite_scores_are_ordered():
    scores = np.array([[np.inf, -np.inf, 0.0], [np.inf, np.inf, 0.0]])
    metrics = rank_metrics(scores, 0, 1)
    assert metrics.recall.tolist() == [1.0, 0.5]
    assert metrics.is_tied.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("k", [0, -1, 3, 1.5, True])
def test_k_out_of_range(k):
    with pytest.raises(ConfigError, match=r"k must be a whole number in 1…2"):
        recall_at_k(np.zeros((1, 2)), [0], k)


@pytest.mark.parametrize(
    ("scores", "targets", "excluded"),
    [
        (np.zeros(3), [0], None),
        (np.zeros((2, 3)), [0, 3], None),
        (np.zeros((2, 3)), [0, -1], None),
        (np.zeros((2, 3)), [0.0, 1.0], None),
        (np.zeros((2, 3)), [0, 1], np.zeros((2, 2), bool)),
    ],
)
def test_shapes_that_do_not_fit(scores, targets, excluded):
    with pytest.raises(ShapeError):
        ndcg_at_k(scores, targets, 1, excluded=excluded)
