"""SASRec with its published loss beside what others report of the same data, and simple baselines.

::

    frellm4rec experiment floors benchmarks/pages/floors.yaml --dataset lastfm --from-dir DIR --seeds 3 --out RUN
    python -m benchmarks.pages.results --floors RUN

What others report is in ``frellm4rec/experiments/outside.csv``: the same users, items and split.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from frellm4rec.experiments.definitions import Experiment, load_experiment
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.system_page import outside_numbers
from frellm4rec.experiments.tables import ExperimentTables, join_folders

HERE = Path(__file__).parent
#: Variants with the published loss; the validation chooses among them.
PUBLISHED = ("bce-0.2", "bce-0.5")
#: Recall@10 that the published loss must reach: the range of the reports.
LOW, HIGH = 0.05, 0.075


def experiment() -> Experiment:
    """Return the experiment of this page."""
    return load_experiment("floors", HERE / "floors.yaml")


def collect(run: Path, folder: Path) -> None:
    """Write the tables of a finished run, computed again from its per-user values."""
    tables = join_folders([run], lambda name: experiment())
    folder.mkdir(parents=True, exist_ok=True)
    tables.save(folder)


def section(folder: Path) -> list[str]:
    """Return the lines of the section; none if there are no tables."""
    if not (folder / "cells.csv").exists():
        return []
    tables = ExperimentTables.load(folder)
    chosen, ndcg = chosen_on_validation(tables)
    return [
        "## SASRec with its published loss (LastFM)",
        "",
        "Beside it stand simple baselines without training: Popularity, Markov chain, ItemKNN.",
        "",
        *_beside(tables, chosen),
        "",
        f"Among {' and '.join(ndcg)}, mean validation NDCG@10 chooses {chosen} "
        f"({', '.join(f'{label}: {value:.4f}' for label, value in ndcg.items())}). {_verdict(tables, chosen)}",
        "",
        _reference_words(ndcg),
        "",
        markdown(experiment(), tables, level=3),
    ]


def chosen_on_validation(tables: ExperimentTables) -> tuple[str, dict[str, float]]:
    """Return the label of the variant with the published loss that has the best mean validation NDCG, and all means."""
    cells = tables.cells[tables.cells["variant"].isin(PUBLISHED) & (tables.cells["ranking"] == "full")]
    means = cells.groupby("label", sort=False)["validation_ndcg"].mean()
    return str(means.idxmax()), {str(label): float(value) for label, value in means.items()}


def _reference_words(ndcg: dict[str, float]) -> str:
    """Say of which variant the differences are, and how its validation compares."""
    definition = experiment()
    reference = next(variant.label for variant in definition.variants if variant.name == definition.reference)
    others = " and ".join(f"{value:.4f} for {label}" for label, value in ndcg.items() if label != reference)
    return (
        f"The differences below are from {reference}, the dropout of the recipe. Its mean validation NDCG@10 is "
        f"{ndcg[reference]:.4f}, beside {others}."
    )


def _beside(tables: ExperimentTables, chosen: str) -> list[str]:
    """Return the table of our values beside the reported ones, full ranking."""
    outside = outside_numbers()
    outside = outside[(outside["dataset"] == "lastfm") & (outside["ranking"] == "full")]
    outside = outside[outside["model"].isin(["SASRec", "Popularity"])]
    lines = [
        "| model | Recall@10 here | NDCG@10 here | Recall@10 reported | NDCG@10 reported | by |",
        "|---|---|---|---|---|---|",
    ]
    for row in outside.to_dict("records"):
        is_sasrec = row["model"] == "SASRec"
        here = _means(tables, "label", chosen) if is_sasrec else _means(tables, "variant", "popularity")
        spread = "" if pd.isna(row["recall_low"]) else f" ({row['recall_low']:.4f} to {row['recall_high']:.4f})"
        reported = f"{row['recall']:.4f}{spread} | {row['ndcg']:.4f} | {row['source']}"
        lines.append(f"| {here['label']} | {here['recall']} | {here['ndcg']} | {reported} |")
    return lines


def _means(tables: ExperimentTables, column: str, value: str) -> dict[str, str]:
    rows = tables.means[(tables.means[column] == value) & (tables.means["ranking"] == "full")]
    texts = {
        row["metric"]: f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]" for row in rows.to_dict("records")
    }
    return {"label": str(rows["label"].iloc[0]), **texts}


def _verdict(tables: ExperimentTables, chosen: str) -> str:
    rows = tables.means[(tables.means["label"] == chosen) & (tables.means["ranking"] == "full")]
    recall = float(rows.loc[rows["metric"] == "recall", "value"].iloc[0])
    where = "inside" if LOW <= recall <= HIGH else "outside"
    return f"Its test Recall@10 of {recall:.4f} lies {where} the range of the reports, {LOW:g} to {HIGH:g}."
