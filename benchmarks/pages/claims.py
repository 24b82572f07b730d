"""Write ``docs/claims.md``: every claim of the paper, what was run here, and what came out.

::

    python -m benchmarks.pages.claims --counts DIR      # counts of data sets below DIR (LastFM, ml-100k)
    python -m benchmarks.pages.claims                   # the page alone

``figures/claims.csv`` has one row per claim and setting. Its texts are written by hand, its numbers are not: a number
is named by file, rows and column (:mod:`benchmarks.pages.evidence`), and the page writes it. ``stands_if`` holds
conditions on the same tables; a verdict whose conditions no longer hold is refused. To bring in new measurements,
change the references of a row, its verdict and its conditions, and run the second line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.pages.evidence import ROOT, broken_conditions, fill, references
from frellm4rec.data.counts import report_of
from frellm4rec.data.datasets import lastfm, movielens
from spectral_probe.errors import DataError, did_you_mean
from spectral_probe.storage.atomic import write_csv, write_text

TABLE = ROOT / "figures" / "claims.csv"
COUNTS = ROOT / "figures" / "datasets.csv"
PAGE = ROOT / "docs" / "claims.md"
COLUMNS = (
    *("id", "where", "claim", "run", "data", "model", "component"),
    *("verdict", "evidence", "stands_if", "command"),
)
#: The claims of the paper, in the order of the page. Every one needs a row.
CLAIMS = (
    *("fig-1a", "monotone", "lost-70", "pretraining", "fig-1b", "sasrec-keeps", "fig-8", "fig-4"),
    *("fig-3", "fig-5", "fig-6", "assumption-1", "theorem-1"),
    *("table-1", "table-2", "up-to-8", "table-3", "table-4", "table-5"),
)
#: How a verdict starts, and what it means.
VERDICTS = {
    "reproduced": "the same direction was found here; levels may differ",
    "refuted": "the opposite was found here",
    "not shown": "no difference was found in either direction",
    "holds for ": "found here for what is named, and not for the rest",
    "not testable here": "needs a model or data that were not available",
    "to come: ": "the measurement that will decide it; what is known so far has no verdict",
}
#: Verdicts that rest on no measurement.
OPEN = ("not testable here", "to come: ")


def read_claims(path: Path = TABLE) -> pd.DataFrame:
    """Return the checked table; ``where`` and ``claim`` are those of a claim's first row.

    Raises
    ------
    DataError
        If a claim has no row, a row has an unknown claim or verdict, or lacks what its verdict needs.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise DataError(f"{path} must have the columns {list(COLUMNS)}; it has {list(table.columns)}. Rename them.")
    for claim in CLAIMS:
        if claim not in set(table["id"]):
            raise DataError(f"{path} must have a row for every claim; {claim!r} has none. Add one, to come or not.")
    for number, row in enumerate(table.to_dict("records"), start=2):
        problem = _problem_of(row)
        if problem:
            raise DataError(f"{path}, line {number} ({row['id']}): {problem}")
    first = table.groupby("id").first()
    for claim in CLAIMS:
        if not first.loc[claim, "where"] or not first.loc[claim, "claim"]:
            raise DataError(f"{path} must say in the first row of {claim!r} where the paper claims it, and what.")
    return table


def _problem_of(row: dict[str, str]) -> str:
    """Return what is wrong with a row, or nothing."""
    if row["id"] not in CLAIMS:
        return f"no claim is called so.{did_you_mean(row['id'], CLAIMS)} Add it to CLAIMS, or rename the row."
    start = next((start for start in VERDICTS if row["verdict"].startswith(start)), None)
    if start is None:
        return f"a verdict starts with one of {list(VERDICTS)}; got {row['verdict']!r}."
    if not row["run"] or not row["data"] or not row["model"]:
        return "run, data and model must not be empty. Say what was run, or will be."
    if start in OPEN:
        return ""
    if not row["evidence"] or not row["command"]:
        return f"the verdict {row['verdict']!r} needs evidence and a command."
    if references(row["evidence"]) and not row["stands_if"]:
        return f"the verdict {row['verdict']!r} needs conditions under which it stands. Write them in stands_if."
    return ""


def refuted_verdicts(table: pd.DataFrame) -> list[str]:
    """Return the verdicts whose conditions the committed tables do not meet."""
    return [
        f"{row['id']} ({row['model']}, {row['component']}): {row['verdict']!r} needs {condition}"
        for row in table.to_dict("records")
        for condition in broken_conditions(row["stands_if"])
    ]


