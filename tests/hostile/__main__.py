"""``python -m tests.hostile [CATEGORY …]``: run the cases of these categories, or all, and print what is wrong."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from tests.hostile.cases import CATEGORIES
from tests.hostile.harness import RIGHT, Ending, run_case
from tests.hostile.world import make_world, set_up

SEED = 20261126


def main() -> None:
    """Print every wrong ending, and the totals by category as a Markdown table."""
    chosen = sys.argv[1:] or list(CATEGORIES)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        set_up(folder / "cache")
        (folder / "world").mkdir()
        world = make_world(folder / "world")
        totals = {category: Counter[Ending]() for category in chosen}
        for category in chosen:
            for number, (name, build) in enumerate(CATEGORIES[category].items()):
                case = folder / category / str(number)
                case.mkdir(parents=True)
                ending, what = run_case(build(world, case, np.random.default_rng([SEED, number])), case)
                totals[category][ending] += 1
                if ending not in RIGHT:
                    print(f"{category} / {name}: {ending}: {what}", flush=True)
    print(f"| category | {' | '.join(Ending)} |")
    print(f"|---|{'---|' * len(Ending)}")
    for category, endings in totals.items():
        print(f"| {category} | {' | '.join(str(endings[ending]) for ending in Ending)} |")


if __name__ == "__main__":
    main()
