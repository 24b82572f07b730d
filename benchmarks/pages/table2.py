"""The committed table of tuned systems: its tables in ``figures/<dataset>/table2``, its page in ``docs/table2.md``.

::

    frellm4rec experiment table2 --dataset lastfm --from-dir DIR --trials 3 --seconds 300 --out RUN
    frellm4rec experiment table2 --dataset lastfm --from-dir DIR --trials 3 --seconds 300 --out RUN --longer 4 --final
    python -m benchmarks.pages.table2 lastfm RUN        # copy the tables of a run, and write the page
    python -m benchmarks.pages.table2 --log lastfm=lastfm@DIR    # which test items are known from the log alone
    python -m benchmarks.pages.table2                   # the page alone, from the tables
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pandas as pd

from benchmarks.pages import questions
from frellm4rec.experiments.system_figure import learning_figure, longer_figure
from frellm4rec.experiments.system_page import system_page
from frellm4rec.experiments.system_tables import SystemTables
from frellm4rec.experiments.systems import TunedExperiment, load_definition
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.storage.atomic import write_csv, write_text

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures"
PAGE = ROOT / "docs" / "table2.md"
DATASETS = ("lastfm", "ml-100k", "luxury-beauty")
FOLDER = "table2"
LEGEND = (
    "This page has the tables of several data sets, one after the other. ↑ and *still rising*: the best validation was "
    "among the last two; more time may raise the number. Loss `own` is the loss of the model's paper (`--column own`), "
    "`softmax` the softmax over all items, which is the same for every model (`--column same`). `stories260K` is a "
    "very small language model ([README](../README.md#models)). MiniLM is an encoder."
)


def experiment(tables: SystemTables) -> TunedExperiment:
    """Return the packaged definition with the labels of the tables, which name other backbones of a run."""
    definition = load_definition("table2")
    assert isinstance(definition, TunedExperiment)
    rows = tables.systems[tables.systems["column"] == "own"]
    return definition.labelled(dict(zip(rows["model"], rows["label"], strict=True)))


def known_from_log(dataset: Dataset) -> dict[str, float]:
    """Return for which share of the users the test item is known from the log alone.

    ``follower``: it is the item that most often follows the item before it, in the training parts and the validation
    items of all users. ``earlier``: the user had it before.
    """
    followers: dict[int, Counter[int]] = defaultdict(Counter)
    for sequence in dataset.sequences:
        for item, following in pairwise(sequence[:-1].tolist()):
            followers[item][following] += 1
    tested = [sequence.tolist() for sequence in dataset.sequences if len(sequence) > 1]
    most = [followers[items[-2]].most_common(1) for items in tested]
    is_follower = [bool(first) and first[0][0] == items[-1] for first, items in zip(most, tested, strict=True)]
    is_earlier = [items[-1] in items[:-1] for items in tested]
    return {"follower": sum(is_follower) / len(tested), "earlier": sum(is_earlier) / len(tested)}


def collect_log(text: str) -> None:
    """Write which test items are known from the log alone of ``NAME=DATA`` or ``NAME=DATA@FOLDER``."""
    name, _, source = text.partition("=")
    dataset, _, folder = source.partition("@")
    data = resolve_dataset(dataset, Path(folder) if folder else None)
    write_csv(FIGURES / name / FOLDER / "log.csv", pd.DataFrame([{"dataset": data.name, **known_from_log(data)}]))


def collect(dataset: str, run: Path) -> None:
    """Copy the tables of a run, and draw its learning curves."""
    folder = FIGURES / dataset / FOLDER
    tables = SystemTables.load(run)
    tables.save(folder)
    learning_figure(experiment(tables), tables).save(folder / "curves")
    if tables.has_longer():
        longer_figure(experiment(tables), tables).save(folder / "longer_curves")


def page(figures: Path = FIGURES) -> str:
    """Return the text of ``docs/table2.md``."""
    lines = [
        "# Table 2: systems with equal trials and equal time",
        "",
        "<!-- Written by `python -m benchmarks.pages.table2` from figures/; do not edit by hand. -->",
        "",
        LEGEND,
        "",
    ]
    for dataset in DATASETS:
        folder = figures / dataset / FOLDER
        if not (folder / "systems.csv").exists():
            continue
        tables = SystemTables.load(folder)
        lines += [*_of_dataset(system_page(experiment(tables), tables, level=2), questions.DATASETS[dataset]), ""]
        if (folder / "log.csv").exists():
            log = pd.read_csv(folder / "log.csv").iloc[0]
            lines += [
                "Share of users whose test item is the item that most often follows the item before it: "
                f"{100 * log['follower']:.1f} %; whose test item was in the history before: "
                f"{100 * log['earlier']:.1f} %.",
                "",
            ]
        lines += [f"![Learning curves of the chosen trials](../figures/{dataset}/{FOLDER}/curves.png)", ""]
        if tables.has_longer():
            lines += [f"![Learning curves with more time](../figures/{dataset}/{FOLDER}/longer_curves.png)", ""]
        lines += _all_trials(tables)
    return "\n".join(lines).rstrip("\n")


def _of_dataset(page: str, title: str) -> list[str]:
    """Return the lines of the page of a data set, which is named in every heading."""
    return [f"{line}: {title}" if line.startswith("#") else line for line in page.splitlines()]


def _all_trials(tables: SystemTables) -> list[str]:
    """Return a folded table of every trial."""
    lines = ["<details><summary>Every trial</summary>", "", "| system | loss | trial | validation NDCG@10 | epochs |"]
    lines[-1] += " seconds | ended | settings |"
    lines.append("|---|---|---|---|---|---|---|---|")
    labels = tables.systems.set_index(["model", "column"])["label"].to_dict()
    for row in tables.search.trials.to_dict("records"):
        is_finished = row["status"] == "finished"
        settings = ", ".join(f"{name.partition('.')[2]} {value}" for name, value in json.loads(row["settings"]).items())
        score = f"{row['validation_ndcg']:.4f}" if is_finished else "failed"
        epochs = f"{row['best_epoch']} of {row['n_epochs']}" if pd.notna(row["best_epoch"]) else "–"
        seconds = f"{row['cpu_seconds']:.0f}" if pd.notna(row["cpu_seconds"]) else "–"
        rising = ", still rising" if row["is_still_rising"] is True else ""
        label = labels[row["model"], row["column"]].removesuffix(", softmax")
        loss = {"own": "own", "same": "softmax"}[row["column"]]
        lines.append(
            f"| {label} | {loss} | {row['trial']} | {score} | {epochs} | {seconds} | {row['stopped'] or row['error']}"
            f"{rising} | {settings or '–'} |"
        )
    return [*lines, "", "</details>", ""]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages.table2", description=__doc__)
    parser.add_argument("dataset", nargs="?", choices=DATASETS)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--log", action="append", default=[], metavar="NAME=DATA")
    options = parser.parse_args()
    for text in options.log:
        collect_log(text)
    if options.dataset:
        if options.run is None:
            parser.error("give the folder of a run too")
        collect(options.dataset, options.run)
    write_text(PAGE, page())


if __name__ == "__main__":
    main()
