"""One process at a time in a folder."""

import os
import signal
import subprocess
import sys
from threading import Thread

import pytest

from spectral_probe.errors import ConfigError
from spectral_probe.storage.lock import only_process

HOLD = """
import sys, time
from pathlib import Path
from spectral_probe.storage.lock import only_process
with only_process(Path(sys.argv[1]), "A run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_by_its_number_and_a_killed_one_lets_go(tmp_path):
    folder = tmp_path / "new" / "folder"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        refused = pytest.raises(ConfigError, match=rf"A run has .* and process {holder.pid} is at work there")
        with refused, only_process(folder, "A run"):
            pytest.fail("two processes hold one folder")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with only_process(folder, "A run"):
        assert (folder / ".lock-process").read_text() == str(os.getpid())
    assert not (folder / ".lock-process").exists()


def test_the_folder_is_free_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="inside"), only_process(tmp_path, "A run"):
        raise ValueError("inside")
    with only_process(tmp_path, "A run"):
        pass


def refused_elsewhere(folder) -> bool:
    """Return whether another thread is refused."""
    errors = []

    def hold():
        try:
            with only_process(folder, "A run"):
                pass
        except ConfigError as error:
            errors.append(error)

    thread = Thread(target=hold)
    thread.start()
    thread.join()
    return bool(errors)


def test_the_same_thread_may_hold_a_folder_again_and_lets_go_at_the_outer_end(tmp_path):
    with only_process(tmp_path, "A search"):
        with only_process(tmp_path / ".." / tmp_path.name, "A run"):
            assert refused_elsewhere(tmp_path)
        assert refused_elsewhere(tmp_path)
    assert not refused_elsewhere(tmp_path)


def test_a_new_folder_stays_only_if_something_was_written(tmp_path):
    with only_process(tmp_path / "empty", "A run"):
        pass
    assert not (tmp_path / "empty").exists()
    for name in ("old", "new"):
        if name == "old":
            (tmp_path / name).mkdir()
        with only_process(tmp_path / name, "A run"):
            if name == "new":
                (tmp_path / name / "result").write_text("")
        assert (tmp_path / name).is_dir()
