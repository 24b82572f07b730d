"""Files and folders that appear whole or not at all, also when the process is killed or the disk is full."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spectral_probe.errors import ResourceError
from spectral_probe.storage.atomic import (
    disk_errors,
    move_file,
    remove_partials,
    scratch_folder,
    whole_file,
    whole_folder,
    write_csv,
    write_npz,
    write_text,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path) -> None:
    path = tmp_path / "new" / "table.csv.gz"
    with whole_file(path) as partial:
        assert partial.parent == path.parent
        assert partial.suffixes == [".csv", ".gz"]
        assert str(os.getpid()) in partial.name
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert names(path.parent) == ["table.csv.gz"]


def test_a_file_is_replaced_in_one_step(tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with path.open() as reader:
        write_text(path, "after, and longer")
        # Whoever reads the file meanwhile reads the old one to its end.
        assert reader.read() == "before\n"
    assert path.read_text() == "after, and longer\n"


def write_half(path, error) -> None:
    with whole_file(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_file_before(error, tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "before\n"
    assert names(tmp_path) == ["a.txt"]


def test_a_killed_process_leaves_the_file_before(tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")
    code = f"""
import os, signal
from spectral_probe.storage.atomic import whole_file, whole_folder
with whole_folder({str(tmp_path / "folder")!r}) as folder, whole_file({str(path)!r}) as partial:
    partial.write_text("half")
    (folder / "x").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_text() == "before\n"
    assert not (tmp_path / "folder").exists()
    assert len(names(tmp_path)) == 3
    remove_partials(tmp_path)
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole_and_the_faster_process_wins(tmp_path) -> None:
    path = tmp_path / "weights"
    with whole_folder(path) as partial:
        (partial / "a").write_text("first")
        assert not path.exists()
    with whole_folder(path) as partial:
        (partial / "a").write_text("second")
    assert (path / "a").read_text() == "first"
    with whole_folder(path, replace=True) as partial:
        (partial / "b").write_text("third")
    assert names(path) == ["b"]
    with pytest.raises(ValueError, match="stop"), whole_folder(tmp_path / "other") as partial:
        raise ValueError("stop")
    assert names(tmp_path) == ["weights"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("before")
    rename = os.rename

    def fail_for_new(source, target) -> None:
        if ".partial-" in Path(source).name and Path(target).name == "folder":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_for_new)
    with pytest.raises(OSError, match="Input/output"), whole_folder(tmp_path / "folder", replace=True) as partial:
        (partial / "a").write_text("after")
    assert (tmp_path / "folder" / "a").read_text() == "before"
    assert names(tmp_path) == ["folder"]


def test_a_scratch_folder_goes_with_what_was_not_moved(tmp_path) -> None:
    with scratch_folder(tmp_path / "f.zip") as scratch:
        (scratch / "f.zip").write_text("wanted")
        (scratch / "rest").write_text("not wanted")
        move_file(scratch / "f.zip", tmp_path / "f.zip")
    assert names(tmp_path) == ["f.zip"]


def test_a_file_where_a_folder_should_be_is_refused(tmp_path) -> None:
    (tmp_path / "name").write_text("mine")
    for replace in (False, True):
        with pytest.raises(FileExistsError), whole_folder(tmp_path / "name", replace=replace):
            pass
    assert (tmp_path / "name").read_text() == "mine"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_folder(tmp_path / "link", replace=True) as partial:
        (partial / "a").write_text("new")
    assert (tmp_path / "real" / "a").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "name", "real"]


def test_a_link_is_followed_and_permissions_stay(tmp_path) -> None:
    target = tmp_path / "target.txt"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link.txt").symlink_to(target)
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert target.read_text() == "new\n"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_and_not_replaced(tmp_path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_csv(pipe, pd.DataFrame({"a": [1]}))
    assert reader.communicate(timeout=20)[0] == b"a\n1\n"
    assert pipe.is_fifo()


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path) -> None:
    def write(number: int) -> None:
        write_text(tmp_path / "same.txt", str(number) * 1000)
        with whole_folder(tmp_path / "folder") as partial:
            (partial / "a").write_text("a")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [n % 10 for n in range(200)]))
    text = (tmp_path / "same.txt").read_text()
    assert text == text[0] * 1000 + "\n"
    assert names(tmp_path) == ["folder", "same.txt"]


