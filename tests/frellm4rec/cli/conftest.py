"""A tiny recipe, and what a training leaves in its folder."""

import json

import pytest
import yaml

from frellm4rec.runs import pretrained
from frellm4rec.training import TrainingConfig
from tests.frellm4rec.tiny_recommenders import write_log

TINY = {
    "model": "sasrec",
    "seed": 1,
    "device": "cpu",
    "architecture": {"n_features": 8, "n_inner": 8, "max_length": 6},
    "training": {"n_epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "validate_every": 1, "save_every": 1},
}
FILES = ["checkpoints", "config.yaml", "log.txt", "metrics.jsonl", "model", "run.json", "summary.json"]


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv")


@pytest.fixture
def recipe(tmp_path, log):
    """A recipe file for a tiny SASRec on the log."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**TINY, "dataset": str(log)}))
    return path


@pytest.fixture
def quick_ids(tmp_path, monkeypatch):
    """Train ID embeddings for two epochs, and keep them in a folder of the test."""
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    trained, short = pretrained.pretrained, TrainingConfig(n_epochs=2, validate_every=2)
    monkeypatch.setattr(pretrained, "pretrained", lambda *args, **kw: trained(*args, **kw, training=short))


def metrics(path):
    """Return the entries of a run without the times."""
    entries = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if not name.endswith("seconds")} for entry in entries]


def weights(path):
    return (path / "model" / "model.safetensors").read_bytes()


def only(folder):
    (path,) = folder.iterdir()
    return path
