"""The recommender's part of ``docs/results.md``, from the tables in ``figures/<dataset>/recommender/``.

::

    frellm4rec experiment ablation --dataset lastfm --from-dir DIR --backbone DIR/stories260K --mode prefix \
        --mode causal --seeds 3 --with-sasrec --out RUN
    python -m benchmarks.pages.results --experiment RUN
    python -m benchmarks.pages.recommender --lastfm DIR --out figures/lastfm/recommender/glpf.csv

Every statement about a part of the model is computed from its interval and from p after Holm's correction.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from frellm4rec.data.datasets import lastfm
from frellm4rec.experiments.definitions import SASREC, Experiment, experiment_names, load_experiment
from frellm4rec.experiments.figures import experiment_figure, figure_rows
from frellm4rec.experiments.markdown import LEAKY, difference_text, markdown, mode_label, modes_in_order
from frellm4rec.experiments.paper import DEFAULT_BACKBONE, paper_dataset, paper_value
from frellm4rec.experiments.tables import ExperimentTables, join_folders
from frellm4rec.modules.glpf import GraphLowPassFilter
from frellm4rec.runs.pretrained import pretrained_item_table
from frellm4rec.theory.strength import glpf_strength, spectrum_near_one
from spectral_probe.errors import DataError
from spectral_probe.figure_style import save_figure
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import write_csv

#: Variant of the ablation → the part that it leaves out.
PARTS = {
    "wo-glpf": "G-LPF",
    "wo-tfm": "TFM",
    "base": "both filters",
    "wo-id": "ID embeddings",
    "wo-text": "text embeddings",
}
LEVEL = 0.05
METRIC = "ndcg"
#: The paper's ranking among candidates, and the full ranking.
RANKINGS = {"99+1": "99+1 candidates", "full": "full ranking"}
#: Effect of leaving the full model out → the sentence about the full model beside SASRec.
_BESIDE_SASREC = {
    "helps": "it is below SASRec",
    "hurts": "it is above SASRec",
    "no difference shown": "no difference is shown",
    "no difference shown after correction": "no difference is shown after correction",
}


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Join the tables of experiments, and draw the figure of each.

    Raises
    ------
    DataError
        If an experiment is not one of the packaged ones.
    """
    joined = join_folders(runs, _reference)
    folder.mkdir(parents=True, exist_ok=True)
    joined.save(folder)
    for experiment in _experiments(joined):
        rows = figure_rows(experiment, joined)
        if not rows.empty:
            save_figure(experiment_figure(experiment, joined), folder / experiment.name, rows)
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
        if experiment.name == "ablation":
            lines += [*claims(tables.select(experiment="ablation")), *strength(folder / "glpf.csv"), ""]
        figure = f"../figures/{folder.parent.name}/{folder.name}/{experiment.name}.png"
        lines += [f"![{experiment.title}]({figure})", "", markdown(experiment, tables, level=3)]
    return lines


def claims(tables: ExperimentTables) -> list[str]:
    """Return the lines about the effect of each part of the model, and about the model beside SASRec."""
    rows = tables.differences
    rows = rows[(rows["metric"] == METRIC) & rows["ranking"].isin(RANKINGS)]
    rows, settings_lines = _split_settings(rows)
    experiment = load_experiment("ablation")
    parts = rows[(rows["against"] == experiment.reference) & rows["variant"].isin(PARTS)]
    lines: list[str] = []
    if len(parts):
        lines += [*_parts(experiment, parts), *settings_lines]
    beside = rows[(rows["against"] == SASREC) & (rows["variant"] == experiment.reference) & (rows["mode"] != LEAKY)]
    for row in beside.to_dict("records"):
        lines.append(
            f"- **FreLLM4Rec beside SASRec**, from which its ID embeddings come ({_setting(row)}, "
            f"{RANKINGS[row['ranking']]}): NDCG@{row['k']} {difference_text(row)}: {_BESIDE_SASREC[effect(row)]}."
        )
    return lines


