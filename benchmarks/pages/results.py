"""Collect finished runs into ``figures/`` and write ``docs/results.md`` from what lies there.

::

    spectral-probe analyze --model MODEL --dataset DATASET --from-dir DIR --preset paper \
        --controls random-weights,exchanged-items
    python -m benchmarks.pages.results --collect lastfm RUN RUN RUN     # ml-100k, luxury-beauty
    python -m benchmarks.pages.results --experiment RUN      # of the recommender, see benchmarks.pages.recommender
    python -m benchmarks.pages.results --floors RUN          # SASRec as published, see benchmarks.pages.floors
    python -m benchmarks.pages.results --everything RUN…     # analyses, see benchmarks.pages.everything
    python -m benchmarks.pages.results --reprobe RUN         # of spectral-probe compare, see benchmarks.pages.reprobe
    python -m benchmarks.pages.results            # the text and the figures alone, from the tables

Every number in the text is read from the tables in ``figures/``. A test writes the page again and compares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.pages import curves, everything, floors, questions, recommender, reprobe, reprobe_page
from spectral_probe.storage.atomic import write_text

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures"
LASTFM = FIGURES / "lastfm"
PAGE = ROOT / "docs" / "results.md"


def page(figures: Path = FIGURES) -> str:
    """Return the text of ``docs/results.md``."""
    lastfm = figures / "lastfm"
    quality = pd.read_csv(lastfm / "sasrec_quality.csv", keep_default_na=False, na_values=[""])
    lines = [
        "# Results",
        "",
        "<!-- Written by `python -m benchmarks.pages.results` from figures/; do not edit by hand. -->",
        "",
        *questions.sections(figures),
        "## SASRec, which the ID inputs come from (LastFM)",
        "",
        *_quality(quality),
        "",
        *floors.section(lastfm / "floors"),
        *everything.section(lastfm),
        *recommender.section(lastfm / "recommender"),
        "Table 5 of the paper, the ID embeddings of several networks, is in [paper_figures.md](paper_figures.md); its "
        "verdicts are in [claims.md](claims.md#table-5).",
        "",
        *reprobe_page.section(lastfm / "reprobe"),
        *questions.notes(figures),
        "",
    ]
    return "\n".join(lines)


def _quality(quality: pd.DataFrame) -> list[str]:
    lines = ["| ranking | seeds | NDCG@10 | Recall@10 |", "|---|---|---|---|"]
    for ranking, rows in quality.groupby("ranking"):
        lines.append(
            f"| {ranking} | {len(rows)} | {rows['ndcg'].mean():.4f} (sd {rows['ndcg'].std():.4f}) | "
            f"{rows['recall'].mean():.4f} (sd {rows['recall'].std():.4f}) |"
        )
    return [*lines, "", f"Protocol: {quality['protocol'].iloc[0]}. The paper prints NDCG@10 0.1996 (its Table 2)."]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages.results", description=__doc__)
    parser.add_argument(
        "--collect", nargs="+", metavar=("DATASET", "RUN"), help="folder under figures/, and finished runs to copy from"
    )
    parser.add_argument("--experiment", nargs="+", type=Path, metavar="RUN", help="finished experiments to copy from")
    parser.add_argument("--floors", type=Path, metavar="RUN", help="finished run of benchmarks.pages.floors")
    parser.add_argument("--everything", nargs="+", type=Path, metavar="RUN", help="analyses of recommenders")
    parser.add_argument("--reprobe", nargs="+", type=Path, metavar="RUN", help="comparisons to copy from")
    options = parser.parse_args()
    if options.collect:
        name, *runs = options.collect
        if name not in questions.DATASETS or not runs:
            parser.error(f"--collect takes one of {sorted(questions.DATASETS)}, and runs; got {options.collect}.")
        curves.collect([Path(run) for run in runs], FIGURES / name)
    if options.experiment:
        recommender.collect(options.experiment, LASTFM / "recommender")
    if options.floors:
        floors.collect(options.floors, LASTFM / "floors")
    if options.everything:
        everything.collect(options.everything, LASTFM)
    if options.reprobe:
        reprobe.collect(options.reprobe, LASTFM / "reprobe")
    write_text(PAGE, page().removesuffix("\n"))


if __name__ == "__main__":
    main()
