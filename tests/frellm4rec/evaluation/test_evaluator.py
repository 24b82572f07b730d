from dataclasses import replace

import numpy as np
import pytest
import torch

from frellm4rec.evaluation import Candidates, Evaluation, evaluate, sample_candidates
from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.runs.recommendation import recommend
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions


def with_titles(dataset):
    return replace(dataset, item_titles=[f"title {i}" for i in range(dataset.n_items)])


def test_candidates_hold_the_target_and_untouched_items(random_log):
    lists = sample_candidates(random_log, n_negatives=12, seed=4)
    assert lists.items.shape == (random_log.n_users, 13)
    for user, row in zip(lists.users, lists.items, strict=True):
        history = random_log.sequences[user]
        assert row[0] == history[-1]
        assert len(set(row.tolist())) == 13
        assert not set(row[1:].tolist()) & set(history.tolist())


def test_negatives_are_shared_by_parts_and_titles_but_not_seeds(random_log):
    test = sample_candidates(random_log, n_negatives=9)
    valid = sample_candidates(with_titles(random_log), part="valid", n_negatives=9)
    other = sample_candidates(random_log, n_negatives=9, seed=1)
    np.testing.assert_array_equal(test.items[:, 1:], valid.items[:, 1:])
    assert valid.items[:, 0].tolist() == [s[-2] for s in random_log.sequences]
    assert (test.items[:, 1:] != other.items[:, 1:]).any()


def test_negatives_are_uniform():
    dataset = Dataset.from_interactions(Interactions.from_sequences([[0, 1, 2]] * 3000, n_items=13))
    counts = np.bincount(sample_candidates(dataset, n_negatives=1).items[:, 1], minlength=13)
    assert counts[:3].sum() == 0
    # 3,000 draws over ten items: mean 300, standard deviation 16.4.
    assert abs(counts[3:] - 300).max() < 5 * 16.4


def test_users_without_held_out_items_are_left_out():
    dataset = Dataset.from_interactions(Interactions.from_sequences([[0, 1], [0, 1, 2]], n_items=9))
    assert sample_candidates(dataset, n_negatives=2).users.tolist() == [1]
    with pytest.raises(DataError, match="three interactions"):
        sample_candidates(Dataset.from_interactions(Interactions.from_sequences([[0, 1]], n_items=9)))


def test_candidates_round_trip(random_log, tmp_path):
    lists = sample_candidates(random_log, n_negatives=5)
    again = Candidates.load(lists.save(tmp_path / "lists.npz"))
    np.testing.assert_array_equal(again.items, lists.items)
    assert (again.part, again.seed, again.fingerprint, again.n_negatives) == ("test", 0, lists.fingerprint, 5)
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.save(tmp_path / "array.npz.npy", np.zeros(3))
    (tmp_path / "array.npz.npy").rename(tmp_path / "array.npz")
    for name in ("junk.npz", "absent.npz", "array.npz"):
        with pytest.raises(DataError, match="Draw them again"):
            Candidates.load(tmp_path / name)


def test_too_many_negatives(random_log):
    with pytest.raises(DataError, match="99 negatives cannot be drawn for 15 of 15 users"):
        sample_candidates(random_log)
    longest = max(len(set(sequence)) for sequence in random_log.sequences)
    n_longest = sum(len(set(sequence)) == longest for sequence in random_log.sequences)
    with pytest.raises(DataError, match=rf"cannot be drawn for {n_longest} of 15 users.* only {30 - longest} of them"):
        sample_candidates(random_log, n_negatives=31 - longest)
    with pytest.raises(DataError, match="999999999 negatives cannot be drawn"):  # no memory is taken for them
        sample_candidates(random_log, n_negatives=999_999_999)
    with pytest.raises(ConfigError, match=r"seed in 0…4294967295"):
        sample_candidates(random_log, n_negatives=1, seed=10**20)
    with pytest.raises(ConfigError, match="'valid' or 'test'"):
        sample_candidates(random_log, part="tests", n_negatives=1)


@pytest.mark.parametrize("part", ["test", "valid"])
def test_evaluation_against_a_slow_loop(sasrec, random_log, part):
    position = {"test": -1, "valid": -2}[part]
    lists = sample_candidates(random_log, part=part, n_negatives=9)
    full = evaluate(sasrec, random_log, part=part, k=3, batch_size=4)
    sampled = evaluate(sasrec, random_log, part=part, k=3, candidates=lists)
    for row, history in enumerate(random_log.sequences):
        read = history[:position][-10:]
        scores = sasrec.score(torch.tensor(read)[None], torch.tensor([len(read)]))[0].tolist()
        target = history[position]
        for result, pool in (
            (full, [i for i in range(30) if i not in history[:position]]),
            (sampled, lists.items[row].tolist()),
        ):
            rank = sorted(pool, key=lambda item: -scores[item]).index(target) + 1
            assert result.recall[row] == (rank <= 3)
            assert result.ndcg[row] == pytest.approx((rank <= 3) / np.log2(rank + 1))


def test_batch_size_and_padding_change_nothing(sasrec, random_log):
    np.testing.assert_allclose(
        evaluate(sasrec, random_log, batch_size=1).ndcg, evaluate(sasrec, random_log, batch_size=100).ndcg
    )


