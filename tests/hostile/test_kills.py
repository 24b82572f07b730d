"""Commands killed at random moments, in processes of their own."""

from __future__ import annotations

import pytest

from tests.hostile.kills import N_SLOW


@pytest.mark.parametrize("name", ["analyze", "train"])
def test_a_kill_and_a_resume_give_the_same_bytes(name, run, world_file) -> None:
    done = run("tests.hostile.kills", world_file, name, 1)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", N_SLOW)
def test_forty_kills(name, run, world_file) -> None:
    done = run("tests.hostile.kills", world_file, name, N_SLOW[name])
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
