"""Start-up, streams, signals and limits, as real processes of a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.hostile.harness import CONTROL
from tests.hostile.processes import DEFAULT, DISKS, FRELLM, LINES, SIGNALS, SPECTRAL
from tests.hostile.world import World


def _environment(world: World) -> dict[str, str]:
    cache = world.data.parent / "cache"
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "SPECTRAL_PROBE_CACHE": str(cache)}


def _check(name: str, world: World, folder: Path) -> None:
    line, codes = LINES[name]
    line = line.format(training=world.training, data=world.data)
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=_environment(world), capture_output=True, text=True, timeout=300
    )
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text[-2000:]
    assert done.returncode in codes, text[-2000:]
    assert not CONTROL.search(text)


@pytest.mark.parametrize("name", DEFAULT)
def test_streams_and_start(name, world, tmp_path) -> None:
    _check(name, world, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LINES if name not in DEFAULT])
def test_every_stream_start_and_limit(name, world, tmp_path) -> None:
    _check(name, world, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_leaves_its_reason(name, world, tmp_path) -> None:
    recipe = ["--model", "sasrec", "--dataset", str(world.data), "--epochs", "5000", "--out", str(tmp_path)]
    command = [*FRELLM.split(), "train", *recipe, "--set", "training.patience=5000"]
    process = subprocess.Popen(command, env=_environment(world), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=120)
    assert process.returncode == SIGNALS[name], err
    assert "Traceback" not in err
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert "interrupted" in (run / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("what", DISKS)
def test_a_full_file_system(what, world, tmp_path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(mounted)], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        lines = {
            "train": f"{FRELLM} train --model sasrec --dataset {world.data} --epochs 2 --out {mounted}",
            "analyze": f"{SPECTRAL} analyze --model {world.decoder} --dataset {world.data} --embeddings {world.npy} "
            f"--out {mounted}",
            "export": f"head -c 400000 /dev/zero > {mounted}/full; "
            f"{FRELLM} export {world.training} --out {mounted}/v.csv",
        }
        done = subprocess.run(["bash", "-c", lines[what]], env=_environment(world), capture_output=True, text=True)
        assert done.returncode == 6, done.stderr
        assert "Traceback" not in done.stderr
        assert not list(mounted.rglob("v.csv"))
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
