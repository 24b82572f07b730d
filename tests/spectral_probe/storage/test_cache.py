"""Where the cache is for a user without a home folder, as in a container with another user id."""

import getpass
import os
import subprocess
import sys
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


def test_what_stands_in_for_a_cache_is_deleted_when_the_process_ends(tmp_path):
    (tmp_path / "file").write_text("")
    script = (
        "from spectral_probe.storage.cache import cache_root\n"
        "folder = cache_root()\n(folder / 'weights').write_text('x')\nprint(folder, folder == cache_root())"
    )
    environment = {**os.environ, CACHE_VARIABLE: str(tmp_path / "file" / "cache"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    folder, is_same = done.stdout.split()
    assert (Path(folder).parent, is_same) == (tmp_path, "True"), done.stderr
    assert "until this process ends" in done.stderr
    assert not Path(folder).exists()