def page(path: Path = TABLE) -> str:
    """Return the text of ``docs/claims.md``.

    Raises
    ------
    DataError
        See :func:`read_claims`; also if a number is not in its table, or a verdict does not follow from the tables.
    """
    table = read_claims(path)
    refuted = refuted_verdicts(table)
    if refuted:
        raise DataError(f"A verdict must follow from the tables; {'; '.join(refuted)}. Change the verdict or the rows.")
    commands = list(dict.fromkeys(command for text in table["command"] for command in commands_of(text)))
    lines = [*_opening(), *_overview(table), ""]
    for claim in CLAIMS:
        lines += [*_claim(table[table["id"] == claim], commands), ""]
    lines += [
        "## Commands",
        "",
        *_WORDS_OF_COMMANDS,
        *(f"{n}. `{command}`" for n, command in enumerate(commands, start=1)),
        "",
    ]
    return "\n".join(lines)


def commands_of(text: str) -> list[str]:
    """Return the commands of a row, which are joined by ``&&``."""
    return [command.strip() for command in text.split("&&") if command.strip()]


_WORDS_OF_COMMANDS = (
    "`DIR` is a folder with the raw data of the data set that the command names, and with the folder `stories260K`, a "
    "small language model ([README](../README.md#models)). `RUN` is a run folder; the run of a training or an analysis "
    "prints it.",
    "",
)


def _opening() -> list[str]:
    return [
        "# The paper's claims, one by one",
        "",
        "<!-- Written by `python -m benchmarks.pages.claims` from figures/claims.csv; do not edit by hand. -->",
        "",
        "FreLLM4Rec, arXiv 2508.10312: what it claims, what was run here, and what came out. Every number is read from "
        "a committed table. *Published share*: the paper's quantity, without a null. *Taste* and *popularity*: the two "
        "parts of what the states carry of the items that were read, or foresee of the items that are predicted "
        "([results.md](results.md), [method.md](method.md)). All are shares of the energy of the states: unrelated "
        "energy that grows makes them smaller. *Retention* is the value at the last block as a part of that at the "
        "input. A step leads from one block to the next; the intervals of two blocks are *apart* if they do not "
        "overlap. Brackets are 95 % intervals over users; differences are paired. Language models read ID embeddings "
        "unless *id+text* says otherwise. MiniLM is an encoder that is run causally. The first version is "
        "version 0.1.0.",
        "",
        *(f"- **{start.strip(' :')}**: {meaning}." for start, meaning in VERDICTS.items()),
        "",
    ]


def _overview(table: pd.DataFrame) -> list[str]:
    lines = ["| claim | in the paper | verdicts here |", "|---|---|---|"]
    for claim in CLAIMS:
        rows = table[table["id"] == claim]
        starts = [next(start for start in VERDICTS if verdict.startswith(start)) for verdict in rows["verdict"]]
        words = {start: starts.count(start) for start in VERDICTS if start in starts}
        counts = ", ".join(
            f"{start.strip(' :')} ({n})" if len(starts) > 1 else start.strip(" :") for start, n in words.items()
        )
        lines.append(f"| [{rows['claim'].iloc[0]}](#{claim}) | {rows['where'].iloc[0]} | {counts} |")
    return lines


def _claim(rows: pd.DataFrame, commands: list[str]) -> list[str]:
    first = rows.iloc[0]
    lines = [
        f"## {first['id']}",
        "",
        f"{first['claim']} ({first['where']})",
        "",
        "| what was run here | data | model | component | verdict | evidence | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.to_dict("records"):
        numbers = [commands.index(command) + 1 for command in commands_of(row["command"])]
        links = ", ".join(f"[{number}](#commands)" for number in numbers) or "–"
        cells = (row["run"], row["data"], row["model"], row["component"] or "–", f"**{row['verdict']}**")
        lines.append(f"| {' | '.join(cells)} | {fill(row['evidence']) or '–'} | {links} |")
    return lines


def count_datasets(folder: Path) -> pd.DataFrame:
    """Return the counts after every filter of the data sets below a folder: ``LastFM`` and ``ml-100k``."""
    datasets = (lastfm(from_dir=folder / "LastFM"), movielens("100k", from_dir=folder / "ml-100k"))
    tables = [report_of(dataset).to_frame().assign(dataset=dataset.name) for dataset in datasets]
    return pd.concat(tables, ignore_index=True)[["dataset", "stage", "users", "items", "interactions", "mean_length"]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages.claims", description=__doc__)
    parser.add_argument("--counts", type=Path, metavar="DIR", help="folder with LastFM and ml-100k; count them again")
    options = parser.parse_args()
    if options.counts:
        write_csv(COUNTS, count_datasets(options.counts), float_format="%.6g")
    write_text(PAGE, page().removesuffix("\n"))


if __name__ == "__main__":
    main()
