"""Captures that are killed, refused, or run out of disk: what is finished stays, and the rest comes out the same."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_probe.errors import DataError, ModelError, ResourceError
from spectral_probe.recording.capture import LayerGrams, capture
from spectral_probe.recording.pilot import Pilot, PilotSums
from tests.spectral_probe.tiny_models import N_ITEMS, Toy, stop_in

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
    """Capture 70 users in five shards, after a pilot of all of them."""
    inputs, lengths = sequences()
    known = {"users": np.arange(70) * 3, "targets": inputs, "item_counts": np.arange(N_ITEMS) + 1}
    return capture(toy or Toy(), inputs, lengths, batch_size=2, out=out, resume=resume, **known)


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
    # The causality check, and what two shards of 8 batches do not hold; the pilot is read, not run again.
    assert toy.n_runs == 1 + 35 - 16
    np.testing.assert_array_equal(resumed.grams, straight.grams)
    np.testing.assert_array_equal(resumed.treated, straight.treated)
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")
    assert contents(tmp_path / "killed")["shard-00000.npz"] == left["shard-00000.npz"]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_capture_goes_on_with_the_threads_it_began_with(threads, tmp_path, monkeypatch):
    """Rounding depends on their number. Killed with one number, resumed in a process with another."""
    seen, forward = [], Toy.forward_sequences

    def spy(self, inputs, lengths):
        seen.append(torch.get_num_threads())
        return forward(self, inputs, lengths)

    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), "between shards", str(threads)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        capture_toy(tmp_path / "straight")
        torch.set_num_threads(2)
        monkeypatch.setattr(Toy, "forward_sequences", spy)
        capture_toy(tmp_path / "killed", resume=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {threads}
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


@pytest.mark.parametrize(
    ("method", "call", "n_left"), [("begin", 1, 1), ("write", 1, 3), ("write", 3, 5)], ids=["pilot", "begun", "shards"]
)
def test_a_capture_stopped_after_its_pilot_is_finished_to_the_same_bytes(method, call, n_left, tmp_path, monkeypatch):
    stop_in(monkeypatch, method, call)
    with pytest.raises(KeyboardInterrupt):
        capture_toy(tmp_path / "stopped")
    monkeypatch.undo()
    assert len(contents(tmp_path / "stopped")) == n_left
    assert "pilot.safetensors" in contents(tmp_path / "stopped")
    capture_toy(tmp_path / "stopped", resume=True)
    capture_toy(tmp_path / "straight")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "straight")


@pytest.mark.parametrize("is_finished", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "missing", "of another capture"])
def test_a_damaged_pilot_is_measured_again_and_comes_out_the_same(damage, is_finished, tmp_path, monkeypatch):
    if not is_finished:
        stop_in(monkeypatch, "write", 3)
        with pytest.raises(KeyboardInterrupt):
            capture_toy(tmp_path / "damaged")
        monkeypatch.undo()
    else:
        capture_toy(tmp_path / "damaged")
    path = tmp_path / "damaged" / "pilot.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "missing":
        path.unlink()
    else:
        pilot = Pilot.load(path)
        pilot.input_means[0][0] += 1.0
        pilot.save(path)
    toy = Toy()
    resumed = capture_toy(tmp_path / "damaged", resume=True, toy=toy)
    assert toy.n_runs == 1 + 35 + (0 if is_finished else 35 - 16)
    capture_toy(tmp_path / "straight")
    assert contents(tmp_path / "damaged") == contents(tmp_path / "straight")
    assert resumed.pilot.hash == Pilot.load(path).hash


def test_a_pilot_that_does_not_come_out_the_same_is_refused(tmp_path, monkeypatch):
    stop_in(monkeypatch, "write", 3)
    with pytest.raises(KeyboardInterrupt):
        capture_toy(tmp_path / "grams")
    monkeypatch.undo()
    before = contents(tmp_path / "grams")
    (tmp_path / "grams" / "pilot.safetensors").unlink()
    fit = PilotSums.fit

    def other(self, rows):
        self.input_sums[0] = self.input_sums[0] * 1.001  # as on a machine that rounds in another way
        return fit(self, rows)

    monkeypatch.setattr(PilotSums, "fit", other)
    with pytest.raises(DataError, match="is damaged, and measuring it again gives another one"):
        capture_toy(tmp_path / "grams", resume=True)
    monkeypatch.undo()
    assert contents(tmp_path / "grams").keys() == before.keys() - {"pilot.safetensors"}
    with pytest.raises(DataError, match="3 of 5 shards"):
        LayerGrams.load(tmp_path / "grams")


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
    first = {"shard-00000.npz", "shard-00001.npz"}
    assert set(contents(out)) == {"manifest.json", "sequences.npz", "pilot.safetensors", *first}
    monkeypatch.undo()
    capture_toy(out, resume=True)
    capture_toy(tmp_path / "straight")
    assert contents(out) == contents(tmp_path / "straight")


@pytest.mark.parametrize("key", ["pilot_hash", "kinds"])
def test_a_manifest_that_forgot_its_treated_states_is_refused(key, tmp_path):
    capture_toy(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="lacks pilot_hash, or 'treated'"):
        LayerGrams.load(tmp_path)
