"""What the cases start from: a good log, good vectors, a good decoder, a finished analysis and a finished training."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests.hostile.harness import Call, Outcome, run_forked

COLUMNS = ["user_id", "item_id", "timestamp"]
N_USERS, N_ITEMS = 60, 40


@dataclass(frozen=True)
class World:
    """Intact files; a case works on copies of them.

    Attributes
    ----------
    log : DataFrame
        Users ``u0`` …, items ``i10`` …, distinct times.
    titles : {item id: title}
    vectors : (N_ITEMS, 8) float32
    order : list of str
        Ids of the items, in the order of the rows of the vectors: that of ``frellm4rec data --export-items``.
    data, npy, decoder, analysis, training : Path
        The log as CSV with titles, the vectors, a decoder of three blocks with random weights, and two finished runs.
    printed : {command: str}
        What commands print of the intact runs.
    """

    log: pd.DataFrame
    titles: dict[str, str]
    vectors: np.ndarray
    order: list[str]
    data: Path
    npy: Path
    decoder: Path
    analysis: Path
    training: Path
    printed: dict[str, str]


def make_world(folder: Path) -> World:
    """Make all files, the runs by the commands themselves."""
    rng = np.random.default_rng(0)
    ids = [f"i{number}" for number in range(10, 10 + N_ITEMS)]
    rows = [
        (f"u{user}", ids[item], 1_000_000 + 100 * user + time)
        for user in range(N_USERS)
        for time, item in enumerate(rng.permutation(N_ITEMS)[: rng.integers(7, 12)])
    ]
    log = pd.DataFrame(rows, columns=COLUMNS)
    titles = {name: f"Title of {name}" for name in ids}
    data = folder / "log.csv"
    log.assign(title=log["item_id"].map(titles)).to_csv(data, index=False)
    vectors = rng.standard_normal((N_ITEMS, 8)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    _must_run(["frellm4rec", "data", str(data), "--export-items", str(folder / "order.csv")], folder)
    order = pd.read_csv(folder / "order.csv")["item_id"].tolist()
    decoder = _decoder(folder / "decoder")
    runs = folder / "runs"
    arguments = ["--dataset", str(data), "--embeddings", str(folder / "vectors.npy"), "--n-pseudo", "5"]
    command = ["spectral-probe", "analyze", "--model", str(decoder), *arguments, "--out", str(runs / "a")]
    first = _must_run(command, folder).out
    (analysis,) = (runs / "a").iterdir()
    recipe = ["--model", "sasrec", "--dataset", str(data), "--epochs", "2", "--set", "architecture.n_features=8"]
    _must_run(["frellm4rec", "train", *recipe, "--out", str(runs / "t")], folder)
    (training,) = (runs / "t").iterdir()
    _must_run(["frellm4rec", "evaluate", str(training)], folder)
    printed = {
        "analyze": first,
        "report": _must_run(["spectral-probe", "analyze", str(analysis), "--out", str(runs / "again")], folder).out,
        "recommend": _must_run(["frellm4rec", "recommend", str(training), "--user", "u1"], folder).out,
        "data": _must_run(["frellm4rec", "data", str(data)], folder).out,
    }
    return World(log, titles, vectors, order, data, folder / "vectors.npy", decoder, analysis, training, printed)


def _decoder(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64)
    LlamaModel(config).save_pretrained(folder)
    return folder


def _must_run(arguments: list[str], folder: Path) -> Outcome:
    outcome = run_forked(Call(arguments, (0,)), folder)
    assert outcome.code == 0, outcome.err
    return outcome


def copy_of(path: Path, folder: Path) -> Path:
    """Return a copy of a file or folder of the world in the folder of a case."""
    target = folder / path.name
    if path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copy2(path, target)
    return target


def set_up(folder: Path) -> None:
    """Keep caches and runs of the harness in its own folder, and its processes on one thread."""
    os.environ.update(
        {"SPECTRAL_PROBE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "COLUMNS": "120"}
    )
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[variable] = "1"


def main() -> None:
    """Make a world in the folder of the first argument, and pickle it there: ``python -m tests.hostile.world FOLDER``.

    A fork after threads have run can hang. So nothing is forked in the process of the tests.
    """
    folder = Path(sys.argv[1])
    set_up(folder / "cache")
    (folder / "world.pickle").write_bytes(pickle.dumps(make_world(folder)))


if __name__ == "__main__":
    from tests.hostile import world  # the pickle must name the module, not __main__

    world.main()