@pytest.mark.parametrize("part", ["test", "valid"])
def test_histories_of_similar_length_share_a_batch(sasrec, random_log, part, monkeypatch):
    shapes, score = [], type(sasrec).score_and_tolerance

    def spy(self, inputs, lengths, items=None):
        shapes.append(inputs.shape)
        return score(self, inputs, lengths, items)

    monkeypatch.setattr(type(sasrec), "score_and_tolerance", spy)
    by_length = evaluate(sasrec, random_log, part=part, batch_size=4)
    n_read = sorted((len(s) - (1 if part == "test" else 2) for s in random_log.sequences), reverse=True)
    assert shapes == [(len(n_read[i : i + 4]), n_read[i]) for i in range(0, len(n_read), 4)]
    one_by_one = evaluate(sasrec, random_log, part=part, batch_size=1)
    np.testing.assert_array_equal(by_length.users, one_by_one.users)
    np.testing.assert_allclose(by_length.ndcg, one_by_one.ndcg, atol=1e-12)


def test_constant_scores_are_all_ties(sasrec, random_log):
    with torch.no_grad():
        sasrec.items.weight[:] = 1.0
    result = evaluate(sasrec, random_log, candidates=sample_candidates(random_log, n_negatives=9), k=5)
    np.testing.assert_allclose(result.recall, 0.5)
    assert result.summary()["tie_rate"] == 1.0


@pytest.mark.parametrize("n_items", range(2, 71))
def test_ties_do_not_depend_on_the_position_in_the_catalogue(n_items):
    """A matrix product rounds its last columns differently; a tie must be one at every position all the same."""
    rng = np.random.default_rng(n_items)
    histories = [rng.integers(0, n_items, 4) for _ in range(n_items)]
    for position, history in enumerate(histories):
        history[-1] = position  # every item is somebody's target
    log = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=n_items))
    model = SASRec(SASRecConfig(n_items=n_items, max_length=6, n_features=50, n_inner=8))
    with torch.no_grad():
        model.items.weight[:] = torch.randn(50, generator=torch.Generator().manual_seed(1))
        model.final_norm.weight[:] = torch.randn(50, generator=torch.Generator().manual_seed(2))
    for part, n_read in (("test", 3), ("valid", 2)):
        result = evaluate(model, log, part=part, k=1)
        n_open = [n_items - len(set(h[:n_read].tolist()) - {h[n_read]}) for h in histories]
        np.testing.assert_allclose(result.recall, 1 / np.array(n_open))
        assert result.is_tied.tolist() == [float(n > 1) for n in n_open]


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_scores_that_really_differ_are_never_tied(sasrec, random_log, mixed_precision):
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision):
        assert evaluate(sasrec, random_log).is_tied.sum() == 0
    inputs, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    scores, tolerance = sasrec.score_and_tolerance(inputs, lengths)
    gaps = scores[0].sort().values.diff()
    assert 0 < float(tolerance) < 1e-3 * float(gaps.min())


def test_a_model_with_scores_of_its_own_is_ranked_by_them(random_log):
    class Backwards(SASRec):
        def score(self, inputs, lengths, items=None):
            every = -torch.arange(30.0).repeat(len(inputs), 1)
            return every if items is None else every.gather(1, items)

    class Shifted(SASRec):
        def score(self, inputs, lengths, items=None):
            return super().score(inputs, lengths, items) + 1.0

    config = SASRecConfig(n_items=30, max_length=10, n_features=8, n_inner=8)
    lists = sample_candidates(random_log, n_negatives=9)
    result = evaluate(Backwards(config), random_log, candidates=lists, k=1)
    assert result.recall.tolist() == (lists.items.argmin(axis=1) == 0).astype(float).tolist()
    assert recommend(Backwards(config), [3], k=4).items.tolist() == [0, 1, 2, 4]
    plain, shifted = (evaluate(kind(config, seed=4), random_log) for kind in (SASRec, Shifted))
    np.testing.assert_array_equal(plain.ndcg, shifted.ndcg)


def test_scores_come_in_blocks_of_the_table(sasrec, monkeypatch):
    inputs, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    whole, tolerance = sasrec.score_and_tolerance(inputs, lengths)
    monkeypatch.setattr("frellm4rec.models.sequential._ROWS_AT_ONCE", 7)
    blocks, _ = sasrec.score_and_tolerance(inputs, lengths)
    assert bool(((whole - blocks).abs() <= tolerance[:, None]).all())
    state = torch.random.get_rng_state()
    sasrec.train().score(inputs, lengths)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sasrec.training


def test_result_is_labelled(sasrec, random_log, tmp_path):
    result = evaluate(sasrec, random_log, candidates=sample_candidates(random_log, n_negatives=9, seed=2))
    assert result.ranking == "9+1"
    for words in ("random ", "leave-one-out test", "15 users", "9+1 candidates", "seed 2", "k=10", "ties"):
        assert words in result.protocol
    assert result.summary()["ndcg"] == result.to_frame()["ndcg"].mean()
    again = Evaluation.load(result.save(tmp_path / "result.npz"))
    assert again.summary() == result.summary()
    sasrec.traits = replace(sasrec.traits, exceptions={"learns": "random weights"})
    full = evaluate(sasrec, random_log)
    assert full.ranking == "full"
    assert full.protocol.endswith("; random weights")
    assert "full ranking" in full.protocol


def test_refuses_what_does_not_belong_together(sasrec, random_log, ring):
    with pytest.raises(DataError, match="knows 30 items"):
        evaluate(sasrec, ring)
    other = Dataset.from_interactions(Interactions.from_sequences([[0, 1, 2]], n_items=30))
    with pytest.raises(DataError, match="Draw them again"):
        evaluate(sasrec, random_log, candidates=sample_candidates(other, n_negatives=3))
    with pytest.raises(DataError, match="part 'valid'"):
        evaluate(sasrec, random_log, candidates=sample_candidates(random_log, part="valid", n_negatives=3))


def test_nan_scores_stop_the_evaluation(sasrec, random_log):
    with torch.no_grad():
        sasrec.final_norm.weight[0] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        evaluate(sasrec, random_log)
