"""An experiment that is killed, and goes on to the bytes of one that was not."""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from frellm4rec.experiments.tables import EFFORT_COLUMNS
from tests.frellm4rec.tiny_recommenders import write_log

CONTENT = {
    "title": "Losses",
    "source": "Table 2",
    "reference": "softmax",
    "base": {"architecture.n_features": 8, "architecture.n_inner": 8, "training.batch_size": 8}
    | {"training.n_epochs": 40, "training.validate_every": 4, "training.patience": 100, "training.save_every": 1},
    "baselines": ["popularity"],
    "variants": [
        {"name": "softmax", "model": "sasrec"},
        {"name": "bce", "model": "sasrec", "overrides": {"architecture.loss": "bce"}},
    ],
}
#: What holds times, memory or the time in the name of a run.
TIMED = re.compile(r"(run|state|summary)\.json|metrics\.jsonl|log\.txt|cells\.csv|report\.html")


def contents(folder):
    """Return path, without the time in it, and bytes of every file that has no time in it."""
    files = [path for path in folder.rglob("*") if path.is_file() and not TIMED.fullmatch(path.name)]
    return {re.sub(r"\d{8}T\d{6}Z-", "", str(path.relative_to(folder))): path.read_bytes() for path in files}


def cells(folder):
    table = pd.read_csv(folder / "cells.csv")
    timed = [name for name in ("seconds", "run", *EFFORT_COLUMNS) if name in table]
    return table.drop(columns=timed).to_csv()


@pytest.mark.slow
def test_a_killed_experiment_goes_on_to_the_same_bytes(tmp_path):
    log = write_log(tmp_path / "log.csv")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONTENT))
    words = ["experiment", "losses", str(tmp_path / "own.yaml"), "--dataset", str(log), "--seeds", "2"]
    words += ["--ranking", "9+1", "--ranking", "full"]
    command = [sys.executable, "-m", "frellm4rec.cli.main", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPECTRAL_PROBE_CACHE": str(tmp_path / "cache")}

    def start(out):
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / out)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    assert start("straight").wait() == 0
    for pattern in ("runs/*-softmax-*/checkpoints/step-*", "runs/*-bce-*/checkpoints/step-*"):
        process = start("killed")
        while process.poll() is None and not list((tmp_path / "killed").glob(pattern)):
            try:
                process.wait(timeout=0.01)
            except subprocess.TimeoutExpired:
                continue
        assert process.poll() is None, process.stderr.read()
        process.kill()
        process.wait()
    folder = next((tmp_path / "killed" / "runs").glob("*-bce-*"))
    (folder / ".partial-7-x-summary.json").write_text("half")
    assert start("killed").wait() == 0
    straight, killed = contents(tmp_path / "straight"), contents(tmp_path / "killed")
    assert sorted(straight) == sorted(killed)
    assert [name for name in straight if straight[name] != killed[name]] == []
    assert sum(name.endswith(".csv.gz") for name in killed) == 10
    assert cells(tmp_path / "straight") == cells(tmp_path / "killed")
