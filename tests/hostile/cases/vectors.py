"""Item vectors in every form: the rows meet their items, or the file is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from tests.hostile.cases.damage import ANY, BINARY
from tests.hostile.cases.finished_runs import same_as
from tests.hostile.harness import Call
from tests.hostile.world import World, copy_of

Writer = Callable[[World, Path, np.random.Generator], Path]


def _analyze(world: World, path: Path, folder: Path) -> list[str]:
    data = ["--dataset", str(world.data), "--embeddings", str(path), "--n-pseudo", "5"]
    return ["spectral-probe", "analyze", "--model", str(world.decoder), *data, "--out", str(folder / "runs")]


def _shuffled(world: World, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    order = rng.permutation(len(world.vectors))
    return [world.order[row] for row in order], world.vectors[order]


def _table(id_column: str | None, names: Callable[[int], object], world: World, folder: Path, rng) -> Path:
    ids, vectors = _shuffled(world, rng)
    table = pd.DataFrame(vectors.astype(np.float64), columns=[names(n) for n in range(vectors.shape[1])])
    if id_column is None:
        table = table.set_axis(ids, axis=0)
        table.to_csv(folder / "v.csv")
    else:
        table.insert(0, id_column, ids)
        table.to_csv(folder / "v.csv", index=False)
    return folder / "v.csv"


def _parquet(world: World, folder: Path, rng: np.random.Generator) -> Path:
    ids, vectors = _shuffled(world, rng)
    table = pd.DataFrame(vectors, columns=[f"f{n}" for n in range(vectors.shape[1])])
    table.insert(0, "item_id", ids)
    table.to_parquet(folder / "v.parquet")
    return folder / "v.parquet"


def _safetensors(world: World, folder: Path, rng: np.random.Generator) -> Path:
    ids, vectors = _shuffled(world, rng)
    save_file({"embeddings": vectors}, folder / "v.safetensors", metadata={"item_ids": json.dumps(ids)})
    return folder / "v.safetensors"


EQUAL: dict[str, Writer] = {
    **{
        f"CSV with the ids in {name!r}": partial(_table, name, lambda n: f"f{n}")
        for name in ("item_id", "movieId", "track_id", "asin", "id", "my items")
    },
    "CSV with integer column names": partial(_table, "item_id", lambda n: n),
    "CSV with ids as an unnamed index": partial(_table, None, lambda n: f"f{n}"),
    "CSV as pandas writes an indexed frame": partial(_table, None, lambda n: n),
    "parquet": _parquet,
}


def _equal(write: Writer, world: World, folder: Path, rng: np.random.Generator) -> Call:
    path = write(world, folder, rng)
    return Call(_analyze(world, path, folder), (0,), check=same_as(world.printed["analyze"]))


def _refused(change: Callable[[np.ndarray], np.ndarray], world: World, folder: Path, rng: np.random.Generator) -> Call:
    np.save(folder / "v.npy", change(world.vectors))
    return Call(_analyze(world, folder / "v.npy", folder), (2, 3))


REFUSED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a row less": lambda vectors: vectors[:-1],
    "a row more": lambda vectors: np.vstack([vectors, vectors[:1]]),
    "NaN": lambda vectors: np.where(np.arange(vectors.size).reshape(vectors.shape) == 5, np.nan, vectors),
    "infinite": lambda vectors: np.where(np.arange(vectors.size).reshape(vectors.shape) == 5, np.inf, vectors),
    "one dimension": lambda vectors: vectors.ravel(),
    "three dimensions": lambda vectors: vectors[None],
    "texts": lambda vectors: vectors.astype(str),
    "complex numbers": lambda vectors: vectors.astype(complex),
    "no features": lambda vectors: vectors[:, :0],
    "wider than the model": lambda vectors: np.repeat(vectors, 3, axis=1),
    "objects": lambda vectors: np.array([{"a": 1}] * len(vectors), dtype=object),
    "too large for float32": lambda vectors: vectors.astype(np.float64) * 1e200,
}


def _damaged(name: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    path = copy_of(world.npy, folder)
    {**ANY, **BINARY}[name](path, rng)
    return Call(_analyze(world, path, folder), (2, 3))


def _ids(change: Callable[[list[str]], list[str]], world: World, folder: Path, rng: np.random.Generator) -> Call:
    table = pd.DataFrame(world.vectors, columns=[f"f{n}" for n in range(world.vectors.shape[1])])
    table.insert(0, "item_id", change(world.order))
    table.to_csv(folder / "v.csv", index=False)
    return Call(_analyze(world, folder / "v.csv", folder), (2, 3))


CASES = {
    **{f"equal: {name}": partial(_equal, write) for name, write in EQUAL.items()},
    **{f"refused: {name}": partial(_refused, change) for name, change in REFUSED.items()},
    **{f"damaged: {name}": partial(_damaged, name) for name in ANY},
    "an id twice": partial(_ids, lambda ids: [ids[0], *ids[:-1]]),
    "ids of other items": partial(_ids, lambda ids: [f"x{name}" for name in ids]),
    "one id of another item": partial(_ids, lambda ids: ["other", *ids[1:]]),
}