def _split_settings(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without settings that are the same for all rows of a backbone, and the lines that name these."""
    used = rows[["backbone", "settings"]].drop_duplicates()
    alone = used[~used["backbone"].duplicated(keep=False) & (used["settings"] != "")]
    lines = [f"- `{row['backbone']}` was trained with {row['settings']}." for row in alone.to_dict("records")]
    is_implied = rows["backbone"].isin(alone["backbone"])
    return rows.assign(settings=rows["settings"].mask(is_implied, "")), lines


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


def effect(row: dict[str, Any]) -> str:
    """Return the effect of a part from the row of the variant without it: ``helps``, ``hurts``, or neither shown."""
    if row["low"] <= 0.0 <= row["high"]:
        return "no difference shown"
    if row["p_holm"] > LEVEL:
        return "no difference shown after correction"
    return "helps" if row["high"] < 0.0 else "hurts"


def _parts(experiment: Experiment, rows: pd.DataFrame) -> list[str]:
    k = int(rows["k"].iloc[0])
    lines = [
        f"What a part of the model is worth on test NDCG@{k}: the value with it minus the value without it. A part "
        "helps or hurts where the 95 % interval leaves out 0 and p, after Holm's correction over the variants, is at "
        f"most {LEVEL:g}.",
        "",
        f"| part | backbone | mode | ranking | with − without | p | paper ({DEFAULT_BACKBONE}) | here |",
        "|---|---|---|---|---|---|---|---|",
    ]
    claim_lines: list[str] = []
    for name, part in PARTS.items():
        part_rows = [row for mode in modes_in_order(rows) for row in _records(rows, variant=name, mode=mode)]
        for row in part_rows:
            printed = _printed(experiment, row)
            lines.append(
                f"| {part} | {_backbone(row)} | {mode_label(row['mode'])} | {row['ranking']} | {_worth(row)} | "
                f"{_p(row)} | {'–' if printed is None else f'{printed:+.4f}'} | **{effect(row)}** |"
            )
        fair = [row for row in part_rows if row["mode"] != LEAKY]
        if fair:
            claim_lines.append(_claim(part, fair, experiment))
    return [line.replace("-0.", "−0.") for line in [*lines, "", *claim_lines]]


def _claim(part: str, rows: list[dict[str, Any]], experiment: Experiment) -> str:
    """Return one list item: the effect of a part under each ranking, and whether the paper's claim holds."""
    sentences = []
    for ranking, label in RANKINGS.items():
        ranking_rows = [row for row in rows if row["ranking"] == ranking]
        settings: dict[str, list[str]] = {}
        for row in ranking_rows:
            settings.setdefault(effect(row), []).append(_setting(row))
        if ranking_rows:
            effects = "; ".join(f"{what} ({' and '.join(where)})" for what, where in settings.items())
            printed = _printed(experiment, ranking_rows[0])
            verdict = "" if printed is None else f" {_verdict(settings, printed, len(ranking_rows))}"
            sentences.append(f"{label}: {effects}.{verdict}")
    return f"- **{part}**, {' '.join(sentences)}"


def _verdict(settings: dict[str, list[str]], printed: float, n: int) -> str:
    """Return whether the paper's claim holds in all, some or none of the settings."""
    claimed, opposite = ("helps", "hurts") if printed > 0 else ("hurts", "helps")
    n_holds, n_opposite = len(settings.get(claimed, [])), len(settings.get(opposite, []))
    if n_holds == n:
        verdict = "holds here"
    elif n_holds:
        verdict = f"holds in {n_holds} of {n} settings here"
    else:
        verdict = "is not reproduced here"
    if n_opposite:
        verdict += f"; the opposite was found in {n_opposite} of {n}"
    return f"The paper's claim that it {claimed} ({printed:+.4f}) {verdict}."


def _records(rows: pd.DataFrame, **values: str) -> list[dict[str, Any]]:
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows.to_dict("records")


def _printed(experiment: Experiment, row: dict[str, Any]) -> float | None:
    """Return the paper's value of the full model minus that of a variant."""
    if paper_dataset(row["dataset"]) is None or row["ranking"] == "full":
        return None
    labels = {"dataset": row["dataset"], "metric": METRIC, "backbone": row["backbone"]}
    full, without = (
        paper_value(experiment.variant(name).paper, **labels) for name in (experiment.reference, row["variant"])
    )
    return None if full is None or without is None else full - without


def _worth(row: dict[str, Any]) -> str:
    return f"{-row['difference']:+.4f} [{-row['high']:+.4f}, {-row['low']:+.4f}]"


def _p(row: dict[str, Any]) -> str:
    return "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"


def _backbone(row: dict[str, Any]) -> str:
    return row["backbone"] + (f" ({row['settings']})" if row["settings"] else "")


def _setting(row: dict[str, Any]) -> str:
    return f"{_backbone(row)} {mode_label(row['mode'])}"


def _experiments(tables: ExperimentTables) -> list[Experiment]:
    """Return the experiments of the tables, the ablation first."""
    names = sorted(set(tables.cells["experiment"]), key=lambda name: (name != "ablation", name))
    return [load_experiment(name) for name in names]


def _reference(experiment: str) -> str:
    if experiment not in experiment_names():
        raise DataError(f"Only packaged experiments are on the page of results; got {experiment!r}.")
    return load_experiment(experiment).reference


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
