"""Where the cache is for a user without a home folder, as in a container with another user id."""

import getpass
import os
import tempfile
from pathlib import Path

import platformdirs
import pytest

from spectral_probe.errors import ResourceError
from spectral_probe.storage.cache import CACHE_VARIABLE, cache_root, give_home


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    def no_home(*_args, **_kwargs):
        raise RuntimeError("could not determine the home directory")

    def no_name():
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", "unset")
    monkeypatch.setenv("USER", "unset")
    monkeypatch.setattr(platformdirs, "user_cache_dir", no_home)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(getpass, "getuser", no_name)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"spectral-probe-{os.getuid()}"


def test_a_user_without_a_home_has_a_folder_that_nobody_else_can_write(nobody):
    assert cache_root() == nobody / ".cache" / "spectral-probe"
    assert nobody.stat().st_mode & 0o777 == 0o700
    give_home()
    assert os.environ["HOME"] == str(nobody)
    assert os.environ["USER"] == f"user-{os.getuid()}"


def test_a_folder_of_that_name_that_others_can_write_is_refused(nobody):
    nobody.mkdir()
    nobody.chmod(0o777)
    with pytest.raises(ResourceError, match=f"Set {CACHE_VARIABLE}"):
        cache_root()


def test_a_link_of_that_name_is_refused(nobody, tmp_path):
    nobody.symlink_to(tmp_path)
    with pytest.raises(ResourceError, match="belongs to somebody else"):
        cache_root()


def test_a_named_folder_is_taken(nobody, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_root() == tmp_path / "mine"
