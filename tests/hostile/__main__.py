"""``python -m tests.hostile``: run all cases, print what is wrong, and write ``docs/reliability.md``.

With the names of categories, or ``--sample N``, only these are run, and the page stays as it is.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from tests.hostile.cases import CATEGORIES, SEED
from tests.hostile.harness import RIGHT, Ending, run_case
from tests.hostile.page import PAGE, page
from tests.hostile.world import World, make_world, set_up


def _chosen(arguments: list[str]) -> list[tuple[str, int]]:
    """Return the category and number of each case to run."""
    every = [(category, number) for category, cases in CATEGORIES.items() for number in range(len(cases))]
    if arguments[:1] == ["--sample"]:
        drawn = np.random.default_rng(SEED).permutation(len(every))[: int(arguments[1])]
        return [every[row] for row in sorted(drawn)]
    return [pair for pair in every if not arguments or pair[0] in arguments]


def _totals(chosen: list[tuple[str, int]], world: World, folder: Path) -> dict[str, Counter[Ending]]:
    totals = {category: Counter[Ending]() for category, _ in chosen}
    for category, number in chosen:
        name, build = list(CATEGORIES[category].items())[number]
        case = folder / category / str(number)
        case.mkdir(parents=True)
        ending, what = run_case(build(world, case, np.random.default_rng([SEED, number])), case)
        totals[category][ending] += 1
        if ending not in RIGHT:
            print(f"{category} / {name}: {ending}: {what}", flush=True)
    return totals


def main() -> int:
    """Return 1 if a case ended wrongly."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        set_up(folder / "cache")
        (folder / "world").mkdir()
        totals = _totals(_chosen(sys.argv[1:]), make_world(folder / "world"), folder)
    for category, endings in totals.items():
        print(f"{category}: {', '.join(f'{endings[ending]} {ending}' for ending in Ending)}")
    if len(sys.argv) == 1:
        PAGE.write_text(page(totals))
    return int(any(endings[ending] for endings in totals.values() for ending in Ending if ending not in RIGHT))


if __name__ == "__main__":
    sys.exit(main())
