"""Taste apart from popularity, from saved Grams: two tables in ``figures/<dataset>/`` and a section of the page.

::

    python -m benchmarks.pages.results --components RUN RUN RUN   # finished analyses with the control random-weights

Rows of the states have unit norm; nothing else is removed from them, so no verdict is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spectral_probe.profiles.bootstrap import percentile_interval, weighted_resampled_means
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.components import COMPONENTS, ComponentExcess, component_excess
from spectral_probe.storage.atomic import write_csv
from spectral_probe.types import FloatArray

MAIN, RANDOM = "main", "random-weights"
N_BOOTSTRAP, SEED = 1000, 0


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Split the excess of finished runs, and write ``components.csv`` and ``components_paired.csv``."""
    rows: list[dict[str, Any]] = []
    paired: list[dict[str, Any]] = []
    for path in runs:
        run = AnalysisRun.open(path).grams_run()
        graph, captures = run.load_graph(), run.load_captures()
        model = run.config()["model"]
        for nodes in ("carried", "foreseen"):
            results = {
                name: component_excess(captures[name], graph, nodes=nodes)
                for name in (MAIN, RANDOM)
                if name in captures
            }
            for name, result in results.items():
                rows += _rows(result, model=model, capture=name)
            if nodes == "carried" and len(results) == 2:
                paired += [{"model": model, **_paired(results, component)} for component in ("taste", "popularity")]
    write_csv(folder / "components.csv", pd.DataFrame(rows), float_format="%.6g")
    write_csv(folder / "components_paired.csv", pd.DataFrame(paired), float_format="%.6g")


def section(folder: Path) -> list[str]:
    """Return the lines of the section; nothing if it was not measured."""
    if not (folder / "components.csv").exists():
        return []
    table = pd.read_csv(folder / "components.csv")
    paired = pd.read_csv(folder / "components_paired.csv")
    first = table.iloc[0]
    lines = [
        "## Taste apart from popularity, without a verdict yet",
        "",
        "The same Grams, every state scaled to unit norm, diffusion time τ = 1. *Carried*: nodes are the items that "
        "the rows read. *Foreseen*: nodes are the items that they predict, as in the paper. Popularity is what a "
        "graph of other items of the same popularity gives; the lag profile is how alike near and far positions are; "
        "taste is "
        f"the rest. Users are weighted by the noise of their graphs ({first['n_users']:.0f} users, effectively "
        f"{first['n_effective']:.0f}). Replacements differ from the items by {first['match_error']:.3f} in the "
        "logarithm of the count, on average.",
        "",
        "### What the inputs carry",
        "",
        "| model | nodes | whole excess × 1000 | popularity | lag profile | taste |",
        "|---|---|---|---|---|---|",
    ]
    at_embed = table[(table["state"] == "embed") & (table["capture"] == MAIN)]
    for (model, nodes), rows in at_embed.groupby(["model", "nodes"], sort=False):
        mean = rows.set_index("component")["mean"]
        parts = (f"{mean[name] / mean['whole']:.0%}" for name in ("popularity", "lag", "taste"))
        lines.append(f"| {model} | {nodes} | {1000 * mean['whole']:.2f} | {' | '.join(parts)} |")
    lines += [
        "",
        "### What the last block keeps of it",
        "",
        "Retention of the carried excess, and the paired difference to the same model with random weights.",
        "",
        "| model | component | retention | random weights | difference |",
        "|---|---|---|---|---|",
    ]
    for row in paired.to_dict("records"):
        texts = (_interval(row, name) for name in ("retention", "random", "difference"))
        lines.append(f"| {row['model']} | {row['component']} | {' | '.join(texts)} |")
    lines += ["", *_foreseen(table), ""]
    return lines


def _foreseen(table: pd.DataFrame) -> list[str]:
    """Say how much taste of the next item is known at the input and at the last block."""
    lines = []
    taste = table[(table["component"] == "taste") & (table["capture"] == MAIN)]
    for model, rows in taste.groupby("model", sort=False):
        carried, foreseen = (rows[rows["nodes"] == nodes].sort_values("layer") for nodes in ("carried", "foreseen"))
        unit = carried["mean"].iloc[0]
        first, last = foreseen.iloc[0], foreseen[foreseen["state"] == "block"].iloc[-1]
        texts = (f"{r['mean'] / unit:.3f} [{r['low'] / unit:.3f}, {r['high'] / unit:.3f}]" for r in (first, last))
        lines.append(f"{model} {' to '.join(texts)}")
    return [
        "Taste of the next item that is foreseen, from the input to the last block, in units of the taste carried at "
        f"the input: {'; '.join(lines)}."
    ]


def _rows(result: ComponentExcess, **labels: str) -> list[dict[str, Any]]:
    """Return one row per component and layer."""
    users = result.is_measured
    rows = []
    for component in COMPONENTS:
        resampled = _resampled(result, component, users)
        lows, highs = percentile_interval(resampled)
        for layer, mean in enumerate(result.mean(component)):
            rows.append(
                {
                    **labels,
                    "nodes": result.nodes,
                    "component": component,
                    "layer": layer,
                    "layer_name": result.layer_names[layer],
                    "state": result.layer_states[layer],
                    "mean": mean,
                    "low": lows[layer],
                    "high": highs[layer],
                    "n_users": int(users.sum()),
                    "n_effective": result.n_effective,
                    "match_error": result.match_error,
                }
            )
    return rows


def _paired(results: dict[str, ComponentExcess], component: str) -> dict[str, Any]:
    """Return the retention at the last block of both captures and its paired difference, over users of both."""
    main, random = results[MAIN], results[RANDOM]
    users = main.is_measured & random.is_measured
    last = max(layer for layer, state in enumerate(main.layer_states) if state == "block")
    ratios, row = [], {"component": component, "n_users": int(users.sum())}
    for name, result in (("retention", main), ("random", random)):
        resampled = _resampled(result, component, users)
        mean = np.average(result.excess[component][users], axis=0, weights=result.weights[users])
        ratios.append((mean[last] / mean[0], resampled[:, last] / resampled[:, 0]))
        row |= _with_interval(name, *ratios[-1])
    return row | _with_interval("difference", ratios[0][0] - ratios[1][0], ratios[0][1] - ratios[1][1])


def _resampled(result: ComponentExcess, component: str, users: np.ndarray) -> FloatArray:
    values, weights = result.excess[component][users], result.weights[users]
    return weighted_resampled_means(values, weights, n_bootstrap=N_BOOTSTRAP, seed=SEED)


def _with_interval(name: str, value: float, resampled: FloatArray) -> dict[str, float]:
    low, high = percentile_interval(resampled)
    return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}


def _interval(row: dict[str, Any], name: str) -> str:
    sign = "+" if name == "difference" else ""
    return f"{row[name]:{sign}.2f} [{row[f'{name}_low']:{sign}.2f}, {row[f'{name}_high']:{sign}.2f}]"
