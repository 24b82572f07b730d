"""``frellm4rec export``: the item embeddings of a trained model in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frellm4rec.cli.measures import SavedDataset
from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import RUN, Columns, Device, FromDir, examples
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.progress import stage
from spectral_probe.runs.references import TRAINING, resolve_run

EXAMPLES = examples(
    "frellm4rec export @last --out vectors.safetensors",
    "frellm4rec export full --out vectors.csv",
    "spectral-probe analyze -m minilm -d demo --embeddings vectors.safetensors",
)


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Training run, or folder of a saved model.", autocompletion=complete_runs("training")
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help=".safetensors, .npy, .parquet or .csv.", rich_help_panel=RUN)
    ],
    dataset: SavedDataset = None,
    from_dir: FromDir = None,
    columns: Columns = None,
    device: Device = "auto",
) -> None:
    """Write the vectors that scores are inner products with, one per item, with the ids of the items."""
    run = resolve_run(run, (TRAINING,))
    with working(lines=False):
        from frellm4rec.items.export import write_embeddings
        from frellm4rec.runs.trained import open_trained

        stage(f"model {run.name}")
        trained = open_trained(run, dataset=dataset, from_dir=from_dir, columns=columns, device=device)
        model, vectors = trained.model, trained.item_vectors()
        written = write_embeddings(
            out.expanduser(), vectors, trained.dataset.item_ids, model=f"{model.name} {model.revision}"
        )
    say_wrapped(f"{vectors.shape[0]} items × {vectors.shape[1]} features: {', '.join(map(str, written))}")
