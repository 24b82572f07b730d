"""Hashes of large files: computed once, and again when the file changes."""

from __future__ import annotations

import os

import pytest

from spectral_probe.storage import known_hashes
from spectral_probe.storage.hashing import file_hash
from spectral_probe.storage.known_hashes import known_file_hash


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "weights").write_bytes(b"first")
    return tmp_path / "weights"


def test_an_unchanged_file_is_hashed_once(file, monkeypatch):
    expected = file_hash(file)
    assert known_file_hash(file) == expected
    monkeypatch.setattr(known_hashes, "file_hash", lambda path: pytest.fail("hashed again"))
    assert known_file_hash(file) == expected
    assert known_file_hash(os.path.relpath(file)) == expected


@pytest.mark.parametrize(("content", "seconds"), [(b"other", 1), (b"longer than before", 0)])
def test_a_changed_file_is_hashed_again(file, content, seconds):
    before, facts = known_file_hash(file), file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + seconds * 10**9))
    assert known_file_hash(file) == file_hash(file) != before


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"path": 1}'])
def test_a_damaged_record_is_replaced(file, damage, tmp_path):
    expected = known_file_hash(file)
    (record,) = (tmp_path / "cache" / "hashes").iterdir()
    good = record.read_text()
    record.write_text(damage)
    assert known_file_hash(file) == expected
    assert record.read_text() == good


def test_a_cache_that_cannot_be_written_costs_time_only(file, tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file where the folder should be")
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "blocked"))
    assert known_file_hash(file) == file_hash(file)
    with pytest.raises(FileNotFoundError):
        known_file_hash(tmp_path / "absent")
