"""Write ``docs/theory.md``: what is proved, where the published proof fails, and measurements on real graphs.

::

    python -m benchmarks.pages.theory --collect RUN RUN RUN     # finished analyses with their Grams
    python -m benchmarks.pages.theory                           # the text alone, from the tables

The text is in ``benchmarks/pages/theory.md.in``; every number in it is computed here or read from
``figures/lastfm/rayleigh.csv`` and ``locality.csv``. A test writes the page again and compares.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
from scipy.signal import butter, lfilter

from frellm4rec.modules.butterworth import causal_kernel
from frellm4rec.theory.rayleigh import history_operator, rayleigh_of_run
from spectral_probe.storage.atomic import write_csv, write_text

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures" / "lastfm"
TEXT = Path(__file__).with_name("theory.md.in")
PAGE = ROOT / "docs" / "theory.md"
CUTOFFS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
DEPTHS = (1, 2, 6, 12, 28)
T, ORDER, NEWEST = 50, 2, 5
#: Cutoffs of the table on real graphs; the first is the default of the recommender.
MEASURED = (0.3, 0.1, 0.7)
HEADLINE = "headline"


def collect(runs: list[Path], folder: Path = FIGURES) -> None:
    """Measure finished runs and write the two tables."""
    folder.mkdir(parents=True, exist_ok=True)
    reports = [rayleigh_of_run(path, cutoff=cutoff) for path in runs for cutoff in MEASURED]
    table = pd.concat([report.table for report in reports], ignore_index=True)
    write_csv(folder / "rayleigh.csv", table, float_format="%.6g")
    # The graphs depend on the data set alone, so the first run is enough.
    first = reports[0]
    row = {"dataset": table["dataset"].iloc[0], "n_users": first.n_local, "share_positive": first.share_local}
    row |= {"correlation": first.locality.value, "low": first.locality.low, "high": first.locality.high}
    write_csv(folder / "locality.csv", pd.DataFrame([row]), float_format="%.6g")


def page(folder: Path = FIGURES) -> str:
    """Return the text of ``docs/theory.md``."""
    table = pd.read_csv(folder / "rayleigh.csv")
    locality = pd.read_csv(folder / "locality.csv").iloc[0]
    default = table[table["cutoff"] == MEASURED[0]]
    raw, head = (default[default["treatment"] == name] for name in ("raw", HEADLINE))
    blocks = _last_blocks(head)
    two_sided, causal = (blocks[blocks["mode"] == mode] for mode in ("two_sided", "causal"))
    raw_blocks = _last_blocks(raw)
    raw_two_sided = raw_blocks[raw_blocks["mode"] == "two_sided"]
    values = {
        "dataset": locality["dataset"],
        "n_local": int(locality["n_users"]),
        "locality": f"{locality['correlation']:.3f} [{locality['low']:.3f}, {locality['high']:.3f}]",
        "share_positive": f"{locality['share_positive']:.0%}",
        "n_users": _range(head["n_users"], "{:.0f}"),
        "graph_table": "\n".join(_graphs(head)),
        "raw_table": "\n".join(_graphs(raw_blocks)),
        "cutoff_table": "\n".join(_cutoffs(_last_blocks(table[table["treatment"] == HEADLINE]))),
        "falls": _range(two_sided["share_falls"], "{:.0%}"),
        "fall": _range(-two_sided["change"], "{:.1%}"),
        "causal_falls": _range(causal["share_falls"], "{:.0%}"),
        "causal_fall": _range(-causal["change"], "{:.1%}"),
        "verdict": _verdict(head),
        "raw_fall": _range(-raw_two_sided["change"], "{:.0%}"),
        "raw_shuffled": _range(-raw_two_sided["shuffled_change"], "{:.0%}"),
        "T": T,
        "order": ORDER,
        "newest_table": "\n".join(_weights()),
        "iir": _newest("iir", 0.1, 6),
        "iir_default": _newest("iir", 0.3, 6),
        "two_deep_new": _newest("two_sided", 0.3, 28),
        "two_deep_old": f"{newest_weights('two_sided', 0.3, 28)[3]:.4f}",
        "causal_6": _newest("causal", 0.3, 6),
        "causal_12": _newest("causal", 0.3, 12),
        "causal_28": _newest("causal", 0.3, 28),
        "causal_low_6": _newest("causal", 0.1, 6),
        "rises": ", ".join(f"{one_sided_rise(cutoff):.2%} at cutoff {cutoff:g}" for cutoff in (0.1, 0.3, 0.7)),
    }
    return Template(TEXT.read_text(encoding="utf-8")).substitute(values)


@cache
def newest_weights(mode: str, cutoff: float, n_layers: int) -> tuple[float, float, float, float]:
    """Return the last row's weight on the newest item, on the newest 5, in absolute value, and on the oldest 5.

    ``iir`` is the minimum-phase Butterworth filter of the same order, ``scipy.signal.butter``, from rest.
    """
    if mode == "iir":
        response = np.eye(1, T)[0]
        for _ in range(n_layers):
            response = lfilter(*butter(ORDER, cutoff), response)
        row = response[::-1]
    else:
        row = history_operator(T, mode, cutoff, ORDER, n_layers)[-1]
    newest, oldest = row[-NEWEST:], row[:NEWEST]
    return float(row[-1]), float(newest.sum()), float(np.abs(newest).sum()), float(oldest.sum())


@cache
def one_sided_rise(cutoff: float, order: int = ORDER) -> float:
    """Return by how much the gain of the one-sided kernel exceeds its gain at the mean, on an infinite history."""
    n = 1024
    gain = np.abs(np.fft.rfft(causal_kernel(n, cutoff, order).numpy(), 8 * n))
    return float(gain.max() / gain[0] - 1)


def _newest(mode: str, cutoff: float, n_layers: int) -> str:
    return f"{newest_weights(mode, cutoff, n_layers)[1]:.4f}"


def _weights() -> list[str]:
    lines = [
        "| mode | cutoff | " + " | ".join(f"n = {depth}" for depth in DEPTHS) + " |",
        "|---|---|" + "---|" * len(DEPTHS),
    ]
    for mode, name in (("two_sided", "two-sided"), ("causal", "causal"), ("iir", "minimum-phase IIR")):
        for cutoff in CUTOFFS:
            if mode == "iir" and cutoff == 1.0:
                continue  # the recursive filter needs a cutoff below Nyquist
            cells = []
            for depth in DEPTHS:
                last, newest, absolute, oldest = newest_weights(mode, cutoff, depth)
                cell = f"{last:.3f} · {newest:.4f} · {absolute:.3f}"
                cells.append(cell + (f" · {oldest:.3f}" if mode == "two_sided" else ""))
            lines.append(f"| {name} | {cutoff:g} | " + " | ".join(cells) + " |")
    return [line.replace("-0.0000", "0.0000").replace("-0.000 ", "0.000 ") for line in lines]


def _graphs(table: pd.DataFrame) -> list[str]:
    lines = [
        "| model | layer | mode | quotient | falls for | on others' graphs | mean change (median) | on others' graphs "
        "| own − others' |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        lines.append(
            f"| {row['model']} | {row['layer_name']} | {row['mode']} | {row['rayleigh_before']:.3f} → "
            f"{row['rayleigh_after']:.3f} | {row['share_falls']:.1%} | {row['other_share_falls']:.1%} | "
            f"{row['change']:+.2%} ({row['change_median']:+.2%}) | {row['other_change']:+.2%} | {_excess(row)} |"
        )
    return lines


def _cutoffs(table: pd.DataFrame) -> list[str]:
    lines = ["| model | mode | cutoff | falls for | mean change | own − others' |", "|---|---|---|---|---|---|"]
    for row in table.sort_values(["model", "mode", "cutoff"], kind="stable").to_dict("records"):
        lines.append(
            f"| {row['model']} | {row['mode']} | {row['cutoff']:g} | {row['share_falls']:.1%} | {row['change']:+.2%} | "
            f"{_excess(row)} |"
        )
    return lines


def _verdict(table: pd.DataFrame) -> str:
    """Return in how many rows the fall is larger on a user's own graph than on others' graphs, and how many smaller."""
    parts = []
    for mode, rows in table.groupby("mode", sort=False):
        more, less = int((rows["excess_change_high"] < 0).sum()), int((rows["excess_change_low"] > 0).sum())
        parts.append(
            f"`{mode}`: larger in {more}, smaller in {less}, not to be told apart in {len(rows) - more - less}"
        )
    return "; ".join(parts)


def _last_blocks(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each model's last block."""
    blocks = table[table["state"] == "block"]
    return blocks[blocks["layer"] == blocks.groupby("model")["layer"].transform("max")]


def _excess(row: dict[str, float]) -> str:
    return f"{row['excess_change']:+.2%} [{row['excess_change_low']:+.2%}, {row['excess_change_high']:+.2%}]"


def _range(values: pd.Series, form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages.theory", description=__doc__)
    parser.add_argument("--collect", nargs="+", type=Path, metavar="RUN", help="finished runs to measure")
    options = parser.parse_args()
    if options.collect:
        collect(options.collect)
    write_text(PAGE, page().removesuffix("\n"))


if __name__ == "__main__":
    main()
