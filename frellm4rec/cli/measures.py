"""Options that the commands on trained models share, and tables as records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.completion import complete_datasets
from spectral_probe.cli.flags import DATA, MEASURE, with_default

if TYPE_CHECKING:
    import pandas as pd

Part = Annotated[str, typer.Option(help="Held-out item: test (last) or valid (before it).", rich_help_panel=MEASURE)]
Cut = Annotated[int, typer.Option(help="Length of the list.", rich_help_panel=MEASURE)]
Rankings = Annotated[
    list[str] | None,
    typer.Option(
        "--ranking",
        metavar="N+1|full",
        help=with_default("99+1, another N+1, or full; repeatable.", "99+1 and full"),
        rich_help_panel=MEASURE,
    ),
]
SavedDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="DATA",
        help="Data set of a saved model; of a run, where its data are now.",
        rich_help_panel=DATA,
        autocompletion=complete_datasets,
    ),
]
CandidateSeed = Annotated[int, typer.Option(help="Seed of the stored candidates.", rich_help_panel=MEASURE)]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain values for JSON."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows
