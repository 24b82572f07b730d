"""Print a table of ratios: ``python -m benchmarks.speed [NAME …] --lastfm DIR``.

Each case runs in a process of its own, so that its peak memory can be measured. The two sides of a ratio are timed in
turn; the median of the pairwise ratios is shown. Every row states the number of threads.
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
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from spectral_probe.storage.atomic import write_text


class Case(NamedTuple):
    """Title of a case, and its number of threads of BLAS and PyTorch."""

    title: str
    threads: int = 2


CASES = {
    "bases-networkx": Case("local graphs + eigenbases, T = 48, LastFM: NetworkX loop / ours"),
    "bases-pygsp": Case("local graphs + eigenbases, T = 48, LastFM: PyGSP loop / ours"),
    "capture-time": Case("forward + plain and treated Grams / bare forward, Qwen2, 6 layers, 32 × 50"),
    "capture-memory": Case("peak memory of the same two, each in its own process"),
    "pipeline": Case("whole analysis after the capture / bare forward passes, MiniLM on LastFM"),
    "smollm2": Case("capture of SmolLM2 in bfloat16 on all of LastFM, with its pilot"),
    "cooccurrence": Case("W of 309,555 users, 86,678 items, 1.7 M interactions: seconds; peak memory / bytes of W"),
    "tfm-operator": Case("TFM / rfft → gain → irfft, 32 × 50 × 896", 1),
    "tfm-ragged": Case("TFM / the same for each length, 32 histories of 5 to 50, width 896", 1),
    "tfm-layer": Case("TFM / the Qwen2 layer of width 896 that it follows, 32 × 50", 1),
    "glpf-lastfm": Case("G-LPF of order 1 / one sparse product in PyTorch, LastFM, 50 features", 1),
    "glpf-large": Case("G-LPF of order 1 / one sparse product in PyTorch, W of 1.7 M interactions, 50 features", 1),
    "sasrec-epoch": Case("SASRec epoch on LastFM, full softmax: ours / plain PyTorch loop", 1),
    "sasrec-evaluation": Case("SASRec full-ranking evaluation on LastFM: ours / plain PyTorch loop", 1),
    "ranking-200k": Case("metrics of 200,000 users × 101 candidates, after scoring", 1),
    "training-models": Case("training epoch of every model on LastFM: ours / a bare loop of the same module", 1),
    "training-recbole": Case("training steps of GRU4Rec, SASRec and BERT4Rec on LastFM: ours / RecBole's", 1),
    "training-items": Case("training step of every model, items × 10, synthetic", 1),
    "training-threads": Case(
        "training step of FreLLM4Rec, two threads / one, random Llama from width 256 on, 2 blocks"
    ),
    "training-lengths": Case("training step of FreLLM4Rec, MiniLM on LastFM: in groups of similar length / whole", 1),
    "evaluation-lengths": Case("evaluation of FreLLM4Rec, MiniLM on LastFM: users by length / in order", 1),
    "training-attention": Case("training step in bfloat16: eager / fused attention, Llama of width 576, 3 blocks", 1),
}
#: Measured where there is a CUDA device, and written to a page of their own.
GPU_CASES = {
    "gpu-capture": Case("capture of LastFM / bare forward passes, random weights, shape of Qwen2.5-7B, bfloat16", 1),
    "gpu-training": Case(
        "training epoch of every model on LastFM on the device: ours / a bare loop of the same module", 1
    ),
}
ALL_CASES = CASES | GPU_CASES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(ALL_CASES)}; default: all without a GPU")
    parser.add_argument("--lastfm", type=Path, help="folder with the raw HetRec files, for the LastFM cases")
    parser.add_argument("--threads", type=int, help="threads of BLAS and PyTorch (default: those of each case)")
    parser.add_argument(
        "--page", type=Path, help="also write the table as Markdown; rows there that were not measured again are kept"
    )
    options = parser.parse_args()
    rows = []
    for case in options.cases or CASES:
        if case not in ALL_CASES:
            parser.error(f"unknown case {case!r}; known: {', '.join(ALL_CASES)}")
        threads = options.threads or ALL_CASES[case].threads
        command = [sys.executable, "-m", "benchmarks.speed.cases", case, str(options.lastfm or ""), str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode:
            rows.append({"case": case, "measured": "failed", "goal": "", "detail": process.stderr.strip()[-300:]})
            continue
        rows.append({"case": case, **json.loads(process.stdout.splitlines()[-1]), "threads": threads})
        print(f"{case}: {rows[-1]['measured']}", file=sys.stderr)
    table = Table(title="benchmarks")
    for column in ("case", "measured", "goal", "threads", "detail"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in ("case", "measured", "goal", "threads", "detail")))
    Console(width=140).print(table)
    if options.page is not None:
        before = options.page.read_text(encoding="utf-8") if options.page.exists() else ""
        arguments = " ".join([f"--page {options.page}", *options.cases])
        write_text(options.page, page(rows, before, arguments).removesuffix("\n"))


def page(rows: list[dict[str, Any]], before: str = "", arguments: str = "--page docs/benchmarks.md") -> str:
    """Return the table as Markdown, with the machine it was measured on.

    Cases that were not measured, or failed, keep their rows of the page ``before`` if its machine and versions are the
    same.
    """
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, PyTorch "
        f"{version('torch')}, NumPy {version('numpy')}."
    )
    lines = before.splitlines() if machine in before else []
    shown = {name: line for name, case in ALL_CASES.items() for line in lines if line.startswith(f"| {case.title} |")}
    for row in rows:
        name, threads = row["case"], row.get("threads", "")
        if row["measured"] != "failed" or name not in shown:
            cells = (ALL_CASES[name].title, row["measured"], row["goal"], threads, row["detail"])
            shown[name] = f"| {' | '.join(map(str, cells))} |"
    return "\n".join(
        [
            "# Benchmarks on a CUDA device" if set(shown) <= set(GPU_CASES) else "# Benchmarks",
            "",
            f"<!-- Written by `python -m benchmarks.speed --lastfm DIR {arguments}`; do not edit. -->",
            "",
            f"{machine} A shared machine: ratios are of pairs taken in turn, medians of those; absolute times are for "
            "orientation only. Threads are those of BLAS and PyTorch; work on one thread is timed in processor "
            "seconds, which other programs do not lengthen.",
            "",
            "| what | measured | goal | threads | detail |",
            "|---|---|---|---|---|",
            *(shown[name] for name in ALL_CASES if name in shown),
            "",
        ]
    )


if __name__ == "__main__":
    main()
