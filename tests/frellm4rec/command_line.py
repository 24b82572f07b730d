"""The command in this process."""

import sys

import pytest

from frellm4rec.cli import main as cli


def run(monkeypatch, capsys, *arguments):
    """Return exit code, stdout, stderr of ``frellm4rec`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["frellm4rec", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err
