"""Which row of a checkpoint of RecBole belongs to which item of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from frellm4rec.models.recbole.checkpoint import Checkpoint
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import label_of
from spectral_probe.types import IntArray

#: Row 0 of every table.
PADDING = "[PAD]"
#: File beside a checkpoint with the item of every row, one a line.
TOKENS_FILE = "item_tokens.txt"
_NOTHING: tuple[Any, ...] = (None, "", "None", 0, [], {})
#: Settings under which RecBole numbers other items, or in another order, than a file shows; with what changes nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("user_inter_num_interval", "item_inter_num_interval"), (*_NOTHING, "[0,inf)")),
    **dict.fromkeys(("rm_dup_inter", "val_interval", "benchmark_filename", "alias_of_item_id"), _NOTHING),
    **dict.fromkeys(("additional_feat_suffix", "drop_filter_field"), (*_NOTHING, False)),
    # Names of older versions.
    **dict.fromkeys(("min_user_inter_num", "max_user_inter_num", "min_item_inter_num"), _NOTHING),
    **dict.fromkeys(("max_item_inter_num", "lowest_val", "highest_val", "equal_val", "not_equal_val"), _NOTHING),
}


def item_rows(checkpoint: Checkpoint, n_rows: int, dataset: Dataset) -> IntArray:
    """Return the row of each item of a data set, (n_items,).

    RecBole numbers items from 1 in the order in which they first appear in its filtered ``.inter`` file; the numbers
    are not in the checkpoint. They are read from a file ``item_tokens.txt`` beside it. Without one, they are counted in
    the ``.inter`` file that the configuration names, or one of that name beside the checkpoint, provided that the
    configuration filters nothing and the number of items is that of the checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
    n_rows : int
        Rows of the item table, that of the padding included.
    dataset : Dataset

    Raises
    ------
    DataError
        If the order of the items is not known, or the data set has an item that the checkpoint lacks.
    """
    tokens, source = _tokens(checkpoint, n_rows)
    rows = {label_of(token): row for row, token in enumerate(tokens)}
    if len(rows) != len(tokens):
        raise DataError(
            f"{len(tokens) - len(rows)} of the items in {source} differ only in white space or decimal zeros, or are "
            "missing values, so their rows cannot be told apart. Train on a file in which each item has one label."
        )
    labels = [label_of(label) for label in dataset.item_ids]
    missing = [label for label in labels if label not in rows or label == PADDING]
    if missing:
        raise DataError(
            f"{checkpoint.path} was trained on other items than those of {dataset.name!r}: {len(missing)} of "
            f"{len(labels)} are not in {source}, such as {missing[0]!r}. Name the data that it was trained on with "
            "--dataset, filtered as RecBole filtered them."
        )
    return np.array([rows[label] for label in labels], dtype=np.int64)


def _tokens(checkpoint: Checkpoint, n_rows: int) -> tuple[list[str], Path]:
    """Return the token of each row, and the file that says so."""
    folder = checkpoint.path.parent
    for path in (folder / f"{checkpoint.path.stem}.{TOKENS_FILE}", folder / TOKENS_FILE):
        if path.is_file():
            return _listed(path, n_rows), path
    doubts = doubtful_settings(checkpoint.config)
    reason = f"its configuration sets {doubts[0]}" if doubts else ""
    if not doubts:
        file = _inter_file(checkpoint)
        reason = "the .inter file that it was trained on is not where its configuration says, nor beside it"
        if file is not None:
            tokens = first_appearances(file, checkpoint.config)
            if tokens is not None and len(tokens) + 1 == n_rows:
                return [PADDING, *tokens], file
            reason = f"{file} has {'empty fields' if tokens is None else f'{len(tokens)} items'}, and it {n_rows - 1}"
    raise DataError(
        f"Which row of {checkpoint.path} belongs to which item is not in the file, and {reason}. Write the items in "
        f"RecBole's order into {folder / TOKENS_FILE}, one a line, {PADDING} first; docs/recbole.md has the lines that "
        "do so."
    )


def _listed(path: Path, n_rows: int) -> list[str]:
    """Return the lines of a file of tokens."""
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Write it again, see docs/recbole.md.") from error
    tokens = [token.removesuffix("\r") for token in tokens]
    while tokens and not tokens[-1]:
        tokens.pop()
    if len(tokens) != n_rows or tokens[0] != PADDING or len(set(tokens)) != len(tokens):
        raise DataError(
            f"{path} must have one line for each of the {n_rows} rows of the checkpoint, {PADDING} first and no item "
            f"twice; it has {len(tokens)}, {len(set(tokens))} of them different, and begins with "
            f"{tokens[0] if tokens else ''!r}. Write it again, see docs/recbole.md."
        )
    return tokens


def doubtful_settings(config: dict[str, Any]) -> list[str]:
    """Return the settings of RecBole that change which items it numbers, or their order; empty if there are none."""
    doubts = [f"{name}={config[name]!r}" for name, neutral in _NEUTRAL.items() if config.get(name) not in neutral]
    columns = config.get("load_col")
    if not isinstance(columns, dict) or set(columns) != {"inter"}:
        doubts.append(f"load_col={columns!r}")  # files of items add theirs
    return doubts


def _inter_file(checkpoint: Checkpoint) -> Path | None:
    """Return the file of interactions that a checkpoint was trained on, if it is there."""
    name, folder = checkpoint.config.get("dataset"), checkpoint.config.get("data_path")
    if not isinstance(name, str):
        return None
    paths = [checkpoint.path.parent / f"{name}.inter"]
    paths += [Path(folder) / f"{name}.inter"] if isinstance(folder, str) else []
    return next((path for path in paths if path.is_file()), None)


def first_appearances(path: Path, config: dict[str, Any]) -> list[str] | None:
    """Return the items of an ``.inter`` file in the order of their first rows; None if users or items are missing.

    Raises
    ------
    DataError
        If the file cannot be read, or has no such columns.
    """
    separator = config.get("field_separator") or "\t"
    columns = [f"{config.get(f'{kind.upper()}_ID_FIELD') or f'{kind}_id'}:token" for kind in ("user", "item")]
    try:
        table = pd.read_csv(path, sep=str(separator), usecols=columns, dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a file of RecBole with {columns}: {error}. Correct it.") from error
    if table.isna().to_numpy().any():
        return None  # RecBole drops such rows
    return [str(token) for token in pd.unique(table[columns[1]])]
