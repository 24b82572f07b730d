"""The frame of the commands where streams, memory or the system fail: documented codes, never a traceback."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import typer

from spectral_probe.cli.app import new_app, run_command
from spectral_probe.cli.streams import LossyStream

COMMAND = [sys.executable, "-m", "spectral_probe.cli.main"]


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ('"$@" datasets | head -1', 0),
        ('"$@" datasets 2>&1 | head -1', 0),
        ('"$@" datasets 2>&-', 0),
        ('"$@" datasets >&-', 0),
        ('"$@" datasets <&-', 0),
        ('"$@" datasets >/dev/full', 6),
        ('"$@" report absent 2>&-', 3),
        ('"$@" report absent 2>/dev/full', 3),
        ('"$@" absent 2>&-', 2),
    ],
)
def test_a_stream_that_is_closed_or_full_keeps_the_exit_code(shell, code, tmp_path):
    script = f"set -o pipefail; {shell}"
    done = subprocess.run(["bash", "-c", script, "_", *COMMAND], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert not list(tmp_path.iterdir())


def ending(error):
    """Return a command line whose only command raises an error."""
    app = new_app("tool", "A tool.")

    @app.command()
    def work() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 6, "Out of memory"),
        (RuntimeError("std::bad_alloc"), 6, "Out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 6, "Out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 6, "/x/y: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 6, "/x/y: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "z"), 2, "The name z is too long"),
        (RuntimeError("Could not determine home directory."), 2, "begins with ~"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (typer.BadParameter("no"), 2, "no"),
    ],
)
def test_errors_of_memory_disk_and_system_have_their_code(error, code, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool", "work"])
    monkeypatch.setattr("spectral_probe.cli.app.drop_output", lambda: None)
    with pytest.raises(SystemExit) as stop:
        run_command(ending(error), interrupted="")
    assert stop.value.code == code
    assert words in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tool", "work"])
    with pytest.raises(ZeroDivisionError):
        run_command(ending(ZeroDivisionError("bug")), interrupted="")


def test_a_message_that_nobody_reads_does_not_end_the_work():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        lossy = LossyStream(stream)
        assert lossy.write("gone" * 100_000) == 400_000
        lossy.flush()
        assert lossy.isatty() is False
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def test_what_errors_quote_is_shown_and_not_obeyed(monkeypatch, capsys):
    from spectral_probe.errors import DataError

    monkeypatch.setattr(sys, "argv", ["tool", "work"])
    with pytest.raises(SystemExit):
        run_command(ending(DataError("no \x1b]0;title\x07 here")), interrupted="")
    assert capsys.readouterr().err == "error: no \\x1b]0;title\\x07 here\n"


def test_a_signal_is_handled_once_and_restored(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    try:
        from spectral_probe.runs import interruptions

        monkeypatch.setattr(interruptions, "received", 0)
        interruptions.end_like_ctrl_c()
        with pytest.raises(interruptions.Terminated, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        assert interruptions.received == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_cannot_be_flushed_does_not_fail_again_at_the_end():
    script = (
        "import sys\nfrom spectral_probe.cli.streams import flush_or_drop\n"
        "stream = open('/dev/full', 'w')\nsys.stderr = stream\nstream.write('lost')\nflush_or_drop(stream)\nsys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 3
    # Python itself ends with 120 where that is not done.
    assert subprocess.run([sys.executable, "-c", script.replace("\nflush_or_drop(stream)", "")]).returncode == 120
