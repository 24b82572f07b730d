"""Parts of ``README.md`` that are written from the committed tables: ``python -m benchmarks.pages.readme``.

A part stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``. Its numbers are references as in
``figures/claims.csv`` (:mod:`benchmarks.pages.evidence`); a finding whose conditions no longer hold is refused.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.pages.evidence import ROOT, broken_conditions, fill
from benchmarks.pages.questions import DATASETS
from spectral_probe.errors import DataError
from spectral_probe.storage.atomic import write_text

README = ROOT / "README.md"
WIDTH = 132
_CURVES, _RETENTION = "figures/lastfm/curves.csv", "figures/lastfm/retention.csv"
_COMPARED = "figures/lastfm/reprobe/stories260K-causal"
_ABLATION = "figures/lastfm/recommender/differences.csv | experiment=ablation & backbone=stories260K & mode=causal"
_BASE = f"{_ABLATION} & variant=base & against=full & metric=ndcg"
_BESIDE = f"{_ABLATION} & variant=full & against=sasrec & metric=ndcg"


@dataclass(frozen=True)
class Finding:
    """A finding in one or two sentences, and the conditions under which it stands."""

    text: str
    stands_if: str


FINDINGS = (
    Finding(
        "The published share of low frequencies does not fall in the language models probed here; it rises with depth "
        f"(SmolLM2 {{{_CURVES} | model=smollm2 & control=paper & band=1 | share | →.2f}}).",
        f"{{{_CURVES} | model=smollm2 & control=paper & band=1 | change share}} > 0; "
        f"{{{_CURVES} | model=minilm & control=paper & band=1 | change share}} > 0; "
        f"{{{_CURVES} | model=stories260K & control=paper & band=1 | change share}} > 0; "
        f"{{{_CURVES} | model=smollm2 id+text & control=paper & band=1 | change share}} > 0",
    ),
    Finding(
        "The carried taste does fall: of that at the input SmolLM2 has "
        f"{{{_RETENTION} | model=smollm2 & component=taste | retention | [.2f]}} at the last block, MiniLM "
        f"{{{_RETENTION} | model=minilm & component=taste | retention | [.2f]}}.",
        f"{{{_RETENTION} | model=smollm2 & component=taste | retention_high}} < 1; "
        f"{{{_RETENTION} | model=minilm & component=taste | retention_high}} < 1",
    ),
    Finding(
        "It falls in SASRec too, which was trained for recommendation: "
        f"{{{_RETENTION} | model=sasrec & component=taste | retention | [.2f]}}, with random weights "
        f"{{{_RETENTION} | model=sasrec & component=taste | random | .2f}}.",
        f"{{{_RETENTION} | model=sasrec & component=taste | retention_high}} < 1; "
        f"{{{_RETENTION} | model=sasrec & component=taste | difference_high}} < 0",
    ),
    Finding(
        "Both filters of FreLLM4Rec raise NDCG@10 by "
        f"{{{_BASE} & ranking=99+1 | minus difference | [.4f]}} where 99+1 candidates are ranked, and not "
        f"detectably in the full ranking ({{{_BASE} & ranking=full | minus difference | [+.4f]}}; over `stories260K`, "
        "mode causal).",
        f"{{{_BASE} & ranking=99+1 | high}} < 0; {{{_BASE} & ranking=99+1 | p_holm}} < 0.05; "
        f"{{{_BASE} & ranking=full | low}} < 0; {{{_BASE} & ranking=full | high}} > 0",
    ),
    Finding(
        "FreLLM4Rec over `stories260K`, a very small language model, is not detectably better than the SASRec that "
        "its ID embeddings come from: NDCG@10 "
        f"{{{_BESIDE} & ranking=99+1 | difference | [+.4f]}} among 99+1 candidates.",
        f"{{{_BESIDE} & ranking=99+1 | low}} < 0; {{{_BESIDE} & ranking=99+1 | high}} > 0",
    ),
)


def findings() -> str:
    """Return the list of findings.

    Raises
    ------
    DataError
        If a finding does not follow from the tables.
    """
    broken = [condition for finding in FINDINGS for condition in broken_conditions(finding.stands_if)]
    if broken:
        raise DataError(f"A finding must follow from the tables; {'; '.join(broken)}. Change FINDINGS.")
    return "\n".join(
        textwrap.fill(f"- {fill(finding.text)}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for finding in FINDINGS
    )


def budgets(figures: Path = ROOT / "figures") -> str:
    """Return the trials and the time of the systems of every tuned table, and how many were not at their end."""
    lines = []
    for folder, title in DATASETS.items():
        path = figures / folder / "table2" / "systems.csv"
        if not path.exists():
            continue
        rows = pd.read_csv(path)
        rows = rows[rows["is_trained"] & (rows["n_trials"] > rows["n_failed"])]
        rising = int(rows["is_still_rising"].astype(bool).sum())
        lines.append(
            f"- {title}: {rows['n_trials'].max()} trials of {rows['budget_seconds'].iloc[0]:g} seconds per system; "
            f"{rising} of {len(rows)} trained systems were still improving at the end."
        )
    return "\n".join(lines)


PARTS = {"findings": findings, "budgets": budgets}


def readme(text: str) -> str:
    """Return the README with its written parts.

    Raises
    ------
    DataError
        If a part has no place in the text.
    """
    for name, part in PARTS.items():
        pattern = rf"(?s)(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
        written = part()
        text, n = re.subn(pattern, lambda match, written=written: f"{match[1]}{written}\n{match[2]}", text)
        if n != 1:
            raise DataError(f"README.md must have <!-- {name}:begin --> and <!-- {name}:end --> once; it has {n}.")
    return text


def main() -> None:
    write_text(README, readme(README.read_text(encoding="utf-8")).removesuffix("\n"))


if __name__ == "__main__":
    main()