def test_long_names_keep_their_ending(tmp_path) -> None:
    name = "x" * 240 + ".csv.gz"
    write_csv(tmp_path / name, pd.DataFrame({"a": [1]}))
    assert names(tmp_path) == [name]
    assert pd.read_csv(tmp_path / name)["a"].tolist() == [1]


def test_what_a_killed_process_left_a_day_ago_is_deleted_by_the_next_write(tmp_path) -> None:
    for age, name in ((2 * 24 * 3600, "old"), (60, "young")):
        left = tmp_path / f".partial-1-{name}-a.txt"
        left.write_text("half")
        os.utime(left, (time.time() - age, time.time() - age))
    write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == [".partial-1-young-a.txt", "a.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to everything")
def test_a_write_protected_file_stays(tmp_path) -> None:
    write_text(tmp_path / "a.txt", "mine")
    (tmp_path / "a.txt").chmod(0o444)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a.txt", "yours")
    assert (tmp_path / "a.txt").read_text() == "mine\n"


def test_equal_content_gives_equal_bytes(tmp_path) -> None:
    table = pd.DataFrame({"user": ["007", "NA"], "value": [1 / 3, np.nan]})
    arrays = {"a": np.arange(5), "b": np.eye(2)}
    for folder in ("one", "two"):
        write_csv(tmp_path / folder / "t.csv.gz", table, float_format="%.10g")
        write_csv(tmp_path / folder / "t.csv", table)
        write_npz(tmp_path / folder / "a.npz", arrays)
        write_npz(tmp_path / folder / "c.npz", arrays, is_compressed=True)
        write_text(tmp_path / folder / "t.txt", "αβ\n")
        time.sleep(1.1 if folder == "one" else 0)  # gzip and zip keep times in whole seconds
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert gzip.decompress((tmp_path / "one" / "t.csv.gz").read_bytes()) == b"user,value\n007,0.3333333333\nNA,\n"
    # The archive names its content: the finished name, and neither the hidden one nor a process id.
    assert b"t.csv\x00" in (tmp_path / "one" / "t.csv.gz").read_bytes()[:20]
    assert (tmp_path / "one" / "t.txt").read_bytes() == "αβ\n\n".encode()
    with np.load(tmp_path / "one" / "c.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["a"], arrays["a"])


def test_a_full_disk_says_what_to_do(tmp_path) -> None:
    full = pytest.raises(ResourceError, match=r"Writing to .*No space left on device\. Free some space")
    with full as caught, disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.exit_code == 6
    own_words = pytest.raises(ResourceError, match=r"^Writing Grams to .*\. Do this\.$")
    with own_words, disk_errors(tmp_path, what="Writing Grams", next_step="Do this."):
        raise OSError(errno.EROFS, "Read-only file system")
    with pytest.raises(ResourceError, match=r"^as it was$"), disk_errors(tmp_path):
        raise ResourceError("as it was")


def test_two_processes_do_not_write_to_the_same_partial_file(tmp_path) -> None:
    code = "import sys\nfrom spectral_probe.storage.atomic import whole_file\n"
    code += "with whole_file(sys.argv[1]) as partial:\n    print(partial.name, flush=True); sys.stdin.read()\n"
    code += "    partial.write_text(sys.argv[2])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "x"), text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for text in ("one", "two")
    ]
    partial_names = {process.stdout.readline() for process in processes}
    assert len(partial_names) == 2
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert (tmp_path / "x").read_text() in ("one", "two")
    assert names(tmp_path) == ["x"]
