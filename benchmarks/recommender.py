"""The recommender's part of ``docs/results.md``, from the tables in ``figures/<dataset>/recommender/``.

::

    frellm4rec experiment ablation --dataset lastfm --from-dir DIR --backbone DIR/stories260K --mode prefix \
        --mode causal --seeds 3 --with-sasrec --out RUN
    python -m benchmarks.results --experiment RUN

What is said of a part of the model follows from its interval and from p after Holm's correction; nothing is typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from frellm4rec.experiments.definitions import SASREC, Experiment, experiment_names, load_experiment
from frellm4rec.experiments.figures import experiment_figure, figure_rows
from frellm4rec.experiments.paper import DEFAULT_BACKBONE, paper_dataset, paper_value
from frellm4rec.experiments.results import KEY_COLUMNS, SETTING_COLUMNS, ExperimentTables
from frellm4rec.experiments.tables import LEAKY, difference_text, markdown, mode_label
from spectral_probe.errors import DataError
from spectral_probe.plots import save_figure

#: Variant of the ablation → the part that it lacks.
PARTS = {
    "wo-glpf": "G-LPF",
    "wo-tfm": "TFM",
    "base": "both filters",
    "wo-id": "ID embeddings",
    "wo-text": "text embeddings",
}
LEVEL = 0.05
#: The claims are about these; the tables show the others too.
METRIC, RANKING = "ndcg", "99+1"


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Join the tables of experiments, and draw the figure of each.

    Raises
    ------
    DataError
        If an experiment is not one of the packaged ones.
    """
    found = [ExperimentTables.load(run) for run in runs]
    joined = ExperimentTables(
        _join([one.cells for one in found], [*KEY_COLUMNS, "ranking"]),
        _join([one.means for one in found], [*SETTING_COLUMNS, "variant", "metric"]),
        _join([one.differences for one in found], [*SETTING_COLUMNS, "variant", "against", "metric"]),
    )
    for name in dict.fromkeys(joined.cells["experiment"]):
        if name not in experiment_names():
            raise DataError(f"Only packaged experiments are on the page of results; got {name!r} in {runs}.")
    folder.mkdir(parents=True, exist_ok=True)
    joined.save(folder)
    for experiment in _experiments(joined):
        rows = figure_rows(experiment, joined)
        if not rows.empty:
            save_figure(experiment_figure(experiment, joined), folder / experiment.name, rows)
            # means.csv is the data behind the figure; a second copy of it would only drift.
            (folder / f"{experiment.name}.csv").unlink()


def section(folder: Path) -> list[str]:
    """Return the lines of the section; none while there are no tables.

    Parameters
    ----------
    folder : Path
        Holds ``cells.csv``, ``means.csv`` and ``differences.csv``, and lies in ``figures/<dataset>/``.
    """
    if not (folder / "cells.csv").exists():
        return []
    tables = ExperimentTables.load(folder)
    lines = ["## FreLLM4Rec", ""]
    for experiment in _experiments(tables):
        if experiment.name == "ablation":
            lines += [*claims(tables.select(experiment="ablation")), ""]
        place = f"../figures/{folder.parent.name}/{folder.name}/{experiment.name}.png"
        lines += [f"![{experiment.title}]({place})", "", markdown(experiment, tables, level=3)]
    return lines


def claims(tables: ExperimentTables) -> list[str]:
    """Return what the ablation says of each part of the model, and of the model beside SASRec."""
    rows = tables.select(ranking=RANKING).differences
    rows = rows[rows["metric"] == METRIC]
    experiment = load_experiment("ablation")
    parts = rows[(rows["against"] == experiment.reference) & rows["variant"].isin(PARTS)]
    lines: list[str] = []
    if len(parts):
        lines += _parts(experiment, parts)
    beside = rows[rows["against"] == SASREC]
    for row in beside[beside["variant"] == experiment.reference].to_dict("records"):
        lines.append(
            f"- **FreLLM4Rec beside SASRec** ({_place(row)}): NDCG@{row['k']} {difference_text(row)}: "
            f"{_level(row)} the network that its ID embeddings come from."
        )
    return lines


