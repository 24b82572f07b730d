"""Item embeddings in files for other tools and for ``spectral-probe analyze --embeddings``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import disk_errors, whole_file
from spectral_probe.types import Float32Array

TENSOR_NAME = "item_embeddings"


def write_embeddings(
    path: str | Path, vectors: npt.ArrayLike, item_ids: Sequence[object] | npt.NDArray[np.generic], *, model: str = ""
) -> list[Path]:
    """Write one vector per item with the ids of the items; the ending chooses the format.

    ``.safetensors``: one tensor ``item_embeddings``, ids as a JSON list in the metadata ``item_ids``; ``.npy``: the
    array, ids beside it in ``NAME.ids.csv``; ``.parquet`` and ``.csv``: the columns ``item_id``, ``x0``, ``x1``, ….

    Parameters
    ----------
    path : path
        Must not exist yet.
    vectors : (n_items, d) float
        Stored as float32.
    item_ids : (n_items,)
    model : str
        Name and revision, for the metadata of a safetensors file.

    Returns
    -------
    list of Path
        The files written, each atomically.

    Raises
    ------
    ConfigError
        If the ending is unknown or a file exists already.
    DataError
        If vectors and ids do not match or a vector is not finite.
    MissingDependencyError
        If Parquet is asked for and pyarrow is not installed.
    ResourceError
        If a file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(
            f"Item embeddings are written as {', '.join(_WRITERS)}; got {path.name!r}."
            f"{did_you_mean(path.suffix.lower(), _WRITERS)} Choose one of these endings."
        )
    table = np.ascontiguousarray(vectors, dtype=np.float32)
    ids = [str(label) for label in item_ids]
    if table.ndim != 2 or len(table) != len(ids) or not table.size:
        raise DataError(f"Item embeddings are (n_items, d) with one id each; got {table.shape} and {len(ids)} ids.")
    if not np.isfinite(table).all():
        broken = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise DataError(f"The vector of item {ids[broken]!r} is not finite: the model has diverged. Train it again.")
    ids_path = path.with_name(f"{path.stem}.ids.csv")
    written = [ids_path, path] if path.suffix.lower() == ".npy" else [path]
    for file in written:
        if file.exists():
            raise ConfigError(f"{file} exists and is not overwritten. Choose another --out, or delete it.")
    # Both files get their names after both are written, so that a full disk leaves neither.
    with disk_errors(path.parent), ExitStack() as files:
        if ids_path in written:
            _write_ids(files.enter_context(whole_file(ids_path)), ids)
        _WRITERS[path.suffix.lower()](files.enter_context(whole_file(path)), table, ids, model)
    return written[::-1]


def write_items(dataset: Dataset, path: str | Path) -> Path:
    """Write the items of a data set in their order: CSV with the columns ``position``, ``item_id`` and ``title``.

    Row i of a file of vectors without ids belongs to the item of position i.

    Raises
    ------
    ConfigError
        If the file exists already.
    ResourceError
        If it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(f"{path} exists and is not overwritten. Choose another --export-items, or delete it.")
    titles = dataset.item_titles or [""] * dataset.n_items
    rows = [
        [str(row), str(label), title] for row, (label, title) in enumerate(zip(dataset.item_ids, titles, strict=True))
    ]
    with disk_errors(path.parent), whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["position", "item_id", "title"], *rows])
    return path


def _write_safetensors(partial: Path, vectors: Float32Array, ids: list[str], model: str) -> None:
    from safetensors.numpy import save_file

    save_file({TENSOR_NAME: vectors}, str(partial), metadata={"item_ids": json.dumps(ids), "model": model})


def _write_npy(partial: Path, vectors: Float32Array, ids: list[str], model: str) -> None:
    np.save(partial, vectors)


def _write_ids(partial: Path, ids: list[str]) -> None:
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["item_id"], *([label] for label in ids)])


def _write_csv(partial: Path, vectors: Float32Array, ids: list[str], model: str) -> None:
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_columns(vectors))
        # The shortest text that reads back as the same float32.
        writer.writerows([label, *map(str, row)] for label, row in zip(ids, vectors, strict=True))


def _write_parquet(partial: Path, vectors: Float32Array, ids: list[str], model: str) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            'Parquet files need pyarrow, which is not installed: pip install "spectral-probe[parquet]"'
        ) from error
    arrays = [pyarrow.array(ids, pyarrow.string()), *(pyarrow.array(column) for column in vectors.T)]
    parquet.write_table(pyarrow.table(arrays, names=_columns(vectors)), partial)


def _columns(vectors: Float32Array) -> list[str]:
    return ["item_id", *(f"x{feature}" for feature in range(vectors.shape[1]))]


_WRITERS: dict[str, Callable[[Path, Float32Array, list[str], str], None]] = {
    ".safetensors": _write_safetensors,
    ".npy": _write_npy,
    ".parquet": _write_parquet,
    ".csv": _write_csv,
}
