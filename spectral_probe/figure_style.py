"""What all figures share: the palette, the grey of the nulls, and how a figure is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from spectral_probe.storage.atomic import whole_file, write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, told apart by every common kind of colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: The colour of every null.
NULL_GREY = "#8A8A8A"


def save_figure(figure: Figure, stem: Path, data: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> None:
    """Write ``stem.png``, ``stem.pdf`` and the numbers behind them, ``stem.csv``."""
    with whole_file(stem.with_suffix(".png")) as partial:
        figure.savefig(partial, dpi=150)
    with whole_file(stem.with_suffix(".pdf")) as partial:
        # Without a date the same figure is the same file.
        figure.savefig(partial, metadata={"CreationDate": None, **(metadata or {})})
    write_csv(stem.with_suffix(".csv"), data, float_format="%.10g")
