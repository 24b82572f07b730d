"""``frellm4rec export``: the item embeddings of a trained model in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectral_probe.cli.flags import Columns
from spectral_probe.cli.terminal import say


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Training run, or folder of a saved model.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help=".safetensors, .npy, .parquet or .csv.")],
    dataset: Annotated[
        str | None, typer.Option(help="Data set of a saved model; of a run, where its data are now.")
    ] = None,
    from_dir: Annotated[Path | None, typer.Option(help="Folder or zip with the raw files.")] = None,
    columns: Columns = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Write the vectors that scores are inner products with, one per item, with the ids of the items."""
    from frellm4rec.items.export import write_embeddings
    from frellm4rec.runs.trained import open_trained

    trained = open_trained(run, dataset=dataset, from_dir=from_dir, columns=columns, device=device)
    model, vectors = trained.model, trained.item_vectors()
    written = write_embeddings(
        out.expanduser(), vectors, trained.dataset.item_ids, model=f"{model.name} {model.revision}"
    )
    say(f"{vectors.shape[0]} items × {vectors.shape[1]} features: {', '.join(map(str, written))}")
