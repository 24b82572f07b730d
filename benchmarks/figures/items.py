"""What the paper shows, what it says of it, and the command whose runs make our form of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.pages.claims import read_claims


@dataclass(frozen=True)
class DataSet:
    """A data set of the figures.

    Attributes
    ----------
    folder, title : str
        Folder under ``figures/``, and name in print.
    name : str
        Name on the command line, and in tables of experiments.
    is_of_paper : bool
    note : str
        In what our data differ from the paper's; empty if in nothing.
    """

    folder: str
    title: str
    name: str
    is_of_paper: bool = True
    note: str = ""

    @property
    def caption(self) -> str:
        """Its name in print, with the note."""
        return f"{self.title} ({self.note})" if self.note else self.title


_OWNERS_CORE = "not the paper's data: the 5-core of the data's owner, without titles"
#: Those of the paper, and one more.
DATASETS = (
    DataSet("lastfm", "LastFM", "lastfm"),
    DataSet("luxury-beauty", "Luxury Beauty", "amazon:Luxury_Beauty", note=_OWNERS_CORE),
    DataSet("all-beauty", "All Beauty", "amazon:All_Beauty"),
    DataSet("movies-and-tv", "Movies and TV", "amazon:Movies_and_TV"),
    DataSet("ml-100k", "MovieLens-100K", "movielens:100k", is_of_paper=False),
)


@dataclass(frozen=True)
class Item:
    """A figure or a table of the paper.

    Attributes
    ----------
    name, title : str
        Name of the files; what is shown.
    claims : tuple of str
        Rows of ``figures/claims.csv`` with what the paper says of it.
    runs : str
        Command whose runs make it; ``{data}`` is the data set.
    kind : str
        "curves" of a probe, "comparison", "experiment", "tuned" or "counts": where its CSVs come from.
    """

    name: str
    title: str
    claims: tuple[str, ...]
    runs: str
    kind: str

    def command(self, data: DataSet) -> str:
        """Return the commands that make the runs of a data set and collect their CSVs."""
        runs = self.runs.format(data=f"{data.name} --from-dir DIR", name=data.name)
        if self.kind == "counts":
            return f"{runs} {data.folder} DIR"
        if self.kind == "tuned":
            return f"{runs} && {runs} --final && python -m benchmarks.figures --collect {data.folder} RUN"
        return f"{runs} && python -m benchmarks.figures --collect {data.folder} RUN…"


_PROBE = "--dataset {data} --preset paper --controls random-weights --out runs"
ITEMS = (
    Item(
        "fig1a",
        "A language model, layer by layer",
        ("fig-1a",),
        f"spectral-probe analyze -m smollm2 {_PROBE}",
        "curves",
    ),
    Item("fig1b", "SASRec, layer by layer", ("fig-1b",), f"spectral-probe analyze -m sasrec {_PROBE}", "curves"),
    Item(
        "fig3",
        "Part of the graph spectrum kept in the ID embeddings",
        ("fig-3",),
        "frellm4rec experiment kept --dataset {data} --seeds 3 --out RUN",
        "experiment",
    ),
    Item(
        "fig4",
        "Base against FreLLM4Rec, layer by layer",
        ("fig-4", "lost-70"),
        "frellm4rec experiment ablation --dataset {data} --variants full,base --seeds 1 --out TRAININGS && "
        f"spectral-probe analyze -m TRAININGS/runs/BASE -m TRAININGS/runs/FULL {_PROBE} && "
        "spectral-probe compare BASE FULL --out runs",
        "comparison",
    ),
    Item(
        "fig5",
        "Strength of the graph low-pass filter",
        ("fig-5",),
        "frellm4rec experiment alpha --dataset {data} --seeds 3 --out RUN",
        "experiment",
    ),
    Item(
        "fig6",
        "Cutoff of the temporal filter",
        ("fig-6",),
        "frellm4rec experiment cutoff --dataset {data} --seeds 3 --out RUN",
        "experiment",
    ),
    Item(
        "fig8",
        "Every language model, layer by layer",
        ("fig-8", "lost-70"),
        f"spectral-probe analyze -m minilm -m smollm2 {_PROBE}",
        "curves",
    ),
    Item(
        "table1",
        "Users, items and interactions",
        ("table-1",),
        "python -m benchmarks.figures --count",
        "counts",
    ),
    Item(
        "table2",
        "Systems with the same number of trials and the same time",
        ("table-2",),
        "frellm4rec experiment table2 --dataset {data} --out RUN",
        "tuned",
    ),
    Item(
        "table3",
        "What each part of FreLLM4Rec is worth",
        ("table-3",),
        "frellm4rec experiment ablation --dataset {data} --seeds 3 --beside sasrec --out RUN",
        "experiment",
    ),
    Item(
        "table4",
        "The two filters on other backbones",
        ("table-4",),
        "frellm4rec experiment backbones --dataset {data} --seeds 3 --out RUN",
        "experiment",
    ),
    Item(
        "table5",
        "ID embeddings of several sequential recommenders",
        ("table-5",),
        "frellm4rec experiment table5 --dataset {data} --seeds 3 --out RUN",
        "experiment",
    ),
)


def published(item: Item, claims: pd.DataFrame | None = None) -> str:
    """Return what the paper says of a figure or table, with where it says so."""
    table = read_claims() if claims is None else claims
    sentences = []
    for claim in item.claims:
        row = table[table["id"] == claim].iloc[0]
        sentences.append(f"{row['claim']} ({row['where']})")
    return " ".join(sentences)


def stem(figures: Path, data: DataSet, item: Item) -> Path:
    """Return the path of an item's files without their ending."""
    return figures / data.folder / item.name
