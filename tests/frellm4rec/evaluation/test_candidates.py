from dataclasses import replace

import numpy as np
import pytest

from frellm4rec.evaluation import Candidates, candidates, evaluate, sample_candidates, stored_candidates
from spectral_probe.errors import ConfigError, DataError, ResourceError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.storage.cache import CACHE_VARIABLE


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "candidates"


def test_drawn_once_and_then_read(random_log, cache, monkeypatch):
    drawn = stored_candidates(random_log, n_negatives=9, seed=2)
    np.testing.assert_array_equal(drawn.items, sample_candidates(random_log, n_negatives=9, seed=2).items)
    assert [path.name for path in cache.iterdir()] == [
        f"{random_log.fingerprint(titles=False)[:16]}-test-9+1-seed2.npz"
    ]
    monkeypatch.setattr(candidates, "sample_candidates", None)
    assert stored_candidates(random_log, n_negatives=9, seed=2).digest == drawn.digest


def test_every_setting_has_its_own_file(random_log, cache):
    for settings in ({}, {"seed": 1}, {"part": "valid"}, {"n_negatives": 8}):
        stored_candidates(random_log, **{"n_negatives": 9, **settings})
    assert len(list(cache.iterdir())) == 4


def test_a_damaged_file_is_named_and_to_be_deleted(random_log, cache):
    stored_candidates(random_log, n_negatives=9)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"9\+1-seed0.npz are damaged.*Delete this file"):
        stored_candidates(random_log, n_negatives=9)
    path.unlink()
    assert stored_candidates(random_log, n_negatives=9).n_negatives == 9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fingerprint": "0" * 64}, "data 00000000"),
        ({"part": "valid"}, "of part 'valid'"),
        ({"seed": 3}, "of seed 3"),
    ],
)
def test_a_file_of_something_else_is_refused(random_log, cache, change, says):
    right = stored_candidates(random_log, n_negatives=9)
    (path,) = cache.iterdir()
    replace(right, **change).save(path)
    with pytest.raises(DataError, match=says):
        stored_candidates(random_log, n_negatives=9)


def test_lists_with_fewer_users_negatives_or_another_target_are_refused(random_log, cache):
    right = stored_candidates(random_log, n_negatives=9)
    (path,) = cache.iterdir()
    items = right.items.copy()
    items[3, [0, 1]] = items[3, [1, 0]]
    for wrong, says in (
        (replace(right, items=items), "first candidate of a list is the user's test item; it is not for 1 of 15"),
        (replace(right, items=right.items[:, :8]), r"holds 7\+1 candidates"),
        (replace(right, items=right.items[:-1]), "shapes are"),
        (replace(right, items=right.items[:, 1:] + 30), "seen users"),
        (replace(right, users=right.users[:-1], items=right.items[:-1]), "holds lists of 14 of 15 users"),
        (replace(right, items=np.where(np.arange(10) == 4, right.items[:, 5:6], right.items)), "twice"),
    ):
        wrong.save(path)
        with pytest.raises(DataError, match=says):
            stored_candidates(random_log, n_negatives=9)


def test_own_lists_are_checked_against_the_targets(random_log, sasrec):
    right = sample_candidates(random_log, n_negatives=5)
    wrong = replace(right, items=right.items[:, ::-1].copy())
    with pytest.raises(DataError, match="not for 15 of 15 users"):
        evaluate(sasrec, random_log, candidates=wrong)


def test_a_target_absent_from_the_history_rules_is_not_invented(cache):
    short = Dataset.from_interactions(Interactions.from_sequences([[0, 1], [2, 3, 4]], n_items=9))
    right = sample_candidates(short, n_negatives=2)
    with pytest.raises(DataError, match="first for '0'"):
        replace(right, users=np.array([0])).check(short, "test")


def test_digest_follows_the_lists_alone(random_log, tmp_path):
    lists = sample_candidates(random_log, n_negatives=5)
    assert replace(lists, seed=9).digest == lists.digest
    assert Candidates.load(lists.save(tmp_path / "a.npz")).digest == lists.digest
    assert sample_candidates(random_log, n_negatives=5, seed=1).digest != lists.digest


def test_bad_settings_and_a_cache_that_cannot_be_written(random_log, cache):
    with pytest.raises(ConfigError, match="Did you mean 'valid'"):
        stored_candidates(random_log, part="vallid")
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in the way")
    with pytest.raises(ResourceError, match="SPECTRAL_PROBE_CACHE"):
        stored_candidates(random_log, n_negatives=2)