def effect(row: dict[str, Any]) -> str:
    """Say what a part does, from the difference of the variant without it: ``helps``, ``hurts``, or neither shown."""
    if row["low"] <= 0.0 <= row["high"]:
        return "no difference shown"
    if row["p_holm"] > LEVEL:
        return "no difference shown after correction"
    return "helps" if row["high"] < 0.0 else "hurts"


def _parts(experiment: Experiment, rows: pd.DataFrame) -> list[str]:
    k = int(rows["k"].iloc[0])
    lines = [
        f"What a part of the model is worth on test NDCG@{k} ({RANKING} candidates): the value with it minus the value "
        "without it. A part helps or hurts where the 95 % interval leaves out 0 and p, after Holm's correction over "
        f"the variants, is at most {LEVEL:g}.",
        "",
        f"| part | backbone | mode | with − without | p | paper ({DEFAULT_BACKBONE}) | here |",
        "|---|---|---|---|---|---|---|",
    ]
    said: list[str] = []
    for name, part in PARTS.items():
        own = rows[rows["variant"] == name].to_dict("records")
        for row in own:
            printed = _printed(experiment, row)
            lines.append(
                f"| {part} | {_backbone(row)} | {mode_label(row['mode'])} | {_worth(row)} | {row['p_holm']:.3f} | "
                f"{'–' if printed is None else f'{printed:+.4f}'} | **{effect(row)}** |"
            )
        fair = [row for row in own if row["mode"] != LEAKY]
        if fair:
            said.append(_claim(part, fair, _printed(experiment, fair[0])))
    return [*[line.replace("-0.", "−0.") for line in lines], "", *said]


def _claim(part: str, rows: list[dict[str, Any]], printed: float | None) -> str:
    """Say in one item where the paper's claim about a part holds, and where it does not."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(effect(row), []).append(_place(row))
    found = "; ".join(f"{what} ({', '.join(where)})" for what, where in places.items())
    if printed is None:
        return f"- **{part}**: {found}."
    claimed, opposite = ("helps", "hurts") if printed > 0 else ("hurts", "helps")
    n_holds, n_opposite = len(places.get(claimed, [])), len(places.get(opposite, []))
    if n_holds == len(rows):
        verdict = "holds here"
    elif n_holds:
        verdict = f"holds in {n_holds} of {len(rows)} settings here"
    else:
        verdict = "is not reproduced here"
    if n_opposite:
        verdict += f"; the opposite was found in {n_opposite} of {len(rows)}"
    return f"- **{part}**: {found}. The paper's claim that it {claimed} ({printed:+.4f}) {verdict}.".replace(
        "-0.", "−0."
    )


def _level(row: dict[str, Any]) -> str:
    """Say how the model stands to the other one."""
    found = effect(row)
    return {"helps": "below", "hurts": "above"}.get(found, f"{found} to")


def _printed(experiment: Experiment, row: dict[str, Any]) -> float | None:
    """Return the paper's value of the full model minus that of a variant."""
    if paper_dataset(row["dataset"]) is None:
        return None
    labels = {"dataset": row["dataset"], "metric": METRIC, "backbone": row["backbone"]}
    full, without = (
        paper_value(experiment.variant(name).paper, **labels) for name in (experiment.reference, row["variant"])
    )
    return None if full is None or without is None else full - without


def _worth(row: dict[str, Any]) -> str:
    return f"{-row['difference']:+.4f} [{-row['high']:+.4f}, {-row['low']:+.4f}]"


def _backbone(row: dict[str, Any]) -> str:
    return row["backbone"] + (f" ({row['settings']})" if row["settings"] else "")


def _place(row: dict[str, Any]) -> str:
    return f"{_backbone(row)}, {mode_label(row['mode'])}"


def _experiments(tables: ExperimentTables) -> list[Experiment]:
    """Return the experiments of the tables, the ablation first."""
    names = sorted(set(tables.cells["experiment"]), key=lambda name: (name != "ablation", name))
    return [load_experiment(name) for name in names]


def _join(tables: list[pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    """Return the rows of all tables; SASRec, evaluated in each experiment, stands once."""
    return pd.concat(tables, ignore_index=True).drop_duplicates(keys, ignore_index=True)
