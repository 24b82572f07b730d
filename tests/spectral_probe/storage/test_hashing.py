"""Hashes: the forms of the first version, to the bit, so that saved Grams, weights and lists stay valid."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.storage.cache import cache_root
from spectral_probe.storage.hashing import array_hash, digest, file_hash, settings_hash


def test_the_forms_of_the_first_version() -> None:
    settings = {"b": [1, None, 2.5], "a": {"x": True}}
    assert settings_hash(settings) == hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    assert settings_hash(dict(reversed(settings.items()))) == settings_hash(settings)
    assert settings_hash({"path": Path("a")}) == settings_hash({"path": "a"})
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    expected = hashlib.sha256(b"<i4(2, 3)" + array.tobytes()).hexdigest()[:16]
    assert array_hash(array) == expected
    assert array_hash(np.asfortranarray(array)) == expected
    assert array_hash(array.astype(np.int64)) != expected
    # Numbers of the first version, so that both sides cannot drift together.
    assert settings_hash({"a": 1}) == "f9d86028c6e0d64e225186f96acb69338b2c59764df79162107f5c4bb34d1310"
    assert array_hash(np.zeros((2, 2), dtype=np.float32)) == "deccdf73aab4e5c4"


def test_parts_are_hashed_one_after_another(tmp_path) -> None:
    parts = ["a", b"b", np.array([1.0, 2.0]), np.empty(0)]
    assert digest(parts) == hashlib.sha256(b"ab" + np.array([1.0, 2.0]).tobytes()).hexdigest()
    assert digest(np.arange(6).reshape(2, 3).T[i] for i in range(3)) == digest([np.arange(6).reshape(2, 3).T])
    (tmp_path / "f").write_bytes(b"ab")
    assert file_hash(tmp_path / "f") == digest(["ab"])


def test_a_fingerprint_is_computed_once_and_knows_titles_only_when_asked(monkeypatch) -> None:
    log = Interactions.from_sequences([[0, 1, 2], [2, 1, 0, 1]], n_items=3)
    bare = Dataset.from_interactions(log)
    titled = Dataset.from_interactions(log, item_titles=["a", "b", "c"])
    by_hand = hashlib.sha256(b"3")
    for sequence in bare.sequences:
        by_hand.update(np.int64(len(sequence)).tobytes() + sequence.astype("<i8").tobytes())
    assert bare.fingerprint() == bare.fingerprint(titles=False) == titled.fingerprint(titles=False)
    assert bare.fingerprint() == by_hand.hexdigest()
    by_hand.update(b"a\0b\0c\0")
    assert titled.fingerprint() == by_hand.hexdigest()
    monkeypatch.setattr("spectral_probe.interactions.dataset.digest", lambda parts: pytest.fail("hashed again"))
    assert titled.fingerprint() == by_hand.hexdigest()
    assert titled.fingerprint(titles=False) == bare.fingerprint()


def test_a_history_cannot_change_after_its_fingerprint() -> None:
    histories = [np.array([0, 1, 2]), np.array([2, 1, 0])]
    data = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=3))
    with pytest.raises(ValueError, match="read-only"):
        data.sequences[0][-1] = 1
    histories[0][-1] = 1  # the caller's array is the caller's
    assert data.sequences[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("folder", ["~/kept", "/somewhere/kept"])
def test_there_is_one_cache_root_and_it_knows_the_home_folder(folder, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", folder)
    assert cache_root() == Path(folder.replace("~", "/home/somebody"))
    monkeypatch.delenv("SPECTRAL_PROBE_CACHE")
    assert cache_root().name == "spectral-probe"
