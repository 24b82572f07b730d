"""Print a table of ratios: ``python -m benchmarks [NAME …] --lastfm DIR``.

Each case runs in a process of its own, so that peak memory belongs to it alone; the two sides of a ratio are timed in
turn, and the median of the pairwise ratios is shown. Threads are stated in every row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

CASES = {
    "bases-networkx": "local graphs + eigenbases, T = 48, LastFM: NetworkX loop / ours",
    "bases-pygsp": "local graphs + eigenbases, T = 48, LastFM: PyGSP loop / ours",
    "capture-time": "forward + hooks + Grams / bare forward, Qwen2 width 896, 6 layers, 32 × 50",
    "capture-memory": "peak memory of the same two, each in its own process",
    "pipeline": "capture + bases + energies + nulls / bare forward passes, MiniLM on LastFM",
    "cooccurrence": "W of 309,555 users, 86,678 items, 1.7 M interactions: seconds; peak memory / bytes of W",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)}; default: all")
    parser.add_argument("--lastfm", type=Path, help="folder with the raw HetRec files, for the LastFM cases")
    parser.add_argument("--threads", type=int, default=2, help="threads of BLAS and PyTorch (default 2)")
    parser.add_argument("--page", type=Path, help="also write the table as Markdown")
    options = parser.parse_args()
    rows = []
    for case in options.cases or CASES:
        if case not in CASES:
            parser.error(f"unknown case {case!r}; known: {', '.join(CASES)}")
        command = [sys.executable, "-m", "benchmarks.cases", case, str(options.lastfm or ""), str(options.threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            rows.append({"case": case, "measured": "failed", "goal": "", "detail": done.stderr.strip()[-300:]})
            continue
        rows.append({"case": case, **json.loads(done.stdout.splitlines()[-1]), "threads": options.threads})
        print(f"{case}: {rows[-1]['measured']}", file=sys.stderr)
    table = Table(title="benchmarks")
    for column in ("case", "measured", "goal", "threads", "detail"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in ("case", "measured", "goal", "threads", "detail")))
    Console(width=140).print(table)
    if options.page is not None:
        options.page.write_text(page(rows), encoding="utf-8")


def page(rows: list[dict[str, str]]) -> str:
    """Return the table as Markdown, with the machine it was taken on."""
    lines = [
        "# Benchmarks",
        "",
        "<!-- Written by `python -m benchmarks --lastfm DIR --page docs/benchmarks.md`; do not edit by hand. -->",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, PyTorch "
        f"{version('torch')}, NumPy {version('numpy')}. A shared machine: ratios are of pairs taken in turn, medians "
        "of those; absolute times are for orientation only. Threads are those of BLAS and PyTorch.",
        "",
        "| what | measured | goal | threads | detail |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {CASES[row['case']]} | {row['measured']} | {row['goal']} | {row.get('threads', '')} | {row['detail']} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
