"""Training runs made by hand, with models of random weights: what the commands after training start from."""

from pathlib import Path

import numpy as np
import pandas as pd

from frellm4rec.models import SASRec, SASRecConfig
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.runs.folder import RunFolder


def write_log(path: Path, n_users: int = 30, n_items: int = 25, seed: int = 0) -> Path:
    """Write a log with titles: users u0…, items b0…, histories of 4 to 12 distinct items."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"b{item}", time, f"The Book, Volume {item}" if item else "Solo")
        for user in range(n_users)
        for time, item in enumerate(rng.permutation(n_items)[: rng.integers(4, 13)])
    ]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "title"]).to_csv(path, index=False)
    return path


def make_model(n_items: int, seed: int = 0, scale: float = 15.0) -> SASRec:
    """Return an untrained model whose scores differ clearly."""
    model = SASRec(SASRecConfig(n_items=n_items, max_length=6, n_features=8, n_inner=8), seed=seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= scale
    return model.eval()


def make_run(root: Path, log: Path, *, seed: int = 0, name: str = "", status: str = "finished", **settings) -> Path:
    """Make the folder that training leaves behind, its model with random weights of the seed and the settings."""
    dataset = resolve_dataset(str(log))
    fingerprint = dataset.fingerprint(titles=False)
    config = {"model": "sasrec", "dataset": dataset.name, "dataset_fingerprint": fingerprint, "seed": seed}
    config["architecture"] = {"n_features": 8, **settings}
    run = RunFolder.create(root, model=name or "sasrec", dataset=dataset.name, config=config)
    make_model(dataset.n_items, seed=seed + 100 * len(settings)).save_pretrained(run.path / "model")
    request = {"model": "sasrec", "dataset": str(log), "from_dir": None, "name": name, "kind": "training"}
    run.write_state(status, request=request, dataset_fingerprint=fingerprint)
    return run.path
