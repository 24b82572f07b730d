"""What a command line costs before it does anything."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["spectral_probe", "frellm4rec"])
def test_help_takes_less_than_half_a_second_of_processor_time(package) -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", f"{package}.cli.main", "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # A busy machine adds to a run; the least of several is the command itself.
    assert min(seconds() for _ in range(5)) < 0.5
