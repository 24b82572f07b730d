"""Item embeddings from a file: NumPy, safetensors, CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import DataError, MissingDependencyError, did_you_mean

_READERS = (".npy", ".safetensors", ".csv", ".parquet")
#: Names that mark the first column of a CSV, or a column of a Parquet file, as item ids.
_ID_NAMES = frozenset({"id", "item", "item_id", "itemid", "asin", "parent_asin"})
#: Names of the tensor meant, where a safetensors file holds several.
_TENSOR_NAMES = ("embeddings", "item_embeddings", "weight")


def load_embeddings(
    path: str | Path, n_items: int, item_ids: npt.ArrayLike | Sequence[Any] | None = None
) -> npt.NDArray[np.float32]:
    """Return one vector per item, (n_items, d) float32, in the order of the catalogue.

    Parameters
    ----------
    path : path
        ``.npy`` of (n_items, d); ``.safetensors`` with one such tensor, or one named ``embeddings``,
        ``item_embeddings`` or ``weight``; or ``.csv``, one item per line, with or without a header line. In these,
        row i belongs to item i, unless the first column of a CSV holds item ids: it does if its header is a name like
        ``item_id``, if it is not numeric, or if most of it is in ``item_ids``. Then the order is free. ``.parquet``
        with one number per column, and item ids in a column of such a name, or rows in the order of the catalogue.
    n_items : int
    item_ids : (n_items,), optional
        Labels of the items, by index; default: the indices themselves.

    Raises
    ------
    DataError
        If the file cannot be read, does not have one finite vector for each item, or names an unknown item.
    MissingDependencyError
        If the file is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise DataError(f"Item embeddings are read from {', '.join(_READERS)}; got {path.name!r}. Convert the file.")
    vectors: npt.NDArray[Any]
    try:
        if path.suffix.lower() == ".npy":
            vectors = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".safetensors":
            vectors = _from_safetensors(path)
        elif path.suffix.lower() == ".parquet":
            vectors = _from_parquet(path, n_items, item_ids)
        else:
            vectors = _from_csv(path, n_items, item_ids)
    except (DataError, MissingDependencyError):
        raise
    except Exception as error:  # each format has exceptions of its own
        raise DataError(
            f"Item embeddings could not be read from {str(path)!r}: {error} ({type(error).__name__}). Check that the "
            "file exists and is complete."
        ) from error
    if vectors.ndim != 2 or len(vectors) != n_items or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"Item embeddings must be numbers, ({n_items}, d): one row per item of the catalogue; {path.name!r} holds "
            f"{vectors.shape} of {vectors.dtype}. Give one row for each item, in the order of the catalogue."
        )
    embeddings = vectors.astype(np.float32)
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        raise DataError(
            f"Item embeddings must be finite; {path.name!r} has a NaN or an infinity for {int(broken.sum())} items, "
            f"first for item {int(np.flatnonzero(broken)[0])}. Repair these rows."
        )
    return embeddings


def _from_safetensors(path: Path) -> npt.NDArray[Any]:
    from safetensors import safe_open

    # Read through torch: numpy has no bfloat16.
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        candidates = names if len(names) == 1 else [name for name in _TENSOR_NAMES if name in names]
        if not candidates:
            raise DataError(
                f"A safetensors file of item embeddings holds one tensor, or one named {', '.join(_TENSOR_NAMES)}; "
                f"{path.name!r} holds {names}. Rename the tensor to read."
            )
        tensor = file.get_tensor(candidates[0])
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _from_csv(path: Path, n_items: int, item_ids: npt.ArrayLike | Sequence[Any] | None) -> npt.NDArray[np.float64]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines:
        raise DataError(f"Item embeddings are read one item per line; {path.name!r} is empty.")
    # A first line is a header if its last cell is not a number: the first cell of any line may be an id.
    header = [] if _is_number(lines[0][-1]) else [cell.strip().lower() for cell in lines[0]]
    lines = lines[1:] if header else lines
    uneven = [number for number, line in enumerate(lines) if len(line) != len(lines[0])]
    if uneven or not lines:
        raise DataError(
            f"Every line of item embeddings must have as many cells as the first; {path.name!r} has {len(uneven)} that "
            f"do not (first: line {uneven[0] + 1 + bool(header)})."
            if uneven
            else f"{path.name!r} has a header line and no item. Give one line per item."
        )
    labels = _labels(n_items, item_ids)
    first = [line[0].strip() for line in lines]
    if not _has_ids(first, header, labels, is_labelled=item_ids is not None):
        return _numbers(lines, path)
    return _in_catalogue_order(_numbers([line[1:] for line in lines], path), first, labels, path)


def _from_parquet(path: Path, n_items: int, item_ids: npt.ArrayLike | Sequence[Any] | None) -> npt.NDArray[np.float64]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            'Parquet files need pyarrow, which is not installed: pip install "spectral-probe[parquet]"'
        ) from error
    table = parquet.read_table(path)
    named = [name for name in table.column_names if name.strip().lower() in _ID_NAMES]
    columns = [table[name].to_numpy() for name in table.column_names if name not in named[:1]]
    values = np.column_stack(columns).astype(np.float64) if columns else np.empty((table.num_rows, 0))
    if not named:
        return values
    first = [str(label) for label in table[named[0]].to_pylist()]
    return _in_catalogue_order(values, first, _labels(n_items, item_ids), path)


def _labels(n_items: int, item_ids: npt.ArrayLike | Sequence[Any] | None) -> list[str]:
    return [str(label) for label in (range(n_items) if item_ids is None else np.asarray(item_ids).tolist())]


def _in_catalogue_order(
    values: npt.NDArray[np.float64], first: list[str], labels: list[str], path: Path
) -> npt.NDArray[np.float64]:
    """Return the rows of ``values``, whose items are named in ``first``, in the order of ``labels``."""
    index = {label: row for row, label in enumerate(labels)}
    for label in first:
        if label not in index:
            raise DataError(
                f"Every id in a file of item embeddings must be an item of the data set; {path.name!r} has {label!r}, "
                f"which is not.{did_you_mean(label, labels[:1000])} Remove it, or use the ids of the data set."
            )
    rows = [index[label] for label in first]
    counts = np.bincount(rows, minlength=len(labels))
    if (counts != 1).any():
        item = int(np.flatnonzero(counts != 1)[0])
        raise DataError(
            f"Every item needs exactly one vector; {path.name!r} has {int((counts == 0).sum())} items without and "
            f"{int((counts > 1).sum())} with several, first {labels[item]!r} with {int(counts[item])}."
        )
    vectors = np.empty_like(values)
    vectors[rows] = values
    return vectors


def _has_ids(first: list[str], header: list[str], labels: list[str], *, is_labelled: bool) -> bool:
    if header:
        return header[0] in _ID_NAMES
    if not all(_is_number(cell) for cell in first):
        return True
    if is_labelled:
        known = set(labels)
        return 2 * sum(cell in known for cell in first) > len(first)
    # Bare numbers without labels to compare with: ids only if they are exactly the indices 0 … n_items − 1.
    return len(first) > 1 and sorted(first) == sorted(labels)


def _numbers(lines: list[list[str]], path: Path) -> npt.NDArray[np.float64]:
    try:
        return np.array(lines, dtype=np.float64)
    except ValueError as error:
        raise DataError(
            f"Item embeddings must be numbers; {path.name!r} has a cell that is not a number: {error}. Only the "
            "first column may hold ids, under a header such as item_id."
        ) from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
