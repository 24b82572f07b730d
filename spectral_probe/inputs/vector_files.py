"""Item embeddings from a file: NumPy, safetensors, CSV or Parquet."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import DataError, MissingDependencyError, did_you_mean
from spectral_probe.inputs.id_columns import FEWEST_ROWS, VectorTable, is_number
from spectral_probe.interactions.column_names import is_item_name
from spectral_probe.interactions.labels import label_of
from spectral_probe.storage.regular import check_regular

logger = logging.getLogger(__name__)
_READERS = (".npy", ".safetensors", ".csv", ".parquet")
#: Names of the tensor meant, where a safetensors file holds several.
_TENSOR_NAMES = ("embeddings", "item_embeddings", "weight")


def load_embeddings(
    path: str | Path, n_items: int, item_ids: npt.ArrayLike | Sequence[Any] | None = None
) -> npt.NDArray[np.float32]:
    """Return one vector per item, (n_items, d) float32, in the order of the catalogue.

    Ids are taken wherever they are stored, and then the order of the rows is free: in the column of a CSV or Parquet
    file that has the labels of the catalogue or the name of an id (``item_id``, ``movieId``, …), in the metadata
    ``item_ids`` of a safetensors file, in ``NAME.ids.csv`` beside ``NAME.npy``. Without ids, row i belongs to item i,
    and a warning says so.

    Parameters
    ----------
    path : path
        ``.npy`` of (n_items, d); ``.safetensors`` with one such tensor, or one named ``embeddings``,
        ``item_embeddings`` or ``weight``; ``.csv``, one item per line, with or without a header line; ``.parquet``
        with one number per column, or a column of lists.
    n_items : int
    item_ids : (n_items,), optional
        Labels of the items, by index; default: the indices themselves.

    Raises
    ------
    DataError
        If the file cannot be read, does not have one finite vector for each item, names an unknown item, or has a
        column that may hold ids or row numbers but not those of the catalogue.
    MissingDependencyError
        If the file is Parquet and pyarrow is not installed.
    """
    return read_embeddings(path, n_items, item_ids)[0]


def read_embeddings(
    path: str | Path, n_items: int, item_ids: npt.ArrayLike | Sequence[Any] | None = None
) -> tuple[npt.NDArray[np.float32], bool]:
    """Return what :func:`load_embeddings` does, and whether the file has no ids: row i is then of item i."""
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise DataError(f"Item embeddings are read from {', '.join(_READERS)}; got {path.name!r}. Convert the file.")
    check_regular(path)
    labels = _labels(n_items, item_ids)
    try:
        vectors, ids = _read(path, labels, is_labelled=item_ids is not None)
    except (DataError, MissingDependencyError, MemoryError):
        raise
    except Exception as error:  # each format has exceptions of its own
        raise DataError(
            f"Item embeddings could not be read from {str(path)!r}: {error} ({type(error).__name__}). Check that the "
            "file exists and is complete."
        ) from error
    if ids is not None:
        vectors = _in_catalogue_order(vectors, ids, labels, path)
    if vectors.ndim != 2 or len(vectors) != n_items or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"Item embeddings must be numbers, ({n_items}, d): one row per item of the catalogue; {path.name!r} holds "
            f"{vectors.shape} of {vectors.dtype}. Give one row for each item, in the order of the catalogue."
        )
    with np.errstate(over="ignore"):  # what a float32 cannot hold is infinite, and refused below
        embeddings = np.asarray(vectors).astype(np.float32)
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        raise DataError(
            f"Item embeddings must be finite; {path.name!r} has a NaN or an infinity for {int(broken.sum())} items, "
            f"first for item {int(np.flatnonzero(broken)[0])}. Repair these rows."
        )
    if ids is None:
        _refuse_row_names(embeddings, path)
        logger.warning(
            "%s has no item ids: row i is taken as the vector of item i of the data set. Check the order with "
            "`frellm4rec data DATASET --export-items FILE`, or store the ids with the vectors.",
            path.name,
        )
    return embeddings, ids is None


def _refuse_row_names(vectors: npt.NDArray[Any], path: Path) -> None:
    """Refuse a column of distinct whole numbers among fractional features: it names the rows, and is no feature."""
    is_whole = (vectors == np.round(vectors)).all(axis=0)
    if is_whole.all() or len(vectors) < FEWEST_ROWS:
        return
    for column in np.flatnonzero(is_whole):
        if len(np.unique(vectors[:, column])) == len(vectors):
            raise DataError(
                f"Column {column + 1} of the vectors in {path.name!r} holds another whole number for every item, such "
                f"as {vectors[0, column]:.0f}, and other columns do not: it may name the items. Drop it, or write the "
                "ids of the data set in a column item_id (frellm4rec data DATASET --export-items FILE)."
            )


def _read(path: Path, labels: list[str], *, is_labelled: bool) -> tuple[npt.NDArray[Any], list[str] | None]:
    """Return the rows of a file as they stand, and the label of each row; None if the file has no ids."""
    ending = path.suffix.lower()
    if ending == ".npy":
        return _from_npy(path)
    if ending == ".safetensors":
        return _from_safetensors(path)
    table = _parquet_table(path) if ending == ".parquet" else _csv_table(path, labels)
    column = table.id_column(labels, is_labelled=is_labelled)
    features = [values for index, values in enumerate(table.columns) if index != column]
    ids = None if column is None else [label_of(value) for value in table.columns[column]]
    return _numbers(features, table), ids


def _from_npy(path: Path) -> tuple[npt.NDArray[Any], list[str] | None]:
    # Mapped, so that a header of many items and a short file is an error and not an allocation.
    vectors = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(vectors, np.ndarray):
        raise DataError(f"{path.name!r} is an archive of several arrays. Save the array of vectors alone with np.save.")
    beside = path.with_name(f"{path.stem}.ids.csv")
    if not beside.exists():
        return vectors, None
    check_regular(beside)
    rows = [row for _, row in _csv_rows(beside)]
    ids = [label_of(row[0]) for row in rows[1:] if row]
    if not rows or not is_item_name(rows[0][0]) or any(len(row) != 1 for row in rows):
        raise DataError(f"{beside} must have one column, item_id, with the ids of {path.name!r}. Repair or delete it.")
    return vectors, _as_many(ids, vectors, beside.name)


def _from_safetensors(path: Path) -> tuple[npt.NDArray[Any], list[str] | None]:
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
        others = {name: file.get_tensor(name) for name in names if name != candidates[0]}
        metadata = file.metadata() or {}
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    ids = [(f"the tensor {name}", other.tolist()) for name, other in others.items() if _is_ids(name, other)]
    ids += [(f"the metadata {key}", _list_of(text, key, path)) for key, text in metadata.items() if is_item_name(key)]
    if len(ids) > 1:
        raise DataError(f"{path.name!r} has ids in {' and in '.join(source for source, _ in ids)}. Leave one of them.")
    if ids:
        return array, _as_many([label_of(label) for label in ids[0][1]], array, f"{ids[0][0]} of {path.name}")
    if unknown := [name for name, other in others.items() if other.ndim == 1 and len(other) == len(tensor)]:
        raise DataError(
            f"{path.name!r} holds {unknown[0]!r}, one number for each vector: it may name the items. Call it item_ids, "
            "or drop it."
        )
    return array, None


def _is_ids(name: str, tensor: Any) -> bool:
    return is_item_name(name) and tensor.ndim == 1 and not tensor.is_floating_point()


def _list_of(text: str, key: str, path: Path) -> list[Any]:
    """Return the JSON list in the metadata of a file."""
    try:
        values = json.loads(text)
    except ValueError:
        values = text
    if not isinstance(values, list):
        raise DataError(f"The metadata {key!r} of {path.name!r} must be a JSON list; it is {str(values)[:60]!r}.")
    return values


def _as_many(ids: list[str], vectors: npt.NDArray[Any], source: str) -> list[str]:
    """Return the ids if there is one for each row."""
    if not vectors.ndim or len(ids) != len(vectors):
        raise DataError(
            f"Every row of item embeddings has one id; {source} has {len(ids)} ids for an array of {vectors.shape}. "
            "They do not belong together: write both again."
        )
    return ids


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows of a CSV with their line numbers; a row may not span lines."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        separator = max(",;\t", key=first.count)
        reader = csv.reader(file, delimiter=separator, strict=True)
        rows: list[tuple[int, list[str]]] = []
        before = 0
        for row in reader:
            if reader.line_num != before + 1:
                raise DataError(
                    f"Every line of item embeddings is one item; in {path.name!r} a quoted cell that begins in line "
                    f"{before + 1} ends in line {reader.line_num}. Repair the quotes."
                )
            before = reader.line_num
            if row:
                rows.append((before, row))
    return rows


def _csv_table(path: Path, labels: list[str]) -> VectorTable:
    lines = _csv_rows(path)
    if not lines:
        raise DataError(f"Item embeddings are read one item per line; {path.name!r} is empty.")
    for _, row in lines[:2]:
        if len(row) == 1 and len(cells := row[0].split()) > 1 and is_number(cells[-1]):
            raise DataError(
                f"The cells of item embeddings are separated by commas, semicolons or tabs; {path.name!r} has none of "
                f"them in the line {row[0].strip()[:60]!r}. Write commas in place of the spaces."
            )
    has_header = _is_header(lines[0][1], set(labels), n_rows=len(lines) - 1)
    names = [cell.strip() for cell in lines[0][1]] if has_header else []
    width, lines = len(lines[0][1]), lines[has_header:]
    if not lines:
        raise DataError(f"{path.name!r} has a header line and no item. Give one line per item.")
    uneven = [number for number, row in lines if len(row) != width]
    if uneven:
        raise DataError(
            f"Every line of item embeddings must have as many cells as the first; {path.name!r} has {len(uneven)} that "
            f"do not (first: line {uneven[0]})."
        )
    return VectorTable(path, names, [[row[column] for _, row in lines] for column in range(width)])


def _is_header(cells: list[str], known: set[str], *, n_rows: int) -> bool:
    """Return whether the first line names the columns.

    It does if a cell after the first is not a number, if the first cell is empty or the name of an id, or if the cells
    count the features (0, 1, 2, … as pandas writes them) and another line remains for each item.
    """
    first, others = cells[0].strip(), cells[1:]
    if any(not is_number(cell) for cell in others) or not first:
        return True
    if label_of(first) in known and is_number(first) is False:
        return False
    if is_item_name(first):
        return True
    texts = [cell.strip() for cell in others]
    counts = any(texts == [str(number + start) for number in range(len(texts))] for start in (0, 1))
    if not is_number(first):
        return not texts or (counts and n_rows == len(known))
    return first == "0" and texts == [str(number) for number in range(1, len(cells))] and n_rows == len(known)


def _parquet_table(path: Path) -> VectorTable:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            'Parquet files need pyarrow, which is not installed: pip install "spectral-probe[parquet]"'
        ) from error
    table = parquet.read_table(path)
    names: list[str] = []
    columns: list[Sequence[object]] = []
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
            values = np.array(table[name].to_pylist(), dtype=np.float64)
            names += [f"{name}[{index}]" for index in range(values.shape[1])]
            columns += list(values.T)
        elif pyarrow.types.is_floating(kind) or (pyarrow.types.is_integer(kind) and not table[name].null_count):
            names.append(name)
            columns.append(table[name].to_numpy())
        else:
            names.append(name)
            columns.append(table[name].to_pylist())
    return VectorTable(path, names, columns)


def _labels(n_items: int, item_ids: npt.ArrayLike | Sequence[Any] | None) -> list[str]:
    return [label_of(label) for label in (range(n_items) if item_ids is None else np.asarray(item_ids).tolist())]


def _in_catalogue_order(values: npt.NDArray[Any], first: list[str], labels: list[str], path: Path) -> npt.NDArray[Any]:
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
            f"{int((counts > 1).sum())} with several, first {labels[item]!r} with {int(counts[item])}. Give each one "
            "vector."
        )
    vectors = np.empty_like(values)
    vectors[rows] = values
    return vectors


def _numbers(columns: list[Sequence[object]], table: VectorTable) -> npt.NDArray[np.float64]:
    """Return the features as an array; a missing value is NaN."""
    if not columns:
        return np.empty((table.n_rows, 0))
    try:
        return np.column_stack([np.asarray(values, dtype=np.float64) for values in columns])
    except (ValueError, TypeError) as error:
        raise DataError(
            f"Item embeddings must be numbers; {table.path.name!r} has a cell that is not a number: {error}. Only one "
            "column may hold ids, under a header such as item_id."
        ) from error
