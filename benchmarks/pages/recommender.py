"""The recommender's part of ``docs/results.md``, from the tables in ``figures/<dataset>/recommender/``.

::

    frellm4rec experiment ablation --dataset lastfm --from-dir DIR --backbone DIR/stories260K --mode prefix \
        --mode causal --seeds 3 --beside sasrec --out RUN
    python -m benchmarks.pages.results --experiment RUN
    python -m benchmarks.pages.recommender --lastfm DIR --out figures/lastfm/recommender/glpf.csv

The tables of several experiment folders are joined here; every statement is the one of ``frellm4rec experiment``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from frellm4rec.data.datasets import lastfm
from frellm4rec.experiments.definitions import Experiment, experiment_names, load_experiment
from frellm4rec.experiments.figures import figure_rows
from frellm4rec.experiments.markdown import markdown
from frellm4rec.experiments.report import paper_figure
from frellm4rec.experiments.tables import ExperimentTables, join_folders
from frellm4rec.modules.glpf import GraphLowPassFilter
from frellm4rec.runs.pretrained import pretrained_item_table
from frellm4rec.theory.strength import glpf_strength, spectrum_near_one
from spectral_probe.errors import DataError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import write_csv


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Join the tables of experiments, and draw the figure of each.

    Raises
    ------
    DataError
        If an experiment is not one of the packaged ones.
    """
    joined = join_folders(runs, _experiment)
    folder.mkdir(parents=True, exist_ok=True)
    joined.save(folder)
    for experiment in _experiments(joined):
        if not figure_rows(experiment, joined).empty:
            paper_figure(experiment, joined).save(folder / experiment.name)
            # means.csv already contains the data of the figure.
            (folder / f"{experiment.name}.csv").unlink()


def section(folder: Path) -> list[str]:
    """Return the lines of the section; none if there are no tables.

    Parameters
    ----------
    folder : Path
        Contains ``cells.csv``, ``means.csv`` and ``differences.csv``; its parent is ``figures/<dataset>/``.
    """
    if not (folder / "cells.csv").exists():
        return []
    tables = ExperimentTables.load(folder)
    lines = ["## FreLLM4Rec", ""]
    for experiment in _experiments(tables):
        if experiment.name == "ablation" and (line := strength(folder / "glpf.csv")):
            lines += [*line, ""]
        figure = f"../figures/{folder.parent.name}/{folder.name}/{experiment.name}.png"
        lines += [f"![{experiment.title}]({figure})", "", markdown(experiment, tables, level=3)]
    return lines


def measure_strength(dataset: Dataset, *, seeds: Sequence[int] = (0, 1, 2), alpha: float = 0.3) -> pd.DataFrame:
    """Return how much G-LPF changes SASRec's item vectors, one row per seed; see :func:`glpf_strength`."""
    glpf = GraphLowPassFilter(ItemGraph.from_interactions(dataset.train.user_items, self_loops=True), alpha)
    changed = [glpf_strength(glpf, pretrained_item_table("sasrec", dataset, seed=seed)) for seed in seeds]
    rows = {"dataset": dataset.name, "seed": list(seeds), "alpha": alpha, "changed": changed}
    return pd.DataFrame(rows).assign(n_items=dataset.n_items, near_one=spectrum_near_one(glpf))


def strength(path: Path) -> list[str]:
    """Return the result of :func:`measure_strength` as a list item; nothing if it was not measured."""
    if not path.exists():
        return []
    rows = pd.read_csv(path)
    first = rows.iloc[0]
    return [
        f"- **How much G-LPF can do** on {first['dataset']}: {first['near_one']:.0%} of the {first['n_items']} "
        f"eigenvalues of its graph lie above 0.9, where 1 − αλ is nearly one number. With α = {first['alpha']:g} the "
        f"filtered ID table is a multiple of the table itself up to {rows['changed'].mean():.0%} "
        f"(mean over {len(rows)} seeds, root mean square)."
    ]


def _experiments(tables: ExperimentTables) -> list[Experiment]:
    """Return the experiments of the tables, the ablation first."""
    names = sorted(set(tables.cells["experiment"]), key=lambda name: (name != "ablation", name))
    return [load_experiment(name) for name in names]


def _experiment(experiment: str) -> Experiment:
    if experiment not in experiment_names():
        raise DataError(f"Only packaged experiments are on the page of results; got {experiment!r}.")
    return load_experiment(experiment)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pages.recommender", description=measure_strength.__doc__
    )
    parser.add_argument("--lastfm", type=Path, required=True, help="folder with the raw HetRec files")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write, figures/lastfm/recommender/glpf.csv")
    options = parser.parse_args()
    table = measure_strength(lastfm(from_dir=options.lastfm))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(options.out, table, float_format="%.10g")


if __name__ == "__main__":
    main()
