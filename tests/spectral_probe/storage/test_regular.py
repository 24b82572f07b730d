"""Files that are read are regular ones; what else there is, is named."""

from __future__ import annotations

import os
import socket

import pytest

from spectral_probe.errors import DataError
from spectral_probe.storage.regular import check_regular


def test_a_regular_file_and_a_link_to_one_are_accepted(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    check_regular(tmp_path / "file")
    check_regular(str(tmp_path / "link"))


def test_anything_else_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path, says in (
            (".", "it is a folder"),
            ("pipe", r"it is a pipe \(FIFO\)"),
            ("link", r"it is a pipe \(FIFO\)"),
            ("socket", "it is a socket"),
            (os.devnull, "it is a character device"),
            ("absent", "absent does not exist"),
            ("broken", "broken does not exist"),
            ("file/inside", "cannot be read: .*Not a directory"),
            ("null\0byte", "cannot be read: embedded null byte"),
        ):
            with pytest.raises(DataError, match=says):
                check_regular(path)
