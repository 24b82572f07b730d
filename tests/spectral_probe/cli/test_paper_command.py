"""The paper's command, literally: its backbone's alias, the files of the hub's client, no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from frellm4rec.data.datasets import demo
from frellm4rec.runs import pretrained
from frellm4rec.training.config import TrainingRecord
from spectral_probe.backbones import weights_fingerprint
from tests.spectral_probe.tiny_models import N_BLOCKS, tiny

COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"


def lay_snapshot(home: Path, repository: str, model) -> Path:
    """Put a model where the hub's client keeps what it fetched, under ``HF_HOME``."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    model.save_pretrained(folder / "snapshots" / COMMIT)
    return folder / "snapshots" / COMMIT


def save_item_vectors(cache: Path, monkeypatch) -> None:
    """Put the SASRec whose item vectors the model reads into the cache, untrained: its training takes half a minute."""
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(cache))
    monkeypatch.setattr(pretrained, "train", lambda *_, seed, **__: TrainingRecord(seed=seed))
    pretrained.pretrained("sasrec", demo())


def test_analyze_the_papers_backbone(tmp_path, monkeypatch):
    save_item_vectors(tmp_path / "cache", monkeypatch)
    model = tiny("qwen2", hidden_size=64, head_dim=16)  # at least as wide as the item vectors
    lay_snapshot(tmp_path / "home", "Qwen/Qwen2.5-7B-Instruct", model)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "SPECTRAL_PROBE_CACHE": str(tmp_path / "cache"),
        "SPECTRAL_PROBE_MODELS": str(tmp_path / "models.yaml"),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
    }
    (tmp_path / "models.yaml").touch()  # aliases of whoever runs the tests do not count
    command = [str(Path(sys.executable).with_name("spectral-probe")), "analyze", "--model", "qwen2.5-7b"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["request"] == {
        "model": "qwen2.5-7b",
        "dataset": "demo",
        "from_dir": None,
    }
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"], config["dataset"], config["hub_revision"]) == ("qwen2.5-7b", "demo", COMMIT)
    assert config["revision"] == weights_fingerprint(model)[:16]
    layers = list(pd.read_csv(run / "bands.csv")["layer_name"].unique())
    assert layers == ["embed", *(f"block {number}" for number in range(1, N_BLOCKS + 1)), "final_norm"]
