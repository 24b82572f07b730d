"""Captures that are killed, refused, or run out of disk: what is finished stays, and the rest comes out the same."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_probe.errors import ModelError, ResourceError
from spectral_probe.recording.capture import LayerGrams, capture
from tests.spectral_probe.tiny_models import N_ITEMS, Toy

KILLED = """
import os, signal, sys
import numpy as np
import torch
from spectral_probe.recording import shards
from tests.spectral_probe.recording.test_interruptions import capture_toy

torch.set_num_threads(int(sys.argv[3]))
write = shards.write_npz

def die(path, arrays):
    if path.name == "shard-00002.npz":
        if sys.argv[2] == "while writing":
            path.with_name(f".partial-{os.getpid()}-{path.name}").write_bytes(b"half a shard")
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, arrays)

shards.write_npz = die
capture_toy(sys.argv[1])
"""


def sequences() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.integers(0, N_ITEMS, size=(70, 9)), rng.integers(1, 10, size=70)


def capture_toy(out: str | Path, *, resume: bool = False, toy: Toy | None = None) -> LayerGrams:
    """Capture 70 users in five shards."""
    inputs, lengths = sequences()
    users = np.arange(70) * 3
    return capture(toy or Toy(), inputs, lengths, users=users, targets=inputs, batch_size=2, out=out, resume=resume)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("moment", ["between shards", "while writing"])
def test_a_killed_capture_is_finished_to_the_same_bytes(moment, tmp_path):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), moment, str(torch.get_num_threads())]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = contents(tmp_path / "killed")
    assert {"shard-00000.npz", "shard-00001.npz"} <= set(left)
    assert "shard-00002.npz" not in left
    assert any(name.startswith(".partial-") for name in left) == (moment == "while writing")
    straight = capture_toy(tmp_path / "straight")
    toy = Toy()
    resumed = capture_toy(tmp_path / "killed", resume=True, toy=toy)
    assert toy.n_runs == 1 + 35 - 16  # the causality check, and what two shards of 8 batches do not hold
    np.testing.assert_array_equal(resumed.grams, straight.grams)
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")
    assert contents(tmp_path / "killed")["shard-00000.npz"] == left["shard-00000.npz"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_refused_model_leaves_nothing_behind(resume, tmp_path):
    out = tmp_path / "grams"
    with pytest.raises(ModelError, match="is_causal = False"):
        capture_toy(out, toy=Toy(is_leaky=True), resume=resume)
    assert not out.exists()
    capture_toy(out)


def test_grams_that_are_there_are_refused_before_the_model_runs(tmp_path):
    capture_toy(tmp_path / "grams")
    toy = Toy()
    with pytest.raises(ValueError, match="never overwritten"):
        capture_toy(tmp_path / "grams", toy=toy)
    assert toy.n_runs == 0


def test_a_full_disk_keeps_the_finished_shards(tmp_path, monkeypatch):
    savez = np.savez

    def full(file, **arrays):
        if Path(file.name).name.startswith(".partial-") and "shard-00002" in file.name:
            file.write(b"as much as there was room for")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    out = tmp_path / "grams"
    with pytest.raises(ResourceError, match=r"No space left on device.*finished shards are kept") as caught:
        capture_toy(out)
    assert caught.value.exit_code == 6
    assert set(contents(out)) == {"manifest.json", "sequences.npz", "shard-00000.npz", "shard-00001.npz"}
    monkeypatch.undo()
    capture_toy(out, resume=True)
    capture_toy(tmp_path / "straight")
    assert contents(out) == contents(tmp_path / "straight")
