"""Core filters: keep the users and items with enough interactions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from spectral_probe.errors import ConfigError, DataError, did_you_mean, listed


def k_core(
    df: pd.DataFrame,
    k: int = 5,
    *,
    user: str = "user_id",
    item: str = "item_id",
    iterative: bool = True,
) -> pd.DataFrame:
    """Return the rows of the log whose user and item have at least ``k`` rows each; their order is kept.

    Parameters
    ----------
    df : DataFrame
        One row per event. Repeats of a pair count as often as they occur; drop them first if they should not.
    k : int
        Least number of rows per user and per item.
    user, item : str
        Names of the two columns.
    iterative : bool
        True (default): repeat until every remaining user and item has ``k`` rows (the k-core proper, which is unique).
        False: one pass over the raw counts of users and items. Remaining users and items may have fewer rows.

    Raises
    ------
    ConfigError
        If ``k`` is below 1.
    DataError
        If a column is missing or nothing remains.

    Notes
    -----
    Source: FreLLM4Rec section 4.1 ("5-core"). The authors' Amazon preparation makes the single pass, which is why the
    Amazon rows of its Table 1 are not a k-core; its LastFM row is the iterative one.
    """
    if k < 1:
        raise ConfigError(f"A core filter needs k of at least 1; got k={k}. Use k=5 for the paper's filter.")
    columns = [str(column) for column in df.columns]
    for name in (user, item):
        if name not in df.columns:
            raise DataError(
                f"No column {name!r} in the interaction table; its columns are {listed(columns)}."
                f"{did_you_mean(name, columns)} Name the columns with user=, item=."
            )
    user_code = pd.factorize(df[user])[0]
    item_code = pd.factorize(df[item])[0]
    keep = np.ones(len(df), dtype=bool)
    while True:
        n_before = int(keep.sum())
        keep &= _has_enough(user_code, keep, k) & _has_enough(item_code, keep, k)
        if not iterative or int(keep.sum()) == n_before:
            break
    if not keep.any():
        kind = "iterative" if iterative else "single-pass"
        raise DataError(
            f"None of the {len(df)} rows is left after the {kind} {k}-core filter. Choose a smaller k or a larger log."
        )
    return df.loc[keep]


def _has_enough(code: npt.NDArray[np.intp], keep: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.bool_]:
    """Return, per row, whether its label occurs at least ``k`` times among the rows with ``keep``."""
    counts = np.bincount(code[keep], minlength=int(code.max(initial=-1)) + 1)
    return np.asarray(counts[code] >= k)
